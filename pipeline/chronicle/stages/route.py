"""Route: the typed rows of a captured table for its mirror, in the types ClickHouse stores.

Only tables with a key have a mirror. A deleted row is its key and the mark, and so is a row that the policy's filter leaves
out: a mirror holds the rows for which the filter is true. Dropped and redacted columns are absent.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import polars as pl

from chronicle.codec import diff, types
from chronicle.codec.flat import WRITTEN, after, before, row_columns
from chronicle.codec.schema import Column, WriterSchema
from chronicle.model.batch import MirrorColumn
from chronicle.policy.rules import TablePolicy
from chronicle.stages.treatments import Treated

RESERVED = frozenset({"_row", "_deleted", "_unavailable", "_flags", "_nulls", "_position", "_event_id", "_inserted_at"})
"""Names that belong to the mirror; a source column of such a name is called `<name>__column` there."""


_LISTS = ("_unavailable", "_flags", "_nulls")


@dataclass(frozen=True, slots=True)
class MirrorPart:
    """Mirror rows of one group, still without `_row`: `rows[i]` is the record that row i comes from."""

    columns: list[pl.Series] = field(repr=False)
    """The mirror's columns, `_deleted`, `_unavailable`, `_flags`, `_nulls`."""
    rows: diff.Indexes
    refused_keys: int
    """Rows left out because a key value has no place in its ClickHouse type."""

    def frame(self, plan: MirrorPlan, places: diff.Indexes) -> pl.DataFrame:
        """The rows with their places in the batch's changes; -1: it became a dead letter, and `_row` is null."""
        width = len(plan.columns)
        row = pl.Series("_row", places, dtype=pl.Int64).cast(pl.UInt32, strict=False)
        made = pl.DataFrame([*self.columns[:width], row, *self.columns[width:]])
        made.columns = [*(column.name for column in plan.columns), "_row", *(one.name for one in self.columns[width:])]
        return made


