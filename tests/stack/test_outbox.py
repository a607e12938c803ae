"""`journal.in_transaction` on real databases, by Debezium's router to the events topic: the same laws for every library."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastavro
import httpx
import psycopg
import pymysql
import pytest
import sqlalchemy as sa
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs miss what it documents
    AdminClient,
    ConfigResource,
    ResourceType,
)
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from chronicle import attribute
from chronicle.capture.apply import Deployment, apply, delete
from chronicle.capture.check import check
from chronicle.capture.connect import ConnectClient
from chronicle.capture.sources import load_source
from chronicle.config import Connect, Kafka, Registry
from chronicle.dev.stack import Stack
from chronicle.events.event import Event, decoded
from chronicle.journal import outbox_psycopg, outbox_pymysql
from chronicle.journal.journal import Journal
from chronicle.journal.outbox import OutboxError
from chronicle.journal.outbox_table import ddl
from tests.stack.attribution_clients import (
    CLIENTS,
    CONTEXT,
    HOSTILE,
    INSERT,
    ROW,
    BlocksClient,
    Client,
    DjangoClient,
    PostgresWorld,
    PsycopgClient,
    PyMySQLClient,
    World,
    client,
    opened_worlds,
)

pytestmark = pytest.mark.stack

DEADLINE_S = 120.0
TEMPLATES = Path(__file__).parents[2] / "connectors" / "templates"
PREFIX = {"postgres": "SHOP", "mysql": "HIRING"}
FENCE = "outbox.test.fence"


class Captured:
    """A database with an outbox table, its running connector, and what has arrived on the events topic."""

    def __init__(self, world: World, stack: Stack, deployment: Deployment, directory: Path, topic: str) -> None:
        self.world, self.stack, self.deployment, self.topic = world, stack, deployment, topic
        self.journal = Journal(source="test", transport="memory://")
        postgres = isinstance(world, PostgresWorld)
        schema = "public" if postgres else world.name
        self.source_file = directory / f"outbox_{secrets.token_hex(4)}.toml"
        account = "\n".join(
            f'{key} = "${{env:{PREFIX[world.dialect]}_DB_{key.upper()}}}"' for key in ("host", "port", "user", "password")
        )
        placeholder = f'unavailable_value_placeholder = "{secrets.token_hex(16)}"\n' if postgres else ""
        self.source_file.write_text(
            f'template = "{"postgres" if postgres else "mariadb"}"\ntables = ["{schema}.items"]\nkeyless = ["{schema}.items"]\n'
            f'outbox_table = "{schema}.chronicle_outbox"\n{placeholder}[database]\nname = "{world.name}"\n{account}\n',
            encoding="utf-8",
        )
        self.source = load_source(self.source_file)
        self.run(ddl("postgres" if postgres else "mariadb"))
        self.run("CREATE TABLE chronicle_signal (id varchar(64) PRIMARY KEY, type varchar(32) NOT NULL, data varchar(2048))")
        if postgres:
            self.run("ALTER TABLE items REPLICA IDENTITY FULL")
            self.run("CREATE TABLE told (statement text)")
            self.run(
                "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS "
                "'BEGIN INSERT INTO told VALUES (TG_OP); RETURN NULL; END'"
            )
            self.run(
                "CREATE TRIGGER told AFTER INSERT OR DELETE ON chronicle_outbox FOR EACH STATEMENT EXECUTE FUNCTION tell()"
            )
        self.schemas: dict[int, Any] = {}
        self.events: dict[str, list[Event]] = defaultdict(list)
        self.consumer = Consumer(
            {"bootstrap.servers": stack.kafka, "group.id": topic, "enable.auto.commit": False, "auto.offset.reset": "earliest"}
        )

    def run(self, sql: str) -> None:
        if isinstance(self.world, PostgresWorld):
            self.world.admin.execute(sql.encode())
        else:
            self.world.ask(sql)

    def number(self, sql: str) -> int:
        if isinstance(self.world, PostgresWorld):
            found = self.world.admin.execute(sql.encode()).fetchone()
        else:
            found = self.world.ask(sql)[0]
        assert found is not None
        return int(found[0])

    def delivered(self, key: str) -> list[Event]:
        """All events of this key that were committed before now, in the order of the topic."""
        fence = self.fence(key)
        deadline = time.monotonic() + DEADLINE_S
        while not any(one.id == fence for one in self.events[key]):
            assert time.monotonic() < deadline, f"{len(self.events[key])} events and no fence within {DEADLINE_S:.0f} s"
            self._read()
        return [one for one in self.events[key] if one.type != FENCE]

    def fence(self, key: str) -> str:
        """One more event, in a transaction of its own."""
        opened = (
            psycopg.connect(self.world.dsn) if isinstance(self.world, PostgresWorld) else pymysql.connect(**self.world.login)
        )
        with opened as connection:
            made = self.journal.in_transaction(connection).publish(FENCE, partition_key=key)
            connection.commit()
        assert made is not None
        return made

    def subscribe(self) -> None:
        """To the topics of events; the fence's first record makes them."""
        found = self.consumer.list_topics(timeout=10).topics
        topics = [name for name in found if name == self.topic or name.startswith(f"{self.topic}.")]
        partitions = [TopicPartition(name, number, 0) for name in topics for number in found[name].partitions]
        if len(partitions) != len(self.consumer.assignment()):
            self.events.clear()
            self.consumer.assign(partitions)

    def _read(self) -> None:
        self.subscribe()
        for message in self.consumer.consume(500, timeout=0.3):
            if message.error() is None:
                self.events[self._text(message.key())].append(decoded(self._text(message.value())))
                headers: list[tuple[str, bytes]] = list(message.headers() or [])  # type: ignore[arg-type]
                assert {name for name, _ in headers} == {"id", "chronicle.epoch"}

    def _text(self, framed: Any) -> str:
        """An Avro string in Confluent's frame."""
        number = int.from_bytes(framed[1:5], "big")
        if number not in self.schemas:
            answer = httpx.get(f"{self.stack.registry_url}/schemas/ids/{number}").raise_for_status().json()
            self.schemas[number] = fastavro.parse_schema(json.loads(answer["schema"]))
        found = fastavro.schemaless_reader(io.BytesIO(framed[5:]), self.schemas[number], None)
        assert isinstance(found, str)
        return found


