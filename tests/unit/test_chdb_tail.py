"""The live tails over a real store: whatever comes in one insert is told, each event once, and none gets stuck."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

pytest.importorskip("chdb")

from chronicle import config
from chronicle.api import feeds, stream
from chronicle.api.access import Limits, Principal, Role
from chronicle.api.gate import ANYONE
from chronicle.api.parameters import Asked, narrowed
from chronicle.sinks.clickhouse_client import connect
from chronicle.sinks.migrations import migrate
from chronicle.trail import following
from chronicle.trail.following import Following, Wanted
from chronicle.trail.reading import rows
from tests.unit.api_double import Service

MANY = 5_000
SECOND = 1_000_000


class Trail:
    """Empty tables of events and changes."""

    def __init__(self, client: Client, database: str) -> None:
        self.client, self.database = client, database

    def insert(self, count: int, *, ago_s: float = 0, type_: str = "order.placed") -> None:
        """So many events in one insert, whose time was so long ago by the store's clock."""
        self.client.command(
            f"INSERT INTO {self.database}.events (event_id, type, time, source, inserted_at) "
            f"SELECT generateUUIDv4(), '{type_}', now64(6), 'shop', now64(6) - toIntervalMillisecond({int(ago_s * 1000)}) "
            f"FROM numbers({count})"
        )

    def change(self, count: int = 1, *, ago_s: float = 0, **facts: str) -> None:
        """So many changes in one insert; `facts`: columns in SQL."""
        values = {
            "event_id": "generateUUIDv4()", "source": "'shop'", "schema": "'public'", "table": "'orders'",
            "operation": "'update'", "key": """'{"id":7}'""", "entity": "generateUUIDv4()", "attribution": "'none'",
            "transaction_id": "'5'", "committed_at": "now64(6)",
            "inserted_at": f"now64(6) - toIntervalMillisecond({int(ago_s * 1000)})", **facts,
        }  # fmt: skip
        self.client.command(
            f"INSERT INTO {self.database}.changes ({', '.join(f'`{name}`' for name in values)}) "
            f"SELECT {', '.join(values.values())} FROM numbers({count})"
        )

    def context(self, text: dict[str, Any], transaction: str = "5") -> None:
        """What a message said of a transaction, read after its changes."""
        written = json.dumps(text).replace("'", "''")
        self.client.command(
            f"INSERT INTO {self.database}.transactions (source, epoch, transaction_id, best_context) "
            f"VALUES ('shop', 0, '{transaction}', (2, 1, '{written}'))"
        )

    def now(self) -> int:
        return int(self.client.query("SELECT toUnixTimestamp64Micro(now64(6))").result_rows[0][0])

    def tail(self, begin: int, kind: str = "events", principal: Principal = ANYONE, **asked: str) -> stream._Tail:
        """As a connection has one."""
        parts = replace(Service().parts(), store=self.client, database=self.database, now=lambda: datetime.now(UTC))
        found = []
        for one in stream.KINDS[kind]:
            wanted = narrowed(one, given := Asked(asked), principal, parts.now())
            assert not given.errors
            found.append(stream.FEEDS[one.title](parts, wanted, begin))
        return stream._Tail(found, principal)


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


def told(texts: list[bytes]) -> list[dict[str, Any]]:
    """What is sent, as JSON."""
    return [json.loads(text.partition(b"data: ")[2]) for text in texts]


def marks(texts: list[bytes]) -> list[int]:
    """The ids of what is sent."""
    return [int(text.partition(b"\n")[0].removeprefix(b"id: ")) for text in texts]


def ids(texts: list[bytes]) -> list[str]:
    """Of events as they are sent."""
    return [one["event_id"] for one in told(texts)]


def looked(tail: stream._Tail, looks: int) -> list[str]:
    """What so many looks tell."""
    return [id_ for _ in range(looks) for id_ in ids(tail.look())]


def test_one_insert_of_more_than_a_look_is_told_whole(trail: Trail) -> None:
    """All its events have one time: the next look goes on among them; then comes what came after them."""
    tail = trail.tail(trail.now() - 60 * SECOND)
    trail.insert(MANY, ago_s=30)
    trail.insert(1, ago_s=10)
    found = looked(tail, 4)
    assert len(found) == len(set(found)) == MANY + 1
    assert tail.look() == []


