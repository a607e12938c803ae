"""The whole worker on the real stack: broker, registry and ClickHouse; Debezium's records made with fastavro."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from chronicle import config
from chronicle.dev.stack import Stack
from chronicle.setup import run as run_setup
from chronicle.sinks.clickhouse_client import connect
from tests.stack.debezium_records import Table
from tests.stack.worker_process import Broker, WorkerProcess, probe, until

pytestmark = pytest.mark.stack

ROOT = Path(__file__).parents[2]
SOURCE_FILE = """
template = "postgres"
tables = ["public.t"]
signal_table = "public.chronicle_signal"
context_table = "public.chronicle_context"
unavailable_value_placeholder = "0123456789abcdef0123456789abcdef"
[database]
host = "localhost"
port = "5432"
user = "nobody"
password = "${env:NO_PASSWORD}"
name = "shop"
"""


class Deployment:
    """One Chronicle of its own on a stack: source, topics, databases, settings, and the workers of one test."""

    def __init__(self, stack: Stack, name: str, directory: Path, **worker: Any) -> None:
        self.stack, self.name, self.directory = stack, name, directory
        self.broker = Broker(stack.kafka)
        self.port = free_port()
        connectors = directory / "connectors"
        shutil.copytree(ROOT / "connectors" / "templates", connectors / "templates")
        (connectors / f"{name}.toml").write_text(SOURCE_FILE)
        self.settings_file = directory / "chronicle.toml"
        sections: dict[str, dict[str, Any]] = {
            "kafka": {
                "bootstrap_servers": stack.kafka, "audit_topic": f"{name}-audit", "dead_letter_topic": f"{name}-dead",
                "retry_topic": f"{name}-retry", "entities_topic": f"{name}-entities",
                "events_topic": f"{name}-events",
            },
            "registry": {"url": stack.registry_url, "unknown_id_wait_s": 1.0},
            "clickhouse": {"url": stack.clickhouse_url, "database": name, "mirror_database": f"{name}_mirror"},
            "connect": {"url": stack.connect_url, "directory": str(connectors)},
            "worker": {"group": name, "http_port": self.port, "discovery_interval_s": 0.5, "batch_rows_max": 2000, **worker},
        }  # fmt: skip
        lines = [f'identity_key_file = "{directory / "identity.key"}"']
        for section, values in sections.items():
            lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
        self.settings_file.write_text("\n".join(lines))
        self.settings = self._load()
        run_setup(self.settings)
        self.table = Table(stack.registry_url, name, "t")
        self.broker.create(self.table.topic, 2, max_message_bytes="12000000")
        self.client: Client = connect(self.settings.clickhouse)
        self.workers: list[WorkerProcess] = []
        self.lsn = 1000

    def _load(self) -> config.Settings:
        before = os.environ.get("CHRONICLE_CONFIG")
        os.environ["CHRONICLE_CONFIG"] = str(self.settings_file)
        try:
            return config.load()
        finally:
            os.environ.pop("CHRONICLE_CONFIG")
            if before is not None:
                os.environ["CHRONICLE_CONFIG"] = before

    def create(self, count: int, first: int = 0) -> None:
        """`count` created rows with ids from `first` on, over both partitions."""
        for partition in (0, 1):
            numbers = [n for n in range(first, first + count) if n % 2 == partition]
            self.send([(self.table.key(n), self.change("c", n)) for n in numbers], partition)

    def change(self, op: str, number: int, **columns: Any) -> bytes:
        self.lsn += 10
        return self.table.value(op, number, self.lsn, **columns)

    def send(self, records: Sequence[tuple[bytes | None, bytes | None]], partition: int = 0, topic: str | None = None) -> None:
        from confluent_kafka import Producer

        producer = Producer({"bootstrap.servers": self.stack.kafka, "message.max.bytes": 20_000_000, "linger.ms": 5})
        for key, value in records:
            producer.produce(topic or self.table.topic, value=value, key=key, partition=partition)
        assert producer.flush(60) == 0

    def start(self, *arguments: str, **settings: str) -> WorkerProcess:
        environment = {
            "CHRONICLE_CONFIG": str(self.settings_file),
            **{name if name.isupper() else f"CHRONICLE_WORKER__{name.upper()}": value for name, value in settings.items()},
        }
        worker = WorkerProcess(
            ["chronicle.cli", "worker", *arguments], environment, self.directory / f"worker{len(self.workers)}.log"
        )
        self.workers.append(worker)
        return worker

    def drain(self, **settings: str) -> dict[str, Any]:
        """A worker that ends at the end of all partitions; its summary."""
        worker = self.start("--until-drained", "--json", **settings)
        code = worker.wait()
        assert code == 0, worker.log_text()[-3000:]
        summary: dict[str, Any] = json.loads(worker.output())
        return summary

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self.client.query(query).result_rows]

    def ids(self) -> list[int]:
        """Ids of all changes after FINAL, sorted, with repetitions."""
        found = self.rows(f"SELECT JSONExtractInt(key, 'id') AS id FROM {self.name}.changes FINAL ORDER BY id")
        return [row[0] for row in found]

    def mirror(self, view: bool = True) -> str:
        """The only mirror: its view of current rows, or its table."""
        where = f"database = '{self.name}_mirror' AND engine {'=' if view else '!='} 'View'"
        ((table,),) = self.rows(f"SELECT name FROM system.tables WHERE {where}")
        return f"{self.name}_mirror.`{table}`"

    def letters(self) -> list[tuple[str, int, int, str]]:
        query = f"SELECT topic, partition, offset, reason FROM {self.name}.dead_letters FINAL ORDER BY partition, offset"
        return [(row[0], row[1], row[2], row[3]) for row in self.rows(query)]

    def close(self) -> None:
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.kill()
        names = [name for name in self.broker.admin.list_topics(timeout=10).topics if name.startswith(self.name)]
        self.broker.delete(*names)
        for database in (self.name, f"{self.name}_mirror"):
            self.client.command(f"DROP DATABASE IF EXISTS {database}")
        self.client.close()


def free_port() -> int:
    with socket.socket() as probing:
        probing.bind(("127.0.0.1", 0))
        return int(probing.getsockname()[1])


@pytest.fixture
def deployment(stack: Stack, unique: str, tmp_path: Path) -> Iterator[Deployment]:
    made = Deployment(stack, unique, tmp_path)
    yield made
    made.close()


def test_changes_reach_clickhouse_the_mirror_and_the_audit_topic(deployment: Deployment) -> None:
    """Creates, an update, a delete and its tombstone: each sink holds each change once, and a second run adds nothing."""
    deployment.create(100)
    deployment.send([(deployment.table.key(2), deployment.change("u", 2, note="new"))], 0)
    deployment.send([(deployment.table.key(4), deployment.change("d", 4)), (deployment.table.key(4), None)], 0)
    summary = deployment.drain()
    assert (summary["changes"], summary["left_out"]) == ({"create": 100, "delete": 1, "update": 1}, {"tombstone": 1})
    assert deployment.ids() == sorted([*range(100), 2, 4])
    assert deployment.rows(f"SELECT count(), countIf(note = 'new') FROM {deployment.mirror()}") == [(99, 1)]
    audit = deployment.broker.read(deployment.settings.kafka.audit_topic)
    assert len({key for key, _, _ in audit}) == len(audit) == 102
    assert deployment.drain()["records"] == 0


def test_each_bad_record_becomes_one_dead_letter_and_its_neighbours_go_through(deployment: Deployment) -> None:
    """Every kind of bad input of the issue, each between two good records of one chunk."""
    table, good = deployment.table, iter(range(1000, 1100))
    whole = deployment.change("c", 1)
    bad: dict[str, list[tuple[bytes | None, bytes | None]]] = {
        "wrong_frame": [(table.key(1), b"\x07nonsense")],
        "unknown_schema": [(table.key(1), b"\0" + (987_654).to_bytes(4, "big") + whole[5:])],
        "not_decodable": [(table.key(1), whole[:-9]), (table.key(1), b'{"payload": {"op"')],
        "missing_key": [(None, deployment.change("c", 1))],
    }
    records: list[tuple[bytes | None, bytes | None]] = []
    expected: dict[int, str] = {}
    kept = []
    for reason, cases in bad.items():
        for case in cases:
            number = next(good)
            kept.append(number)
            records += [(table.key(number), deployment.change("c", number)), case]
            expected[len(records) - 1] = reason
    kept.append(next(good))
    records.append((table.key(kept[-1]), deployment.change("c", kept[-1])))
    deployment.send(records, 0)
    deployment.drain()
    assert deployment.letters() == [(table.topic, 0, offset, reason) for offset, reason in sorted(expected.items())]
    assert deployment.ids() == kept
    letters = deployment.broker.read(deployment.settings.kafka.dead_letter_topic)
    assert len(letters) == len(expected)
    for _, value, headers in letters:
        offset = int(headers["chronicle.original.offset"])
        assert (headers["chronicle.dead-letter.reason"].decode(), value) == (expected[offset], records[offset][1])


def test_a_value_that_clickhouse_refuses_becomes_one_dead_letter(deployment: Deployment) -> None:
    """A constraint on the mirror refuses two rows of many: they leave alone, no sink holds them, the rest is everywhere."""
    deployment.create(10)
    deployment.drain()
    table = deployment.mirror(view=False)
    deployment.client.command(f"ALTER TABLE {table} ADD CONSTRAINT bounded CHECK id NOT IN (21, 40)")
    deployment.create(100, 10)
    summary = deployment.drain()
    assert (summary["changes"], summary["dead_letters"]) == ({"create": 98}, {"value_refused": 2})
    kept = [n for n in range(110) if n not in (21, 40)]
    assert deployment.ids() == kept
    assert deployment.rows(f"SELECT id FROM {deployment.mirror()} ORDER BY id") == [(n,) for n in kept]
    assert len({key for key, _, _ in deployment.broker.read(deployment.settings.kafka.audit_topic)}) == 108
    letters = deployment.broker.read(deployment.settings.kafka.dead_letter_topic)
    assert sorted(key or b"" for key, _, _ in letters) == sorted([deployment.table.key(21), deployment.table.key(40)])


def test_a_replayed_dead_letter_is_processed_under_its_original_coordinates(deployment: Deployment) -> None:
    """Sent back twice, it is one change, at the offset where it first stood."""
    value, key = deployment.change("c", 7), deployment.table.key(7)
    headers = [
        ("chronicle.original.topic", deployment.table.topic), ("chronicle.original.partition", "1"),
        ("chronicle.original.offset", "41"), ("chronicle.original.timestamp", "1790000000000"),
    ]  # fmt: skip
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": deployment.stack.kafka})
    for _ in range(2):
        producer.produce(deployment.settings.kafka.retry_topic, value=value, key=key, headers=[*headers])
    assert producer.flush(30) == 0
    assert deployment.drain()["changes"] == {"create": 2}
    found = deployment.rows(f"SELECT topic, partition, offset, key FROM {deployment.name}.changes FINAL")
    assert found == [(deployment.table.topic, 1, 41, '{"id":7}')]


@pytest.mark.parametrize("point", ["before_sinks:2", "between_sinks:2", "before_ack:2"])
def test_a_kill_at_a_failpoint_loses_and_doubles_nothing(deployment: Deployment, point: str) -> None:
    """After the next run each change is there once after FINAL, and once per key in the audit topic."""
    deployment.create(6000)
    assert deployment.start(failpoint=point).wait() == -signal.SIGKILL
    deployment.drain()
    assert deployment.ids() == list(range(6000))
    audit = deployment.broker.read(deployment.settings.kafka.audit_topic)
    assert len({key for key, _, _ in audit}) == 6000
    assert deployment.rows(f"SELECT count() FROM {deployment.mirror()}") == [(6000,)]


def test_a_new_table_is_picked_up_while_the_worker_runs(deployment: Deployment) -> None:
    """From its first record, within the interval; SIGTERM then leaves nothing to do again."""
    deployment.create(10)
    worker = deployment.start()
    until(lambda: len(deployment.ids()) == 10, "the first table")
    later = Table(deployment.stack.registry_url, deployment.name, "later")
    deployment.broker.create(later.topic, 1)
    deployment.send([(later.key(n), later.value("c", n, n + 1)) for n in range(5)], 0, later.topic)
    until(lambda: len(deployment.ids()) == 15, "the new table", 30)
    worker.term()
    assert worker.wait() == 0
    assert deployment.drain()["records"] == 0


def test_a_flood_of_dead_letters_stops_the_worker_unacknowledged(deployment: Deployment) -> None:
    """A wrong registry looks like this: nothing is written, nothing acknowledged, the reason and topic are named."""
    deployment.send([(deployment.table.key(1), b"\x07junk")] * 300, 0)
    worker = deployment.start()
    assert worker.wait() == 1
    assert f"wrong_frame in {deployment.table.topic}" in worker.log_text()
    assert deployment.letters() == []
    assert deployment.broker.committed(deployment.name, deployment.table.topic, 1)[0] <= 0


def test_a_misconfigured_worker_ends_before_it_starts(deployment: Deployment) -> None:
    """Exit 2, and the first line says what to change."""
    deployment.client.command(f"DROP DATABASE {deployment.name}")
    worker = deployment.start()
    assert worker.wait() == 2
    assert "chronicle setup" in worker.log_text()
    worker = deployment.start("--sources", "nowhere")
    assert worker.wait() == 2
    assert "nowhere" in worker.log_text()


@pytest.fixture(scope="module")
def own_stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose parts may be killed: the session's own, or one more when the session's is shared."""
    if not os.environ.get("CHRONICLE_TEST_STACK"):
        yield request.getfixturevalue("stack")
        return
    made = Stack(tmp_path_factory.mktemp("stack"), 29300)
    made.up(("kafka", "registry", "clickhouse"))
    yield made
    made.reset()