@pytest.fixture(scope="module")
def captured(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Captured]]:
    """One of each kind for this module."""
    directory = tmp_path_factory.mktemp("outbox")
    shutil.copytree(TEMPLATES, directory / "templates")
    topic = f"t{secrets.token_hex(4)}.events"
    with contextlib.ExitStack() as undo:
        worlds = undo.enter_context(opened_worlds(stack))
        connect = undo.enter_context(ConnectClient(Connect(url=stack.connect_url)))
        deployment = Deployment(
            connect,
            Kafka(bootstrap_servers=stack.kafka, events_topic=topic),
            Registry(url=stack.registry_url),
            stack.environment,
        )
        undo.callback(_forget, stack, topic)
        made: dict[str, Captured] = {}
        for dialect, world in worlds.items():
            one = made[dialect] = Captured(world, stack, deployment, directory, f"{topic}")
            undo.callback(one.consumer.close)
            undo.callback(delete, one.source, deployment, drop=True)
            undo.callback(_forget, stack, one.source.name)
            apply(one.source, deployment, deadline_s=DEADLINE_S)
        yield made


def _forget(stack: Stack, prefix: str) -> None:
    admin = AdminClient({"bootstrap.servers": stack.kafka})
    names = [name for name in admin.list_topics(timeout=10).topics if name.startswith(prefix)]
    for future in admin.delete_topics(names).values() if names else ():
        with contextlib.suppress(Exception):
            future.result(30)


@pytest.fixture(params=CLIENTS)
def app(request: pytest.FixtureRequest, captured: dict[str, Captured]) -> Iterator[Client]:
    with client(request.param, {name: one.world for name, one in captured.items()}) as made:
        made.world.read()
        yield made


@pytest.fixture
def at(app: Client, captured: dict[str, Captured]) -> Captured:
    """Where the client's database is captured."""
    return captured[app.world.dialect]


