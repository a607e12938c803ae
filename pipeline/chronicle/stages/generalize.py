"""Coarser values of the same kind: instants to an hour, day, month or year, numbers to the start of a bucket, parts of texts.

Each function gives a `Make`, from a raw decoded column to its coarse values in the same dtype; a value that has none (infinity,
an invalid address) becomes null, and whoever shows it must say [FILTERED].
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal

import polars as pl

from chronicle.codec import times
from chronicle.codec.columns import DECIMAL, VARIABLE_SCALE_DECIMAL, Column
from chronicle.codec.meaning import Make
from chronicle.codec.numbers import mapped
from chronicle.codec.types import value_text
from chronicle.stages.distinct import over_distinct

STEPS = ("hour", "day", "month", "year")
Form = Literal["date", "iso date", "instant", "zoned", "time", "iso time", "zoned time"]

_SEMANTICS: dict[str, tuple[Form, times.Unit]] = {
    "io.debezium.time.Date": ("date", "ms"),
    "org.apache.kafka.connect.data.Date": ("date", "ms"),
    "io.debezium.time.IsoDate": ("iso date", "ms"),
    "io.debezium.time.Timestamp": ("instant", "ms"),
    "org.apache.kafka.connect.data.Timestamp": ("instant", "ms"),
    "io.debezium.time.MicroTimestamp": ("instant", "us"),
    "io.debezium.time.NanoTimestamp": ("instant", "ns"),
    "io.debezium.time.ZonedTimestamp": ("zoned", "us"),
    "io.debezium.time.IsoTimestamp": ("zoned", "us"),
    "io.debezium.time.Time": ("time", "ms"),
    "org.apache.kafka.connect.data.Time": ("time", "ms"),
    "io.debezium.time.MicroTime": ("time", "us"),
    "io.debezium.time.NanoTime": ("time", "ns"),
    "io.debezium.time.IsoTime": ("iso time", "us"),
    "io.debezium.time.ZonedTime": ("zoned time", "us"),
}
_TEXTUAL = frozenset({"iso date", "zoned", "iso time", "zoned time"})
_PER_SECOND = {"ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_DATE_DAYS = (-719_162, 2_932_896)  # 0001-01-01 to 9999-12-31
_NANO_DAYS = (-106_650, 106_750)  # 1678-01-01 to 2262-04-10: what 64 bits of nanoseconds hold after rounding down to a year
_HOURS_MAX = 1_000
_I64_MIN, _I128_DIGITS = -(2**63), 38
_SCALE_MAX = 20_000
"""Postgres has 16,383 digits after the point at most; a larger scale is an attack on memory."""

_ZONE = re.compile("%[^/]*")
_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = rf"^{_OCTET}(?:\.{_OCTET}){{3}}$"
_EMAIL = r"^[^@\s]+@[\p{L}\p{N}](?:[\p{L}\p{N}-]*\.)+[\p{L}\p{N}-]*\p{L}$"
_DATE = r"^[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
_OF_DAY = r"^(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?"


@dataclass(frozen=True, slots=True)
class Clock:
    """What kind of time a column holds."""

    form: Form
    unit: times.Unit


def clock_of(column: Column) -> Clock | None:
    """The column's kind of time; None: it holds none."""
    found = _SEMANTICS.get(column.semantic or "")
    if found is None or column.as_text:
        return None
    fits = column.dtype == pl.String() if found[0] in _TEXTUAL else column.dtype.is_integer()
    return Clock(*found) if fits else None


def is_number(column: Column) -> bool:
    """Whether the column can be put into buckets."""
    if column.as_text or clock_of(column) is not None:
        return False
    number = column.dtype.is_integer() or column.dtype.is_float() or isinstance(column.dtype, pl.Decimal)
    return number or column.semantic == DECIMAL or variable(column)


def variable(column: Column) -> bool:
    """Whether this is a decimal of varying scale, as Debezium writes it."""
    return column.semantic == VARIABLE_SCALE_DECIMAL and {one.name for one in column.fields} >= {"scale", "value"}