@pytest.mark.parametrize(("part", "service"), [("clickhouse", "clickhouse"), ("registry", "registry"), ("kafka", "broker")])
def test_a_service_that_is_away_is_waited_for(own_stack: Stack, unique: str, tmp_path: Path, part: str, service: str) -> None:
    """The worker says so in /readyz, metrics and log, stays, and goes on by itself with nothing lost or doubled."""
    deployment = Deployment(own_stack, unique, tmp_path)
    try:
        # registered long before the kill: this registry writes to its disk a second later
        later = Table(own_stack.registry_url, deployment.name, "later")
        deployment.create(100)
        worker = deployment.start()
        until(lambda: len(deployment.ids()) == 100, "the first rows")
        deployment.broker.create(later.topic, 1)
        until(lambda: later.topic in worker.log_text(), "the new topic is subscribed")
        own_stack.kill(part)
        if part == "kafka":
            until(lambda: "waiting for broker" in probe(deployment.port, "/readyz")[1], "not ready")
        else:
            # a table with a schema that was not resolved yet: needs the registry as well as ClickHouse
            deployment.send([(later.key(n), later.value("c", n, n + 1)) for n in range(50)], 0, later.topic)
            until(lambda: f"waiting for {service}" in probe(deployment.port, "/readyz")[1], "not ready")
            assert f'chronicle_retrying_seconds{{service="{service}"}}' in probe(deployment.port, "/metrics")[1]
        assert probe(deployment.port, "/readyz")[0] == 503
        assert worker.events("retry.declared")
        own_stack.start(part)
        if part == "kafka":
            deployment.send([(later.key(n), later.value("c", n, n + 1)) for n in range(50)], 0, later.topic)
        until(lambda: len(deployment.ids()) == 150 or deployment.letters(), "all rows", 120)
        assert deployment.letters() == []
        until(lambda: probe(deployment.port, "/readyz")[0] == 200, "ready again")
        assert worker.process.poll() is None
        worker.term()
        assert worker.wait() == 0
        assert deployment.drain()["records"] == 0
    finally:
        deployment.close()
