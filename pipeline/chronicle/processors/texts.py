"""Columns that processors made, as JSON objects: keys sorted, values written as in the images of a change."""

from __future__ import annotations

import polars as pl

from chronicle.processors.faults import ProcessorFault

_DATETIME = "%Y-%m-%dT%H:%M:%S%.6f"


def objects(frame: pl.DataFrame) -> pl.Series:
    """One JSON object for each row; null stands as null, what is no finite number too.

    Raises:
        ProcessorFault: a column of a type that JSON cannot hold.
    """
    check(frame)
    members = [_member(frame[name]).alias(name) for name in sorted(frame.columns)]
    if not members:
        return pl.Series(["{}"]).new_from_index(0, len(frame))
    return frame.select(pl.struct(members).struct.json_encode()).to_series()


def check(frame: pl.DataFrame) -> None:
    """Raises ProcessorFault when `objects` would."""
    if any(_unwritable(dtype) for dtype in frame.dtypes if dtype != pl.Binary):
        raise ProcessorFault("a column has a type that JSON cannot hold: Object, or Binary inside of another")


def _member(series: pl.Series) -> pl.Expr:
    value, dtype = pl.col(series.name), series.dtype
    if isinstance(dtype, pl.Datetime):
        if dtype.time_zone is None:
            return value.dt.to_string(_DATETIME)
        return value.dt.convert_time_zone("UTC").dt.to_string(_DATETIME + "Z")
    if isinstance(dtype, pl.Decimal) or dtype in (pl.Categorical, pl.Enum):
        return value.cast(pl.String)
    if dtype == pl.Binary:
        return value.bin.encode("base64")
    return value


def _unwritable(dtype: pl.DataType) -> bool:
    if isinstance(dtype, pl.List | pl.Array):
        return _unwritable(_instance(dtype.inner))
    if isinstance(dtype, pl.Struct):
        return any(_unwritable(_instance(one.dtype)) for one in dtype.fields)
    return dtype in (pl.Object, pl.Binary)


def _instance(dtype: object) -> pl.DataType:
    made = dtype() if isinstance(dtype, type) else dtype
    if not isinstance(made, pl.DataType):
        raise ProcessorFault("a column has a type that JSON cannot hold")
    return made
