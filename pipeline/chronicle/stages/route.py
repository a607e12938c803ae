"""Route: the typed rows of a captured table for its mirror, in the types ClickHouse stores.

Only tables with a key have a mirror. A deleted row is its key and the mark; a redacted column is absent; a key column
that looks like a secret is there as its token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import polars as pl

from chronicle.codec import diff, types
from chronicle.codec.flat import after, before, row_columns
from chronicle.codec.schema import Column, WriterSchema
from chronicle.model.batch import MirrorColumn

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


class MirrorPlan:
    """The compiled form of one table's mirror. Build once; give `exprs` to the table's `Plan`, and what it makes of them
    to `part`."""

    def __init__(
        self,
        schema: WriterSchema,
        key_names: tuple[str, ...],
        filtered: Mapping[str, str],
        tokens: Callable[[pl.Series], pl.Series],
    ) -> None:
        """`tokens` turns the texts of a column into tokens.

        Raises:
            ValueError: the row lacks a key column: there is no mirror.
        """
        row = {column.name: column for column in row_columns(schema, "after")}
        if not key_names or not set(key_names) <= row.keys():
            raise ValueError("a mirror needs its key columns in the row")
        kept = [column for name, column in row.items() if name not in filtered or name in key_names]
        self.columns = tuple(_mirror_column(column, column.name in key_names, column.name in filtered) for column in kept)
        self._index = {column.name: index for index, column in enumerate(kept)}
        self._tokens = tokens
        self._tokenised = [self._index[name] for name in key_names if name in filtered]
        values: list[pl.Expr] = []
        flags: dict[int, pl.Expr] = {}
        nulls: dict[int, pl.Expr] = {}
        refused: list[pl.Expr] = []
        for index, (column, mirror) in enumerate(zip(kept, self.columns, strict=True)):
            value = pl.coalesce(after(column.name), before(column.name)) if mirror.key else after(column.name)
            if column.name in filtered:
                values.append(types.value_text(column, value))
                continue
            array = not mirror.key and mirror.clickhouse_type.startswith("Array")
            typed = types.mirror_value(column, value)
            values.append(typed.fill_null([]) if array else typed)
            fits = types.representable(column, value)
            if fits is not None and mirror.key:
                refused.append(~fits)
            elif fits is not None:
                flags[index] = ~fits
            if not mirror.key and mirror.clickhouse_type.startswith(("Array", "Map")):
                nulls[index] = value.is_null() & pl.col("after").is_not_null()
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
        for index in self._tokenised:
            columns[index] = self._tokens(columns[index])
        for name, series in missing.items():
            if name in self._index:
                columns[self._index[name]] = _hidden(columns[self._index[name]], series)
        if missing:
            columns[-3] = absent.series(_LISTS[0])
        columns[-2] = self._marked(columns[-2], self._flagged, flagged, missing)
        columns[-1] = self._marked(columns[-1], self._nullable, nulls, missing)
        refused = made[-1].fill_null(False) if self._refuses else None
        if refused is None or not refused.any():
            return MirrorPart(columns, rows, 0)
        keep = ~refused
        return MirrorPart([one.filter(keep) for one in columns], rows[keep.to_numpy()], int(refused.sum()))

    def _marked(self, nothing: pl.Series, at: list[int], marks: list[pl.Series], missing: Mapping[str, pl.Series]) -> pl.Series:
        """Per row the names of the marked columns; one whose value was not sent is not among them."""
        if not any(one.any() for one in marks):
            return nothing
        flags = diff.matrix(marks, len(nothing))
        for absent_name, absent in missing.items():
            index = self._index.get(absent_name)
            if index in at:
                flags[:, at.index(index)] &= ~absent.to_numpy()
        return diff.name_lists([self.columns[index].name for index in at], flags).series(nothing.name)


def _hidden(values: pl.Series, absent: pl.Series) -> pl.Series:
    """NULL (an array: empty) where the value was not sent."""
    nothing = pl.lit([] if isinstance(values.dtype, pl.List) else None, values.dtype)
    return pl.select(pl.when(pl.lit(absent)).then(nothing).otherwise(pl.lit(values)).alias(values.name)).to_series()


def _mirror_column(column: Column, key: bool, tokenised: bool) -> MirrorColumn:
    kind = "String" if tokenised else types.clickhouse_type(column, key=key)
    name = f"{column.name}__column" if column.name in RESERVED else column.name
    return MirrorColumn(name, kind, key)
