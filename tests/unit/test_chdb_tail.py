"""The live tails over a real store: whatever comes in one insert is told, each event once, and none gets stuck."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

pytest.importorskip("chdb")

from chronicle import config
from chronicle.api import stream
from chronicle.api.gate import ANYONE
from chronicle.sinks.clickhouse_client import connect
from chronicle.sinks.migrations import migrate
from chronicle.trail import following
from chronicle.trail.collections import EVENTS
from chronicle.trail.following import Following, Wanted
from chronicle.trail.search import Question
from tests.unit.api_double import Service

MANY = 5_000
SECOND = 1_000_000


class Trail:
    """An empty table of events."""

    def __init__(self, client: Client, database: str) -> None:
        self.client, self.database = client, database

    def insert(self, count: int, *, ago_s: float = 0, type_: str = "order.placed") -> None:
        """So many events in one insert, whose time was so long ago by the store's clock."""
        self.client.command(
            f"INSERT INTO {self.database}.events (event_id, type, time, source, inserted_at) "
            f"SELECT generateUUIDv4(), '{type_}', now64(6), 'shop', now64(6) - toIntervalMillisecond({int(ago_s * 1000)}) "
            f"FROM numbers({count})"
        )

    def now(self) -> int:
        return int(self.client.query("SELECT toUnixTimestamp64Micro(now64(6))").result_rows[0][0])

    def tail(self, begin: int) -> stream._Tail:
        """As a connection has one."""
        parts = replace(Service().parts(), store=self.client, database=self.database, now=lambda: datetime.now(UTC))
        order = EVENTS.order("-time")
        assert order is not None
        return stream._Tail(parts, Question(EVENTS, order), ANYONE, begin)


@pytest.fixture(scope="module")
def engine() -> Iterator[Client]:
    """Keeps the store, which is in memory, from test to test."""
    client = connect(config.Settings(store="memory").clickhouse)
    yield client
    client.close()


@pytest.fixture
def trail(engine: Client, unique: str) -> Iterator[Trail]:
    """With nothing in it."""
    names = config.ClickHouse(database=f"{unique}_trail", mirror_database=f"{unique}_mirror")
    settings = config.Settings(store="memory", clickhouse=names).clickhouse
    migrate(engine, settings)
    yield Trail(engine, settings.database)
    for database in (settings.database, settings.mirror_database):
        engine.command(f"DROP DATABASE {database}")


def ids(texts: list[bytes]) -> list[str]:
    """Of events as they are sent."""
    return [json.loads(text.partition(b"data: ")[2])["event_id"] for text in texts]


def looked(tail: stream._Tail, looks: int) -> list[str]:
    """What so many looks tell."""
    return [id_ for _ in range(looks) for id_ in ids(tail.look())]


def test_one_insert_of_more_than_a_look_is_told_whole(trail: Trail) -> None:
    """All its events have one time: the next look goes on among them; then comes what came after them."""
    tail = trail.tail(trail.now() - 60 * SECOND)
    trail.insert(MANY, ago_s=30)
    trail.insert(1, ago_s=10)
    told = looked(tail, 4)
    assert len(told) == len(set(told)) == MANY + 1
    assert tail.look() == []


def test_a_busy_window_does_not_stop_the_tail(trail: Trail) -> None:
    """More came in the last moment than one look reads: a look that finds only what was told goes on by itself."""
    tail = trail.tail(trail.now() - 60 * SECOND)
    trail.insert(MANY, ago_s=30)
    assert len(set(looked(tail, 3))) == MANY
    trail.insert(2, ago_s=29)
    assert len(tail.look()) == 2
    trail.insert(1, ago_s=31)  # seen late, in the window
    assert len(tail.look()) == 1


def test_a_connection_that_broke_in_the_middle_of_an_insert_loses_nothing(trail: Trail) -> None:
    """The id says a time, which events that were not sent yet share; later ones are there already."""
    begin = trail.now() - 60 * SECOND
    trail.insert(10, ago_s=30)
    trail.insert(1, ago_s=20)
    sent = trail.tail(begin).look()[:5]
    last = sent[-1].partition(b"\n")[0].removeprefix(b"id: ").decode()
    parts = replace(Service().parts(), store=trail.client)
    again = trail.tail(stream._begin(parts, last))
    assert len({*ids(sent), *looked(again, 2)}) == 11


def test_the_commands_tail_goes_on_in_one_insert_and_in_a_busy_window(trail: Trail, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the service's."""
    monkeypatch.setattr(following, "LOOK_ROWS_MAX", 100)
    trail.insert(250)
    tail = Following(trail.client, trail.database, Wanted())
    assert len(tail.newest(3)) == 3
    assert tail.more() == [], "what is in the window already is not news"
    trail.insert(250)
    told: list[dict[str, Any]] = [event for _ in range(5) for event in tail.more()]
    assert len(told) == len({event["event_id"] for event in told}) == 250
    trail.insert(1, ago_s=1)
    assert len(tail.more()) == 1