@pytest.fixture(params=["postgres", "mysql"])
def database(request: pytest.FixtureRequest, captured: dict[str, Captured]) -> Captured:
    found: Captured = captured[request.param]
    return found


def actions(events: list[Event]) -> list[str | None]:
    return [one.action for one in events]


def test_what_is_committed_is_delivered_once_and_in_order(app: Client, at: Captured, unique: str) -> None:
    """Whether the transaction writes anything else or not; what is rolled back is not delivered, and the table stays empty."""
    journal = at.journal.in_transaction(app.target)
    for round_ in range(3):
        with app.transaction():
            app.run("SELECT 1")
            for step in range(3):
                journal.publish("order.placed", action=f"{round_}.{step}", partition_key=unique)
                app.run(INSERT)
        with pytest.raises(KeyError), app.transaction():
            app.run(INSERT)
            journal.publish("order.placed", action="rolled back", partition_key=unique)
            raise KeyError
    with app.transaction():
        app.run("SELECT 1")
        journal.publish("order.placed", action="alone", partition_key=unique)
    expected = [f"{round_}.{step}" for round_ in range(3) for step in range(3)]
    assert actions(at.delivered(unique)) == [*expected, "alone"]
    assert at.number("SELECT count(*) FROM chronicle_outbox") == 0


def test_a_rollback_to_a_savepoint_drops_the_events_since(app: Client, at: Captured, unique: str) -> None:
    """And only those: what was published before it, in a savepoint that stayed, and after it, is delivered."""
    journal = at.journal.in_transaction(app.target)
    with app.transaction():
        app.run("SELECT 1")
        journal.publish("a.b", action="before", partition_key=unique)
        with app.savepoint():
            journal.publish("a.b", action="kept", partition_key=unique)
        with pytest.raises(KeyError), app.savepoint():
            journal.publish("a.b", action="dropped", partition_key=unique)
            app.run(INSERT)
            if not isinstance(app, PyMySQLClient):  # whose savepoints here all have one name
                with app.savepoint():
                    journal.publish("a.b", action="dropped inside", partition_key=unique)
            raise KeyError
        journal.publish("a.b", action="after", partition_key=unique)
    assert actions(at.delivered(unique)) == ["before", "kept", "after"]


def test_a_thousand_events_are_one_insert(app: Client, at: Captured, unique: str) -> None:
    """Counted by the server; and one DELETE."""
    journal = at.journal.in_transaction(app.target)
    with app.transaction():
        app.run("SELECT 1")
        for number in range(1000):
            journal.publish("a.b", action=str(number), partition_key=unique)
        before = _statements(app, at)
    after = _statements(app, at)
    assert {name: after[name] - before[name] for name in after} == {"insert": 1, "delete": 1}
    assert actions(at.delivered(unique)) == [str(number) for number in range(1000)]


def _statements(app: Client, at: Captured) -> dict[str, int]:
    """INSERT and DELETE statements so far: on Postgres by a trigger, on MariaDB of this connection."""
    if isinstance(app.world, PostgresWorld):
        return {
            word: at.number(f"SELECT count(*) FROM told WHERE statement = '{word.upper()}'") for word in ("insert", "delete")
        }
    driver: Any = app.target
    if isinstance(driver, sa.orm.Session):
        driver = driver.connection()
    if isinstance(driver, sa.Connection):
        driver = driver.connection.dbapi_connection
    with driver.cursor() as cursor:
        cursor.execute("SHOW SESSION STATUS WHERE Variable_name IN ('Com_insert', 'Com_delete_multi')")
        return {name.lower().split("_")[1]: int(value) for name, value in cursor.fetchall()}


