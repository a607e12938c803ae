"""The transaction topic: BEGIN and END markers, logical messages and rows of the context table, as `TRANSACTIONS` rows.

Counts at END are a hint (fact 37). What Debezium counts and Chronicle does not write as changes is taken out of them:
logical messages, and rows of the context, signal and heartbeat tables.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec
import polars as pl

from chronicle.codec.schema import WriterSchema
from chronicle.codec.times import YEARS_US, from_millis
from chronicle.model.chunk import SourceSpec

MESSAGE_PREFIX = "chronicle"
HEARTBEAT_PREFIX = "chronicle-heartbeat"
_COUNTED_MESSAGE = "LogicalDecodingMessageId"
_KINDS = {"BEGIN": "begin", "END": "end"}
_CONTEXT_COLUMN = "context"
_TECHNICAL = frozenset({"id", "created_at", _CONTEXT_COLUMN})

MARKERS: Mapping[str, pl.DataType] = {
    "transaction_id": pl.String(),
    "kind": pl.String(),
    "occurred_us": pl.Int64(),
    "event_count": pl.UInt64(),
    "tables": pl.List(pl.Struct({"table": pl.String, "count": pl.UInt64})),
}


def markers(frame: pl.DataFrame, schema: WriterSchema, spec: SourceSpec) -> pl.DataFrame:
    """BEGIN and END records as columns `MARKERS`, one row a record; `kind` or `transaction_id` null: not a marker."""
    fields = {column.name for column in schema.columns}
    tables = _tables(schema, spec) if "data_collections" in fields else None
    counted = _number("event_count", pl.UInt64(), fields)
    out = frame.select(
        transaction_id(pl.col("id"), spec).alias("transaction_id"),
        pl.col("status").cast(pl.String).replace_strict(_KINDS, default=None, return_dtype=pl.String).alias("kind"),
        _shown(from_millis(_number("ts_ms", pl.Int64(), fields))).alias("occurred_us"),
        counted.alias("event_count"),
        (tables if tables is not None else pl.lit(None, MARKERS["tables"])).alias("tables"),
    )
    if tables is None:
        return out
    ours = pl.col("tables").list.eval(pl.element().struct.field("count")).list.sum()
    return out.with_columns(
        pl.when(pl.col("kind") == "end").then(pl.coalesce(ours, pl.col("event_count"))).alias("event_count")
    )


def _number(name: str, dtype: pl.DataType, fields: set[str]) -> pl.Expr:
    return pl.col(name).cast(dtype, strict=False) if name in fields else pl.lit(None, dtype)


def _shown(micros: pl.Expr) -> pl.Expr:
    """Null for a time that cannot be written."""
    return pl.when(micros.is_between(*YEARS_US)).then(micros)


def transaction_id(value: pl.Expr, spec: SourceSpec) -> pl.Expr:
    """The id that all records of one transaction share (fact 3): on Postgres the part before the colon."""
    text = value.cast(pl.String)
    return text.str.extract(r"^([^:]+)", 1) if spec.connector == "postgresql" else text


def _tables(schema: WriterSchema, spec: SourceSpec) -> pl.Expr | None:
    """Rows per table as Debezium counted them, without what is no change in Chronicle."""
    inner = getattr(schema["data_collections"].dtype, "inner", None)
    if not isinstance(inner, pl.Struct) or not {"data_collection", "event_count"} <= {one.name for one in inner.fields}:
        return None
    name, count = pl.element().struct.field("data_collection"), pl.element().struct.field("event_count")
    internal = sorted(spec.context_tables | spec.signal_tables | spec.heartbeat_tables)
    own = name.str.contains(_COUNTED_MESSAGE, literal=True) | name.str.extract(r"([^.]+)$", 1).is_in(internal)
    entry = pl.struct(name.alias("table"), count.cast(pl.UInt64, strict=False).alias("count"))
    return pl.col("data_collections").list.eval(entry.filter(~own.fill_null(False)))


MESSAGES: Mapping[str, pl.DataType] = {
    "prefix": pl.String(),
    "content": pl.Binary(),
    "transaction_id": pl.String(),
    "committed_us": pl.Int64(),
}


def messages(frame: pl.DataFrame) -> pl.DataFrame:
    """Logical messages (Postgres only) as columns `MESSAGES`, one row a record.

    `prefix` null: not readable as a message. `transaction_id` null: not transactional. `committed_us` null: not said, or
    outside the years 1 to 9999.
    """
    unreadable = pl.DataFrame(schema=dict(MESSAGES)).clear(len(frame))
    if not all(isinstance(frame.schema.get(name), pl.Struct) for name in ("message", "source")):
        return unreadable
    message, source = ({one.name: one.dtype for one in frame.schema[name].fields} for name in ("message", "source"))  # type: ignore[attr-defined]
    if not {"prefix", "content"} <= message.keys():
        return unreadable
    written = pl.col("message").struct.field("content")
    content = _content(written, message["content"])
    readable = (pl.col("op").cast(pl.String) == "m") & (written.is_null() | content.is_not_null())
    return frame.select(
        pl.when(readable).then(pl.col("message").struct.field("prefix").cast(pl.String)).alias("prefix"),
        content.fill_null(b"").alias("content"),
        (
            pl.col("source").struct.field("txId").cast(pl.Int64, strict=False).cast(pl.String)
            if "txId" in source
            else pl.lit(None, pl.String)
        ).alias("transaction_id"),
        _committed_us(source).alias("committed_us"),
    )


def _content(written: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if dtype == pl.Binary:
        return written
    if dtype == pl.String:  # JSON without a schema: nobody has said that these are bytes in base64
        return written.str.decode("base64", strict=False)
    return pl.lit(None, pl.Binary)


def _committed_us(fields: Collection[str]) -> pl.Expr:
    source = pl.col("source").struct
    times = {name: source.field(name).cast(pl.Int64, strict=False) for name in ("ts_us", "ts_ms") if name in fields}
    if "ts_ms" in times:
        times["ts_ms"] = from_millis(times["ts_ms"])
    return _shown(pl.coalesce(*times.values(), pl.lit(None, pl.Int64)))


def context_of_message(content: bytes) -> dict[str, Any] | None:
    """The JSON object an application wrote; None: it is not one."""
    try:
        value = msgspec.json.decode(content)
    except (msgspec.MsgspecError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def context_of_row(image: str | None) -> dict[str, Any] | None:
    """The context in a row of the context table, from the row's JSON image.

    The column `context`, when it has a JSON object, is the context; the other columns (actor, request, …) join it unless
    they are NULL or technical (id, created_at). None: there is nothing that says anything.
    """
    row = context_of_message(image.encode()) if image else None
    if row is None:
        return None
    written = row.get(_CONTEXT_COLUMN)
    inner = context_of_message(written.encode()) if isinstance(written, str) else None
    if written is not None and inner is None:
        return None
    columns = {name: value for name, value in row.items() if value is not None and name not in _TECHNICAL}
    return {**columns, **(inner or {})} or None


def context_text(context: Mapping[str, Any]) -> str:
    """Canonical JSON text: keys sorted, no spaces."""
    return msgspec.json.encode(context, order="deterministic").decode()