def staged(make: Make, dtype: pl.DataType) -> Make:
    """The same function, computed once although an expression names it often: Polars shares no work within a `select`."""
    made = make(pl.col("v"))

    def over(series: pl.Series) -> pl.Series:
        return series.alias("v").to_frame().select(made.alias(series.name)).to_series()

    return lambda value: value.map_batches(over, return_dtype=dtype)


def chained(first: Make, then: Make, dtype: pl.DataType) -> Make:
    """`then` of what `first` makes of values of this type: each computed once, for the reason of `staged`."""
    one, two = first(pl.col("v")).alias("v"), then(pl.col("v"))
    made = pl.Series("v", [], dtype=dtype).to_frame().select(one).select(two).dtypes[0]

    def over(series: pl.Series) -> pl.Series:
        return series.alias("v").to_frame().select(one).select(two.alias(series.name)).to_series()

    return lambda value: value.map_batches(over, return_dtype=made)


def known_values(value: pl.Expr, condition: pl.Expr) -> pl.Expr:
    """The value where the condition holds, otherwise null."""
    return pl.when(condition).then(value)


# Times --------------------------------------------------------------------------------------------------------------


def to_step(column: Column, clock: Clock, step: str) -> Make | None:
    """Instants, dates and times of day rounded down to a step of the calendar; None: this kind of time has no such step."""
    if clock.form in ("date", "iso date"):
        if step == "hour":
            return None
        return _iso_date(step) if clock.form == "iso date" else lambda value: _dates(column, value, step)
    if clock.form in ("instant", "zoned"):
        return _zoned(step) if clock.form == "zoned" else _instants(clock.unit, step)
    if step != "hour":
        return None
    if clock.form == "time":
        return lambda value: _hours(column, value, clock.unit)
    return _hour_text(clock.form)


def _day(days: pl.Expr, step: str) -> pl.Expr:
    """The first of the month or year, as a number of days; the days must lie in the calendar, or be null."""
    if step in ("hour", "day"):
        return days
    calendar = days.cast(pl.Int32).cast(pl.Date)
    past = calendar.dt.day() if step == "month" else calendar.dt.ordinal_day()
    return days - past.cast(pl.Int32) + 1


def _dates(column: Column, value: pl.Expr, step: str) -> pl.Expr:
    return _day(known_values(value, value.is_between(*_DATE_DAYS)), step).cast(column.dtype)


def _instants(unit: times.Unit, step: str) -> Make:
    per_hour = _PER_SECOND[unit] * 3_600
    per_day = per_hour * 24
    first, last = _NANO_DAYS if unit == "ns" else _DATE_DAYS

    def coarse(value: pl.Expr) -> pl.Expr:
        inside = known_values(value, value.is_between(first * per_day, (last + 1) * per_day - 1))
        return inside // per_hour * per_hour if step == "hour" else _day(inside // per_day, step) * per_day

    return coarse


def _cut(text: pl.Expr, step: str, end: str) -> pl.Expr:
    """An ISO text with what is finer than the step set to its first value."""
    kept, first = {
        "hour": (13, ":00:00"),
        "day": (10, "T00:00:00"),
        "month": (7, "-01T00:00:00"),
        "year": (4, "-01-01T00:00:00"),
    }[step]
    return text.str.slice(0, kept) + pl.lit(first + end)


def _iso_date(step: str) -> Make:
    first = {"day": "", "month": "-01", "year": "-01-01"}[step]
    kept = {"day": 10, "month": 7, "year": 4}[step]

    def coarse(value: pl.Expr) -> pl.Expr:
        return known_values(value.str.slice(0, kept) + pl.lit(first), value.str.contains(_DATE + "Z?$"))

    return coarse


