"""The outbox without a database: rows that no character set can change, and what a transaction delivers of its events."""

from __future__ import annotations

import json
import re
import uuid
from collections import Counter
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chronicle.attribution.statements import Dialect
from chronicle.journal import outbox
from chronicle.journal.journal import Journal
from chronicle.journal.outbox_pending import Ask, Entry, Fate, Pending, drive
from chronicle.journal.outbox_table import INSERT_BYTES_MAX, OutboxError, Row, ddl, grants, parts, quoted, row

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
HOSTILE = [
    "'; DROP TABLE chronicle_outbox; --",
    "\x00",
    "\\",
    '"',
    "%s",
    ":v0",
    "é\U0001f600\ufeff",
    "\x7f\x85\u2028",
    "$1",
    "{}",
]
IDS = st.uuids().map(str)


# -- rows --------------------------------------------------------------------------------------------------------------


@given(TEXTS | st.sampled_from(HOSTILE), st.dictionaries(TEXTS, TEXTS | st.integers() | st.none(), max_size=4))
def test_a_row_is_ascii_and_its_event_the_same_json(key: str, payload: dict[str, Any]) -> None:
    """Whatever the strings: no connection's or column's character set has anything to change, and nothing is lost."""
    event = json.dumps({"payload": payload, "actor": key}, ensure_ascii=False).encode()
    made = row(str(uuid.uuid4()), event, key.encode())
    assert (made.event + made.key).isascii()
    assert (made.event + made.key).isprintable()
    assert json.loads(made.event) == json.loads(event)


@given(st.lists(TEXTS | st.sampled_from(HOSTILE), min_size=2, max_size=2, unique=True))
def test_different_keys_stay_different_unless_one_spells_the_others_escape(keys: list[str]) -> None:
    """Events of one key keep their order, so keys must not fall together by what they are written as."""
    first, second = (row("i", b"{}", key.encode()).key for key in keys)
    assert first != second or any("\\u" in key for key in keys)


@pytest.mark.parametrize("topic", ["", ".security", ".a.b-c_d"])
def test_events_go_to_the_events_topic_or_beside_it(topic: str) -> None:
    """What stands behind the topic's name is kept."""
    assert row("i", b"{}", b"k", topic).topic == topic


@pytest.mark.parametrize("topic", ["x", ".", "..", ".a b", ".ä", ".a\n", ".$1", "chronicle.audit", ".a/b"])
def test_no_event_is_routed_anywhere_else(topic: str) -> None:
    """A row names no topic but one of events: the audit topic is not the application's to write."""
    with pytest.raises(OutboxError):
        row("i", b"{}", b"k", topic)


@given(st.lists(st.integers(0, INSERT_BYTES_MAX + 10), max_size=12))
def test_every_row_is_in_exactly_one_insert_and_inserts_are_bounded(sizes: list[int]) -> None:
    """In order; an INSERT is too long only if one row alone is."""
    rows = [Row(str(at), "", "", "x" * size) for at, size in enumerate(sizes)]
    found = [list(one) for one in parts(rows)]
    assert [one for part in found for one in part] == rows
    assert all(part and (len(part) == 1 or sum(one.size for one in part) <= INSERT_BYTES_MAX) for part in found)


@pytest.mark.parametrize(
    "table", ["chronicle_outbox; DROP TABLE x", "other", "a.b.chronicle_outbox", "a-b.chronicle_outbox", ""]
)
def test_the_table_has_its_name(table: str) -> None:
    """Its rows are routed by it, and it is part of statements."""
    with pytest.raises(OutboxError, match="chronicle_outbox"):
        quoted(table, "postgres")


def test_ddl_and_grants_are_of_the_dialect() -> None:
    """They may be repeated, and name nothing that the dialect does not quote."""
    assert ddl("postgres", "audit.chronicle_outbox").startswith('CREATE TABLE IF NOT EXISTS "audit"."chronicle_outbox"')
    assert "`chronicle_outbox`" in ddl("mariadb") == ddl("mysql")
    assert grants("postgres", "shop") == 'GRANT INSERT, SELECT, DELETE ON "chronicle_outbox" TO "shop"'
    assert grants("mysql", "shop") == "GRANT INSERT, SELECT, DELETE ON `chronicle_outbox` TO 'shop'@'%'"
    with pytest.raises(OutboxError):
        grants("postgres", 'shop"; --')
    with pytest.raises(OutboxError, match="postgres, mysql or mariadb"):
        ddl("oracle")  # type: ignore[arg-type]


