"""Changes by filter: what `chronicle changes` lists and `history` builds on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from clickhouse_connect.driver.client import Client

from chronicle.errors import ConfigError
from chronicle.trail.reading import micros, rows
from chronicle.trail.tables import TableName

OPERATIONS = ("snapshot", "create", "update", "delete", "truncate")
COLUMNS = (
    "event_id, source, connector, schema, table, entity, operation, key, previous_key, previous_entity, before, after, "
    "before_known, changed, unavailable, epoch, position, transaction_id, transaction_order, topic, partition, offset, "
    "committed_at, captured_at, received_at, processed_at, inserted_at"
)


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
    epoch: int
    position: int
    transaction_id: str | None
    transaction_order: int | None
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


@dataclass(frozen=True, slots=True)
class Filters:
    """Which changes; None or empty means any. They all hold together."""

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

    def __post_init__(self) -> None:
        wrong = [operation for operation in self.operations if operation not in OPERATIONS]
        if wrong:
            raise ConfigError(f"choose an operation from {', '.join(OPERATIONS)}: there is no {wrong[0]!r}")
        if self.since and self.until and self.since >= self.until:
            raise ConfigError("choose a --since before --until: no time lies between these two")


@dataclass(frozen=True, slots=True)
class _Where:
    """Conditions and their bound values, built from the filters that are set."""

    conditions: list[str] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)

    def add(self, condition: str, name: str, value: Any) -> None:
        if value not in (None, (), ""):
            self.conditions.append(condition)
            self.parameters[name] = list(value) if isinstance(value, tuple) else value

    def text(self) -> str:
        return " AND ".join(self.conditions) or "1"


def _where(filters: Filters) -> _Where:
    where = _Where()
    where.add("source = {source:String}", "source", filters.source)
    where.add("schema = {schema:String}", "schema", filters.schema)
    where.add("table = {table:String}", "table", filters.table)
    where.add("key IN {keys:Array(String)}", "keys", filters.keys)
    where.add("operation IN {operations:Array(String)}", "operations", filters.operations)
    where.add("has(changed, {column:String})", "column", filters.column)
    where.add("transaction_id = {transaction:String}", "transaction", filters.transaction)
    where.add("entity IN {entities:Array(UUID)}", "entities", filters.entities)
    since = None if filters.since is None else micros(filters.since)
    until = None if filters.until is None else micros(filters.until)
    where.add("committed_at >= fromUnixTimestamp64Micro({since:Int64}, 'UTC')", "since", since)
    where.add("committed_at < fromUnixTimestamp64Micro({until:Int64}, 'UTC')", "until", until)
    return where


def changes(client: Client, database: str, filters: Filters, *, limit: int) -> list[Change]:
    """The newest `limit` changes that match, oldest of them first.

    Within one source the order is that of `position`, the only order there is; over several sources it is the time of
    commit, which MySQL keeps to the second.
    """
    where = _where(filters)
    order = "position" if filters.source else "committed_at"
    sql = f"""
        SELECT {COLUMNS} FROM {{database:Identifier}}.changes FINAL WHERE {where.text()}
        ORDER BY {order} DESC, position DESC, event_id DESC LIMIT {{limit:UInt64}}
    """  # noqa: S608  (built from this module's own texts; every value is bound)
    found = rows(client, sql, {**where.parameters, "database": database, "limit": limit})
    return [_change(row) for row in reversed(found)]


def counts(client: Client, database: str, filters: Filters) -> list[tuple[TableName, Mapping[str, int]]]:
    """Per table, how many changes by operation match."""
    where = _where(filters)
    sql = f"""
        SELECT source, schema, table, operation, count() AS n FROM {{database:Identifier}}.changes FINAL
        WHERE {where.text()} GROUP BY source, schema, table, operation ORDER BY ALL
    """  # noqa: S608  (built from this module's own texts; every value is bound)
    by_table: dict[TableName, dict[str, int]] = {}
    for row in rows(client, sql, {**where.parameters, "database": database}):
        by_table.setdefault(TableName(row["source"], row["schema"], row["table"]), {})[row["operation"]] = row["n"]
    return list(by_table.items())


def _change(row: Mapping[str, Any]) -> Change:
    return Change(
        event_id=str(row["event_id"]),
        name=TableName(row["source"], row["schema"], row["table"]),
        connector=row["connector"],
        entity=str(row["entity"]),
        operation=row["operation"],
        key=parsed(row["key"]),
        previous_key=parsed(row["previous_key"]),
        previous_entity=None if row["previous_entity"] is None else str(row["previous_entity"]),
        before=parsed(row["before"]),
        after=parsed(row["after"]),
        before_known=row["before_known"],
        changed=tuple(row["changed"]),
        unavailable=tuple(row["unavailable"]),
        epoch=row["epoch"],
        position=row["position"],
        transaction_id=row["transaction_id"],
        transaction_order=row["transaction_order"],
        topic=row["topic"],
        partition=row["partition"],
        offset=row["offset"],
        committed_at=row["committed_at"],
        captured_at=row["captured_at"],
        received_at=row["received_at"],
        processed_at=row["processed_at"],
        inserted_at=row["inserted_at"],
    )


def parsed(text: str | None) -> Mapping[str, Any] | None:
    """An image or key: None when absent (a keyless table's key is the empty text)."""
    value: Mapping[str, Any] | None = json.loads(text) if text else None
    return value
