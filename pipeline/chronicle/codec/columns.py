"""The nouns of a writer schema: columns, their physical types after decoding, and what kind of record they make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import polars as pl

from chronicle.errors import ChronicleError

DECIMAL = "org.apache.kafka.connect.data.Decimal"
VARIABLE_SCALE_DECIMAL = "io.debezium.data.VariableScaleDecimal"
DECIMAL_DIGITS_MAX = 38  # Arrow's decimal128: what a frame can hold as a number


class UnsupportedSchema(ChronicleError):
    """No decoder reads this schema; its records are dead letters (`unsupported_schema`). Holds no value."""


class Kind(StrEnum):
    """What the records of a schema are."""

    ENVELOPE = "envelope"
    KEY = "key"
    TRANSACTION = "transaction"
    HEARTBEAT = "heartbeat"
    SCHEMA_CHANGE = "schema_change"
    NOTIFICATION = "notification"
    MESSAGE = "message"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Column:
    """One field of a record, element of an array or value of a map.

    `dtype` is what a decoded frame holds: integers, floats, booleans, strings and bytes as they were written (times and
    dates stay integers of their unit), `Decimal(38, scale)` for a Connect decimal that fits (otherwise its bytes,
    big-endian two's complement), List, Struct, Map(String, …).
    """

    name: str
    dtype: pl.DataType
    semantic: str | None = None
    """Debezium's or Connect's name of the type (`connect.name`, the Connect schema's `name`); None: just the dtype."""
    nullable: bool = True
    params: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Connect's schema parameters (`scale`, `connect.decimal.precision`, `allowed`, `length`,
    `__debezium.source.column.type`, …)."""
    width: int | None = None
    """Bits of an integer narrower than its dtype (8 or 16: Connect's int8 and int16)."""
    fields: tuple[Column, ...] = ()
    """Of a record."""
    items: Column | None = None
    """Element of an array, value of a map."""
    as_text: bool = False
    """The decoded value is JSON text, because the type has no column form (a union of more than two, recursion)."""

    @property
    def scale(self) -> int:
        """Digits after the point of a Connect decimal. Above 1000 Debezium wrote a negative one in 11 bits: then 0."""
        scale = int(self.params.get("scale", 0))
        return 0 if scale > 1000 else scale

    @property
    def precision(self) -> int | None:
        """Digits in all of a Connect decimal, when the source declared them."""
        declared = self.params.get("connect.decimal.precision")
        return int(declared) if declared else None

    @property
    def source_type(self) -> str | None:
        """The database's own type name in capitals, when the connector propagates it."""
        name = self.params.get("__debezium.source.column.type")
        return name.upper() if name else None


@dataclass(frozen=True, slots=True)
class RowSchema:
    """Columns of a captured table, or of its key, in the source's order."""

    columns: tuple[Column, ...]

    def __getitem__(self, name: str) -> Column:
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in the source's order."""
        return tuple(column.name for column in self.columns)


@dataclass(frozen=True, slots=True)
class WriterSchema:
    """One schema that records were written with. Equal and hashed by `id` and `text` alone, so it can key a plan."""

    id: int
    """Of the registry; 0 for JSON."""
    text: str
    """The schema as it was found; for schemaless JSON a canonical description of the inferred columns."""
    kind: Kind = field(compare=False)
    name: str = field(compare=False)
    """Full Connect or Avro name of the record; empty when it has none."""
    columns: tuple[Column, ...] = field(compare=False)
    """All top-level fields, in order: the columns of a decoded frame."""
    row: RowSchema | None = field(compare=False)
    """Envelope: columns of the table (of `before` and `after`). Key: the key's columns. Otherwise None."""
    reader: str | None = field(default=None, compare=False, repr=False)
    """Avro only: the schema without annotations that a decoder could refuse; binary layout equal to the writer's."""
    columnar: bool = field(default=False, compare=False)
    """Avro only: the column decoder can read it."""
    bare: bool = field(default=False, compare=False)
    """The top level is no record: the frame has the one column `value`."""
    schemaless: bool = field(default=False, compare=False)
    """JSON without a schema: types are guessed per batch."""

    def frame_schema(self) -> dict[str, pl.DataType]:
        """Names and dtypes of a decoded frame."""
        return {column.name: column.dtype for column in self.columns}

    def __getitem__(self, name: str) -> Column:
        return RowSchema(self.columns)[name]


_BY_NAME = (
    # (end of the schema's name, kind): Debezium's names, stable over its versions
    ("TransactionMetadataValue", Kind.TRANSACTION),
    ("common.Heartbeat", Kind.HEARTBEAT),
    ("SchemaChangeValue", Kind.SCHEMA_CHANGE),
    ("common.Notification", Kind.NOTIFICATION),
    (".MessageValue", Kind.MESSAGE),
    ("postgresql.Message", Kind.MESSAGE),
    ("Key", Kind.KEY),
)

_BY_FIELDS = (
    # (fields that the record has at least, kind): for JSON without a schema, and names that someone changed
    ({"op", "source", "after"}, Kind.ENVELOPE),
    ({"op", "source", "before"}, Kind.ENVELOPE),
    ({"op", "source", "message"}, Kind.MESSAGE),
    ({"status", "id", "event_count", "data_collections"}, Kind.TRANSACTION),
    ({"source", "ddl", "tableChanges"}, Kind.SCHEMA_CHANGE),
    ({"aggregate_type", "type", "id"}, Kind.NOTIFICATION),
)


def kind_of(name: str, fields: Iterable[str]) -> Kind:
    """What records with this schema name and these top-level fields are."""
    names = set(fields)
    for end, kind in _BY_NAME:
        if name.endswith(end):
            return kind
    for wanted, kind in _BY_FIELDS:
        if wanted <= names:
            return kind
    return Kind.HEARTBEAT if names == {"ts_ms"} else Kind.OTHER


def row_of(kind: Kind, columns: Sequence[Column]) -> RowSchema | None:
    """The table's columns out of an envelope's `after` (or `before`), or those of a key."""
    if kind is Kind.KEY:
        return RowSchema(tuple(columns))
    if kind is Kind.ENVELOPE:
        for name in ("after", "before"):
            for column in columns:
                if column.name == name and column.fields:
                    return RowSchema(column.fields)
    return None


def decimal_column(column: Column) -> Column:
    """A Connect decimal as a number of a frame where it fits, otherwise as its bytes."""
    scale, precision = int(column.params.get("scale", 0)), column.precision
    fits = 0 <= scale <= DECIMAL_DIGITS_MAX and (precision or DECIMAL_DIGITS_MAX + 1) <= DECIMAL_DIGITS_MAX
    return replace(column, dtype=pl.Decimal(DECIMAL_DIGITS_MAX, scale) if fits else pl.Binary())


def struct_column(name: str, fields: tuple[Column, ...], **rest: Any) -> Column:
    """A record as a column."""
    return Column(name, pl.Struct({one.name: one.dtype for one in fields}), fields=fields, **rest)


def text_column(name: str, rest: Mapping[str, Any]) -> Column:
    """A value that has no column form, as its JSON text."""
    return Column(name, pl.String(), as_text=True, **{**rest, "semantic": None})
