"""Events of the trail as they come in: the newest so many, then what is inserted, each once, for `chronicle events tail`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chronicle.trail.collections import EVENTS, plain_row
from chronicle.trail.reading import rows
from chronicle.trail.search import Question, found
from chronicle.trail.store import Store, as_client
from chronicle.trail.words import anchored, expression

WINDOW_US = 3_000_000
"""How late an insert may be seen: so much is asked for again, and what was told is left out."""
LOOK_ROWS_MAX = 2_000
SEEN_MAX = 100_000
INSERTION = "inserted_at, event_id, source, type, ifNull(tenant, '')"
"""An order in which every event has a place of its own; all events of one insert have one time."""
SINCE = "inserted_at > fromUnixTimestamp64Micro({from:Int64}, 'UTC')"
AFTER = (
    "inserted_at >= fromUnixTimestamp64Micro({from:Int64}, 'UTC') AND "
    f"({INSERTION}) > (fromUnixTimestamp64Micro({{from:Int64}}, 'UTC'), "
    "{after_id:UUID}, {after_source:String}, {after_type:String}, {after_tenant:String})"
)
Name = tuple[str, str, str, str]
"""Id, source, type and tenant of an event, an empty one where there is none."""


def since(at: int, after: Name | None) -> tuple[str, dict[str, Any]]:
    """The condition on events that were inserted after this moment (microseconds), with its values; `after`: in the order of
    `INSERTION` after this event of that moment."""
    if after is None:
        return SINCE, {"from": at}
    return AFTER, {"from": at, **dict(zip(("after_id", "after_source", "after_type", "after_tenant"), after, strict=True))}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events; None or nothing: all. `types`, and `sources`: one of them; a type may be a pattern (`security.**`)."""

    types: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    actor: str | None = None
    request: str | None = None
    tenant: str | None = None
    outcome: str | None = None
    resource_type: str | None = None
    resource_id: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    def conditions(self) -> tuple[list[str], dict[str, Any]]:
        """In SQL, with their values, all of them bound."""
        texts, bound = [], dict[str, Any]()
        if self.types:
            texts.append("match(type, {types:String})")
            bound["types"] = anchored(expression(self.types))
        if self.sources:
            texts.append("source IN {sources:Array(String)}")
            bound["sources"] = list(self.sources)
        by_name = {one.name: one.condition for one in EVENTS.filters}
        given = {"actor": self.actor, "request": self.request, "tenant": self.tenant}
        for name, value in (given | {"resource_type": self.resource_type, "resource_id": self.resource_id}).items():
            if value is not None:
                texts.append(by_name[name])
                bound[name] = value
        if self.outcome is not None:
            texts.append(by_name["outcome"])
            bound["outcome"] = [self.outcome]
        for number, (name, value) in enumerate(self.tags.items()):
            place = f"tags, {{tag_{number}:String}}"
            texts.append(
                f"if(JSONType({place}) = 'String', JSONExtractString({place}), JSONExtractRaw({place})) "
                f"= {{is_{number}:String}}"
            )
            bound |= {f"tag_{number}": name, f"is_{number}": value}
        return texts, bound


class Following:
    """First `newest`, then `more` again and again; no event is told twice (as far as `SEEN_MAX` reaches)."""

    def __init__(self, store: Store, database: str, wanted: Wanted) -> None:
        self._store, self._database = store, database
        self._conditions, self._bound = wanted.conditions()
        self._newest = int(rows(as_client(store), "SELECT toUnixTimestamp64Micro(now64(6)) AS now")[0]["now"])
        self._from = self._newest - WINDOW_US
        self._after: Name | None = None
        self._seen: dict[Name, int] = {}

    def newest(self, count: int) -> list[dict[str, Any]]:
        """The newest by their own time, the newest last. Raises as `trail.reading.rows`."""
        whole = False
        while not whole:  # what is in the window already is not news
            _, whole = self._look()
        order = EVENTS.order("-time")
        assert order is not None  # noqa: S101  (every collection has a time)
        question = Question(EVENTS, order, self._conditions, self._bound)
        events = [row.item for row in found(self._store, self._database, question, limit=count)] if count else []
        for event in events:
            self._seen[name_of(event)] = self._from
        return events[::-1]

    def more(self) -> list[dict[str, Any]]:
        """What was inserted since, in the order of insertion. Raises likewise."""
        while True:
            told, whole = self._look()
            if told or whole:
                return told

    def _look(self) -> tuple[list[dict[str, Any]], bool]:
        condition, place = since(self._from, self._after)
        bound = {**self._bound, **place, "limit": LOOK_ROWS_MAX, "database": self._database}
        conditions = [*self._conditions, condition]
        sql = (
            f"SELECT {', '.join(EVENTS.columns)}, toUnixTimestamp64Micro(inserted_at) AS _at "  # noqa: S608 (own texts; values are bound)
            f"FROM {{database:Identifier}}.events WHERE {' AND '.join(f'({one})' for one in conditions)} "
            f"ORDER BY {INSERTION} LIMIT {{limit:UInt64}}"
        )
        told, newest, at, last = [], self._newest, self._from, None
        answer = rows(as_client(self._store), sql, bound)
        for row in answer:
            at = int(row.pop("_at"))
            newest = max(newest, at)
            event = plain_row(EVENTS, row)
            last = name_of(event)
            if last not in self._seen:
                self._seen[last] = at
                told.append(event)
        whole = len(answer) < LOOK_ROWS_MAX
        # a full look has not come to the end: the next one begins where it stopped
        self._newest = newest
        self._from, self._after = (newest - WINDOW_US, None) if whole else (at, last)
        if len(self._seen) > SEEN_MAX:
            self._seen = {name: at for name, at in self._seen.items() if at > newest - WINDOW_US}
        return told, whole


def name_of(event: Mapping[str, Any]) -> Name:
    """What tells this event, a row with the columns of `EVENTS`, from all others."""
    return str(event["event_id"]), event["source"], event["type"], event["tenant"] or ""
