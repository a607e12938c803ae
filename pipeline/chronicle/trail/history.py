"""One row's life: what changed from what to what, in order of position, through changes of its primary key.

An image may lack columns: under `images = "changed"` an update has only what it changed, so what is missing is unchanged; a
dropped column is nowhere; under `images = "none"`, and of what the policy left out, there is no image at all.
"""

from __future__ import annotations

import json
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


Row = Mapping[str, Any]
"""Column → value."""


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
    hidden: bool = False
    """It changed, and the policy shows nothing of it: both sides look the same, or the column is left out."""


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
    uncompared: tuple[str, ...] = ()
    """Encrypted columns: no ciphertext equals another one, so only the database could say whether they changed."""

    @property
    def bare(self) -> bool:
        """The policy keeps no image of it."""
        change, row = self.change, self.change.after
        if change.operation == "delete":
            row = change.before if change.before_known else {}
        return row is None and not change.stub and change.operation != "truncate"


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
    row: Row | None = None
    gone: Row = {}
    for change in sorted(found, key=lambda change: (change.position, change.operation != "delete", change.event_id)):
        if change.operation == "truncate" and row is None:
            continue
        last = entries[-1].change if entries else None
        if change.stub:
            entries.append(Entry(change, (), Known.UNKNOWN, says_nothing_new=False))
        elif last and last.operation == "delete" and change.operation == "create" and change.previous_entity == last.entity:
            entries[-1] = replace(entries[-1], given_up=True)
            known = Known.DATABASE if last.before_known and not last.stub else Known.TRAIL
            entries.append(_entry(change, gone, known, _differing(gone, change.after or {})))
        else:
            entries.append(_compared(change, row))
        if change.operation in ("delete", "truncate"):
            row, gone = None, {**(row or {}), **(change.before or {})}
        else:
            row = {**_staying(change, row or {}), **(change.after or {})}
    return entries


def _staying(change: Change, row: Row) -> Row:
    """What a change leaves as it was: all that its image lacks, where the image need not be whole."""
    if change.after is None or (change.operation == "update" and change.before_known):
        return row
    return {column: row[column] for column in change.unavailable if column in row}


def _compared(change: Change, row: Row | None) -> Entry:
    """What this change did to each column; of an update only the columns that differ."""
    before, after = change.before or {}, change.after or {}
    trail = Known.TRAIL if row else Known.UNKNOWN
    if change.operation == "truncate":
        return _entry(change, {}, Known.TRAIL, ())
    if change.operation == "create":
        return _entry(change, {}, Known.DATABASE, after)
    if change.operation == "snapshot":
        names = list(after) if row is None else _differing(row, after)
        nothing_new = row is not None and change.after is not None and all(name in row for name in after) and not names
        return _entry(change, row or {}, trail, names, says_nothing_new=nothing_new)
    if change.operation == "delete":
        thin = not change.before_known or before.keys() <= (change.key or {}).keys()
        recorded = {**(row or {}), **before} if thin else before
        return _entry(change, recorded, Known.DATABASE if change.before_known else trail, recorded)
    if not change.before_known:
        recorded = {**(row or {}), **before}
        return _entry(change, recorded, trail, _differing(recorded, after))
    names = [name for name in dict.fromkeys([*before, *after]) if name in change.changed]
    return _entry(change, before, Known.DATABASE, [*names, *sorted({*change.changed} - {*names})])


def _entry(change: Change, recorded: Row, known: Known, names: Iterable[str], *, says_nothing_new: bool = False) -> Entry:
    """The entry that tells these columns; `recorded`: the old row, as far as it is known."""
    after, named = change.after or {}, known is Known.DATABASE and change.operation == "update"
    columns = []
    for name in names:
        old, new = recorded.get(name, ABSENT), after.get(name, ABSENT)
        sent = known is not Known.DATABASE or change.operation != "delete" or name in (change.before or {})
        columns.append(ColumnChange(name, old, new, known if sent else Known.TRAIL, hidden=named and _same(old, new)))
    uncompared = () if named else tuple(name for name in after if _sealed(recorded.get(name), after[name]))
    return Entry(change, tuple(columns), known, says_nothing_new, uncompared=uncompared)


def _differing(recorded: Row, after: Row) -> list[str]:
    return [
        name
        for name, value in after.items()
        if name not in recorded or not (_same(recorded[name], value) or _sealed(recorded[name], value))
    ]


def _same(one: Any, other: Any) -> bool:
    """Whether two values of images are the same text; 1, 1.0 and true are not."""
    if type(one) is not type(other):
        return False
    return json.dumps(one) == json.dumps(other) if isinstance(one, dict | list) else bool(one == other)


def _sealed(one: Any, other: Any) -> bool:
    """Whether both are ciphertexts, each of which is bound to its change."""
    if not (isinstance(one, str) and isinstance(other, str) and one.count(".") > 1):
        return False
    from chronicle.stages.ciphers import is_sealed  # what it needs takes longer to load than most histories to read

    return is_sealed(one) and is_sealed(other)


def _with(
    narrowed: Filters, *, keys: tuple[str, ...] = (), entities: tuple[str, ...] = (), operations: tuple[str, ...] = ()
) -> Filters:
    return Filters(narrowed.source, narrowed.schema, narrowed.table, keys=keys, entities=entities, operations=operations)
