"""Python objects to columns: what the row decoders (fastavro, msgspec) share, so that they give the column decoder's frame.

Decimals travel as text, because Polars rounds and drops `decimal.Decimal` objects whose scales differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any

import msgspec
import polars as pl

from chronicle.codec.columns import Column, WriterSchema

Convert = Callable[[Any], Any]
"""One decoded value, never None, to the object that Polars takes for the column's transport dtype."""
Field = Callable[[Any], Any]
"""A record to one of its fields' values."""


def decimal_text(unscaled: int, scale: int) -> str:
    """`unscaled` × 10^-`scale` with exactly `scale` digits after the point (none when it is negative)."""
    if scale <= 0:
        return str(unscaled * 10**-scale)
    sign = "-" if unscaled < 0 else ""
    digits = str(abs(unscaled)).rjust(scale + 1, "0")
    return f"{sign}{digits[:-scale]}.{digits[-scale:]}"


def transport_dtype(dtype: pl.DataType) -> pl.DataType:
    """The dtype that Python objects are collected in: as `dtype`, with text for decimals and pairs for maps."""
    if isinstance(dtype, pl.Decimal):
        return pl.String()
    if isinstance(dtype, pl.List):
        return pl.List(transport_dtype(_instance(dtype.inner)))
    if isinstance(dtype, pl.Struct):
        return pl.Struct({one.name: transport_dtype(_instance(one.dtype)) for one in dtype.fields})
    if isinstance(dtype, pl.Map):
        return pl.Map(pl.String(), transport_dtype(_instance(dtype.value)))
    return dtype


def _instance(dtype: Any) -> pl.DataType:
    instance: pl.DataType = dtype() if isinstance(dtype, type) else dtype
    return instance


class Rows:
    """Builds frames of one writer schema from decoded records.

    `fields` gives the accessor of each field of a record type, by the record's columns; `converts` the conversion of a
    column's values, or None when Polars takes them as they are.
    """

    def __init__(
        self,
        schema: WriterSchema,
        fields: Callable[[Column], Sequence[Field]],
        convert: Callable[[Column], Convert | None],
    ) -> None:
        self._schema = schema
        self._fields = fields
        self._convert = convert

    def frame(self, records: Sequence[Any], top: Sequence[Field]) -> pl.DataFrame:
        """The frame of these records, in order.

        Raises:
            Exception: some value does not fit its column (which record is not known).
        """
        columns = self._schema.columns
        return pl.DataFrame(
            [self._series(column, [get(one) for one in records]) for column, get in zip(columns, top, strict=True)]
        )

    def _series(self, column: Column, values: list[Any]) -> pl.Series:
        if column.fields and not column.as_text:
            children = [
                self._series(child, [None if one is None else get(one) for one in values])
                for child, get in zip(column.fields, self._fields(column), strict=True)
            ]
            there = pl.Series("", [one is not None for one in values], dtype=pl.Boolean)
            frame = pl.DataFrame(children)
            return frame.select(pl.when(there).then(pl.struct(pl.all())).alias(column.name)).to_series()
        convert = self._convert(column)
        if convert is not None:
            values = [None if one is None else convert(one) for one in values]
        transport = transport_dtype(column.dtype)
        series = pl.Series(column.name, values, dtype=transport, strict=True)
        return series if transport == column.dtype else series.cast(column.dtype, strict=True)


def keep_good(
    records: Sequence[Any], build: Callable[[Sequence[Any]], pl.DataFrame], empty: pl.DataFrame
) -> tuple[pl.DataFrame, dict[int, str]]:
    """Build a frame; where that fails, the frame without the records that make it fail, and {index: why}.

    Halves what fails, so that a few bad records among many cost a few builds.
    """
    bad: dict[int, str] = {}
    parts: list[pl.DataFrame] = []

    def part(lo: int, hi: int) -> None:
        try:
            parts.append(build(records[lo:hi]))
        except Exception as error:  # noqa: BLE001  the libraries' own errors of many kinds; each ends as a dead letter
            if hi - lo == 1:
                bad[lo] = f"a value does not fit its column ({type(error).__name__})"
                return
            middle = (lo + hi) // 2
            part(lo, middle)
            part(middle, hi)

    if records:
        part(0, len(records))
    return (pl.concat(parts) if parts else empty), bad


def json_text(value: Any) -> str:
    """Canonical JSON of a value without a column form: keys sorted, bytes in base64."""
    return msgspec.json.encode(value, order="sorted").decode()


def attributes(names: Iterable[str]) -> list[Field]:
    """Accessors of attributes."""
    return [attrgetter(name) for name in names]
