"""What programs may ask for, as tables: the columns of events and of changes, by what they are filtered and sorted.

This is the allow-list: no other name of a column or table ever comes into a query of the HTTP service.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

from chronicle.events.event import OUTCOMES, PRIORITIES
from chronicle.trail.attribution import RUNGS
from chronicle.trail.filters import OPERATIONS, ROW
from chronicle.trail.words import in_sql

Kind = Literal["text", "words", "pattern", "uuid", "since", "until", "query", "key", "flag", "column"]


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter: a parameter of a request, and the condition that it makes."""

    name: str
    kind: Kind
    text: str
    condition: str = ""
    """In SQL, with `{name:Type}`. Empty: `trail.filters` makes it."""
    choices: tuple[str, ...] = ()
    example: str = ""


@dataclass(frozen=True, slots=True)
class SortKey:
    """What rows can be sorted by: never NULL, so that a cursor can say where it stands."""

    expression: str
    type: Literal["Int64", "String"] = "String"
    column: str = ""
    """A column of times (micros) that an index knows."""
    late: bool = False
    """A context that came late may say it: only a view knows."""


@dataclass(frozen=True, slots=True)
class Order:
    """By what, and which way."""

    name: str
    by: SortKey
    descending: bool

    @property
    def text(self) -> str:
        """As a request says it."""
        return f"-{self.name}" if self.descending else self.name


@dataclass(frozen=True, slots=True)
class Collection:
    """Rows that can be asked for."""

    title: str
    relation: str
    """After FROM."""
    columns: tuple[str, ...]
    name: str
    """Expression of the dotted name that limits on tables speak of."""
    row: str
    """The columns of the primary key: they name a row."""
    tie: str
    """Expression, a text: tells rows apart that sort alike."""
    filters: tuple[Filter, ...]
    sorts: Mapping[str, SortKey]
    json: frozenset[str]
    """Columns that hold JSON texts."""

    def order(self, text: str) -> Order | None:
        """The order of this name (`time`, `-time`); None: there is no such order."""
        name = text.removeprefix("-")
        by = self.sorts.get(name)
        return None if by is None else Order(name, by, text.startswith("-"))

    @property
    def orders(self) -> tuple[str, ...]:
        """All there are."""
        return tuple(text for name in self.sorts for text in (name, f"-{name}"))


def _micros(column: str) -> SortKey:
    return SortKey(f"toUnixTimestamp64Micro({column})", "Int64", column)


_SINCE = "at this time or later: ISO 8601, or so long ago as 10m, 2h, 3d"
_UNTIL = "before this time: ISO 8601, or so long ago as 10m, 2h, 3d"
_TENANT = Filter("tenant", "text", "for this tenant", "tenant = {tenant:String}", example="acme")

EVENTS = Collection(
    title="events",
    relation="{database:Identifier}.events FINAL",
    columns=(
        *("event_id", "type", "time", "source", "action", "resource_type", "resource_id", "outcome", "priority", "tenant"),
        *("actor_id", "actor_type", "actor_name", "description", "reason", "request_id", "trace_id", "span_id", "ip"),
        *("session", "payload", "tags", "labels", "violations", "policy", "received_at", "processed_at"),
    ),
    name=f"concat({in_sql('source')}, '.', type)",
    row="source, type, ifNull(tenant, ''), event_id",
    # with the source's length, no two events have one text
    tie="concat(toString(event_id), ':', type, ':', toString(length(source)), ':', source, ':', ifNull(tenant, ''))",
    filters=(
        Filter("id", "uuid", "of this id", "event_id = {id:UUID}", example="0b7c0c2e-6f6d-4d0e-9d6e-2f1f3b0d9a11"),
        Filter(
            "type",
            "pattern",
            "of this type; `*` stands for one word, `**` for any number",
            "match(type, {type:String})",
            example="security.*",
        ),
        Filter("source", "text", "of this application", "source = {source:String}", example="shop"),
        Filter("action", "text", "with this action", "action = {action:String}", example="login"),
        Filter("resource_type", "text", "about this kind of thing", "resource_type = {resource_type:String}", example="order"),
        Filter("resource_id", "text", "about this thing", "resource_id = {resource_id:String}", example="7"),
        Filter("outcome", "words", "with one of these outcomes", "outcome IN {outcome:Array(String)}", OUTCOMES, "failure"),
        Filter("priority", "words", "with one of these priorities", "priority IN {priority:Array(String)}", PRIORITIES, "high"),
        _TENANT,
        Filter(
            "actor",
            "text",
            "by this actor, by id or name",
            "(actor_id = {actor:String} OR actor_name = {actor:String})",
            example="ann",
        ),
        Filter("actor_type", "text", "by this kind of actor", "actor_type = {actor_type:String}", example="user"),
        Filter("request", "text", "in this request", "request_id = {request:String}", example="r-1"),
        Filter("trace", "text", "in this trace", "trace_id = {trace:String}", example="4bf92f3577b34da6a3ce929d0e0e4736"),
        Filter("session", "text", "in this session", "session = {session:String}", example="s-1"),
        Filter("ip", "text", "from this address", "ip = {ip:String}", example="10.0.0.0/24"),
        Filter("label", "text", "with this label of the policy", "has(labels, {label:String})", example="security"),
        Filter(
            "violation",
            "text",
            "differing from its type's schema in this way",
            "has(violations, {violation:String})",
            example="unknown_type",
        ),
        Filter("since", "since", _SINCE, "time >= fromUnixTimestamp64Micro({since:Int64}, 'UTC')", example="2h"),
        Filter("until", "until", _UNTIL, "time < fromUnixTimestamp64Micro({until:Int64}, 'UTC')", example="2030-01-01"),
        Filter("q", "query", "with all of these words in its description, in any order and case", example="denied"),
    ),
    sorts={
        "time": _micros("time"),
        "received_at": SortKey("toUnixTimestamp64Milli(received_at)", "Int64"),
        "type": SortKey("toString(type)"),
        "source": SortKey("toString(source)"),
        "actor": SortKey("ifNull(actor_id, '')"),
        "resource_type": SortKey("ifNull(toString(resource_type), '')"),
        "outcome": SortKey("ifNull(toString(outcome), '')"),
    },
    json=frozenset({"payload", "tags"}),
)

