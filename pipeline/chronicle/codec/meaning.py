"""The table of types: for each kind of column its canonical JSON, its ClickHouse type and what that type can hold."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import polars as pl

from chronicle.codec import documents, numbers, times
from chronicle.codec.columns import DECIMAL, DECIMAL_DIGITS_MAX, VARIABLE_SCALE_DECIMAL, Column

Make = Callable[[pl.Expr], pl.Expr]

CLICKHOUSE_DIGITS_MAX = 76  # Decimal256
ENUM_VALUES_MAX = 1_000
_UNBOUNDED_FRACTION = 38
_DATE_TIME = "DateTime64(6, 'UTC')"
"""For instants with and without a zone: without one, 'UTC' shows the wall clock as the source has it, whatever the
time zone of the ClickHouse server."""


def _same(value: pl.Expr) -> pl.Expr:
    return value


@dataclass(frozen=True, slots=True)
class Meaning:
    """How the values of a column are written and stored. All functions map null to null, `fits` null to anything."""

    clickhouse: str
    """Without Nullable."""
    text: Make = _same
    """To a value that Polars' JSON writer writes canonically, or, if `raw`, to JSON text."""
    raw: bool = False
    value: Make = _same
    """To the dtype that ClickHouse takes; null where it cannot hold the value."""
    fits: Make | None = None
    """Whether ClickHouse can hold it; None: always."""
    nullable: bool = True
    """Whether ClickHouse allows Nullable(…) around the type."""


def _text(clickhouse: str = "String", text: Make = _same) -> Meaning:
    return Meaning(clickhouse, text, value=text)


def _parsed(clickhouse: str, text: Make, value: Make, fits: Make | None = None) -> Meaning:
    return Meaning(clickhouse, text, value=value, fits=fits or (lambda source: value(source).is_not_null()))


def _instant(clickhouse: str, unit: times.Unit) -> Meaning:
    return _parsed(clickhouse, times.instant_text(unit), times.instant_value(unit), times.instant_fits(unit))


def _is_uuid(text: pl.Expr) -> pl.Expr:
    return text.str.len_bytes() == 36


_BY_NAME: Mapping[str, Meaning] = {
    "io.debezium.time.Date": _parsed("Date32", times.date_text, times.date_value, times.date_fits),
    "org.apache.kafka.connect.data.Date": _parsed("Date32", times.date_text, times.date_value, times.date_fits),
    "io.debezium.time.IsoDate": _parsed("Date32", times.iso_date_text, times.iso_date_value),
    "io.debezium.time.Timestamp": _instant(_DATE_TIME, "ms"),
    "org.apache.kafka.connect.data.Timestamp": _instant(_DATE_TIME, "ms"),
    "io.debezium.time.MicroTimestamp": _instant(_DATE_TIME, "us"),
    "io.debezium.time.NanoTimestamp": _instant("DateTime64(9, 'UTC')", "ns"),
    "io.debezium.time.ZonedTimestamp": _parsed(_DATE_TIME, times.zoned_text, times.zoned_value),
    "io.debezium.time.IsoTimestamp": _parsed(_DATE_TIME, times.iso_timestamp_text, times.zoned_value),
    "io.debezium.time.Time": _text(text=times.time_text("ms")),
    "org.apache.kafka.connect.data.Time": _text(text=times.time_text("ms")),
    "io.debezium.time.MicroTime": _text(text=times.time_text("us")),
    "io.debezium.time.NanoTime": _text(text=times.time_text("ns")),
    "io.debezium.time.IsoTime": _text(text=times.iso_time_text),
    VARIABLE_SCALE_DECIMAL: _parsed(
        f"Decimal({CLICKHOUSE_DIGITS_MAX}, {_UNBOUNDED_FRACTION})",
        numbers.variable_decimal_text,
        lambda value: _digits(numbers.variable_decimal_text(value), CLICKHOUSE_DIGITS_MAX, _UNBOUNDED_FRACTION),
    ),
    "io.debezium.data.Uuid": _parsed("UUID", _same, lambda text: pl.when(_is_uuid(text)).then(text), _is_uuid),
    "io.debezium.data.Json": _parsed(
        "JSON", _same, lambda text: pl.when(documents.storable(text)).then(text), documents.storable
    ),
}
"""By `connect.name`. Names that are not here (Interval, ZonedTime, Xml, Ltree, Tsvector, EnumSet, Year, MicroDuration, …)
are as their plain type."""


