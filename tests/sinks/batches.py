"""Batches for tests of sinks, made from frames as the contract has them, without any decoding."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl

from chronicle.model.batch import Batch, MirrorColumn, TableRows
from chronicle.model.columns import CHANGES, TRANSACTIONS, empty
from chronicle.model.dead_letters import DeadLetter, Reason, Stage
from chronicle.model.event_columns import EVENTS

START = datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC)
COLUMNS = (
    MirrorColumn("id", "Int64", key=True),
    MirrorColumn("name", "Nullable(String)"),
    MirrorColumn("state", "Nullable(Enum16('new' = 1, 'done' = 2))"),
    MirrorColumn("amount", "Nullable(Decimal(10, 2))"),
    MirrorColumn("tags", "Array(Nullable(String))"),
)
DTYPES: dict[str, Any] = {
    "id": pl.Int64,
    "name": pl.String,
    "state": pl.String,
    "amount": pl.Decimal(10, 2),
    "tags": pl.List(pl.String),
}
META: dict[str, Any] = {
    "_row": pl.UInt32,
    "_deleted": pl.UInt8,
    "_unavailable": pl.List(pl.String),
    "_flags": pl.List(pl.String),
    "_nulls": pl.List(pl.String),
}


def digest(*parts: object) -> bytes:
    """16 bytes that stand for a keyed hash."""
    return hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=16).digest()


def change(
    source: str, at: int, *, table: str = "customers", key: int = 1, operation: str = "create", **others: Any
) -> dict[str, Any]:
    """One row of the changes frame; `at` orders it and makes it unlike the others."""
    truncate = operation == "truncate"
    row: dict[str, Any] = {
        "event_id": digest("event", source, table, at),
        "source": source,
        "connector": "postgresql",
        "schema": "public",
        "table": table,
        "entity": digest("entity", source, table, None if truncate else key),
        "operation": operation,
        "key": "" if truncate else f'{{"id":{key}}}',
        "previous_key": None,
        "previous_entity": None,
        "before": None if operation in ("create", "snapshot", "truncate") else f'{{"id":{key},"name":"before"}}',
        "after": None if operation in ("delete", "truncate") else f'{{"id":{key},"name":"row {at}"}}',
        "before_known": True,
        "changed": ["name"] if operation == "update" else [],
        "unavailable": [],
        "labels": [],
        "violations": [],
        "stub": "",
        "policy": "0123456789abcdef",
        "epoch": 0,
        "position_hi": 1000 + at,
        "position_lo": 2 * at + 1,
        "transaction_id": "501",
        "transaction_order": at,
        "attribution": "message",
        "actor_id": "ann",
        "actor_type": "user",
        "actor_name": None,
        "request_id": "r-1",
        "reason": None,
        "ip": None,
        "session": None,
        "tenant": None,
        "tags": '{"ticket":"4711"}',
        "attributed_at": START + timedelta(hours=1),
        "enriched": None,
        "extra": None,
        "topic": f"{source}.public.{table}",
        "partition": 0,
        "offset": at,
        "schema_id": 7,
        "committed_at": START + timedelta(seconds=at),
        "captured_at": START + timedelta(seconds=at, milliseconds=3),
        "received_at": START + timedelta(seconds=at, milliseconds=5),
        "processed_at": START + timedelta(hours=1),
    }
    return row | others


def frame(changes: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """The changes frame."""
    return pl.DataFrame(list(changes), schema={spec.name: spec.dtype for spec in CHANGES}, orient="row")


def mirror(
    source: str,
    rows: Sequence[dict[str, Any]],
    *,
    table: str = "customers",
    columns: tuple[MirrorColumn, ...] = COLUMNS,
    dtypes: dict[str, Any] | None = None,
) -> TableRows:
    """Mirror rows: values by column name (absent: NULL) and, where not 0 or empty, the columns of `META`."""
    kinds = DTYPES | (dtypes or {})
    defaults: dict[str, Any] = {"_deleted": 0, "_unavailable": [], "_flags": [], "_nulls": [], "tags": []}
    names = [column.name for column in columns]
    schema = {name: kinds[name] for name in names} | META
    filled = [{name: row.get(name, defaults.get(name)) for name in schema} for row in rows]
    return TableRows(source, "public", table, columns, pl.DataFrame(filled, schema=schema, orient="row"))


def context(source: str, transaction: str, at: int, text: str = '{"actor":"ann"}', rung: str = "message") -> dict[str, Any]:
    """One context record of the transaction topic."""
    return transaction_record(source, transaction, at, "context") | {"context": text, "rung": rung}


def transaction_record(source: str, transaction: str, at: int, kind: str, **others: Any) -> dict[str, Any]:
    """One record of the transaction topic."""
    row: dict[str, Any] = {
        "source": source,
        "epoch": 0,
        "transaction_id": transaction,
        "kind": kind,
        "occurred_at": START + timedelta(seconds=at),
        "event_count": None,
        "tables": None,
        "context": None,
        "rung": None,
        "topic": f"{source}.transaction",
        "partition": 0,
        "offset": at,
        "processed_at": START + timedelta(hours=1),
    }
    return row | others


def transactions(records: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """The transactions frame."""
    return pl.DataFrame(list(records), schema={spec.name: spec.dtype for spec in TRANSACTIONS}, orient="row")


def event(source: str, at: int, **others: Any) -> dict[str, Any]:
    """One row of the events frame; `at` orders it and makes it unlike the others."""
    row: dict[str, Any] = {
        "event_id": digest("said", source, at),
        "type": "security.login",
        "time": START + timedelta(seconds=at),
        "source": source,
        "action": "login",
        "resource_type": "user",
        "resource_id": str(at),
        "outcome": "success",
        "priority": "normal",
        "tenant": None,
        "actor_id": "ann",
        "actor_type": "user",
        "actor_name": None,
        "description": None,
        "reason": None,
        "request_id": "r-1",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "span_id": None,
        "ip": None,
        "session": None,
        "payload": '{"method":"passkey"}',
        "tags": None,
        "labels": [],
        "violations": [],
        "policy": "0123456789abcdef",
        "topic": "chronicle.events",
        "partition": 0,
        "offset": at,
        "received_at": START + timedelta(seconds=at, milliseconds=5),
        "processed_at": START + timedelta(hours=1),
    }
    return row | others


def another(value: Any) -> Any:
    """A value of the same kind that is not this one."""
    if isinstance(value, bytes):
        return digest("another", value)
    if isinstance(value, datetime):
        return value + timedelta(hours=2)
    if isinstance(value, list):
        return [*value, "another"]
    if isinstance(value, int):
        return value + 1
    return '{"another":1}' if value is None or value.startswith("{") else f"{value}x"


def events_frame(events: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """The events frame."""
    return pl.DataFrame(list(events), schema={spec.name: spec.dtype for spec in EVENTS}, orient="row")


def dead_letter(source: str, offset: int, **others: Any) -> DeadLetter:
    """A record that did not decode; its value is a secret that no store may show."""
    values: dict[str, Any] = {
        "topic": f"{source}.public.customers",
        "partition": 0,
        "offset": offset,
        "timestamp_ms": int(START.timestamp() * 1000),
        "key": b"\x00key",
        "value": b"\x00secret-value",
        "headers": (("chronicle.epoch", b"0"), ("trace", b"\xff\x00")),
        "stage": Stage.DECODE,
        "reason": Reason.NOT_DECODABLE,
        "detail": "truncated datum",
        "schema_id": 7,
    }
    return DeadLetter(**(values | others))


def batch(
    changes: Sequence[dict[str, Any]] = (),
    tables: Sequence[TableRows] = (),
    records: Sequence[dict[str, Any]] = (),
    dead_letters: Sequence[DeadLetter] = (),
    events: Sequence[dict[str, Any]] = (),
) -> Batch:
    """A batch of these."""
    return Batch(
        frame(changes) if changes else empty(CHANGES),
        tuple(tables),
        transactions(records) if records else empty(TRANSACTIONS),
        tuple(dead_letters),
        events=events_frame(events),
    )


def plain(source: str, count: int, *, states: Sequence[str | None] = ("new", "done", None)) -> Batch:
    """`count` creates of rows 0 … with their mirror rows; `states` are given in turn."""
    changes = [change(source, at, key=at) for at in range(count)]
    rows = [
        {
            "_row": at,
            "id": at,
            "name": f"row {at}",
            "state": states[at % len(states)],
            "amount": Decimal(f"{at}.50"),
            "tags": ["a", None],
        }
        for at in range(count)
    ]
    return batch(changes, [mirror(source, rows)])
