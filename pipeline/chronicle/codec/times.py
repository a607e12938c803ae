"""Dates, times and instants of Debezium and Connect: their canonical text and their Arrow value, as Polars expressions.

Whole numbers count days, milliseconds, microseconds or nanoseconds since 1970 (of the day, for times). Instants outside
the years 1 to 9999, and infinity, which Debezium writes as the largest number, are shown as that number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import polars as pl

Unit = Literal["ms", "us", "ns"]

_DATE_DAYS = (-719_162, 2_932_896)  # 0001-01-01 to 9999-12-31
_DATE32_DAYS = (-25_567, 120_529)  # ClickHouse's Date32: 1900-01-01 to 2299-12-31
_DAY_US = 86_400_000_000
YEARS_US = (_DATE_DAYS[0] * _DAY_US, (_DATE_DAYS[1] + 1) * _DAY_US - 1)
"""The instants that a calendar of four-digit years can show, in microseconds."""
_PER_US = {"ms": 1_000, "us": 1, "ns": 1}
_PER_SECOND = {"ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_DATETIME64_US = (_DATE32_DAYS[0] * _DAY_US, (_DATE32_DAYS[1] + 1) * _DAY_US - 1)
_INSTANT = "%Y-%m-%dT%H:%M:%S%.6f"
_ZONED_CHARACTERS = 27  # 2024-02-29T18:29:59.123456Z


def _where(condition: pl.Expr, value: pl.Expr) -> pl.Expr:
    """`value` where `condition`, otherwise null: Polars evaluates both branches of a choice, and panics on some values."""
    return pl.when(condition).then(value)


def from_millis(millis: pl.Expr) -> pl.Expr:
    """Microseconds; what is outside `YEARS_US` stays outside, and does not wrap around 64 bits into it."""
    return millis.clip(YEARS_US[0] // 1_000 - 1, YEARS_US[1] // 1_000 + 1) * 1_000


# Days ---------------------------------------------------------------------------------------------------------------


def date_text(days: pl.Expr) -> pl.Expr:
    """2024-02-29, or the number of days as text."""
    shown = days.is_between(*_DATE_DAYS)
    return pl.when(shown).then(_where(shown, days).cast(pl.Date).cast(pl.String)).otherwise(days.cast(pl.String))


def date_value(days: pl.Expr) -> pl.Expr:
    """Date, null outside ClickHouse's Date32; clipped as well, because ClickHouse checks what lies under a null too."""
    return _where(days.is_between(*_DATE32_DAYS), days.clip(*_DATE32_DAYS)).cast(pl.Date)


def date_fits(days: pl.Expr) -> pl.Expr:
    """Whether ClickHouse's Date32 holds it."""
    return days.is_between(*_DATE32_DAYS)


def iso_date_text(text: pl.Expr) -> pl.Expr:
    """Without the Z that Debezium's IsoDate ends with."""
    return text.str.strip_suffix("Z")


def iso_date_value(text: pl.Expr) -> pl.Expr:
    """Date, null outside ClickHouse's Date32 and for what is no date."""
    return date_value(iso_date_text(text).str.to_date("%Y-%m-%d", strict=False).cast(pl.Int32))


# Instants -----------------------------------------------------------------------------------------------------------


def instant_text(unit: Unit) -> Callable[[pl.Expr], pl.Expr]:
    """2024-02-29T23:59:59.123456 (nine digits for nanoseconds), or the number as text."""
    per_day = _PER_SECOND[unit] * 86_400
    low, high = _DATE_DAYS[0] * per_day, (_DATE_DAYS[1] + 1) * per_day - 1
    if unit == "ns":
        low, high = -(2**63) + per_day, 2**63 - 1 - per_day  # all that 64 bits hold, infinity left out

    def text(number: pl.Expr) -> pl.Expr:
        shown = number.is_between(low, high)
        inside = _where(shown, number)
        if unit == "ns":
            formatted = inside.cast(pl.Datetime("ns")).dt.to_string("%Y-%m-%dT%H:%M:%S%.9f")
        else:
            formatted = (inside * _PER_US[unit]).cast(pl.Datetime("us")).dt.to_string(_INSTANT)
        return pl.when(shown).then(formatted).otherwise(number.cast(pl.String))

    return text