def test_a_transaction_with_events_is_told_who_acts(app: Client, at: Captured, unique: str) -> None:
    """`attribute` and the outbox on one connection: one context a transaction, also where the event is all there is, and the
    one may end before the other."""
    with attribute(app.target, actor="ann"):
        journal = at.journal.in_transaction(app.target)
        with app.transaction():
            app.run(INSERT)
            journal.publish("a.b", action="1", partition_key=unique)
        with app.transaction():
            app.run("SELECT 1")
            journal.publish("a.b", action="2", partition_key=unique)
    with app.transaction():
        app.run(INSERT)
        journal.publish("a.b", action="3", partition_key=unique)
    transactions, contexts = app.world.read()
    if isinstance(app.world, PostgresWorld):
        assert transactions == [[CONTEXT, ROW], [CONTEXT], [ROW]]
    assert contexts == [{"actor": "ann"}] * 2
    with attribute(app.target, actor="bob"), app.transaction():
        app.run(INSERT)
        journal.publish("a.b", action="4", partition_key=unique)
    assert actions(at.delivered(unique)) == ["1", "2", "3", "4"]


def test_a_commit_given_as_text_is_seen(app: Client, at: Captured, unique: str) -> None:
    """Its events go with it, or, where that moment cannot be had (psycopg), it is refused; a ROLLBACK drops them."""
    if isinstance(app, BlocksClient | DjangoClient):
        pytest.skip("inside a block of the library a COMMIT breaks the block")
    journal = at.journal.in_transaction(app.target)
    app.run(INSERT)
    journal.publish("a.b", action="no", partition_key=unique)
    app.run("ROLLBACK")
    app.run(INSERT)
    journal.publish("a.b", action="yes", partition_key=unique)
    if isinstance(app, PsycopgClient):
        with pytest.raises(OutboxError, match="COMMIT given as text"):
            app.run("COMMIT")
        getattr(app.target, "connection", app.target).commit()
    else:
        app.run("COMMIT")
    assert actions(at.delivered(unique)) == ["yes"]


def test_whatever_the_strings_an_event_arrives_as_it_was(app: Client, at: Captured, unique: str) -> None:
    """Quotes, placeholders, NULs, characters beyond the BMP, 20,000 characters."""
    journal = at.journal.in_transaction(app.target)
    with app.transaction():
        app.run("SELECT 1")
        for text in HOSTILE:
            journal.publish("a.b", payload={text[:50]: text}, partition_key=unique)
    assert [one.payload for one in at.delivered(unique)] == [{text[:50]: text} for text in HOSTILE]


# -- one client a database ---------------------------------------------------------------------------------------------


def connected(at: Captured, **more: Any) -> Any:
    if isinstance(at.world, PostgresWorld):
        return psycopg.connect(at.world.dsn, **more)
    return pymysql.connect(**at.world.login, **more)


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def test_transactions_do_not_wait_for_each_other(database: Captured, unique: str, level: str) -> None:
    """Both have inserted before either deletes: no lock is waited for, and none is refused, SERIALIZABLE included."""
    with connected(database) as one, connected(database) as two:
        both = [(connection, connection.cursor(), database.journal.in_transaction(connection)) for connection in (one, two)]
        for connection, cursor, _ in both:
            if isinstance(database.world, PostgresWorld):
                cursor.execute(f"SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL {level}")
                cursor.execute("SET lock_timeout = '5s'")
            else:
                cursor.execute(f"SET SESSION TRANSACTION ISOLATION LEVEL {level}")
                cursor.execute("SET SESSION innodb_lock_wait_timeout = 5")
            connection.commit()
        for round_ in range(3):
            askings = []
            for connection, cursor, journal in both:
                cursor.execute("INSERT INTO items (id) VALUES (5)")
                for number in range(20):
                    journal.publish("a.b", action=f"{round_}.{number}", partition_key=f"{unique}.{id(connection)}")
                askings.append((cursor, adapters[database.world.dialect]._PENDING[connection].flush(lambda _: "%s")))
            for cursor, asking in askings:  # what their commits do first, step by step
                ask = next(asking)
                cursor.execute(ask.sql, ask.values)
            for cursor, asking in askings:
                ask = asking.send([str(row[0]) for row in cursor.fetchall()] if database.world.dialect == "postgres" else [])
                cursor.execute(ask.sql, ask.values)
                with pytest.raises(StopIteration):
                    asking.send([])
            for connection, *_ in both:
                connection.commit()
        for connection in (one, two):
            found = database.delivered(f"{unique}.{id(connection)}")
            assert actions(found) == [f"{round_}.{number}" for round_ in range(3) for number in range(20)]
    assert database.number("SELECT count(*) FROM chronicle_outbox") == 0