class MirrorPlan:
    """The compiled form of one table's mirror. Build once; give `exprs` to the table's `Plan`, and what it makes of them
    to `part`."""

    def __init__(
        self,
        schema: WriterSchema,
        key_names: tuple[str, ...],
        treated: Mapping[str, Treated],
        policy: TablePolicy,
        once: Collection[str],
    ) -> None:
        """`treated`: what becomes of columns that are not clear; `once`: of which it is there already (`WRITTEN`).

        Raises:
            ValueError: the row lacks a key column: there is no mirror.
        """
        row = {column.name: column for column in row_columns(schema, "after")}
        if not key_names or not set(key_names) <= row.keys():
            raise ValueError("a mirror needs its key columns in the row")
        kept = [column for name, column in row.items() if name not in treated or treated[name].value is not None]
        self.index = {column.name: index for index, column in enumerate(kept)}
        """Source column → its place in `columns`."""
        columns: list[MirrorColumn] = []
        values: list[pl.Expr] = []
        flags: dict[int, pl.Expr] = {}
        nulls: dict[int, pl.Expr] = {}
        refused: list[pl.Expr] = []
        for index, column in enumerate(kept):
            key = column.name in key_names
            value = pl.coalesce(after(column.name), before(column.name)) if key else after(column.name)
            kind, typed, fits = _stored(column, value, treated.get(column.name), key)
            if column.name in once:
                there = WRITTEN + column.name
                typed = pl.coalesce(after(there), before(there)) if key else after(there)
            array = not key and kind.startswith("Array")
            values.append(typed.fill_null([]) if array else typed)
            if fits is not None and key:
                refused.append(~fits)
            elif fits is not None:
                flags[index] = ~fits
            if not key and kind.startswith(("Array", "Map")):
                nulls[index] = value.is_null() & pl.col("after").is_not_null()
            name = f"{column.name}__column" if column.name in RESERVED else column.name
            how = policy.columns[column.name].treatment.label if column.name in treated else ""
            columns.append(MirrorColumn(name, kind, key, how))
        self.columns = tuple(columns)
        self._flagged, self._nullable, self._refuses = list(flags), list(nulls), bool(refused)
        marks = [*flags.values(), *nulls.values(), *([pl.any_horizontal(refused)] if refused else [])]
        self.exprs = [
            *(value.alias(f"m:{index}") for index, value in enumerate(values)),
            (pl.col("op") == "d").cast(pl.UInt8).alias("_deleted"),
            *(mark.alias(f"m?{index}") for index, mark in enumerate(marks)),
        ]

    def part(
        self, made: list[pl.Series], rows: diff.Indexes, missing: Mapping[str, pl.Series], absent: diff.NameLists
    ) -> MirrorPart:
        """Mirror rows of a group; `missing` and `absent` are the columns whose value was not sent."""
        width = len(self.columns) + 1
        flagged, nulls = made[width : width + len(self._flagged)], made[width + len(self._flagged) :][: len(self._nullable)]
        nothing = diff.no_names(len(rows))
        columns = [*made[:width], *(nothing.alias(name) for name in _LISTS)]
        for name, series in missing.items():
            if name in self.index:
                columns[self.index[name]] = _hidden(columns[self.index[name]], series)
        if missing:
            columns[-3] = absent.series(_LISTS[0])
        columns[-2] = self._marked(columns[-2], self._flagged, flagged, missing)
        columns[-1] = self._marked(columns[-1], self._nullable, nulls, missing)
        refused = made[-1].fill_null(False) if self._refuses else None
        if refused is None or not refused.any():
            return MirrorPart(columns, rows, 0)
        keep = ~refused
        return MirrorPart([one.filter(keep) for one in columns], rows[keep.to_numpy()], int(refused.sum()))

    def without(self, frame: pl.DataFrame, outside: pl.Series) -> pl.DataFrame:
        """The frame with these rows as deleted ones: the key and the mark."""
        if not outside.any():
            return frame
        gone = pl.lit(outside)
        values = [column.name for column in self.columns if not column.key]
        return frame.with_columns(
            *(pl.when(~gone).then(pl.col(name)).otherwise(_nothing(frame.schema[name])).alias(name) for name in values),
            *(pl.when(~gone).then(pl.col(name)).otherwise(_nothing(frame.schema[name])).alias(name) for name in _LISTS),
            pl.when(gone).then(pl.lit(1, pl.UInt8)).otherwise(pl.col("_deleted")).alias("_deleted"),
        )

    def _marked(self, nothing: pl.Series, at: list[int], marks: list[pl.Series], missing: Mapping[str, pl.Series]) -> pl.Series:
        """Per row the names of the marked columns; one whose value was not sent is not among them."""
        if not any(one.any() for one in marks):
            return nothing
        flags = diff.matrix(marks, len(nothing))
        for absent_name, absent in missing.items():
            index = self.index.get(absent_name)
            if index in at:
                flags[:, at.index(index)] &= ~absent.to_numpy()
        return diff.name_lists([self.columns[index].name for index in at], flags).series(nothing.name)


def _hidden(values: pl.Series, absent: pl.Series) -> pl.Series:
    """NULL (an array: empty) where the value was not sent."""
    hidden = pl.when(pl.lit(absent)).then(_nothing(values.dtype)).otherwise(pl.lit(values))
    return pl.select(hidden.alias(values.name)).to_series()


def _nothing(dtype: pl.DataType) -> pl.Expr:
    return pl.lit([] if isinstance(dtype, pl.List) else None, dtype)


def _stored(column: Column, value: pl.Expr, treated: Treated | None, key: bool) -> tuple[str, pl.Expr, pl.Expr | None]:
    """ClickHouse's type, the value in it, and where it cannot hold the value (None: it always can)."""
    if treated is None:
        return types.clickhouse_type(column, key=key), types.mirror_value(column, value), types.representable(column, value)
    if treated.value is None:
        raise ValueError("a column without a place in the mirror")
    kind = f"Nullable({treated.clickhouse})" if treated.nullable and not key else str(treated.clickhouse)
    return kind, treated.value(value), None if treated.fits is None else treated.fits(value).fill_null(True)
