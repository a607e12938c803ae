"""Frames as the Arrow tables that ClickHouse takes: 128-bit columns, column names and types as in the DDL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from chronicle.model.columns import CHANGES, MEANING, STORED_MS
from chronicle.model.dead_letters import DeadLetter

_OLDEST = pl.CompatLevel.oldest()  # ClickHouse reads plain Arrow strings and lists, not views
_SIXTEEN = pa.binary(16)
_RUNGS = {"message": 2, "table": 1}
_PLAIN = [spec.name for spec in CHANGES if spec.dtype != pl.Binary and not spec.name.startswith("position_")]
_IDENTIFIERS = [spec.name for spec in CHANGES if spec.dtype == pl.Binary and spec.name != "event_id"]
_NULLABLE = frozenset(spec.name for spec in CHANGES if "Nullable" in spec.clickhouse)
_SELDOM = frozenset(MEANING) | {"previous_key", "previous_entity", "unavailable"}
"""Columns that most batches have nothing in: then they are not sent at all."""

Halves = np.ndarray[tuple[int, int], np.dtype[np.uint64]]


def plain(frame: pl.DataFrame) -> Any:
    """Any frame without 128-bit columns."""
    table = frame.to_arrow(compat_level=_OLDEST)
    for i, field in enumerate(table.schema):
        if pa.types.is_temporal(field.type) and table.column(i).null_count:
            table = table.set_column(i, field, _zeroed(table.column(i)))
    return table


def _zeroed(column: Any) -> Any:
    """Zero under every NULL: ClickHouse keeps what lies there, and readers that convert before they look for NULL choke."""
    bits = pa.int32() if column.type.bit_width == 32 else pa.int64()
    whole = column.combine_chunks()
    values = whole.view(bits).fill_null(0).to_numpy()
    return pa.array(values, mask=whole.is_null().to_numpy(zero_copy_only=False)).view(column.type)


def sixteen(series: pl.Series) -> Any:
    """16-byte Binary (an identifier in its own byte order) as UUID's Arrow type; nulls stay."""
    return series.to_arrow(compat_level=_OLDEST).cast(_SIXTEEN)


@dataclass(frozen=True, slots=True)
class Places:
    """Event ids and positions of a batch's changes, made once and picked from for each mirror."""

    events: Halves
    positions: Halves

    @classmethod
    def of(cls, frame: pl.DataFrame) -> Places:
        """From the columns `event_id`, `position_hi`, `position_lo`."""
        positions = np.empty((len(frame), 2), "<u8")
        positions[:, 0] = frame["position_lo"].to_numpy()
        positions[:, 1] = frame["position_hi"].to_numpy()
        return cls(np.frombuffer(b"".join(frame["event_id"].to_list()), "<u8").reshape(len(frame), 2), positions)

    def at(self, rows: pl.Series) -> Places:
        """Those of some rows (indexes), in their order."""
        index = rows.to_numpy()
        return Places(self.events[index], self.positions[index])

    def columns(self) -> tuple[Any, Any]:
        """Arrow columns for UUID (the digest as it is) and UInt128 (little-endian, fact 44)."""
        return _of_halves(self.events), _of_halves(self.positions)


def _of_halves(halves: Halves) -> Any:
    return pa.FixedSizeBinaryArray.from_buffers(_SIXTEEN, len(halves), [None, pa.py_buffer(np.ascontiguousarray(halves))])


def changes(frame: pl.DataFrame, places: Places) -> Any:
    """Rows of the table `changes`; `places` are the frame's."""
    table = plain(frame.select(name for name in _PLAIN if name not in _SELDOM or not _is_default(frame[name])))
    events, positions = places.columns()
    table = table.append_column("event_id", events).append_column("position", positions)
    for name in _IDENTIFIERS:
        if name not in _SELDOM or not _is_default(frame[name]):
            table = table.append_column(name, sixteen(frame[name]))
    return table


def _is_default(column: pl.Series) -> bool:
    """Whether every row has what ClickHouse takes for a column that is not sent: NULL where it may be, else the empty value."""
    if column.name in _NULLABLE:
        return column.null_count() == len(column)
    return not column.list.len().sum() if isinstance(column.dtype, pl.List) else bool((column == "").all())


def events(frame: pl.DataFrame) -> Any:
    """Rows of the table `events`."""
    return plain(frame.drop("event_id")).append_column("event_id", sixteen(frame["event_id"]))


