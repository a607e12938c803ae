"""Grants: clear values of columns that a processor was granted. They stand beside the changes, never in them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import polars as pl

from chronicle.codec.columns import Column
from chronicle.codec.debezium import Trust
from chronicle.codec.flat import after
from chronicle.stages.decode import Indexes
from chronicle.stages.row_view import row_value, seen

if TYPE_CHECKING:
    from chronicle.stages.changes import Group

Grants = Callable[[str, str, str], Sequence[str]]
"""Source, schema, table → columns that some processor sees in clear."""
ROW = "_row"


def nothing_granted(_source: str, _schema: str, _table: str) -> Sequence[str]:
    """To any processor."""
    return ()


def exprs(
    columns: Sequence[Column], names: Collection[str], keys: Collection[str], trust: Trust, unavailable: str | None
) -> dict[str, pl.Expr]:
    """By column, as people see it: of the new row, of a delete the old one. Null where the database did not say."""
    found = {}
    for column in columns:
        if column.name in names:
            known = trust.deletes or column.name in keys
            value = row_value(column.name) if known else pl.when(pl.col("op") != "d").then(after(column.name))
            found[column.name] = seen(column, value, unavailable).value.alias(f"?g:{column.name}")
    return found


def gathered(groups: Sequence[Group], at: Indexes) -> dict[tuple[str, str, str], pl.DataFrame]:
    """As `Batch.granted`. `at`: record index → row in the changes, negative: none."""
    parts: dict[tuple[str, str, str], list[pl.DataFrame]] = {}
    for group in groups:
        if group.plan.granted:
            row = pl.Series(ROW, at[group.rows])
            columns = [series.alias(name) for name, series in group.made.granted.items()]
            part = pl.DataFrame([row, *columns]).filter(pl.col(ROW) >= 0).with_columns(pl.col(ROW).cast(pl.UInt32))
            parts.setdefault((group.source, group.schema, group.table), []).append(part)
    return {table: pl.concat(alike(found), how="diagonal") for table, found in parts.items()}


def alike(parts: Sequence[pl.DataFrame]) -> list[pl.DataFrame]:
    """Columns of one name as text, where the parts do not agree what they are."""
    kinds: dict[str, set[pl.DataType]] = {}
    for part in parts:
        for name, dtype in part.schema.items():
            kinds.setdefault(name, set()).add(dtype)
    mixed = [name for name, found in kinds.items() if len(found) > 1]
    return [part.with_columns(_text(part[name]) for name in mixed if name in part.columns) for part in parts]


def _text(series: pl.Series) -> pl.Expr:
    value = pl.col(series.name)
    if isinstance(series.dtype, pl.List):
        return value.list.eval(pl.element().cast(pl.String)).list.join(",")
    return value.cast(pl.String)