CHANGES = Collection(
    title="changes",
    relation="{database:Identifier}.attributed_changes",
    columns=(
        *("event_id", "source", "schema", "table", "operation", "key", "previous_key", "before", "after", "before_known"),
        *("changed", "unavailable", "labels", "violations", "stub", "attribution", "attributed_late"),
        *("actor_id", "actor_type", "actor_name", "request_id", "reason", "ip", "session", "tenant", "tags", "enriched"),
        *("extra", "policy", "entity", "previous_entity", "epoch", "position", "transaction_id", "committed_at"),
        *("received_at", "processed_at"),
    ),
    name=f"concat({in_sql('source')}, '.', schema, '.', table)",
    row=ROW,
    tie="toString(event_id)",
    filters=(
        Filter("id", "uuid", "of this id", "event_id = {id:UUID}", example="0b7c0c2e-6f6d-4d0e-9d6e-2f1f3b0d9a11"),
        Filter("source", "text", "of this source", example="shop"),
        Filter("schema", "text", "in this schema", example="public"),
        Filter("table", "text", "of this table, its name alone", example="customers"),
        Filter("operation", "words", "one of these operations", choices=OPERATIONS, example="update,delete"),
        Filter("key", "key", "of the row with this primary key, as a JSON object", example='{"id":7}'),
        Filter("column", "column", "updates that changed this column", example="email"),
        Filter("transaction", "text", "in this transaction", example="4711"),
        Filter("entity", "uuid", "of the row with this stable name", example="0b7c0c2e-6f6d-4d0e-9d6e-2f1f3b0d9a11"),
        Filter("actor", "text", "by this actor, by id or name", example="ann"),
        Filter("request", "text", "in this request", example="r-1"),
        Filter("tenant", "text", "for this tenant", example="acme"),
        Filter("attribution", "words", "where one of these says who did it", choices=tuple(RUNGS), example="message"),
        Filter("label", "text", "with this label of the policy", example="pii"),
        Filter("since", "since", f"committed {_SINCE}", example="2h"),
        Filter("until", "until", f"committed {_UNTIL}", example="2030-01-01"),
        Filter("stubs", "flag", "true: also those of which the policy keeps only a line", example="true"),
    ),
    sorts={
        "time": _micros("committed_at"),
        "processed_at": SortKey("toUnixTimestamp64Micro(processed_at)", "Int64"),
        "source": SortKey("toString(source)"),
        "table": SortKey("concat(source, '.', schema, '.', table)"),
        "operation": SortKey("toString(operation)"),
        "actor": SortKey("ifNull(actor_id, '')", late=True),
        "position": SortKey("leftPad(toString(position), 39, '0')"),
    },
    json=frozenset({"key", "previous_key", "before", "after", "tags", "enriched", "extra"}),
)

TRUTHS = frozenset({"before_known", "attributed_late"})
"""Columns that say yes or no; a view has them as numbers."""
COLLECTIONS: Mapping[str, Collection] = {one.title: one for one in (EVENTS, CHANGES)}


def plain_row(collection: Collection, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as JSON has it: images parsed, times in ISO 8601, ids as texts, and positions, which have 128 bits."""
    made = {name: _plain(row[name], as_json=name in collection.json) for name in collection.columns}
    if "position" in made:
        made["position"] = str(made["position"])
    for name in TRUTHS & made.keys():
        made[name] = bool(made[name])
    return made


def _plain(value: Any, *, as_json: bool) -> Any:
    if as_json:
        return json.loads(value) if value else None
    if isinstance(value, datetime):
        return (value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)).isoformat()
    if isinstance(value, UUID):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