_SIMPLE: Mapping[pl.DataType, Meaning] = {
    pl.Float32(): Meaning("Float32", numbers.float_json, raw=True),
    pl.Float64(): Meaning("Float64", numbers.float_json, raw=True),
    pl.Boolean(): Meaning("Bool"),
    pl.Binary(): Meaning("String", lambda value: value.bin.encode("base64")),
}


def _digits(text: pl.Expr, precision: int, scale: int) -> pl.Expr:
    return pl.when(numbers.fits_digits(text, precision - scale, scale)).then(text)


def meaning_of(column: Column) -> Meaning:
    """The row of the table for this column."""
    if column.as_text:
        return _text()
    if column.semantic == DECIMAL:
        return _decimal(column)
    if column.semantic == "io.debezium.data.Enum":
        return _enum(column)
    if column.semantic == "io.debezium.data.Bits" and column.dtype == pl.Binary():
        return _text(text=numbers.bits_text(column))
    named = _BY_NAME.get(column.semantic or "")
    return named if named is not None and _expected(column) else _plain(column)


def _expected(column: Column) -> bool:
    """Whether the semantic name stands on a type it is known with, and not on a converter's own choice."""
    dtype = column.dtype
    if column.semantic == VARIABLE_SCALE_DECIMAL:
        return {one.name for one in column.fields} >= {"scale", "value"}
    text = (column.semantic or "").rpartition(".")[2] in (
        "Uuid",
        "Json",
        "IsoDate",
        "IsoTimestamp",
        "IsoTime",
        "ZonedTimestamp",
    )
    return isinstance(dtype, pl.String) if text else dtype.is_integer()


def _plain(column: Column) -> Meaning:
    dtype = column.dtype
    if column.items is not None:
        return _array(column.items) if isinstance(dtype, pl.List) else _map(column.items)
    if column.fields:
        text = _record(column)
        return Meaning("String", text, raw=True, value=text)
    if dtype.is_integer():
        return _integer(column)
    return _SIMPLE.get(dtype, _text())


def _integer(column: Column) -> Meaning:
    bits = column.width or (32 if column.dtype == pl.Int32() else 64)
    narrow = {8: pl.Int8(), 16: pl.Int16()}.get(bits)
    if narrow is None:
        return Meaning(f"Int{bits}")
    # a flipped bit in Avro still reads as 32 bits: flagged then, and no error
    return _parsed(f"Int{bits}", _same, lambda value: value.cast(narrow, strict=False))


def _decimal(column: Column) -> Meaning:
    declared, scale = int(column.params.get("scale", 0)), column.scale
    number = isinstance(column.dtype, pl.Decimal)
    text: Make = (lambda value: value.cast(pl.String)) if number else numbers.decimal_bytes_text(column)
    precision = column.precision or DECIMAL_DIGITS_MAX
    if declared >= numbers.WRAPPED_SCALE_MIN:
        precision += 2048 - declared  # 2046 in 11 bits is -2: two zeros before the point
    elif declared < 0:
        precision, scale = precision - declared, 0
    if column.source_type == "BIGINT UNSIGNED" and number and scale == 0:
        return _parsed("UInt64", text, lambda value: value.cast(pl.UInt64, strict=False))
    if precision > CLICKHOUSE_DIGITS_MAX or scale > precision:
        return _text(text=text)
    clickhouse = f"Decimal({precision}, {scale})"
    if number:
        held = pl.Decimal(precision, scale)
        return _parsed(clickhouse, text, lambda value: value.cast(held, strict=False))
    return _parsed(clickhouse, text, lambda value: _digits(text(value), precision, scale))