def mirror(frame: pl.DataFrame, columns: Sequence[tuple[str, str, str]], places: Places, more: Sequence[str] = ()) -> Any:
    """Rows of a mirror: (frame column, mirror column, its ClickHouse type) each, the mirror's own columns, and `more`."""
    schema = frame.schema
    apart = {source for source, _, kind in columns if schema[source] == pl.Binary and _is_sixteen(kind)}
    own = [(name, name) for name in ("_deleted", "_unavailable", "_flags", "_nulls", *more)]
    pairs = [(source, name) for source, name, _ in columns if source not in apart] + own
    table = plain(frame.select(source for source, _ in pairs)).rename_columns([name for _, name in pairs])
    for source, name, _ in columns:
        if source in apart:
            table = table.append_column(name, sixteen(frame[source]))
    events, positions = places.columns()
    return table.append_column("_event_id", events).append_column("_position", positions)


def _is_sixteen(kind: str) -> bool:
    return kind.removeprefix("Nullable(").removesuffix(")") in ("UUID", "UInt128", "Int128")


def transactions(frame: pl.DataFrame) -> Any:
    """Rows of the table `transactions`: each record fills the columns it knows, the table's merge does the rest."""
    kind = pl.col("kind")
    table = plain(
        frame.select(
            "source",
            "epoch",
            "transaction_id",
            pl.when(kind == "begin").then("occurred_at").alias("began_at"),
            pl.when(kind == "end").then("occurred_at").alias("ended_at"),
            pl.when(kind == "end").then("event_count").alias("event_count"),
            pl.when(kind == "end").then("tables").fill_null([]).alias("tables"),
            pl.when(kind == "begin").then(pl.concat_list("offset")).otherwise(pl.lit([], pl.List(pl.UInt64))).alias("begins"),
            "processed_at",
        )
    )
    context = frame.select(
        rank=pl.when(kind == "context").then(pl.col("rung").replace_strict(_RUNGS, default=0)).otherwise(0).cast(pl.UInt8),
        at=pl.when(kind == "context").then("offset").otherwise(0).cast(pl.UInt64),
        text=pl.when(kind == "context").then("context").otherwise(pl.lit("")).fill_null(""),
    )
    best = plain(context).to_struct_array()
    at = table.schema.get_field_index("tables")
    return table.set_column(at, "tables", _map(table.column(at))).append_column("best_context", best)


def _map(column: Any) -> Any:
    """Lists of pairs as Arrow's maps: from 26.9 on ClickHouse takes nothing else for a Map."""
    whole = column.combine_chunks()
    pairs = whole.values
    return pa.MapArray.from_arrays(whole.offsets, pairs.field(0), pairs.field(1))


def dead_letters(letters: Sequence[DeadLetter], *, failed_at_us: int, version: str) -> Any:
    """Rows of the table `dead_letters`: never the payload."""
    low, high = STORED_MS
    return pa.table(
        {
            "topic": [each.topic for each in letters],
            "partition": pa.array([each.partition for each in letters], pa.uint32()),
            "offset": pa.array([each.offset for each in letters], pa.uint64()),
            "timestamp": pa.array([min(max(each.timestamp_ms, low), high) for each in letters], pa.timestamp("ms", "UTC")),
            "stage": [str(each.stage) for each in letters],
            "reason": [str(each.reason) for each in letters],
            "detail": [each.detail for each in letters],
            "schema_id": pa.array([each.schema_id for each in letters], pa.uint32()),
            "key_bytes": pa.array([None if each.key is None else len(each.key) for each in letters], pa.uint64()),
            "value_bytes": pa.array([None if each.value is None else len(each.value) for each in letters], pa.uint64()),
            "version": [version] * len(letters),
            "failed_at": pa.array([failed_at_us] * len(letters), pa.timestamp("us", "UTC")),
        }
    )


def encoded(table: Any, head: bytes = b"") -> bytes:
    """`head`, and the table in Arrow's file format, for ClickHouse's format `Arrow`. Copies each column once."""
    parts = _Parts([head])
    with pa.PythonFile(parts, "w") as file, pa.RecordBatchFileWriter(file, table.schema) as writer:
        writer.write(table)
    return b"".join(parts.buffers)


@dataclass(frozen=True, slots=True)
class _Parts:
    """A file that keeps what is written to it as it is."""

    buffers: list[Any]
    closed = False

    def write(self, data: Any) -> None:
        self.buffers.append(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Nothing to close."""
