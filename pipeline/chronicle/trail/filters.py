"""Which changes are meant: filters as a person gives them, and the conditions by which ClickHouse finds them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from chronicle.errors import ConfigError
from chronicle.trail.attribution import RUNGS
from chronicle.trail.reading import micros

ROW = "source, schema, table, entity, event_id"
"""The primary key of `changes`."""
OPERATIONS = ("snapshot", "create", "update", "delete", "truncate")


@dataclass(frozen=True, slots=True)
class Filters:
    """Which changes; None or empty means any. They all hold together.

    Raises:
        ConfigError: a word that there is not, or no time between `since` and `until`.
    """

    source: str | None = None
    schema: str | None = None
    table: str | None = None
    keys: tuple[str, ...] = ()
    """Canonical key texts (`keys.texts`), one of which must match."""
    operations: tuple[str, ...] = ()
    column: str | None = None
    """Updates that changed this column."""
    transaction: str | None = None
    since: datetime | None = None
    """Committed at this time or later."""
    until: datetime | None = None
    """Committed before this time."""
    entities: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    """Of which the change has one."""
    actor: str | None = None
    """Id or name of who did it."""
    request: str | None = None
    tenant: str | None = None
    attributions: tuple[str, ...] = ()
    """Rungs (`attribution.RUNGS`), one of which says who did it."""
    stubs: bool = True
    """False: without the changes that the policy left out."""

    def __post_init__(self) -> None:
        _choose("an operation", OPERATIONS, self.operations)
        _choose("an attribution", RUNGS, self.attributions)
        if self.since and self.until and self.since >= self.until:
            raise ConfigError("choose a --since before --until: no time lies between these two")


@dataclass(frozen=True, slots=True)
class Where:
    """Conditions in SQL, which take their values from `parameters`."""

    stored: str
    """What a change itself answers; of the view and of `changes`."""
    said: str
    """What only the view answers, because a context may have come late; empty when nothing of the kind is asked."""
    narrowing: str
    """True for every change for which the others are: it says by other indexes where to look."""
    few: bool
    """It leaves so few that the rest may be asked of each of them at once."""
    parameters: Mapping[str, Any]

    @property
    def text(self) -> str:
        """All conditions, for the view `attributed_changes`."""
        return " AND ".join(each for each in (self.stored, self.said, self.narrowing) if each)

    @property
    def source(self) -> str:
        """What to count from, FROM's table and the conditions: no more is read than it takes to answer them."""
        if self.said:
            return f"{{database:Identifier}}.attributed_changes WHERE {self.text}"
        return f"{{database:Identifier}}.changes FINAL WHERE {self.stored}"


def where(filters: Filters) -> Where:
    """The conditions of the filters that are set."""
    stored = {
        "source = {source:String}": filters.source,
        "schema = {schema:String}": filters.schema,
        "table = {table:String}": filters.table,
        "key IN {keys:Array(String)}": filters.keys,
        "operation IN {operations:Array(String)}": filters.operations,
        "has(changed, {column:String})": filters.column,
        "transaction_id = {transaction:String}": filters.transaction,
        "entity IN {entities:Array(UUID)}": filters.entities,
        "hasAny(labels, {labels:Array(String)})": filters.labels,
        "committed_at >= fromUnixTimestamp64Micro({since:Int64}, 'UTC')": filters.since and micros(filters.since),
        "committed_at < fromUnixTimestamp64Micro({until:Int64}, 'UTC')": filters.until and micros(filters.until),
    }
    fields = {
        name: value
        for name, value in (("actor", filters.actor), ("request", filters.request), ("tenant", filters.tenant))
        if _is_set(value)
    }
    said = {**{_FIELDS[name][0]: value for name, value in fields.items()}, _RUNGS: filters.attributions}
    set_ = {condition: value for condition, value in {**stored, **said}.items() if _is_set(value)}
    of_changes = [condition for condition in set_ if condition in stored] + ([] if filters.stubs else ["stub = ''"])
    text = " AND ".join(of_changes) or "1"
    few = bool(filters.keys or filters.entities or filters.transaction or filters.request)
    few = few or filters.operations == ("truncate",)
    return Where(
        text,
        " AND ".join(condition for condition in set_ if condition in said),
        _narrowing(tuple(fields), text, few=few),
        few,
        {_parameter(condition): list(value) if isinstance(value, tuple) else value for condition, value in set_.items()},
    )


_RUNGS = "attribution IN {attributions:Array(String)}"
_SAID = "tupleElement(best_context, 'text')"
_FIELDS: Mapping[str, tuple[str, str]] = {
    "actor": (
        "(actor_id = {actor:String} OR actor_name = {actor:String})",
        f"{{actor:String}} IN (JSONExtractString({_SAID}, 'actor', 'id'), JSONExtractString({_SAID}, 'actor', 'name'), "
        f"JSONExtractString({_SAID}, 'actor'))",
    ),
    "request": ("request_id = {request:String}", f"JSONExtractString({_SAID}, 'request_id') = {{request:String}}"),
    "tenant": ("tenant = {tenant:String}", f"JSONExtractString({_SAID}, 'tenant') = {{tenant:String}}"),
}
"""By filter on what a context says: the condition on a change, and on a context in `transactions`."""


def _narrowing(fields: Sequence[str], stored: str, *, few: bool) -> str:
    """Where to look, by indexes that the view's own query cannot use: FINAL reads whatever a skip index leaves together with
    all that lies between, and what is taken from a context has no index.

    `fields`: what is asked of contexts. `few`: few changes are meant, so it pays to ask first for their transactions.
    """
    found = f"FROM {{database:Identifier}}.changes WHERE {stored}"
    if fields:
        written, said = (" AND ".join(_FIELDS[name][side] for name in fields) for side in (0, 1))
        transactions = f"SELECT transaction_id FROM {{database:Identifier}}.transactions WHERE {said}"  # noqa: S608
        found += f" AND ({written} OR attribution != 'message' AND transaction_id IN ({transactions}))"
    by_row = f"({ROW}) IN (SELECT {ROW} {found})"
    by_transaction = f"transaction_key IN (SELECT ifNull(transaction_id, '') {found})"
    return f"{by_row} AND {by_transaction}" if few else by_row if fields else ""


def _is_set(value: Any) -> bool:
    return value not in (None, (), "")


def _parameter(condition: str) -> str:
    return condition.partition("{")[2].partition(":")[0]


def _choose(what: str, there_are: Sequence[str], words: Sequence[str]) -> None:
    wrong = [word for word in words if word not in there_are]
    if wrong:
        raise ConfigError(f"choose {what} from {', '.join(there_are)}: there is no {wrong[0]!r}")
