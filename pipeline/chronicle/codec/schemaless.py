"""Types for JSON without a schema, guessed from the values of one batch.

What Debezium itself writes (source block, transaction block, times) has its known types; a table's columns are Boolean,
Int64, Float64 or String, and everything else (objects, arrays, numbers that no float holds exactly, mixtures) is kept
as its JSON text. A guess can differ from batch to batch: use Avro or JSON with schemas where types matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec
import polars as pl

from chronicle.codec.columns import Column, Kind, WriterSchema, kind_of, row_of, struct_column, text_column

_EXACT_INTEGER_MAX = 2**53
_LONG = pl.Int64()
_TEXT = pl.String()

_KNOWN: Mapping[str, pl.DataType] = {
    **dict.fromkeys(("ts_ms", "ts_us", "ts_ns", "txId", "lsn", "xmin", "origin_lsn", "server_id", "pos", "thread"), _LONG),
    **dict.fromkeys(("event_count", "total_order", "data_collection_order", "timestamp"), _LONG),
    "row": pl.Int32(),
    **dict.fromkeys(("op", "status", "id", "version", "connector", "name", "snapshot", "db", "sequence"), _TEXT),
    **dict.fromkeys(("schema", "table", "gtid", "file", "query", "origin", "prefix", "type", "aggregate_type"), _TEXT),
    "content": pl.Binary(),
}


def _block(name: str, *fields: str) -> Column:
    return struct_column(name, tuple(Column(one, _KNOWN.get(one, _TEXT)) for one in fields))


_COLLECTION = _block("item", "data_collection", "event_count")
_BLOCKS: Mapping[str, Column] = {
    "transaction": _block("transaction", "id", "total_order", "data_collection_order"),
    "message": _block("message", "prefix", "content"),
    "data_collections": Column("data_collections", pl.List(_COLLECTION.dtype), items=_COLLECTION),
}

_ROWS = ("before", "after")
_read = msgspec.json.Decoder(float_hook=Decimal).decode


def infer(values: Sequence[bytes]) -> tuple[WriterSchema, dict[int, str]]:
    """The schema of JSON objects with the same top-level fields, and {index: why it is bad} of those that are none."""
    bad: dict[int, str] = {}
    records: list[dict[str, Any]] = []
    for index, value in enumerate(values):
        try:
            record = _read(value)
        except (msgspec.MsgspecError, RecursionError, ArithmeticError):
            record = None
        if isinstance(record, dict) and any("" in one for one in map(record.get, _ROWS) if isinstance(one, dict)):
            bad[index] = "a column without a name"
        elif isinstance(record, dict):
            records.append(record)
        else:
            bad[index] = "the value is no JSON object"
    names = list(dict.fromkeys(name for record in records for name in record))
    kind = kind_of("", names)
    if kind is Kind.OTHER:
        columns = tuple(_guess(name, [record.get(name) for record in records]) for name in names)
    else:
        columns = tuple(_known(name, [record.get(name) for record in records]) for name in names)
    row = row_of(kind, columns)
    if row is not None:  # before and after have one type, whichever of them is null in this batch
        table = _row([record.get(name) for record in records for name in _ROWS])
        columns = tuple(struct_column(one.name, table) if one.name in _ROWS and table else one for one in columns)
        row = row_of(kind, columns)
    return WriterSchema(0, f"inferred {columns!r}", kind, "", columns, row, schemaless=True), bad


def _known(name: str, values: list[Any]) -> Column:
    """A field of a record that Debezium wrote."""
    if name in _BLOCKS:
        return _BLOCKS[name]
    if name == "source":
        fields = tuple(Column(one, _KNOWN.get(one, _TEXT)) for one in _names(values))
        return struct_column(name, fields) if fields else text_column(name, {})
    if name in _ROWS:
        fields = _row(values)
        return struct_column(name, fields) if fields else text_column(name, {})
    return Column(name, _KNOWN[name]) if name in _KNOWN else text_column(name, {})


def _names(values: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(name for value in values if isinstance(value, dict) for name in value))


def _row(values: list[Any]) -> tuple[Column, ...]:
    rows = [value for value in values if isinstance(value, dict)]
    return tuple(_guess(name, [row.get(name) for row in rows]) for name in _names(rows))


def _guess(name: str, values: Iterable[Any]) -> Column:
    kinds = {_kind(value) for value in values if value is not None}
    if not kinds:
        return Column(name, _TEXT)
    for allowed, dtype in _GUESSES:
        if kinds <= allowed:
            return Column(name, dtype)
    return text_column(name, {})


_GUESSES: tuple[tuple[set[str], pl.DataType], ...] = (
    ({"boolean"}, pl.Boolean()),
    ({"text"}, _TEXT),
    ({"short", "long"}, _LONG),
    ({"short", "float"}, pl.Float64()),
)


def _kind(value: Any) -> str:
    """The kind of one value; `short`: an integer that a float holds exactly; `other`: only its JSON text is exact."""
    kind = "other"
    if isinstance(value, bool):
        kind = "boolean"
    elif isinstance(value, str):
        kind = "text"
    elif isinstance(value, int) and -(2**63) <= value < 2**63:
        kind = "short" if abs(value) <= _EXACT_INTEGER_MAX else "long"
    elif isinstance(value, Decimal) and Decimal(repr(float(value))) == value:
        kind = "float"
    return kind