# -- transactions ------------------------------------------------------------------------------------------------------


class Database:
    """What a server keeps of one transaction's inserts, with its savepoints; and how often it was told to insert."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.there: list[str] = []
        self.savepoints: list[tuple[str, int]] = []
        self.delivered: list[str] = []
        self.statements: list[str] = []

    def ask(self, ask: Ask) -> list[str]:
        self.statements.append(ask.sql.split()[0])
        if ask.sql.startswith("DELETE"):
            return []
        ids = [one["id"] for one in json.loads(ask.values[0])] if self.dialect == "postgres" else list(ask.values[::4])
        self.there += ids
        return [f"(0,{at})" for at in range(len(ids))]

    def run(self, sql: str) -> None:
        """Names are case-insensitive; a repeated one hides the older one (Postgres) or replaces it (MySQL)."""
        words = sql.upper().split()
        if words[0] == "COMMIT":
            self.delivered += self.there
            self.there, self.savepoints = [], []
        elif words[0] == "ROLLBACK" and len(words) == 1:
            self.there, self.savepoints = [], []
        elif words[0] == "SAVEPOINT":
            if self.dialect == "mysql":
                self.savepoints = [one for one in self.savepoints if one[0] != words[1]]
            self.savepoints.append((words[1], len(self.there)))
        elif words[0] in ("ROLLBACK", "RELEASE"):
            at = max(place for place, one in enumerate(self.savepoints) if one[0] == words[-1])
            if words[0] == "ROLLBACK":
                del self.there[self.savepoints[at][1] :]
                del self.savepoints[at + 1 :]
            else:
                del self.savepoints[at:]

    def has(self, name: str) -> bool:
        return any(one[0] == name.upper() for one in self.savepoints)


OPERATIONS = st.lists(
    st.sampled_from(
        [
            *("publish", "publish", "publish", "SAVEPOINT a", "SAVEPOINT b", "ROLLBACK TO a", "ROLLBACK TO SAVEPOINT b"),
            *("RELEASE a", "RELEASE SAVEPOINT b", "CREATE INDEX i ON t (a)", "UPDATE t SET a = 1", "COMMIT", "ROLLBACK"),
            "/* why */ ROLLBACK",
        ]
    ),
    max_size=30,
)


def played(dialect: Dialect, operations: list[str]) -> tuple[Database, list[str], Counter[Fate], int, Pending]:
    """The operations on a connection as an adapter does them; beside it, what should be delivered by the rules of SQL."""
    database, pending, fates = Database(dialect), Pending(dialect), Counter[Fate]()
    oracle = Database(dialect)
    published = 0
    for operation in [*operations, "COMMIT"]:
        plain = operation.removeprefix("/* why */ ")
        if plain == "publish":
            made = row(f"e{published}", b"{}", b"k")
            pending.add(Entry("chronicle_outbox", made, lambda fate: fates.update([fate])), begun=True)
            oracle.there.append(made.id)
            published += 1
            continue
        words = plain.split()
        if words[-1] in ("a", "b") and words[0] != "SAVEPOINT" and not oracle.has(words[-1]):
            continue  # the server refuses it
        if plain.startswith("CREATE") and dialect == "mysql":
            oracle.run("COMMIT")
        step = pending.before(operation)
        if step.flush:
            drive(pending.flush(lambda _: "%s"), database.ask)
        database.run("COMMIT" if plain.startswith("CREATE") and dialect == "mysql" else plain)
        pending.after(step)
        oracle.run(plain)
    return database, oracle.delivered, fates, published, pending


@given(st.sampled_from(["postgres", "mysql"]), OPERATIONS)
@example("postgres", ["publish", "SAVEPOINT a", "CREATE INDEX i ON t (a)", "ROLLBACK TO a"])  # written within, published before
@example("postgres", ["publish", "SAVEPOINT a", "publish", "SAVEPOINT a", "RELEASE a", "publish", "ROLLBACK TO a"])
def test_what_commits_is_delivered_and_nothing_else(dialect: Dialect, operations: list[str]) -> None:
    """Whatever savepoints, rollbacks and statements that commit by themselves come between: by the rules of SQL, in order."""
    database, expected, fates, published, pending = played(dialect, operations)
    assert database.delivered == expected
    assert fates.total() == published
    assert fates["written"] == len(expected)
    assert len(pending) == 0


@given(st.sampled_from(["postgres", "mysql"]), st.integers(1, 300))
def test_one_insert_and_one_delete_whatever_the_number(dialect: Dialect, number: int) -> None:
    """Directly before the COMMIT."""
    database, expected, *_ = played(
        dialect, ["UPDATE t SET a = 1", "publish", "SAVEPOINT a", *["publish"] * number, "RELEASE a"]
    )
    assert database.statements == ["INSERT", "DELETE"]
    assert len(expected) == number + 1


def test_an_event_that_is_published_twice_is_written_once() -> None:
    """Its id is a key: the application's COMMIT must not fail for it."""
    database, pending = Database("postgres"), Pending("postgres")
    for _ in range(2):
        pending.add(Entry("chronicle_outbox", row("same", b"{}", b"k"), lambda _: None), begun=True)
    drive(pending.flush(lambda _: "%s"), database.ask)
    assert database.there == ["same"]


