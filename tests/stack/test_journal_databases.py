"""The journal's SQL persistence on real servers: hostile values, each id once from several writers, a server's refusals."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from chronicle.dev.stack import Stack
from chronicle.events.event import Event, encoded
from chronicle.journal.outgoing import Outgoing
from chronicle.journal.persistence.sql import SqlEvents
from chronicle.journal.transports import TransportAway

pytestmark = pytest.mark.stack
HOSTILE = "NUL \0, 😀, ' OR 1=1 --, \\, \u2028, %s, :name, " + "ä" * 900


def url(stack: Stack, dialect: str) -> sa.URL:
    if dialect == "postgres":
        known = dict(part.split("=", 1) for part in stack.postgres_dsn("postgres").split())
        return sa.URL.create(
            "postgresql+psycopg", known["user"], known["password"], known["host"], int(known["port"]), known["dbname"]
        )
    given = stack.mariadb_params("mysql")
    return sa.URL.create(
        "mariadb+pymysql", given["user"], given["password"], given["host"], given["port"], query={"charset": "utf8mb4"}
    )


@pytest.fixture(params=["postgres", "mariadb"])
def place(stack: Stack, request: pytest.FixtureRequest, unique: str) -> Iterator[tuple[sa.Engine, str]]:
    """An engine and the name of a table in a schema of the test's own."""
    admin = sa.create_engine(url(stack, request.param), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE SCHEMA {unique}")
    try:
        yield sa.create_engine(url(stack, request.param)), f"{unique}.events"
    finally:
        with admin.connect() as connection:
            connection.exec_driver_sql(f"DROP SCHEMA {unique}" + (" CASCADE" if request.param == "postgres" else ""))


def outgoing(number: int, **fields: Any) -> Outgoing:
    given = {
        "id": f"00000000-0000-4000-8000-{number:012d}",
        "type": "t.e",
        "time": "2026-02-01T12:00:00.123456Z",
        "source": "s",
    }
    event = Event(**{**given, **fields})
    return Outgoing(event, encoded(event))


def rows(engine: sa.Engine, table: str) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(sa.text(f"SELECT * FROM {table} ORDER BY id")).mappings()]


def test_hostile_values_come_back_as_they_were(place: tuple[sa.Engine, str]) -> None:
    """The event's text is exact; in a column a NUL, which Postgres does not have, is a replacement character."""
    engine, table = place
    sent = outgoing(1, actor=HOSTILE, resource_id=HOSTILE, payload={HOSTILE: HOSTILE, "long": "x" * 200_000})
    assert list(SqlEvents(engine, table=table).send([sent])) == [None]
    [row] = rows(engine, table)
    assert row["event"].encode() == sent.text
    assert row["actor_id"] == HOSTILE.replace("\0", "\ufffd")
    assert str(row["time"]) == "2026-02-01 12:00:00.123456"


def test_writers_at_the_same_time_keep_each_id_once(place: tuple[sa.Engine, str]) -> None:
    """Several threads that make the table and send the same events; a deadlock is retried by whoever lost."""
    engine, table = place
    batch = [outgoing(number) for number in range(200)]
    problems: list[BaseException] = []

    def write(turn: int) -> None:
        store = SqlEvents(engine, table=table)
        for _ in range(20):
            try:
                store.send(batch if turn % 2 else batch[::-1])
            except TransportAway:
                continue
            except BaseException as error:  # noqa: BLE001 (looked at below)
                problems.append(error)
            return
        problems.append(AssertionError("never went through"))

    threads = [threading.Thread(target=write, args=(turn,)) for turn in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert len(rows(engine, table)) == 200


def test_a_row_the_server_refuses_stands_alone(place: tuple[sa.Engine, str]) -> None:
    """A check that the application's administrators added: its neighbours are kept."""
    engine, table = place
    store = SqlEvents(engine, table=table)
    store.send([outgoing(0)])
    with engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER TABLE {table} ADD CONSTRAINT no_evil CHECK (actor_id <> 'evil')")
    results = store.send([outgoing(number, actor="evil" if number == 7 else "ann") for number in range(1, 20)])
    assert [at for at, result in enumerate(results) if result is not None] == [6]
    assert "evil" not in str(results[6])
    assert len(rows(engine, table)) == 19
