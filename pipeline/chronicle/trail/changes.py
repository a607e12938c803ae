"""Changes by filter, with the best that is known of who did them: what `chronicle changes` lists and `history` builds on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from clickhouse_connect.driver.client import Client

from chronicle.trail.filters import ROW, Filters, Where, where
from chronicle.trail.reading import micros, rows
from chronicle.trail.tables import TableName

__all__ = ["Actor", "Change", "Filters", "changes", "counts", "labels", "left_out", "parsed"]

_AS_STORED = (
    *("connector", "operation", "stub", "before_known", "policy", "epoch", "position", "transaction_id", "transaction_order"),
    *("attribution", "request_id", "reason", "ip", "session", "tenant", "attributed_at"),
    *("topic", "partition", "offset", "committed_at", "captured_at", "received_at", "processed_at", "inserted_at"),
)
_LISTS = ("changed", "unavailable", "labels", "violations")
_JSON = ("key", "previous_key", "before", "after", "tags", "enriched", "extra")
_ACTOR = ("actor_id", "actor_type", "actor_name")
_MADE = ("event_id", "source", "schema", "table", "entity", "previous_entity", "attributed_late")
_COLUMNS = ", ".join((*_MADE, *_AS_STORED, *_LISTS, *_JSON, *_ACTOR))


@dataclass(frozen=True, slots=True)
class Actor:
    """Who did it, as far as it was said."""

    id: str | None
    type: str | None
    name: str | None

    @property
    def shown(self) -> str:
        """How a person calls it: the name, or the id."""
        return self.name or self.id or self.type or ""

    def as_json(self) -> dict[str, Any]:
        """For a pipe."""
        return {"id": self.id, "type": self.type, "name": self.name}


@dataclass(frozen=True, slots=True)
class Change:
    """One change as the trail holds it. Images and keys are parsed JSON; None where there is none or it is not known."""

    event_id: str
    name: TableName
    connector: str
    entity: str
    operation: str
    key: Mapping[str, Any] | None
    previous_key: Mapping[str, Any] | None
    previous_entity: str | None
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    before_known: bool
    changed: tuple[str, ...]
    unavailable: tuple[str, ...]
    labels: tuple[str, ...]
    violations: tuple[str, ...]
    stub: str
    """Why the policy left it out: ignored, filtered, sampled or skipped. Then it has no images. Empty: it is told whole."""
    policy: str
    epoch: int
    position: int
    transaction_id: str | None
    transaction_order: int | None
    attribution: str
    """What says who did it: message, table, comment or row; pending; none. What came late is counted in."""
    actor: Actor | None
    request_id: str | None
    reason: str | None
    ip: str | None
    session: str | None
    tenant: str | None
    tags: Mapping[str, Any] | None
    attributed_at: datetime | None
    attributed_late: bool
    """The context was read only after the change had been written."""
    enriched: Mapping[str, Any] | None
    extra: Mapping[str, Any] | None
    topic: str
    partition: int
    offset: int
    committed_at: datetime
    captured_at: datetime
    received_at: datetime
    processed_at: datetime
    inserted_at: datetime

    def as_json(self) -> dict[str, Any]:
        """For a pipe: nouns flat, the position as a string (it has 128 bits), times in ISO 8601."""
        return {
            "event_id": self.event_id,
            "source": self.name.source,
            "schema": self.name.schema,
            "table": self.name.table,
            "operation": self.operation,
            "key": self.key,
            "previous_key": self.previous_key,
            "before": self.before,
            "after": self.after,
            "before_known": self.before_known,
            "changed": list(self.changed),
            "unavailable": list(self.unavailable),
            "labels": list(self.labels),
            "violations": list(self.violations),
            "stub": self.stub,
            "attribution": self.attribution,
            "actor": None if self.actor is None else self.actor.as_json(),
            "request_id": self.request_id,
            "reason": self.reason,
            "ip": self.ip,
            "session": self.session,
            "tenant": self.tenant,
            "tags": self.tags,
            "attributed_at": None if self.attributed_at is None else self.attributed_at.isoformat(),
            "attributed_late": self.attributed_late,
            "enriched": self.enriched,
            "extra": self.extra,
            "policy": self.policy,
            "entity": self.entity,
            "previous_entity": self.previous_entity,
            "epoch": self.epoch,
            "position": str(self.position),
            "transaction_id": self.transaction_id,
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "committed_at": self.committed_at.isoformat(),
            "captured_at": self.captured_at.isoformat(),
            "received_at": self.received_at.isoformat(),
            "processed_at": self.processed_at.isoformat(),
            "inserted_at": self.inserted_at.isoformat(),
        }


def changes(client: Client, database: str, filters: Filters, *, limit: int) -> list[Change]:
    """The newest `limit` changes that match, oldest of them first.

    Within one source the order is that of `position`, the only order there is; over several sources it is the time of
    commit, which MySQL keeps to the second. Raises as `reading.rows`.
    """
    asked = where(filters)
    order = f"ORDER BY {_order(filters)} DESC, position DESC, event_id DESC LIMIT {{limit:UInt64}}"
    condition = asked.text
    if asked.said and not asked.few:  # the view answers that row by row: no images are read before it is known which are wanted
        newest = f"SELECT {ROW} FROM {{database:Identifier}}.attributed_changes WHERE {condition} {order}"  # noqa: S608
        condition = f"{asked.stored} AND ({ROW}) IN ({newest})"
    sql = f"SELECT {_COLUMNS} FROM {{database:Identifier}}.attributed_changes WHERE {condition} {order}"  # noqa: S608
    return [_change(row) for row in reversed(rows(client, sql, _bound(asked, database, limit=limit)))]


def counts(client: Client, database: str, filters: Filters) -> list[tuple[TableName, Mapping[str, int]]]:
    """Per table, how many changes by operation match. Raises as `reading.rows`."""
    asked = where(filters)
    sql = f"""
        SELECT source, schema, table, operation, count() AS n FROM {asked.source}
        GROUP BY source, schema, table, operation ORDER BY ALL
    """  # noqa: S608  (built from these modules' own texts; every value is bound)
    by_table: dict[TableName, dict[str, int]] = {}
    for row in rows(client, sql, _bound(asked, database)):
        by_table.setdefault(TableName(row["source"], row["schema"], row["table"]), {})[row["operation"]] = row["n"]
    return list(by_table.items())


def left_out(client: Client, database: str, filters: Filters, *, since: Change | None = None) -> int:
    """How many of the changes that match are stubs, whether or not `filters` wants them.

    `since`: only from this change on, in the order of `changes`. Raises as `reading.rows`.
    """
    if filters.column or filters.labels:
        return 0  # a stub names no columns and has no labels
    asked = where(replace(filters, stubs=True))
    condition, bound = "stub != ''", _bound(asked, database)
    if since is not None:
        newer, oldest = _NEWER[_order(filters)], str(since.position) if filters.source else micros(since.committed_at)
        condition, bound = f"{condition} AND {newer}", {**bound, "oldest": oldest}
    sql = f"SELECT count() AS n FROM {asked.source} AND {condition}"  # noqa: S608
    return int(rows(client, sql, bound)[0]["n"])


_NEWER = {
    "position": "position >= {oldest:UInt128}",
    "committed_at": "committed_at >= fromUnixTimestamp64Micro({oldest:Int64}, 'UTC')",
}


def labels(client: Client, database: str) -> list[str]:
    """All labels that a change has, by name. Raises as `reading.rows`."""
    sql = "SELECT DISTINCT arrayJoin(labels) AS label FROM {database:Identifier}.changes ORDER BY label"
    return [row["label"] for row in rows(client, sql, {"database": database})]


def parsed(text: str | None) -> Mapping[str, Any] | None:
    """An image or key: None when absent (a keyless table's key is the empty text)."""
    value: Mapping[str, Any] | None = json.loads(text) if text else None
    return value


def _order(filters: Filters) -> str:
    return "position" if filters.source else "committed_at"


def _bound(asked: Where, database: str, **more: Any) -> dict[str, Any]:
    return {**asked.parameters, "database": database, **more}


def _change(row: Mapping[str, Any]) -> Change:
    actor = Actor(*(row[name] for name in _ACTOR))
    facts: dict[str, Any] = {name: row[name] for name in _AS_STORED}
    facts |= {name: tuple(row[name]) for name in _LISTS}
    facts |= {name: parsed(row[name]) for name in _JSON}
    return Change(
        event_id=str(row["event_id"]),
        name=TableName(row["source"], row["schema"], row["table"]),
        entity=str(row["entity"]),
        previous_entity=None if row["previous_entity"] is None else str(row["previous_entity"]),
        attributed_late=bool(row["attributed_late"]),
        actor=None if actor == Actor(None, None, None) else actor,
        **facts,
    )
