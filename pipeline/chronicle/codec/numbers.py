"""Numbers that a frame cannot hold as such: long decimals, decimals of varying scale, bits, and floats as JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl

from chronicle.codec.columns import Column
from chronicle.codec.rows import decimal_text

WRAPPED_SCALE_MIN = 1_001
"""Postgres allows scales from -1000 to 1000; Debezium reads a negative one as 11 bits without a sign (-2 → 2046)."""


def mapped(function: Callable[[Any], Any], dtype: pl.DataType | None = None) -> Callable[[pl.Expr], pl.Expr]:
    """An expression from a Python function of one value, called once per distinct value; null stays null.

    `dtype`: of the results; String when not said.
    """
    dtype = dtype or pl.String()

    def over(series: pl.Series) -> pl.Series:
        known: dict[Any, Any] = {}
        out: list[Any] = []
        for value in series.to_list():
            if value is None:
                out.append(None)
                continue
            result = known.get(value)
            if result is None:
                result = known[value] = function(value)
            out.append(result)
        return pl.Series(series.name, out, dtype=dtype)

    return lambda value: value.map_batches(over, return_dtype=dtype)


def float_json(number: pl.Expr) -> pl.Expr:
    """JSON of a float: a number, or "NaN", "Infinity", "-Infinity" in quotes, because JSON has no such numbers."""
    return (
        pl.when(number.is_finite())
        .then(number.cast(pl.String))
        .when(number.is_nan())
        .then(pl.lit('"NaN"'))
        .when(number > 0)
        .then(pl.lit('"Infinity"'))
        .when(number < 0)
        .then(pl.lit('"-Infinity"'))
    )


def decimal_bytes_text(column: Column) -> Callable[[pl.Expr], pl.Expr]:
    """Text of a decimal that is kept as its bytes, with the declared scale."""
    declared = int(column.params.get("scale", 0))
    if declared < WRAPPED_SCALE_MIN:
        return mapped(lambda value: decimal_text(int.from_bytes(value, "big", signed=True), declared))
    unit = 10**declared

    def wrapped(value: bytes) -> str:
        unscaled = int.from_bytes(value, "big", signed=True)
        whole, rest = divmod(abs(unscaled), unit)
        sign = "-" if unscaled < 0 else ""
        # a number that was rounded to tens has no digits after the point: two thousand zeros say nothing
        return decimal_text(unscaled, declared) if rest else f"{sign}{whole}"

    return mapped(wrapped)


def variable_decimal_text(value: pl.Expr) -> pl.Expr:
    """Text of a VariableScaleDecimal (struct of scale and unscaled bytes), with the scale it came with."""

    def over(series: pl.Series) -> pl.Series:
        pairs = zip(series.struct.field("scale").to_list(), series.struct.field("value").to_list(), strict=True)
        texts = [
            None if scale is None or unscaled is None else decimal_text(int.from_bytes(unscaled, "big", signed=True), scale)
            for scale, unscaled in pairs
        ]
        return pl.Series(series.name, texts, dtype=pl.String)

    return value.map_batches(over, return_dtype=pl.String())


def bits_text(column: Column) -> Callable[[pl.Expr], pl.Expr]:
    """0s and 1s, most significant first, as many as the column is wide (Debezium's bytes begin with the lowest)."""
    declared = int(column.params.get("length", 0))

    def text(value: bytes) -> str:
        return format(int.from_bytes(value, "little"), f"0{declared or 8 * len(value)}b")

    return mapped(text)


def fits_digits(text: pl.Expr, whole: int, fraction: int) -> pl.Expr:
    """Whether a decimal's text has at most so many digits before and after its point, trailing zeros not counted."""
    return text.str.contains(rf"^-?\d{{1,{max(whole, 1)}}}(?:\.\d{{0,{fraction}}}0*)?$")
