"""One row's life: what changed from what to what, in order of position, through changes of its primary key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from clickhouse_connect.driver.client import Client

from chronicle.trail.changes import Change, Filters, changes
from chronicle.trail.tables import TableName

ROWS_MAX = 10_000
"""Changes read per key: a row with a longer life shows its newest part, and `History.cut` says so."""
PREVIOUS_KEYS_MAX = 100
"""How many primary-key changes are followed back."""


class Known(StrEnum):
    """Where the old value of a column comes from."""

    DATABASE = "database"
    """The database sent it with the change."""
    TRAIL = "trail"
    """The database did not send it: it is what the trail last recorded."""
    UNKNOWN = "unknown"
    """Neither knows it."""


class _Absent:
    """No value: the column is not in the image, or there is no image. (NULL is a value.)"""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT = _Absent()


@dataclass(frozen=True, slots=True)
class ColumnChange:
    """One column, from what to what; `ABSENT` on the side where there was no row, or no value is known."""

    column: str
    before: Any
    after: Any
    known: Known


@dataclass(frozen=True, slots=True)
class Entry:
    """One change in a row's life."""

    change: Change
    columns: tuple[ColumnChange, ...]
    known: Known
    """Where the old row comes from."""
    says_nothing_new: bool
    """A snapshot row equal to what the trail had already recorded."""
    given_up: bool = False
    """The old key's half of a primary-key change: the entry after it tells the whole."""


@dataclass(frozen=True, slots=True)
class History:
    """All entries of one row, oldest first."""

    name: TableName
    entries: tuple[Entry, ...]
    followed: tuple[Mapping[str, Any], ...]
    """Earlier primary keys of this row, nearest first."""
    cut: bool
    """There are older changes than `ROWS_MAX`."""


def history(client: Client, database: str, name: TableName, key_texts: Sequence[str]) -> History:
    """The life of the row with one of these key texts (`keys.texts`); without entries when the trail knows no such row.

    A change of primary key is followed backwards: what happened under the earlier key, up to the moment it was given
    up, is part of the history. A TRUNCATE while the row was there is part of it too.
    """
    narrowed = Filters(name.source, name.schema, name.table)
    own = changes(client, database, _with(narrowed, keys=tuple(key_texts)), limit=ROWS_MAX)
    found = {change.event_id: change for change in own}
    cut = len(own) == ROWS_MAX
    followed: list[Mapping[str, Any]] = []
    waiting = [change for change in own if change.previous_entity]
    seen: set[tuple[str, int]] = set()
    while waiting and len(seen) < PREVIOUS_KEYS_MAX:
        newer = waiting.pop()
        link = (newer.previous_entity or "", newer.position)
        if link in seen:
            continue
        seen.add(link)
        followed += [newer.previous_key] if newer.previous_key else []
        earlier = changes(client, database, _with(narrowed, entities=(link[0],)), limit=ROWS_MAX)
        cut = cut or len(earlier) == ROWS_MAX
        fresh = [change for change in earlier if change.position <= newer.position and change.event_id not in found]
        found.update((change.event_id, change) for change in fresh)
        waiting += [change for change in fresh if change.previous_entity]
    if found:
        truncates = changes(client, database, _with(narrowed, operations=("truncate",)), limit=ROWS_MAX)
        found.update((change.event_id, change) for change in truncates)
    return History(name, tuple(told(found.values())), tuple(followed), cut)


def told(found: Iterable[Change]) -> list[Entry]:
    """Changes of one row in any order, as entries in order of position, each compared with the one before. Pure.

    At one position a deletion comes first: the old key's half of a primary-key change is given up before the new one is.
    A TRUNCATE is left out when there was no row at that moment.
    """
    entries: list[Entry] = []
    row: dict[str, Any] | None = None
    gone: dict[str, Any] | None = None
    for change in sorted(found, key=lambda change: (change.position, change.operation != "delete", change.event_id)):
        if change.operation == "truncate" and row is None:
            continue
        says_nothing_new = change.operation == "snapshot" and row is not None and _holds(row, change.after or {})
        last = entries[-1].change if entries else None
        if last and last.operation == "delete" and change.operation == "create" and change.previous_entity == last.entity:
            entries[-1] = replace(entries[-1], given_up=True)
            known = Known.DATABASE if last.before_known else Known.TRAIL
            columns = _moved(change, gone, known)
        else:
            known, columns = _columns(change, row)
        entries.append(Entry(change, columns, known, says_nothing_new))
        if change.operation in ("delete", "truncate"):
            row, gone = None, {**(row or {}), **(change.before or {})}
        else:
            kept = {column: (row or {}).get(column, ABSENT) for column in change.unavailable}
            row = {**{column: value for column, value in kept.items() if value is not ABSENT}, **(change.after or {})}
    return entries


def _columns(change: Change, row: Mapping[str, Any] | None) -> tuple[Known, tuple[ColumnChange, ...]]:
    """What this change did to each column; of an update only the columns that differ."""
    if change.operation == "truncate":
        return Known.TRAIL, ()
    if change.operation == "snapshot":
        recorded, known = row or {}, Known.TRAIL if row is not None else Known.UNKNOWN
    elif change.operation == "create":
        recorded, known = {}, Known.DATABASE
    elif change.before_known:
        recorded, known = change.before or {}, Known.DATABASE
    else:
        recorded, known = {**(row or {}), **(change.before or {})}, Known.TRAIL if row is not None else Known.UNKNOWN
    after = change.after or {}
    names = list(dict.fromkeys([*recorded, *after]))
    if change.operation == "update":
        given = set(change.changed) if change.before_known else {name for name in after if _differ(recorded, after, name)}
        names = [name for name in names if name in given] + sorted(given - set(names))
    elif change.operation == "snapshot" and row is not None:
        names = [name for name in after if _differ(recorded, after, name)]
    return known, tuple(ColumnChange(name, recorded.get(name, ABSENT), after.get(name, ABSENT), known) for name in names)


def _moved(change: Change, gone: Mapping[str, Any] | None, known: Known) -> tuple[ColumnChange, ...]:
    """What differs between the row under its old key and under its new one."""
    after, recorded = change.after or {}, gone or {}
    names = [name for name in after if _differ(recorded, after, name)]
    return tuple(ColumnChange(name, recorded.get(name, ABSENT), after[name], known) for name in names)


def _differ(recorded: Mapping[str, Any], after: Mapping[str, Any], name: str) -> bool:
    return name not in recorded or recorded[name] != after[name]


def _holds(row: Mapping[str, Any], image: Mapping[str, Any]) -> bool:
    return all(column in row and row[column] == value for column, value in image.items())


def _with(
    narrowed: Filters, *, keys: tuple[str, ...] = (), entities: tuple[str, ...] = (), operations: tuple[str, ...] = ()
) -> Filters:
    return Filters(narrowed.source, narrowed.schema, narrowed.table, keys=keys, entities=entities, operations=operations)
