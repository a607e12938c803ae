"""What comes into the trail, in the order of insertion, each once: the feeds of events and changes that a live tail has.

What is inserted slowly may be seen late: a window is asked for again and what was told before is left out. Only what happened
in the last days is told, and never that somebody read the trail: whoever follows would read their own reading for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Generic, Protocol, TypeVar

from chronicle.api import sight
from chronicle.api.access import Principal
from chronicle.api.parameters import Narrowed
from chronicle.api.parts import Parts
from chronicle.api.recording import TYPE
from chronicle.trail.collections import CHANGES, EVENTS, plain_row
from chronicle.trail.filters import ROW
from chronicle.trail.following import INSERTION, Name, name_of, since
from chronicle.trail.reading import micros, rows
from chronicle.trail.store import as_client

DAYS = 7
"""What happened longer ago is not told."""
WINDOW_US = 3_000_000
"""How late an insert may be seen."""
ROWS_MAX = 2_000
"""Of one look at events; the next one goes on where it ended."""
CHANGES_MAX = 500
"""Of one look at changes, whose rows are larger and lie further apart."""
SEEN_MAX = 100_000
Item = dict[str, Any]
N = TypeVar("N")
"""What tells one thing from all others."""


@dataclass(frozen=True, slots=True)
class Page:
    """A part of what is new."""

    items: list[tuple[int, Item]]
    """When it was inserted (microseconds since 1970, the store's clock), not falling; and what, as the caller sees it."""
    until: int | None
    """There is more, inserted at this moment or later; None: that was all there is now."""


class Feed(Protocol):
    """One kind of things that come in, for one connection."""

    def page(self, principal: Principal) -> Page:
        """What came since the last page, as this caller may see it. Raises as `trail.reading.rows`."""


class Place(Generic[N]):
    """Where a feed is: what it asks for next, and what it has told."""

    def __init__(self, begin: int) -> None:
        """`begin`: from this moment on."""
        self.at = self._newest = self._begin = begin
        self.after: N | None = None
        self._seen: dict[N, int] = {}

    def fresh(self, at: int, name: N) -> bool:
        """Whether this one, inserted at this moment, is told for the first time."""
        self._newest = max(self._newest, at)
        if name in self._seen:
            return False
        self._seen[name] = at
        return True

    def went_on(self, last: tuple[int, N] | None) -> None:
        """A page is told. `last`: the last row of one that has not come to the end; the next one begins after it."""
        self.at, self.after = (max(self._begin, self._newest - WINDOW_US), None) if last is None else last
        if len(self._seen) > SEEN_MAX:
            self._seen = {name: at for name, at in self._seen.items() if at >= self._newest - WINDOW_US}


class EventFeed:
    """Implements `Feed` for events."""

    def __init__(self, parts: Parts, wanted: Narrowed, begin: int) -> None:
        self._parts, self._wanted = parts, wanted
        self._place = Place[Name](begin)

    def page(self, principal: Principal) -> Page:
        """As the protocol says."""
        parts, place = self._parts, self._place
        seen, bound = sight.sight(principal).conditions(EVENTS)
        newer, values = since(place.at, place.after)
        conditions = [*self._wanted.stored, *seen, "type != {own:String}", newer, _RECENT.format(column="time")]
        bound |= {"own": TYPE, **values, "days": _days(parts), "limit": ROWS_MAX, "database": parts.database}
        sql = (
            f"SELECT {', '.join(EVENTS.columns)}, toUnixTimestamp64Micro(inserted_at) AS _at "  # noqa: S608
            f"FROM {{database:Identifier}}.events WHERE {_all(conditions)} ORDER BY {INSERTION} LIMIT {{limit:UInt64}}"
        )
        items, last = [], None
        found = rows(as_client(parts.store), sql, {**self._wanted.parameters, **bound})
        for row in found:
            last = int(row.pop("_at")), name_of(row)
            if place.fresh(*last):
                items.append((last[0], {"kind": "event", **sight.event(principal, plain_row(EVENTS, row))}))
        more = last if len(found) == ROWS_MAX else None
        place.went_on(more)
        return Page(items, more and more[0])


class ChangeFeed:
    """Implements `Feed` for changes: as the trail has them when they come in. What a context says later is not told again."""

    def __init__(self, parts: Parts, wanted: Narrowed, begin: int) -> None:
        self._parts, self._wanted = parts, wanted
        self._place = Place[str](begin)

    def page(self, principal: Principal) -> Page:
        """As the protocol says: first which ones are new, by their table; then these few by the view, which knows the best
        answer to who did it and for whom."""
        parts, place, whole = self._parts, self._place, sight.sight(principal)
        seen, bound = replace(whole, tenants=None).conditions(CHANGES)  # of a tenant the view alone knows
        newer = "inserted_at > fromUnixTimestamp64Micro({from:Int64}, 'UTC')" if place.after is None else _AFTER
        new = [newer, _RECENT.format(column="committed_at")]
        given = {
            **self._wanted.parameters, "from": place.at, "days": _days(parts), "limit": CHANGES_MAX, "database": parts.database,
            **({} if place.after is None else {"after_id": place.after}),
        }  # fmt: skip
        sql = (
            f"SELECT event_id, toUnixTimestamp64Micro(inserted_at) AS _at FROM {_TABLE} "  # noqa: S608
            f"WHERE {_all([*new, *self._wanted.stored, *seen])} ORDER BY {_INSERTION} LIMIT {{limit:UInt64}}"
        )
        found = [(int(row["_at"]), str(row["event_id"])) for row in rows(as_client(parts.store), sql, {**given, **bound})]
        if not found:
            place.went_on(None)
            return Page([], None)
        fresh = [(at, name) for at, name in found if place.fresh(at, name)]
        by_name = self._contents(principal, new, given | {"to": found[-1][0], "to_id": found[-1][1]}) if fresh else {}
        more = found[-1] if len(found) == CHANGES_MAX else None
        place.went_on(more)
        return Page([(at, by_name[name]) for at, name in fresh if name in by_name], more and more[0])

    def _contents(self, principal: Principal, new: list[str], given: Mapping[str, Any]) -> dict[str, Item]:
        """What is new up to a place, by id, as far as the caller asked for it and may see it."""
        seen, bound = sight.sight(principal).conditions(CHANGES)
        which = f"FROM {_TABLE} WHERE {_all([*new, _UPTO])}"
        conditions = [
            f"({ROW}) IN (SELECT {ROW} {which})",
            f"transaction_key IN (SELECT ifNull(transaction_id, '') {which})",  # so that only their contexts are looked at
            *self._wanted.stored,
            *self._wanted.said,
            *seen,
        ]
        sql = f"SELECT {', '.join(CHANGES.columns)} FROM {CHANGES.relation} WHERE {_all(conditions)}"  # noqa: S608
        found = (plain_row(CHANGES, row) for row in rows(as_client(self._parts.store), sql, {**given, **bound}))
        return {item["event_id"]: {"kind": "change", **sight.change(principal, item)} for item in found}


_TABLE = "{database:Identifier}.changes"
_RECENT = "{column} > fromUnixTimestamp64Micro({{days:Int64}}, 'UTC')"
_INSERTION = "inserted_at, event_id"
_AFTER = (
    "inserted_at >= fromUnixTimestamp64Micro({from:Int64}, 'UTC') AND "
    f"({_INSERTION}) > (fromUnixTimestamp64Micro({{from:Int64}}, 'UTC'), {{after_id:UUID}})"
)
_UPTO = f"({_INSERTION}) <= (fromUnixTimestamp64Micro({{to:Int64}}, 'UTC'), {{to_id:UUID}})"


def _all(conditions: list[str]) -> str:
    return " AND ".join(f"({one})" for one in conditions)


def _days(parts: Parts) -> int:
    return micros(parts.now() - timedelta(days=DAYS))