@pytest.mark.parametrize("kind", ["events", "changes"])
def test_what_came_before_the_connection_is_no_news(trail: Trail, kind: str) -> None:
    """Also when it came a moment before, and at the second look."""
    trail.insert(1, ago_s=1)
    trail.change(ago_s=1)
    tail = trail.tail(trail.now() - SECOND // 2, kind)
    assert looked(tail, 3) == []
    trail.insert(1)
    trail.change()
    assert len(looked(tail, 3)) == 1


def test_a_busy_window_does_not_stop_the_tail(trail: Trail) -> None:
    """More came in the last moment than one look reads: a look that finds only what was told goes on by itself."""
    tail = trail.tail(trail.now() - 60 * SECOND)
    trail.insert(MANY, ago_s=30)
    assert len(set(looked(tail, 3))) == MANY
    trail.insert(2, ago_s=29)
    assert len(tail.look()) == 2
    trail.insert(1, ago_s=31)  # seen late, in the window
    assert len(tail.look()) == 1


def test_a_look_reads_what_is_new_and_not_what_it_is_merged_with(trail: Trail, monkeypatch: pytest.MonkeyPatch) -> None:
    """By an index on the time of insertion: other columns say nothing about it."""
    trail.insert(100_000, ago_s=3600)
    trail.insert(2, ago_s=1)  # ids are random: in up to two granules
    trail.client.command(f"OPTIMIZE TABLE {trail.database}.events FINAL")
    asked: list[tuple[str, dict[str, Any]]] = []

    def noted(client: Any, sql: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        asked.append((sql, parameters))
        return rows(client, sql, parameters)

    tail = trail.tail(trail.now() - 60 * SECOND)
    monkeypatch.setattr(feeds, "rows", noted)
    assert len(tail.look()) == 2
    [(sql, parameters), *_] = asked
    plan = "\n".join(row[0] for row in trail.client.query(f"EXPLAIN indexes = 1 {sql}", parameters=parameters).result_rows)
    found = re.search(r"Name: inserted_index\b.*?Granules: (\d+)/(\d+)", plan, re.DOTALL)
    assert found, plan
    assert int(found[1]) <= 2 < 10 <= int(found[2])


def test_events_of_two_tenants_with_one_id_are_two(trail: Trail, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are told by both tails, also where a look ends between them."""
    monkeypatch.setattr(feeds, "ROWS_MAX", 1)
    monkeypatch.setattr(following, "LOOK_ROWS_MAX", 1)
    tail, command = trail.tail(trail.now() - 60 * SECOND), Following(trail.client, trail.database, Wanted())
    trail.client.command(
        f"INSERT INTO {trail.database}.events (event_id, type, time, source, tenant) SELECT "
        "toUUID('7cf66a67-4ecd-4e1f-bd59-48c66caaad14'), 'a.b', now64(6), 'shop', arrayJoin(['acme', 'blue', NULL])"
    )
    texts = [text for _ in range(4) for text in tail.look()]
    assert [one["tenant"] for one in told(texts)] == [None, "acme", "blue"]
    assert [event["tenant"] for _ in range(4) for event in command.more()] == [None, "acme", "blue"]


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
    found: list[dict[str, Any]] = [event for _ in range(5) for event in tail.more()]
    assert len(found) == len({event["event_id"] for event in found}) == 250
    trail.insert(1, ago_s=1)
    assert len(tail.more()) == 1


def seeing(*roles: Role, **limits: tuple[str, ...]) -> Principal:
    """Somebody with one limit."""
    return Principal("key:1", "a", "api_key", frozenset(roles or {Role.AUDITOR}), (Limits(**limits),))


def test_changes_of_one_insert_are_told_whole_and_once(trail: Trail) -> None:
    """Also those that come in a second time; and what happened long ago is no news."""
    tail = trail.tail(trail.now() - 60 * SECOND, "changes")
    trail.change(1_200, ago_s=30)
    trail.change(ago_s=10, event_id="toUUID('7cf66a67-4ecd-4e1f-bd59-48c66caaad14')")
    trail.change(ago_s=9, event_id="toUUID('7cf66a67-4ecd-4e1f-bd59-48c66caaad14')", processed_at="now64(6)")
    trail.change(committed_at="now64(6) - toIntervalDay(8)")
    trail.change(stub="'filtered'")
    found = looked(tail, 5)
    assert len(found) == len(set(found)) == 1_201
    assert tail.look() == []


def test_a_look_at_changes_reads_what_is_new(trail: Trail) -> None:
    """By the index on the time of insertion, of a table where new rows lie among the old ones."""
    trail.change(100_000, ago_s=3600)
    trail.change(2, ago_s=1)
    trail.client.command(f"OPTIMIZE TABLE {trail.database}.changes FINAL")
    asked: list[tuple[str, dict[str, Any]]] = []

    def noted(client: Any, sql: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        asked.append((sql, parameters))
        return rows(client, sql, parameters)

    tail = trail.tail(trail.now() - 60 * SECOND, "changes")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(feeds, "rows", noted)
        assert len(tail.look()) == 2
    (sql, parameters), (contents, of_contents) = asked
    plan = "\n".join(row[0] for row in trail.client.query(f"EXPLAIN indexes = 1 {sql}", parameters=parameters).result_rows)
    found = re.search(r"Name: inserted_index\b.*?Granules: (\d+)/(\d+)", plan, re.DOTALL)
    assert found and int(found[1]) <= 2 < 10 <= int(found[2]), plan
    answer = trail.client.query(f"SELECT count() FROM ({contents})", parameters=of_contents)
    assert answer.result_rows == [(2,)]


def test_a_change_is_told_to_those_for_whom_it_is_by_the_best_answer_there_is(trail: Trail) -> None:
    """A context that came late says tenant and actor, as on `GET /changes`: whoever the row alone named is told nothing."""
    begin = trail.now() - 60 * SECOND
    trail.change(tenant="'acme'", attribution="'comment'", actor_id="'bob'", ago_s=2)
    trail.change(transaction_id="'6'", tenant="'acme'", attribution="'comment'", actor_id="'eve'", ago_s=1)
    trail.context({"tenant": "blue", "actor": {"id": "ann"}})
    found = {
        tenant: [(one["tenant"], one["actor_id"]) for one in told(trail.tail(begin, "changes", principal).look())]
        for tenant in ("acme", "blue")
        for principal in [seeing(tenants=(tenant,))]
    }
    assert found == {"acme": [("acme", "eve")], "blue": [("blue", "ann")]}
    assert [one["actor_id"] for one in told(trail.tail(begin, "changes", actor="ann").look())] == ["ann"]
    assert told(trail.tail(begin, "changes", actor="bob").look()) == []


def test_a_caller_is_told_of_changes_what_it_may_see(trail: Trail) -> None:
    """Its sources, tables and columns; ciphertexts are an auditor's."""
    begin = trail.now() - 60 * SECOND
    after = """'{"id":7,"email":"a@b","iban":"e1.e-1.AAAA"}'"""
    trail.change(after=after, changed="['email', 'iban']")
    trail.change(after=after, source="'hiring'")
    trail.change(after=after, table="'customers'")
    limited = seeing(tables=("shop.public.orders",), columns=("id", "email"))
    [one] = told(trail.tail(begin, "changes", limited).look())
    assert (one["kind"], one["source"], one["table"]) == ("change", "shop", "orders")
    assert (one["after"], one["changed"]) == ({"id": 7, "email": "a@b"}, ["email"])
    [one] = told(trail.tail(begin, "changes", seeing(Role.READER, sources=("hiring",))).look())
    assert one["after"]["iban"] == "[ENCRYPTED]"
    [one] = told(trail.tail(begin, "changes", seeing(sources=("hiring",))).look())
    assert one["after"]["iban"] == "e1.e-1.AAAA"
    assert len(trail.tail(begin, "changes", table="orders", operation="update").look()) == 2
    assert trail.tail(begin, "changes", operation="delete").look() == []


def test_events_and_changes_are_told_together_in_the_order_of_insertion(trail: Trail, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the filters that both have; whoever resumes at an id misses nothing of the kind that was behind."""
    monkeypatch.setattr(feeds, "CHANGES_MAX", 2)
    begin = trail.now() - 60 * SECOND
    for ago in (40, 30, 20):
        trail.change(ago_s=ago, request_id="'r-1'")
        trail.insert(1, ago_s=ago - 5)
    tail = trail.tail(begin, "all")
    first, second = tail.look(), tail.look()
    assert [one["kind"] for one in told(first)] == ["change", "event", "change", "event", "event"]
    assert [one["kind"] for one in told(second)] == ["change"]
    assert marks(first) == sorted(marks(first))
    again = trail.tail(marks(first)[-1] - feeds.WINDOW_US, "all")
    assert set(ids(second)) <= set(looked(again, 3))
    assert [one["kind"] for one in told(trail.tail(begin, "all", request="r-1").look())] == ["change"] * 2
