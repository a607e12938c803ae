"""From the truth to what the trail has to say: the changes of each row in order, and each table's final rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tests.faults.canonical import Row, key_of, row
from tests.faults.catalog import Table, Tables
from tests.faults.observation import TruthRow

KeyValues = tuple[object, ...]
EntityName = tuple[str, KeyValues]
"""(raw topic, key values); without a key the values are empty and the name is the table's. Truncates are the table's too."""


@dataclass(frozen=True, slots=True)
class Expected:
    """One change that must be in the trail."""

    seq: int
    topic: str
    key: KeyValues
    operation: str
    before: Row | None
    after: Row | None
    before_known: bool
    previous_key: KeyValues | None
    tx: str
    unchanged: frozenset[str]
    """Columns an update left alone: only these may be missing from `after`, when they are TOASTed."""


def _update(table: Table, truth: TruthRow, old: Row, new: Row) -> list[Expected]:
    old_key, new_key = key_of(table, old), key_of(table, new)
    unchanged = frozenset(name for name in new if name in old and old[name] == new[name])
    if old_key == new_key:
        before = old if table.full else None
        return [Expected(truth.seq, table.topic, new_key, "update", before, new, table.full, None, truth.tx, unchanged)]
    gone = Expected(
        truth.seq, table.topic, old_key, "delete", _deleted(table, old), None, table.full, None, truth.tx, unchanged
    )
    come = Expected(truth.seq, table.topic, new_key, "create", None, new, True, old_key, truth.tx, unchanged)
    return [gone, come]


def _deleted(table: Table, old: Row) -> Row:
    return old if table.full else {name: old[name] for name in table.key}


def expected(tables: Tables, truth: Iterable[TruthRow]) -> list[Expected]:
    """The changes (not the snapshot) that follow from the truth, in its order."""
    result: list[Expected] = []
    for entry in truth:
        table = tables.of(entry.source, entry.schema, entry.table)
        if table is None:
            raise LookupError(f"truth of a table that the catalog does not have: {entry.table}")
        if entry.observed:
            continue
        old = row(table, entry.old) if entry.old is not None else None
        new = row(table, entry.new) if entry.new is not None else None
        if entry.op == "t":
            result.append(Expected(entry.seq, table.topic, (), "truncate", None, None, True, None, "", frozenset()))
        elif old is not None and new is not None:
            result.extend(_update(table, entry, old, new))
        elif new is not None:
            key = key_of(table, new)
            result.append(Expected(entry.seq, table.topic, key, "create", None, new, True, None, entry.tx, frozenset()))
        elif old is not None:
            key, before = key_of(table, old), _deleted(table, old)
            result.append(
                Expected(entry.seq, table.topic, key, "delete", before, None, table.full, None, entry.tx, frozenset())
            )
    return result


def final_rows(tables: Tables, truth: Iterable[TruthRow]) -> dict[str, dict[KeyValues, Row]]:
    """Each keyed table's rows after all of the truth, by raw topic and key."""
    result: dict[str, dict[KeyValues, Row]] = {table.topic: {} for table in tables.by_topic.values() if table.key}
    for entry in truth:
        table = tables.of(entry.source, entry.schema, entry.table)
        if table is None or not table.key:
            continue
        rows = result[table.topic]
        if entry.op == "t":
            rows.clear()
        if entry.old is not None:
            rows.pop(key_of(table, row(table, entry.old)), None)
        if entry.new is not None:
            new = row(table, entry.new)
            rows[key_of(table, new)] = new
    return result


def snapshot_rows(tables: Tables, truth: Iterable[TruthRow]) -> dict[str, list[Row]]:
    """The rows a snapshot taken after the `observed` part of the truth has to show, by raw topic."""
    keyless: dict[str, list[Row]] = {}
    early = [entry for entry in truth if entry.observed]
    keyed = final_rows(tables, early)
    for entry in early:
        table = tables.of(entry.source, entry.schema, entry.table)
        if table is None or table.key:
            continue
        rows_of = keyless.setdefault(table.topic, [])
        if entry.old is not None:
            rows_of.remove(row(table, entry.old))
        if entry.new is not None:
            rows_of.append(row(table, entry.new))
    return {topic: list(rows.values()) for topic, rows in keyed.items()} | keyless
