"""A row's columns as people see them, for conditions and value rules: dates as dates, decimals as numbers, documents as text.

What a calendar of four-digit years, or a number, cannot show (infinity, a date BC) is null here: no condition holds for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import polars as pl

from chronicle.codec import times
from chronicle.codec.columns import DECIMAL, VARIABLE_SCALE_DECIMAL, Column
from chronicle.codec.flat import after, before
from chronicle.codec.types import value_text
from chronicle.codec.unavailable import is_placeholder

_DAY_US = 86_400_000_000
_DAYS = (times.YEARS_US[0] // _DAY_US, times.YEARS_US[1] // _DAY_US)
_JSON = "io.debezium.data.Json"


class Sort(StrEnum):
    """What a value is, in the words of messages."""

    BOOLEAN = "true or false"
    INTEGER = "a whole number"
    FLOAT = "a number"
    DECIMAL = "a decimal number"
    TEXT = "text"
    DATE = "a date"
    STAMP = "a timestamp"
    LIST = "a list"
    NULL = "NULL"


NUMBERS = (Sort.INTEGER, Sort.FLOAT, Sort.DECIMAL)


@dataclass(frozen=True, slots=True)
class Seen:
    """A column of a row."""

    sort: Sort
    value: pl.Expr
    """Boolean, Int64, Float32 or Float64, Decimal, String, Date, Datetime(us) in UTC without a zone, or a List of these."""
    items: Sort | None = None
    """LIST: of its elements."""
    json: bool = False
    """TEXT: the text is a JSON document."""


Value = Callable[[str], pl.Expr]


def row_value(name: str) -> pl.Expr:
    """A column of the row that a change is about: the new one, of a delete the old one."""
    return pl.when(pl.col("op") == "d").then(before(name)).otherwise(after(name))


def seen(column: Column, value: pl.Expr, unavailable: str | None = None) -> Seen:
    """The column as people see it; null stays null, and nothing in it makes the expression raise.

    Args:
        value: the raw decoded column.
        unavailable: the placeholder of values that the database did not send, if such can come: they are null.
    """
    if unavailable is not None and (test := is_placeholder(column, value, unavailable)) is not None:
        value = pl.when(~test).then(value)
    items = column.items
    if isinstance(column.dtype, pl.List) and items is not None and items.items is None and not items.fields:
        inner, item = _view(items)
        return Seen(Sort.LIST, value.list.eval(item(pl.element())), inner)
    sort, view = _view(column)
    return Seen(sort, view(value), json=column.semantic == _JSON or column.as_text)


_Make = Callable[[pl.Expr], pl.Expr]


def _view(column: Column) -> tuple[Sort, _Make]:
    """Of a column that is no list."""
    dtype, semantic = column.dtype, column.semantic or ""
    named: tuple[Sort, _Make] | None = None
    if semantic in (DECIMAL, VARIABLE_SCALE_DECIMAL) and not isinstance(dtype, pl.Decimal) and not column.as_text:
        named = Sort.FLOAT, lambda value: value_text(column, value).cast(pl.Float64, strict=False)
    elif dtype.is_integer():
        named = _OF_INTEGERS.get(semantic, _INTEGER if semantic not in _TIMES_OF_DAY else None)
    elif dtype == pl.String:
        named = _OF_TEXTS.get(semantic)
    elif isinstance(dtype, pl.Decimal):
        named = Sort.DECIMAL, _same
    elif dtype.is_float():
        named = Sort.FLOAT, _same
    elif dtype == pl.Boolean:
        named = Sort.BOOLEAN, _same
    return named or (Sort.TEXT, lambda value: value_text(column, value))


def _same(value: pl.Expr) -> pl.Expr:
    return value


def _days(days: pl.Expr) -> pl.Expr:
    return pl.when(days.is_between(*_DAYS)).then(days).cast(pl.Int32, strict=False).cast(pl.Date)


def _micros(micros: pl.Expr) -> pl.Expr:
    return pl.when(micros.is_between(*times.YEARS_US)).then(micros).cast(pl.Datetime("us"))


def _nanos(nanos: pl.Expr) -> pl.Expr:
    edge = 2**63 - _DAY_US * 1_000  # infinity is the largest number
    return _micros(pl.when(nanos.is_between(1 - edge, edge - 1)).then(nanos) // 1_000)


def _iso_date(text: pl.Expr) -> pl.Expr:
    return _days(times.iso_date_text(text).str.to_date("%Y-%m-%d", strict=False).cast(pl.Int32))


def _zoned(text: pl.Expr) -> pl.Expr:
    parsed = times.zoned_text(text).str.to_datetime("%Y-%m-%dT%H:%M:%S.%6fZ", time_unit="us", strict=False)
    return _micros(parsed.cast(pl.Int64))


_INTEGER: tuple[Sort, _Make] = (Sort.INTEGER, lambda value: value.cast(pl.Int64, strict=False))
_TIMES_OF_DAY = frozenset(
    {
        *("io.debezium.time.Time", "io.debezium.time.MicroTime", "io.debezium.time.NanoTime"),
        "org.apache.kafka.connect.data.Time",
    }
)
"""Text: MySQL's go from -838 to 838 hours."""
_OF_INTEGERS: dict[str, tuple[Sort, _Make]] = {
    "io.debezium.time.Date": (Sort.DATE, _days),
    "org.apache.kafka.connect.data.Date": (Sort.DATE, _days),
    "io.debezium.time.Timestamp": (Sort.STAMP, lambda value: _micros(times.from_millis(value))),
    "org.apache.kafka.connect.data.Timestamp": (Sort.STAMP, lambda value: _micros(times.from_millis(value))),
    "io.debezium.time.MicroTimestamp": (Sort.STAMP, _micros),
    "io.debezium.time.NanoTimestamp": (Sort.STAMP, _nanos),
}
_OF_TEXTS: dict[str, tuple[Sort, _Make]] = {
    "io.debezium.time.IsoDate": (Sort.DATE, _iso_date),
    "io.debezium.time.IsoTimestamp": (Sort.STAMP, _zoned),
    "io.debezium.time.ZonedTimestamp": (Sort.STAMP, _zoned),
}