@pytest.mark.parametrize(("dialect", "expected"), [("postgres", ('{"(0,0)","(0,1)"}',)), ("mysql", ("a", "b"))])
def test_what_is_deleted_is_what_was_inserted(dialect: Dialect, expected: tuple[str, ...]) -> None:
    """On Postgres by the places that the INSERT answered with, on MySQL by ids; each value has its placeholder."""
    asked: list[Ask] = []
    database, pending = Database(dialect), Pending(dialect)

    def run(ask: Ask) -> list[str]:
        asked.append(ask)
        return database.ask(ask)

    for id_ in ("a", "b"):
        pending.add(Entry("chronicle_outbox", row(id_, b"{}", b"k"), lambda _: None), begun=True)
    drive(pending.flush(lambda at: f":v{at}"), run)
    assert asked[1].values == expected
    for ask in asked:
        assert set(re.findall(r":v\d+", ask.sql)) == {f":v{at}" for at in range(len(ask.values))}


def test_a_failed_insert_keeps_the_events_until_the_rollback() -> None:
    """The application gets the error; what it does then decides."""

    def refuse(_: Ask) -> list[str]:
        raise KeyError

    fates: list[Fate] = []
    pending = Pending("mysql")
    pending.add(Entry("chronicle_outbox", row("a", b"{}", b"k"), fates.append), begun=True)
    with pytest.raises(KeyError):
        drive(pending.flush(lambda _: "%s"), refuse)
    assert (len(pending), fates) == (1, [])
    pending.rolled_back()
    assert (len(pending), fates) == (0, ["rolled_back"])


def test_a_transaction_that_ended_unseen_is_not_passed_over() -> None:
    """Its events are lost; that is said, once, and the next transaction begins clean."""
    fates: list[Fate] = []
    pending = Pending("postgres")
    pending.add(Entry("chronicle_outbox", row("a", b"{}", b"k"), fates.append), begun=True)
    with pytest.raises(OutboxError, match="1 events of it were not sent"):
        pending.found_over()
    assert fates == ["lost"]
    pending.found_over()
    pending.add(Entry("chronicle_outbox", row("b", b"{}", b"k"), fates.append), begun=False)
    pending.found_over()  # none was open yet
    assert len(pending) == 1


def test_rows_are_not_in_logs() -> None:
    """A row's repr has its id and topic, nothing of the event."""
    assert "secret" not in repr(Entry("chronicle_outbox", row("a", b'{"x":"secret"}', b"secret"), lambda _: None))


@given(TEXTS | st.sampled_from(HOSTILE))
def test_a_refusal_names_no_value(topic: str) -> None:
    """Whatever stands in a topic's place."""
    try:
        row("i", b"{}", b"k", f".{topic}")
    except OutboxError as refusal:
        assert len(topic) < 3 or topic not in str(refusal)


def test_hooks_hear_of_an_event_at_its_commit_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Monitoring sees what was delivered: nothing while the transaction is open, nothing of what was rolled back."""
    entries: list[Entry] = []
    monkeypatch.setattr(outbox, "_adder", lambda _: entries.append)
    heard: list[str] = []
    with Journal(source="shop", transport="memory://") as journal:
        journal.on_enqueue(lambda event: heard.append(event.type))
        transaction = outbox.TransactionJournal(journal, object())
        transaction.publish("order.placed")
        transaction.publish("order.cancelled")
        assert heard == []
        entries[0].settle("written")
        entries[1].settle("rolled_back")
        assert heard == ["order.placed"]
        assert (journal.counts["written"], journal.counts["rolled_back"]) == (1, 1)
