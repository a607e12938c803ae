"""Values that Postgres did not send: Debezium's placeholder in all the forms it takes (fact 9).

An unchanged TOASTed value of a table without REPLICA IDENTITY FULL arrives as a configured placeholder: as text, as its
bytes, as the one element of an array, as its code points in an array of integers, as the one entry of a map. Types that
cannot carry it (numeric, timestamptz[], bool[], float8[]) arrive as NULL, which nothing here can tell from a real one.
"""

from __future__ import annotations

import base64
import json

import polars as pl

from chronicle.codec.schema import Column

_INTEGERS = (pl.Int8, pl.Int16, pl.Int32, pl.Int64)


def is_placeholder(column: Column, value: pl.Expr, placeholder: str) -> pl.Expr | None:
    """Whether the value is the placeholder (never null); None for a type that cannot carry it."""
    test = _test(column.dtype, column.semantic, value, placeholder)
    return None if test is None else test.fill_null(False)


def _test(dtype: pl.DataType, semantic: str | None, value: pl.Expr, placeholder: str) -> pl.Expr | None:
    raw = placeholder.encode()
    if dtype == pl.String:
        if semantic is not None and not semantic.endswith("data.Json"):
            return value == placeholder
        return (value == placeholder) | (value == _map_text(placeholder)) | (value == base64.b64encode(raw).decode())
    if dtype == pl.Binary:
        return value == pl.lit(raw)
    if isinstance(dtype, pl.List):
        return _array_test(dtype.inner, value, placeholder)
    if isinstance(dtype, pl.Map):
        return value.map.contains_key(placeholder) if dtype.key == pl.String else None
    return None


def _array_test(inner: object, value: pl.Expr, placeholder: str) -> pl.Expr | None:
    raw = placeholder.encode()
    if inner == pl.String:
        return (value.list.len() == 1) & (value.list.get(0, null_on_oob=True) == placeholder)
    if inner == pl.Binary:
        return (value.list.len() == 1) & (value.list.get(0, null_on_oob=True) == pl.lit(raw))
    if inner in _INTEGERS:
        points = pl.concat_str([pl.lit(",".join(map(str, raw)))])
        return (value.list.len() == len(raw)) & (value.cast(pl.List(pl.String)).list.join(",") == points)
    return None


def _map_text(placeholder: str) -> str:
    return json.dumps({placeholder: placeholder}, separators=(",", ":"))