adapters: dict[str, Any] = {"postgres": outbox_psycopg, "mysql": outbox_pymysql}


def test_where_there_is_no_transaction_an_event_is_refused(database: Captured) -> None:
    """With autocommit nothing would decide whether it happened."""
    autocommit = connected(database, autocommit=True)
    with contextlib.closing(autocommit), pytest.raises(OutboxError, match="autocommit"):
        database.journal.in_transaction(autocommit).publish("a.b")
    scheme = "postgresql+psycopg" if isinstance(database.world, PostgresWorld) else "mysql+pymysql"
    user = "postgres" if isinstance(database.world, PostgresWorld) else "chronicle"
    engine = sa.create_engine(
        f"{scheme}://{user}:{user}@127.0.0.1:{database.world.port}/{database.world.name}", isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection, pytest.raises(OutboxError, match="AUTOCOMMIT"):
        database.journal.in_transaction(connection).publish("a.b")
    engine.dispose()
    with pytest.raises(OutboxError, match="psycopg 3, SQLAlchemy 2, Django or PyMySQL"):
        database.journal.in_transaction(object())


def test_a_commit_that_cannot_write_the_events_is_no_commit(database: Captured, unique: str) -> None:
    """The application gets the database's error, and its own rows are not there either."""
    before = database.number("SELECT count(*) FROM items WHERE id = 77")
    connection = connected(database)
    with contextlib.closing(connection):
        connection.cursor().execute("INSERT INTO items (id) VALUES (77)")
        journal = database.journal.in_transaction(connection, table="nowhere.chronicle_outbox")
        journal.publish("a.b", partition_key=unique)
        with pytest.raises((psycopg.Error, pymysql.Error)):
            connection.commit()
        connection.rollback()
        connection.commit()
    assert database.number("SELECT count(*) FROM items WHERE id = 77") == before
    assert database.delivered(unique) == []
    counts = database.journal.counts
    assert counts["in_transaction"] == counts["written"] + counts["rolled_back"] + counts["lost"]


def test_a_truncate_of_the_outbox_stops_nothing(database: Captured, unique: str) -> None:
    """Nobody should; but a connector that failed at the same record for ever would be worse."""
    database.run("TRUNCATE TABLE chronicle_outbox")
    assert database.delivered(unique) == []


def test_an_event_may_go_to_a_topic_beside_the_events_topic(database: Captured, unique: str) -> None:
    """A route's topic is kept; a topic of anything else is refused before anything is written."""
    with connected(database) as connection:
        journal = database.journal.in_transaction(connection, events_topic=database.topic)
        journal.publish("a.b", action="beside", partition_key=unique, topic=f"{database.topic}.security")
        with pytest.raises(OutboxError, match="route events"):
            journal.publish("a.b", topic="chronicle.audit")
        connection.commit()
    deadline = time.monotonic() + DEADLINE_S
    while actions(database.events[unique]) != ["beside"]:
        assert time.monotonic() < deadline, "not on the other topic"
        database._read()


def test_the_events_topic_is_made_as_setup_makes_it(database: Captured) -> None:
    """Should a connector be there first: four partitions, seven days."""
    database.delivered("any")
    admin = AdminClient({"bootstrap.servers": database.stack.kafka})
    assert len(admin.list_topics(database.topic, timeout=10).topics[database.topic].partitions) == 4
    resource = ConfigResource(ResourceType.TOPIC, database.topic)
    assert admin.describe_configs([resource])[resource].result()["retention.ms"].value == str(7 * 24 * 3600 * 1000)


def test_check_knows_the_outbox_table(database: Captured) -> None:
    """Nothing to say of a good one; a column that is missing, of another type, or too short, is an error."""
    assert not [one for one in check(database.source, database.deployment) if "outbox" in one.what]
    alter = (
        "ALTER TABLE chronicle_outbox ALTER COLUMN event TYPE {}"
        if isinstance(database.world, PostgresWorld)
        else ("ALTER TABLE chronicle_outbox MODIFY event {} NOT NULL")
    )
    good = "text" if isinstance(database.world, PostgresWorld) else "LONGTEXT"
    try:
        database.run(alter.format("varchar(20)"))
        found = [one for one in check(database.source, database.deployment) if "column event" in one.what]
        assert [one.level for one in found] == ["error"]
        assert "chronicle outbox ddl" in found[0].fix
    finally:
        database.run(alter.format(good))


def test_what_a_killed_application_committed_is_delivered_and_nothing_else(database: Captured, unique: str) -> None:
    """SIGKILL at any moment of transactions that write a row and an event each: as many rows as events, and the same ones."""
    for life in range(3):
        program = [sys.executable, "-c", KILLED, database.world.dialect, where(database), unique, str(life)]
        with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(5 + 7 * life):
                assert process.stdout.readline()
            os.kill(process.pid, signal.SIGKILL)
    found = {int(one.action or "") for one in database.delivered(unique)}
    assert len(found) == len(database.delivered(unique))
    note = f"SELECT count(*) FROM items WHERE note = '{unique}'"
    assert len(found) == database.number(note) > 10
    listed = ",".join(map(str, found))
    assert database.number(f"{note} AND id IN ({listed})") == len(found)


KILLED = """
import json, sys
import psycopg, pymysql
from chronicle.journal import outbox_psycopg, outbox_pymysql
from chronicle.journal.journal import Journal
dialect, where, key, life = sys.argv[1:]
connection = psycopg.connect(where) if dialect == "postgres" else pymysql.connect(**json.loads(where))
journal = Journal(source="test", transport="memory://").in_transaction(connection)
for number in range(100_000):
    n = int(life) * 1_000_000 + number
    connection.cursor().execute("INSERT INTO items (id, note) VALUES (%s, %s)", (n, key))
    journal.publish("a.b", action=str(n), partition_key=key)
    connection.commit()
    print(n, flush=True)
"""


def where(at: Captured) -> str:
    return at.world.dsn if isinstance(at.world, PostgresWorld) else json.dumps(at.world.login)


def test_coroutines_have_the_same(captured: dict[str, Captured], unique: str) -> None:
    """psycopg's AsyncConnection by commit and by block, and SQLAlchemy's AsyncSession, before it has asked anything too."""
    at = captured["postgres"]
    assert isinstance(at.world, PostgresWorld)
    dsn, port, name = at.world.dsn, at.world.port, at.world.name

    async def work() -> None:
        async with await psycopg.AsyncConnection.connect(dsn) as connection:
            journal = at.journal.in_transaction(connection)
            await connection.execute(INSERT)
            journal.publish("a.b", action="commit", partition_key=unique)
            await connection.commit()
            journal.publish("a.b", action="no", partition_key=unique)
            await connection.rollback()
            async with connection.transaction():
                journal.publish("a.b", action="block", partition_key=unique)
                with contextlib.suppress(KeyError):
                    async with connection.transaction():
                        journal.publish("a.b", action="no", partition_key=unique)
                        raise KeyError
            with pytest.raises(OutboxError):
                journal.publish("a.b", action="refused", partition_key=unique)
                await connection.execute("COMMIT")
            await connection.rollback()
        engine = create_async_engine(f"postgresql+psycopg://postgres:postgres@127.0.0.1:{port}/{name}")
        async with AsyncSession(engine) as session:
            journal = at.journal.in_transaction(session)
            journal.publish("a.b", action="no", partition_key=unique)
            await session.rollback()
            journal.publish("a.b", action="session", partition_key=unique)
            await session.commit()
            async with session.begin():
                await session.execute(sa.text(INSERT))
                journal.publish("a.b", action="session block", partition_key=unique)
        async with engine.connect() as alone:
            at.journal.in_transaction(alone).publish("a.b", action="connection", partition_key=unique)
            await alone.commit()
        await engine.dispose()

    asyncio.run(work())
    assert actions(at.delivered(unique)) == ["commit", "block", "session", "session block", "connection"]