def _enum(column: Column) -> Meaning:
    allowed = [one.replace("\\,", ",") for one in re.split(r"(?<!\\),", column.params.get("allowed", ""))]
    if allowed == [""] or column.dtype != pl.String():
        return _plain(column)
    if len(allowed) > ENUM_VALUES_MAX:
        return Meaning("LowCardinality(Nullable(String))", nullable=False)
    pairs = ", ".join(f"{_quoted(name)} = {number}" for number, name in enumerate(dict.fromkeys(allowed), 1))
    return _parsed(f"Enum16({pairs})", _same, lambda text: pl.when(text.is_in(allowed)).then(text))


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


# Nested -------------------------------------------------------------------------------------------------------------


def json_fragment(meaning: Meaning, value: pl.Expr) -> pl.Expr:
    """JSON text of a value; `null` where it is null."""
    if meaning.raw:
        return meaning.text(value).fill_null("null")
    encoded = pl.struct(meaning.text(value).alias("v")).struct.json_encode()
    return encoded.str.strip_prefix('{"v":').str.strip_suffix("}")


def _record(column: Column) -> Make:
    parts = sorted((field.name, meaning_of(field)) for field in column.fields)

    def text(value: pl.Expr) -> pl.Expr:
        pieces: list[pl.Expr] = []
        for index, (name, meaning) in enumerate(parts):
            pieces.append(pl.lit(("," if index else "{") + json.dumps(name, ensure_ascii=False) + ":"))
            pieces.append(json_fragment(meaning, value.struct.field(name)))
        return pl.when(value.is_not_null()).then(pl.concat_str(*pieces, pl.lit("}")))

    return text


def _array(items: Column) -> Meaning:
    inner = meaning_of(items)

    def text(value: pl.Expr) -> pl.Expr:
        if not inner.raw:
            return value if inner.text is _same else value.list.eval(inner.text(pl.element()))
        joined = value.list.eval(json_fragment(inner, pl.element())).list.join(",")
        return pl.when(value.is_not_null()).then(pl.concat_str(pl.lit("["), joined, pl.lit("]")))

    nested = items.items is not None or (items.fields and items.semantic != VARIABLE_SCALE_DECIMAL)
    simple = not nested and inner.clickhouse != "JSON"
    if not simple:  # arrays of objects, arrays or maps: each element as its JSON text
        as_text = items.semantic == "io.debezium.data.Json"
        element: Make = _same if as_text else lambda value: pl.when(value.is_not_null()).then(json_fragment(inner, value))
        return Meaning(
            f"Array({'Nullable(String)' if items.nullable else 'String'})",
            text,
            inner.raw,
            value=lambda value: value.list.eval(element(pl.element())),
            nullable=False,
        )
    whole = inner.clickhouse if not items.nullable or not inner.nullable else f"Nullable({inner.clickhouse})"
    fits = inner.fits
    return Meaning(
        f"Array({whole})",
        text,
        inner.raw,
        value=_same if inner.value is _same else lambda value: value.list.eval(inner.value(pl.element())),
        fits=None if fits is None else lambda value: value.list.eval(pl.element().is_null() | fits(pl.element())).list.all(),
        nullable=False,
    )


def _map(items: Column) -> Meaning:
    inner = meaning_of(items)

    def text(value: pl.Expr) -> pl.Expr:
        entry = pl.element().struct
        pair = pl.concat_str(_name_json(entry.field("key")), pl.lit(":"), json_fragment(inner, entry.field("value")))
        joined = value.map.entries().list.eval(pair.sort()).list.join(",")
        return pl.when(value.is_not_null()).then(pl.concat_str(pl.lit("{"), joined, pl.lit("}")))

    plain = not items.fields and items.items is None and inner.value is _same
    if not plain:
        return Meaning("String", text, raw=True, value=text)
    whole = inner.clickhouse if not items.nullable or not inner.nullable else f"Nullable({inner.clickhouse})"
    return Meaning(f"Map(String, {whole})", text, raw=True, nullable=False)


def _name_json(name: pl.Expr) -> pl.Expr:
    return pl.struct(name.alias("v")).struct.json_encode().str.strip_prefix('{"v":').str.strip_suffix("}")