def _datetime64(unit: Unit) -> tuple[int, int]:
    """What ClickHouse's DateTime64 holds, in this unit."""
    if unit == "ns":
        return _DATETIME64_US[0] * 1_000, 2**63 - 1 - 86_400 * 10**9
    return _DATETIME64_US[0] // _PER_US[unit], _DATETIME64_US[1] // _PER_US[unit]


def instant_fits(unit: Unit) -> Callable[[pl.Expr], pl.Expr]:
    """Whether ClickHouse's DateTime64 holds it."""
    return lambda number: number.is_between(*_datetime64(unit))


def instant_value(unit: Unit) -> Callable[[pl.Expr], pl.Expr]:
    """Datetime in UTC (microseconds, or nanoseconds), null outside ClickHouse's DateTime64."""

    def value(number: pl.Expr) -> pl.Expr:
        held = _where(number.is_between(*_datetime64(unit)), number)
        return held.cast(pl.Datetime("ns", "UTC")) if unit == "ns" else (held * _PER_US[unit]).cast(pl.Datetime("us", "UTC"))

    return value


def zoned_text(text: pl.Expr) -> pl.Expr:
    """2024-02-29T18:29:59.123456Z: always UTC, six digits; what is no such instant (infinity, BC) stays as it is."""
    return text.map_batches(_zoned_texts, return_dtype=pl.String())


def _zoned_texts(texts: pl.Series) -> pl.Series:
    """A look first: reading dates costs a millisecond even where there is nothing to read."""
    value = pl.col("v")
    usual = (value.str.len_bytes() == _ZONED_CHARACTERS) & value.str.ends_with("Z")
    frame = texts.alias("v").to_frame().with_columns(usual.alias("usual"))
    if frame["usual"].all():
        return texts
    other = _where(~pl.col("usual"), value)
    instant = other.str.slice(10, 1) == "T"
    padded = pl.concat_str(
        other.str.slice(0, 19), pl.lit("."), other.str.slice(20).str.strip_suffix("Z").str.pad_end(6, "0"), pl.lit("Z")
    )
    shifted = _with_offset(_where(instant, other)).dt.to_string(_INSTANT + "Z")
    made = (
        pl.when("usual")
        .then(value)
        .when(instant & other.str.ends_with("Z"))
        .then(padded)
        .otherwise(pl.coalesce(shifted, other))
    )
    return frame.select(made.alias(texts.name)).to_series()


def zoned_value(text: pl.Expr) -> pl.Expr:
    """Datetime in UTC, null outside ClickHouse's DateTime64 and for what is no instant."""
    # exactly six digits: the one form that Polars parses without chrono, at a third of the time
    parsed = zoned_text(text).str.to_datetime("%Y-%m-%dT%H:%M:%S.%6fZ", time_unit="us", strict=False)
    return instant_value("us")(parsed.cast(pl.Int64))


def _with_offset(text: pl.Expr) -> pl.Expr:
    return text.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%:z", time_unit="us", time_zone="UTC", strict=False)


def iso_timestamp_text(text: pl.Expr) -> pl.Expr:
    """2024-02-29T23:59:59.123456: Debezium's IsoTimestamp without its Z, which says nothing there."""
    return zoned_text(text).str.strip_suffix("Z")


# Times of day, and MySQL's times from -838 to 838 hours --------------------------------------------------------------


def time_text(unit: Unit) -> Callable[[pl.Expr], pl.Expr]:
    """23:59:59.123456, with a sign and more hours where there are."""
    per_us = {"ms": 1_000, "us": 1, "ns": 1}[unit]
    hour = 3_600_000_000

    def text(number: pl.Expr) -> pl.Expr:
        whole = number.cast(pl.Int64)
        micros = whole // 1_000 if unit == "ns" else whole * per_us
        length = micros.abs()
        sign = pl.when(micros < 0).then(pl.lit("-")).otherwise(pl.lit(""))
        hours = (length // hour).cast(pl.String).str.zfill(2)
        rest = (length % hour).cast(pl.Datetime("us")).dt.to_string(":%M:%S%.6f")
        return pl.concat_str(sign, hours, rest)

    return text


def iso_time_text(text: pl.Expr) -> pl.Expr:
    """23:59:59.123456: Debezium's IsoTime without its Z, six digits."""
    bare = text.str.strip_suffix("Z")
    plain = bare.str.len_bytes() >= 8  # HH:MM:SS
    return (
        pl.when(plain)
        .then(pl.concat_str(bare.str.slice(0, 8), pl.lit("."), bare.str.slice(9).str.pad_end(6, "0")))
        .otherwise(bare)
    )
