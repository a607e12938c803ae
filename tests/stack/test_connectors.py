"""Connectors on the real stack: what the templates capture, and what each command does to Connect and to the databases."""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import httpx
import psycopg
import pymysql
import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition
from typer.testing import CliRunner

from chronicle.capture.apply import Applied, Deployment, apply, change_state, delete, raise_epoch, wait_for
from chronicle.capture.check import check
from chronicle.capture.connect import ConnectClient
from chronicle.capture.snapshots import begin, failures
from chronicle.capture.sources import Source, load_source
from chronicle.capture.status import status
from chronicle.capture.topics import prepare, request_snapshot
from chronicle.cli.connectors import app
from chronicle.config import Connect, Kafka, Registry
from chronicle.dev.stack import Stack
from chronicle.errors import ChronicleError

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]

TEMPLATES = Path(__file__).parents[2] / "connectors" / "templates"
DEADLINE_S = 60.0
PREFIX = {"postgres": "SHOP", "mariadb": "HIRING", "mysql": "MYSQL"}
PLACEHOLDER = "5c1f7e0d9a3b48628f0e6d7c1b2a3948"
Record = dict[str, Any]


@dataclass
class World:
    """A database of its own, a source file for it, and a reader of its topics."""

    kind: str
    name: str
    stack: Stack
    deployment: Deployment
    directory: Path
    schemas: dict[int, Any] = field(default_factory=dict)

    @property
    def schema(self) -> str:
        return "public" if self.kind == "postgres" else self.name

    def sql(self, *statements: str) -> None:
        """Run statements in one transaction."""
        if self.kind == "postgres":
            with psycopg.connect(self.stack.postgres_dsn(self.name)) as connection:
                for statement in statements:
                    connection.execute(statement.encode())
            return
        connection_ = pymysql.connect(**self._login, database=self.name, autocommit=False, charset="utf8mb4")
        with connection_, connection_.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            connection_.commit()

    @property
    def _login(self) -> dict[str, Any]:
        port = self.stack.ports.mysql if self.kind == "mysql" else self.stack.ports.mariadb
        return {**self.stack.mariadb_params(), "port": port}

    def create(self) -> None:
        """The database, with the tables that every test has."""
        if self.kind == "postgres":
            with psycopg.connect(self.stack.postgres_dsn(), autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {self.name}".encode())
        else:
            with pymysql.connect(**self._login, autocommit=True) as connection_, connection_.cursor() as cursor:
                cursor.execute(f"CREATE DATABASE {self.name}")
        serial = "bigserial" if self.kind == "postgres" else "bigint auto_increment"
        self.sql(
            "CREATE TABLE people (id int PRIMARY KEY, name varchar(50) NOT NULL, note varchar(50) DEFAULT 'none',"
            " credit decimal(12,2) DEFAULT 7.00)",
            "CREATE TABLE later (id int PRIMARY KEY, note varchar(50))",
            f"CREATE TABLE chronicle_context (id {serial} PRIMARY KEY, context text NOT NULL)",
            "CREATE TABLE chronicle_signal (id varchar(64) PRIMARY KEY, type varchar(32) NOT NULL, data varchar(2048))",
            "INSERT INTO people VALUES (1, 'Ada', NULL, 12.30)",
            "INSERT INTO later VALUES (1, 'there before'), (2, 'it was captured')",
        )
        if self.kind == "postgres":
            self.sql("ALTER TABLE people REPLICA IDENTITY FULL", "ALTER TABLE later REPLICA IDENTITY FULL")

    def drop(self) -> None:
        if self.kind == "postgres":
            with psycopg.connect(self.stack.postgres_dsn(), autocommit=True) as connection:
                connection.execute(f"DROP DATABASE IF EXISTS {self.name} WITH (FORCE)".encode())
        else:
            with pymysql.connect(**self._login, autocommit=True) as connection_, connection_.cursor() as cursor:
                cursor.execute(f"DROP DATABASE IF EXISTS {self.name}")

    def source(self, tables: Sequence[str] = ("people",), extra: str = "") -> Source:
        """Write the source file and read it back."""
        listed = ", ".join(f'"{self.schema}.{table}"' for table in tables)
        placeholder = f'unavailable_value_placeholder = "{PLACEHOLDER}"' if self.kind == "postgres" else ""
        account = "\n".join(
            f'{key} = "${{env:{PREFIX[self.kind]}_DB_{key.upper()}}}"' for key in ("host", "port", "user", "password")
        )
        path = self.directory / f"{self.name}.toml"
        path.write_text(
            f'template = "{self.kind}"\nepoch = 0\ntables = [{listed}]\ncontext_table = "{self.schema}.chronicle_context"\n'
            f'{placeholder}\n{extra}\n[database]\nname = "{self.name}"\n{account}\n',
            encoding="utf-8",
        )
        return load_source(path)

    def apply(self, source: Source) -> Applied:
        return apply(source, self.deployment, deadline_s=DEADLINE_S)

    def read(self, topics: Sequence[str], enough: Callable[[list[Record]], bool]) -> list[Record]:
        """All records of the topics, in order of each partition, once `enough` says that what is awaited is there."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            records = [record for topic in topics for record in self._topic(topic)]
            if enough(records):
                # Partitions are read one after the other: what came before the awaited record may lie in one read earlier.
                return [record for topic in topics for record in self._topic(topic)]
            shown = [(record["topic"], record["op"], record["key"]) for record in records]
            assert time.monotonic() < deadline, f"not all arrived within {DEADLINE_S:.0f} s: {shown}"
            time.sleep(0.3)

    def partitions(self, topic: str) -> int:
        consumer = Consumer({"bootstrap.servers": self.stack.kafka, "group.id": self.name})
        found = len(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
        consumer.close()
        return found

    def _topic(self, topic: str) -> Iterator[Record]:
        consumer = Consumer({"bootstrap.servers": self.stack.kafka, "group.id": self.name, "enable.auto.commit": False})
        try:
            found = consumer.list_topics(topic, timeout=10).topics[topic].partitions
            for partition in found:
                low, high = self._watermarks(consumer, TopicPartition(topic, partition))
                consumer.assign([TopicPartition(topic, partition, low)])
                at = low
                while at < high:
                    message = consumer.poll(10)
                    assert message is not None and message.error() is None
                    at = (message.offset() or 0) + 1
                    value = self._decode(message.value())
                    pairs: list[tuple[str, Any]] = list(message.headers() or [])  # type: ignore[arg-type]
                    headers = {name: bytes(content) for name, content in pairs}
                    op = value.get("op", value.get("status")) if isinstance(value, dict) else "tombstone"
                    yield {"topic": topic, "key": self._decode(message.key()), "value": value, "headers": headers, "op": op}
        finally:
            consumer.close()

    def _watermarks(self, consumer: Consumer, partition: TopicPartition) -> tuple[int, int]:
        """Where the partition begins and ends; a topic that was made a moment ago may have no leader yet."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                low, high = consumer.get_watermark_offsets(partition, timeout=10)
            except KafkaException:
                assert time.monotonic() < deadline, f"no leader within {DEADLINE_S:.0f} s"
                time.sleep(0.3)
            else:
                return low, high

    def _decode(self, data: Any) -> Any:
        if data is None:
            return None
        if data[:1] == b"{":
            wrapped = json.loads(data)
            return wrapped["payload"] | {"schema": wrapped["schema"]}
        number = int.from_bytes(data[1:5], "big")
        if number not in self.schemas:
            text = httpx.get(f"{self.stack.registry_url}/schemas/ids/{number}").raise_for_status().json()["schema"]
            self.schemas[number] = fastavro.parse_schema(json.loads(text))
        return fastavro.schemaless_reader(io.BytesIO(data[5:]), self.schemas[number], None)


@pytest.fixture
def make_world(stack: Stack, unique: str, tmp_path: Path) -> Iterator[Callable[[str], World]]:
    """Makes a `World` of one kind; its connector, slot and database are gone afterwards."""
    shutil.copytree(TEMPLATES, tmp_path / "templates")
    worlds: list[World] = []
    with ConnectClient(Connect(url=stack.connect_url)) as client:
        kafka, registry = Kafka(bootstrap_servers=stack.kafka), Registry(url=stack.registry_url)
        deployment = Deployment(client, kafka, registry, stack.environment)

        def make(kind: str) -> World:
            if kind == "mysql":
                stack.start("mysql")
            world = World(kind, unique, stack, deployment, tmp_path)
            worlds.append(world)
            world.create()
            return world

        yield make
        for world in worlds:
            file = world.directory / f"{world.name}.toml"
            if file.is_file():
                delete(load_source(file), deployment, drop=True)
            world.drop()


KINDS = pytest.mark.parametrize("kind", ["postgres", "mariadb", "mysql"])


def rows(records: Sequence[Record], op: str) -> list[dict[str, Any]]:
    return [record["value"]["after"] for record in records if record["op"] == op]


@KINDS
def test_every_kind_of_change_arrives_as_it_was_written(make_world: Callable[[str], World], kind: str) -> None:
    """NULL beside a DEFAULT, decimals with their scale, truncate, delete, key change and contexts, all with the epoch."""
    world = make_world(kind)
    source = world.source()
    assert world.apply(source).plan.action == "create"
    world.sql(
        "INSERT INTO chronicle_context (context) VALUES ('{}')", "INSERT INTO people VALUES (2, 'Zoë 🎉', NULL, 99999.90)"
    )
    world.sql("UPDATE people SET credit = 0.10 WHERE id = 2")
    world.sql("UPDATE people SET id = 3 WHERE id = 2")
    world.sql("DELETE FROM people WHERE id = 3")
    if kind == "postgres":
        world.sql("SELECT pg_logical_emit_message(true, 'chronicle', '{}')", "INSERT INTO people VALUES (4, 'D', NULL, NULL)")
    world.sql("TRUNCATE TABLE people")
    world.sql("INSERT INTO people VALUES (9, 'last', NULL, NULL)")

    people = source.topic(f"{world.schema}.people")
    records = world.read([people], lambda found: any(record["key"] == {"id": 9} for record in found))
    assert rows(records, "r") == [{"id": 1, "name": "Ada", "note": None, "credit": Decimal("12.30")}]
    created = {row["id"]: row for row in rows(records, "c")}
    assert created[2] == {"id": 2, "name": "Zoë 🎉", "note": None, "credit": Decimal("99999.90")}
    assert created[9]["credit"] is None
    assert [row["credit"] for row in rows(records, "u")] == [Decimal("0.10")]
    assert [record["key"] for record in records if record["op"] == "t"] == [None]
    assert {record["headers"]["chronicle.epoch"] for record in records} == {b"0"}
    changed_key = [record["headers"] for record in records if record["op"] == "c" and record["key"] == {"id": 3}]
    assert [headers["__debezium.oldkey"] for headers in changed_key] == [b'{"id":2}']

    transactions = world.read([source.transaction_topic], lambda found: sum(one["op"] == "END" for one in found) >= 5)
    kinds = [record["op"] for record in transactions]
    assert kinds.index("BEGIN") < kinds.index("c") < kinds.index("END")
    context = next(record["value"] for record in transactions if record["op"] == "c")
    assert (context["after"]["context"], context["source"]["table"]) == ("{}", "chronicle_context")
    if kind == "postgres":
        assert "chronicle" in [record["value"]["message"]["prefix"] for record in transactions if record["op"] == "m"]
    assert (world.partitions(source.transaction_topic), world.partitions(people)) == (1, 4)


def test_json_carries_its_schema_and_its_nulls(make_world: Callable[[str], World]) -> None:
    """Without a registry the same template writes JSON with schemas: a NULL beside a DEFAULT stays null."""
    world = make_world("postgres")
    source = world.source(extra='format = "json"')
    world.apply(source)
    records = world.read([source.topic("public.people")], bool)
    value = records[0]["value"]
    assert (value["after"]["note"], value["op"], records[0]["headers"]["chronicle.epoch"]) == (None, "r", b"0")
    after = next(field for field in value["schema"]["fields"] if field["field"] == "after")
    credit = next(field for field in after["fields"] if field["field"] == "credit")
    assert (credit["name"], credit["parameters"]["scale"]) == ("org.apache.kafka.connect.data.Decimal", "2")


@KINDS
def test_a_second_apply_changes_nothing(make_world: Callable[[str], World], kind: str) -> None:
    """Applying is idempotent, and a plan says beforehand that there is nothing to do."""
    world = make_world(kind)
    source = world.source()
    first = world.apply(source)
    assert set(first.topics_created) >= {source.signal_topic}
    assert world.deployment.plan(source).action == "none"
    second = world.apply(source)
    assert (second.plan.action, second.state, second.topics_created) == ("none", "RUNNING", ())


@KINDS
def test_an_added_table_is_snapshotted_while_changes_go_on(make_world: Callable[[str], World], kind: str) -> None:
    """A table that the file newly lists arrives with the rows it had, and those captured before are not read again."""
    world = make_world(kind)
    world.apply(world.source())
    source = world.source(["people", "later"])
    applied = world.apply(source)
    assert (applied.snapshot_requested, applied.notes) == ((f"{world.schema}.later",), ())
    later = source.topic(f"{world.schema}.later")
    # as often as need be: a connector that was stopped before it knew its place begins anew, with both tables
    assert {row["id"] for row in rows(world.read([later], lambda found: len(rows(found, "r")) >= 2), "r")} == {1, 2}
    world.sql("INSERT INTO later VALUES (3, 'new')", "INSERT INTO people VALUES (5, 'E', NULL, NULL)")
    records = world.read([later, source.topic(f"{world.schema}.people")], lambda found: len(rows(found, "c")) >= 2)
    assert [row["id"] for row in rows(records, "r") if "name" in row] == [1]


def test_a_snapshot_can_be_asked_for_with_a_condition(make_world: Callable[[str], World]) -> None:
    """The signal channel reads a table again, and of it only the rows that meet the condition."""
    world = make_world("postgres")
    source = world.source(["people", "later"])
    world.apply(source)
    later = source.topic("public.later")
    world.read([later], lambda found: len(rows(found, "r")) == 2)
    assert begin(world.deployment.kafka, source, ["public.later"], condition="id = 2") == ()
    records = world.read([later], lambda found: len(rows(found, "r")) >= 3)
    assert [row["id"] for row in rows(records, "r")].count(2) == 2
    assert [record["value"]["source"]["snapshot"] for record in records].count("incremental") == 1


@KINDS
def test_a_snapshot_that_failed_unseen_is_shown_and_made_good(make_world: Callable[[str], World], kind: str) -> None:
    """The connector skips a table that it cannot read and stays RUNNING: status says so, and apply asks for it again."""
    world = make_world(kind)
    source = world.source(["people", "later"])
    world.apply(source)
    # one that still looks for its place in the log may also fail with a NullPointerException: another defect, another test's
    world.sql("INSERT INTO people VALUES (8, 'after the start', NULL, NULL)")
    world.read([source.topic(f"{world.schema}.people")], lambda found: 8 in [row["id"] for row in rows(found, "c")])
    kafka, client, table = world.deployment.kafka, world.deployment.connect, f"{world.schema}.later"
    request_snapshot(kafka, source, [table], "no_such_column = 1")
    deadline = time.monotonic() + DEADLINE_S
    while not failures(kafka, source):
        assert time.monotonic() < deadline, "the connector said nothing"
        time.sleep(0.3)
    found = status(source, client, world.stack.environment, kafka)
    assert found.healthy and any(f"connectors snapshot {source.name}.{table}" in note for note in found.notes)
    applied = world.apply(source)
    assert (applied.plan.action, applied.snapshot_requested, applied.notes) == ("none", (table,), ())
    later = source.topic(table)
    assert len(world.read([later], lambda found: len(rows(found, "r")) >= 4)) == 4
    assert failures(kafka, source) == ()


@pytest.mark.parametrize("style", ["avro-apicurio", "json"])
def test_a_snapshot_that_cannot_be_says_why(make_world: Callable[[str], World], style: str) -> None:
    """A table without a primary key, and a condition that is no SQL: a note for each, in both formats of notifications."""
    world = make_world("postgres")
    world.sql("CREATE TABLE nokey (id int)", "ALTER TABLE nokey REPLICA IDENTITY FULL")
    source = world.source(["later", "nokey"], f'format = "{style}"\nkeyless = ["public.nokey"]')
    world.apply(source)
    kafka = world.deployment.kafka
    assert "no primary key" in begin(kafka, source, ["public.nokey", "public.later"])[0]
    assert "SQL_EXCEPTION" in begin(kafka, source, ["public.later"], condition="no_such_column = 1")[0]


def test_what_is_written_in_a_pause_arrives_afterwards(make_world: Callable[[str], World]) -> None:
    """Pause, resume and restart lose nothing, and apply leaves a paused connector paused."""
    world = make_world("postgres")
    source = world.source()
    world.apply(source)
    client = world.deployment.connect
    assert change_state(source, "pause", client, deadline_s=DEADLINE_S) == "PAUSED"
    world.sql("INSERT INTO people VALUES (6, 'in the pause', NULL, NULL)")
    assert world.apply(source).state == "PAUSED"
    assert change_state(source, "resume", client, deadline_s=DEADLINE_S) == "RUNNING"
    assert change_state(source, "restart", client, deadline_s=DEADLINE_S) == "RUNNING"
    people = source.topic("public.people")
    world.read([people], lambda found: 6 in [row["id"] for row in rows(found, "c")])
    found = status(source, client, world.stack.environment)
    assert found.healthy and found.slot is not None and found.slot.active and found.lag_bytes is not None


@pytest.mark.parametrize("kind", ["mariadb", "mysql"])
def test_a_connector_stopped_in_its_first_moment_starts_again(make_world: Callable[[str], World], kind: str) -> None:
    """Debezium then leaves a position without a place in it, with which it refuses to start; apply begins anew."""
    world = make_world(kind)
    source, client = world.source(), world.deployment.connect
    prepare(world.deployment.kafka, source)
    client.put(source.name, world.deployment.rendered(source))
    deadline = time.monotonic() + DEADLINE_S
    while (state := client.state(source.name)) is None or not state.tasks:
        assert time.monotonic() < deadline, "no task came"
        time.sleep(0.1)
    while not client.empty_position(source.name) and client.offsets(source.name) is None:
        assert time.monotonic() < deadline, "no position was stored"
        client.order(source.name, "stop")
        wait_for(source.name, client, lambda now: now.state == "STOPPED" and not now.tasks, "stop", DEADLINE_S)
        client.order(source.name, "resume")
        wait_for(source.name, client, lambda now: bool(now.tasks), "resume", DEADLINE_S)
    assert world.apply(source).state == "RUNNING"
    assert world.read([source.topic(f"{world.schema}.people")], bool)[0]["key"] == {"id": 1}


def test_delete_leaves_no_slot_behind(make_world: Callable[[str], World]) -> None:
    """With drop, slot, publication and stored position go with the connector; raw topics stay; a second call finds nothing."""
    world = make_world("postgres")
    source = world.source()
    world.apply(source)
    removed = delete(source, world.deployment, drop=True)
    assert {f"slot {source.slot}", f"publication {source.publication}", f"connector {source.name}"} <= set(removed)
    with psycopg.connect(world.stack.postgres_dsn(world.name)) as connection:
        assert connection.execute("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s", [source.slot]).fetchone() is None
        assert connection.execute("SELECT 1 FROM pg_publication").fetchone() is None
    assert world.deployment.connect.state(source.name) is None
    assert world.partitions(source.topic("public.people")) == 4
    assert delete(source, world.deployment, drop=True) == []
    assert world.apply(source).plan.action == "create"


@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
def test_a_registry_that_is_away_is_waited_for(make_world: Callable[[str], World], kind: str) -> None:
    """The first transaction after a start needs a schema that no snapshot has: its records wait, and the task goes on."""
    world = make_world(kind)
    source = world.source()
    world.apply(source)
    client, log = world.deployment.connect, world.stack.log_file("connect")
    world.read([source.topic(f"{world.schema}.people")], bool)
    seen = log.stat().st_size
    world.stack.stop("registry")
    try:
        world.sql("INSERT INTO people VALUES (6, 'in the outage', NULL, NULL)")
        deadline = time.monotonic() + DEADLINE_S
        while b"for the schema registry" not in log.read_bytes()[seen:]:
            assert time.monotonic() < deadline, "nothing waited"
            time.sleep(0.3)
        state = client.state(source.name)
        assert state is not None and state.running
    finally:
        world.stack.start("registry")
    world.read([source.topic(f"{world.schema}.people")], lambda found: 6 in [row["id"] for row in rows(found, "c")])
    assert change_state(source, "resume", client, deadline_s=DEADLINE_S) == "RUNNING"


@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
def test_a_new_epoch_starts_over_with_a_snapshot(make_world: Callable[[str], World], kind: str) -> None:
    """`--new-epoch` raises the epoch in the file and on every record, and reads the tables again."""
    world = make_world(kind)
    world.apply(world.source())
    raised = raise_epoch(world.directory / f"{world.name}.toml")
    applied = world.apply(raised)
    assert (raised.epoch, applied.plan.action) == (1, "new-epoch")
    people = raised.topic(f"{world.schema}.people")
    records = world.read([people], lambda found: len(rows(found, "r")) >= 2)
    assert sorted(record["headers"]["chronicle.epoch"] for record in records) == [b"0", b"1"]
    assert world.apply(raised).plan.action == "none"


def test_a_lost_slot_fails_loudly_with_its_first_cause(make_world: Callable[[str], World]) -> None:
    """A slot that was dropped behind the connector's back stops the task; the error says why, and a new epoch cures it."""
    world = make_world("postgres")
    source = world.source()
    world.apply(source)
    world.sql("INSERT INTO people VALUES (6, 'so that a position is stored', NULL, NULL)")
    client = world.deployment.connect
    deadline = time.monotonic() + DEADLINE_S
    while (client.offsets(source.name) or {}).get("lsn_commit") is None:
        assert time.monotonic() < deadline, "no position was stored"
        time.sleep(0.3)
    client.order(source.name, "stop")
    with psycopg.connect(world.stack.postgres_dsn(world.name), autocommit=True) as connection:
        while connection.execute(
            "SELECT 1 FROM pg_replication_slots WHERE slot_name = %s AND active", [source.slot]
        ).fetchone():
            assert time.monotonic() < deadline, "the slot is still in use"
            time.sleep(0.1)
        connection.execute("SELECT pg_drop_replication_slot(%s)", [source.slot])
    with pytest.raises(ChronicleError, match="failed") as caught:
        world.apply(source)
    assert "task 0" in str(caught.value) and "\n\tat " not in str(caught.value)
    found = status(source, client, world.stack.environment)
    assert found.state == "RUNNING" and not found.healthy and found.tasks[0].cause
    assert world.apply(raise_epoch(source.file)).state == "RUNNING"


def test_comments_say_who_did_it_and_nothing_else(make_world: Callable[[str], World]) -> None:
    """With `attribution_comments`, `source.query` holds the comment; a literal of the statement is in no byte of the record."""
    world = make_world("mariadb")
    source = world.source(extra="attribution_comments = true")
    world.apply(source)
    world.sql("""INSERT INTO people VALUES (7, 'G', 'a literal', NULL) /* chronicle: {"actor":"ada"} */""")
    world.sql("INSERT INTO people VALUES (8, 'H', 'a literal', NULL)")
    people = source.topic(f"{world.schema}.people")
    records = world.read([people], lambda found: len(rows(found, "c")) >= 2)
    queries = {record["key"]["id"]: record["value"]["source"]["query"] for record in records if record["op"] == "c"}
    assert queries[8] is None
    assert '"actor":"ada"' in queries[7] and "a literal" not in queries[7] and "INSERT" not in queries[7]


@KINDS
def test_a_database_that_is_right_has_no_errors(make_world: Callable[[str], World], kind: str) -> None:
    """The local stack's databases are as the templates want them, and Connect's own validation agrees."""
    world = make_world(kind)
    findings = check(world.source(), world.deployment)
    assert [finding for finding in findings if finding.level == "error"] == []


def test_check_finds_what_would_go_wrong_in_postgres(make_world: Callable[[str], World]) -> None:
    """A table that is not there, one that would break the application, and one whose history would be incomplete."""
    world = make_world("postgres")
    world.sql("CREATE TABLE nokey (id int)", "ALTER TABLE later REPLICA IDENTITY DEFAULT", "DROP TABLE chronicle_signal")
    source = replace(world.source(["people", "later", "nokey", "absent"]), full_identity=("public.later",))
    findings = check(source, world.deployment)
    said = [(finding.level, finding.what) for finding in findings]
    for level, what in [
        ("error", "public.absent does not exist"),
        ("error", "public.nokey has no replica identity"),
        ("warning", "public.later has no REPLICA IDENTITY FULL"),
        ("error", "public.later is in `full_identity`"),
        ("warning", "public.people has REPLICA IDENTITY FULL but is not in `full_identity`"),
        ("error", "signal table public.chronicle_signal does not exist"),
    ]:
        assert any(a == level and what in b for a, b in said), (level, what, said)


def test_an_account_without_rights_is_told_which(make_world: Callable[[str], World]) -> None:
    """An account that may neither replicate nor publish gets both findings, each with what to do."""
    world = make_world("postgres")
    account = f"{world.name}_reader"
    world.sql(f"CREATE ROLE {account} LOGIN", f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {account}")
    try:
        source = world.source()
        weak = replace(source, database=replace(source.database, user=account))
        findings = check(weak, world.deployment)
        said = [finding.what for finding in findings if finding.level == "error"]
        assert any("may not replicate" in what for what in said)
        assert any(f"publication {source.publication}" in what for what in said)
        assert any("may not write into the signal table" in what for what in said)
    finally:
        world.sql(f"DROP OWNED BY {account}", f"DROP ROLE {account}")


def test_cascades_that_the_binlog_hides_are_named(make_world: Callable[[str], World]) -> None:
    """A foreign key that deletes captured rows by itself is a warning: no event says that they are gone."""
    world = make_world("mariadb")
    world.sql(
        "DELETE FROM later", "ALTER TABLE later ADD CONSTRAINT owner FOREIGN KEY (id) REFERENCES people (id) ON DELETE CASCADE"
    )
    warned = [
        finding.what for finding in check(world.source(["people", "later"]), world.deployment) if finding.level == "warning"
    ]
    assert any("foreign key owner" in what and "ON DELETE CASCADE" in what for what in warned)


def test_the_commands_do_it_all_from_the_terminal(make_world: Callable[[str], World], monkeypatch: pytest.MonkeyPatch) -> None:
    """check, plan, apply, status, snapshot, delete by the command line, with JSON on standard output and no secret in it."""
    world = make_world("mariadb")
    world.source()
    settings = {
        "CHRONICLE_CONNECT__URL": world.stack.connect_url,
        "CHRONICLE_CONNECT__DIRECTORY": str(world.directory),
        "CHRONICLE_KAFKA__BOOTSTRAP_SERVERS": world.stack.kafka,
        "CHRONICLE_REGISTRY__URL": world.stack.registry_url,
        **world.stack.environment,
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(world.directory)
    run = CliRunner()

    def json_of(*arguments: str, code: int = 0) -> Any:
        result = run.invoke(app, [*arguments, "--json"])
        assert result.exit_code == code, (arguments, result.output)
        return json.loads(result.stdout)

    assert json_of("check")["errors"] == 0
    planned = json_of("plan")[0]
    assert planned["action"] == "create"
    shown = {change["option"]: change["after"] for change in planned["changes"]}
    assert shown["database.password"] == "${env:HIRING_DB_PASSWORD}"
    assert json_of("status", code=1)[0]["state"] == "absent"
    assert json_of("apply")[0]["state"] == "RUNNING"
    assert json_of("apply")[0]["action"] == "none"
    assert json_of("status")[0]["healthy"] is True
    people = f"{world.name}.{world.schema}.people"
    assert json_of("snapshot", people) | {"state": ""} == {
        "source": world.name, "table": f"{world.schema}.people", "state": "", "begun": True, "notes": []
    }  # fmt: skip
    assert json_of("snapshot", people, "--where", "no_such_column = 1", code=1)["begun"] is False
    assert run.invoke(app, ["snapshot", f"{world.name}.{world.schema}.absent"]).exit_code == 2
    assert run.invoke(app, ["delete", world.name]).exit_code == 2
    assert f"connector {world.name}" in json_of("delete", world.name, "--drop-slot", "--yes")["removed"]