def _zoned(step: str) -> Make:
    def coarse(text: pl.Expr) -> pl.Expr:
        return known_values(_cut(text, step, ".000000Z"), text.str.contains(_DATE + "T" + _OF_DAY[1:] + "Z$"))

    return chained(times.zoned_text, coarse, pl.String())


def _hours(column: Column, value: pl.Expr, unit: times.Unit) -> pl.Expr:
    """Towards midnight: -10:30 is shown as -10:00, as its hour reads."""
    per_hour = _PER_SECOND[unit] * 3_600
    whole = value.cast(pl.Int64)
    inside = known_values(whole, whole.is_between(-_HOURS_MAX * per_hour, _HOURS_MAX * per_hour))
    return (inside.abs() // per_hour * per_hour * inside.sign()).cast(column.dtype)


def _hour_text(form: Form) -> Make:
    end = "Z$" if form == "zoned time" else "Z?$"

    def coarse(value: pl.Expr) -> pl.Expr:
        return known_values(value.str.slice(0, 2) + pl.lit(":00:00Z"), value.str.contains(_OF_DAY + end))

    return coarse


# Numbers ------------------------------------------------------------------------------------------------------------


def to_bucket(column: Column, size: int) -> Make | None:
    """Numbers as the lower bound of their bucket of this size; None: each bucket would hold one value alone."""
    if isinstance(column.dtype, pl.Decimal):
        return _decimals(column, size)
    if column.dtype.is_float():
        return lambda value: _floats(column, value, size)
    if column.dtype.is_integer():
        return _integers(column, size) if size > 1 else None
    if variable(column):
        return lambda value: value.map_batches(lambda series: _variable(series, size), return_dtype=column.dtype)
    return _long_decimals(column, size)


def _integers(column: Column, size: int) -> Make:
    lowest = -(2**63 // size) * size  # the lowest bound that 64 bits hold
    low, high = (-(2**31), 2**31 - 1) if column.dtype == pl.Int32() else (_I64_MIN, 2**63 - 1)

    def coarse(value: pl.Expr) -> pl.Expr:
        whole = value.cast(pl.Int64)
        inside = pl.when(whole >= lowest).then(whole)
        bound = pl.when(whole.is_null()).then(whole).otherwise((inside // size * size).fill_null(_I64_MIN))
        return bound.clip(low, high).cast(column.dtype)

    return coarse


def _decimals(column: Column, size: int) -> Make | None:
    scale = column.scale
    step = size * 10**scale
    if step == 1:
        return None

    def coarse(value: pl.Expr) -> pl.Expr:
        if step >= 10**_I128_DIGITS:  # larger than every number of the column
            return known_values(value - value, value >= 0)
        bound = value.to_physical() // pl.lit(step, dtype=pl.Int128) * pl.lit(size, dtype=pl.Int128)
        return bound.cast(column.dtype, strict=False)

    return coarse


def _floats(column: Column, value: pl.Expr, size: int) -> pl.Expr:
    finite = known_values(value, value.is_finite())
    bound = (finite / size).floor() * size + 0.0  # -0.0 becomes 0.0
    return known_values(bound, bound.is_finite()).cast(column.dtype)


def _long_decimals(column: Column, size: int) -> Make | None:
    """Decimals that are kept as bytes; null where the declared scale has no digits for the bound."""
    step = Fraction(size) * Fraction(10) ** int(column.params.get("scale", 0))
    if step.denominator != 1 or step == 1:
        return None
    units = int(step)

    def bound(value: bytes) -> bytes:
        return _signed(int.from_bytes(value, "big", signed=True) // units * units)

    return mapped(bound, pl.Binary())


def _variable(series: pl.Series, size: int) -> pl.Series:
    pairs = zip(series.struct.field("scale").to_list(), series.struct.field("value").to_list(), strict=True)
    made: list[dict[str, Any] | None] = []
    for scale, unscaled in pairs:
        if scale is None or unscaled is None or abs(scale) > _SCALE_MAX:
            made.append(None)
            continue
        number = int.from_bytes(unscaled, "big", signed=True)
        bucket = number // (size * 10**scale) if scale >= 0 else number * 10**-scale // size
        made.append({"scale": 0, "value": _signed(bucket * size)})
    return pl.Series(series.name, made, dtype=series.dtype)


def _signed(number: int) -> bytes:
    return number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True)


# Texts --------------------------------------------------------------------------------------------------------------


def to_prefix(column: Column, count: int) -> Make:
    """The first characters of the value's text; null where there are no more than these: nothing would be hidden."""

    def coarse(value: pl.Expr) -> pl.Expr:
        text = value_text(column, value)
        return known_values(text.str.slice(0, count), text.str.len_chars() > count)

    return coarse


def to_domain(value: pl.Expr) -> pl.Expr:
    """The domain of an e-mail address, in lower case; null for what is none."""
    domain = value.str.split_exact("@", 1).struct.field("field_1").str.to_lowercase()
    return known_values(domain, value.str.contains(_EMAIL))


@dataclass(frozen=True, slots=True)
class Network:
    """Bits that are kept of an address."""

    ipv4: int
    ipv6: int | None
    """None: IPv6 addresses have no network here."""

    @classmethod
    def parse(cls, text: str) -> Network | None:
        """`24` or `24/48`; None when it is not that, or would keep a whole address."""
        found = re.fullmatch(r"([0-9]{1,2})(?:/([0-9]{1,3}))?", text)
        if found is None or int(found[1]) > 31 or int(found[2] or 0) > 127:
            return None
        return cls(int(found[1]), int(found[2]) if found[2] else None)

    def of(self, value: pl.Expr) -> pl.Expr:
        """Text such as 203.0.113.0/24 or 2001:db8::/48 of addresses, with or without a zone or bits of their own."""
        usual = value.str.contains(_IPV4)
        network = (self._octets(value) if self.ipv4 % 8 == 0 else self._bits(value)) + pl.lit(f"/{self.ipv4}")
        other = known_values(value, ~usual)
        return pl.when(usual).then(network).otherwise(other.map_batches(self._others, return_dtype=pl.String()))

    def _octets(self, value: pl.Expr) -> pl.Expr:
        """Whole octets are cut off at the end: half the price of taking the address apart."""
        gone = 4 - self.ipv4 // 8
        for index in range(gone):
            value = (value.str.strip_suffix(".") if index else value).str.strip_chars_end("0123456789")
        return value + pl.lit(".".join("0" * gone))

    def _bits(self, value: pl.Expr) -> pl.Expr:
        parts = value.str.split_exact(".", 3).struct
        pieces: list[pl.Expr] = []
        for index in range(4):
            bits = min(max(self.ipv4 - 8 * index, 0), 8)
            part = parts.field(f"field_{index}")
            if 0 < bits < 8:
                part = (part.cast(pl.UInt16, strict=False) & (256 - (256 >> bits))).cast(pl.String)
            pieces.append(part if bits else pl.lit("0"))
        return pl.concat_str(*pieces, separator=".")

    def _others(self, texts: pl.Series) -> pl.Series:
        if texts.null_count() == len(texts):
            return texts
        return over_distinct(texts, lambda distinct: pl.Series([self.one(text) for text in distinct], dtype=pl.String))

    def one(self, text: str) -> str | None:
        """The network of one address, or of a network; None for what is neither."""
        try:
            given = ipaddress.ip_interface(_ZONE.sub("", text.strip()))
        except ValueError:
            return None
        wanted = self.ipv4 if given.version == 4 else self.ipv6
        if wanted is None:
            return None
        shorter = min(wanted, given.network.prefixlen)
        return str(ipaddress.ip_network((given.ip, shorter), strict=False))


def plain_text(column: Column) -> Column:
    """The column of text that a part of this column's values is."""
    return replace(column, dtype=pl.String(), semantic=None, params={}, width=None, fields=(), items=None, as_text=False)
