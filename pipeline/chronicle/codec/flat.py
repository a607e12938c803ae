"""A decoded envelope laid flat: one column per field of its blocks, named with the block's prefix.

Polars resolves a field of a struct in time that grows with the struct, for each expression: on small groups of wide tables
flat columns make the same work three times cheaper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import polars as pl

from chronicle.codec.meaning import Make
from chronicle.codec.schema import Column, WriterSchema

BLOCKS: Mapping[str, str] = {"before": "b:", "after": "a:", "source": "s:", "transaction": "t:"}
"""Block → prefix of its fields. Top-level fields keep their names, which hold no colon."""
WRITTEN = "\0"
"""Before the name of a column of a row: what stands for its values. No database has such a name."""


@dataclass(frozen=True, slots=True)
class Flat:
    """A group's records, laid flat."""

    table: pl.DataFrame = field(repr=False)
    """All columns: those of the decoder's frame, and one per field of a block (`after.id` → `a:id`)."""
    rows: pl.DataFrame | None = field(repr=False)
    """Old rows, and under them the new ones, with the table's own column names; null where there is none. None when they
    are no records: null throughout in JSON without a schema, as for truncates."""
    names: frozenset[str]
    """Of `table`'s columns."""

    def with_written(self, makes: Mapping[str, Make]) -> Flat:
        """With what stands for the values of these columns, made once for old and new rows: columns `WRITTEN` + name."""
        if not makes or self.rows is None:
            return self
        written = self.rows.select(make(pl.col(name)).alias(WRITTEN + name) for name, make in makes.items())
        count = len(self.table)
        old, new = written.slice(0, count), written.slice(count, count)
        old.columns, new.columns = ([BLOCKS[block] + name for name in written.columns] for block in ("before", "after"))
        table = pl.concat([self.table, old, new], how="horizontal")
        return Flat(table, pl.concat([self.rows, written], how="horizontal"), self.names)


@dataclass(frozen=True, slots=True)
class _Layout:
    """What follows from the schema alone."""

    blocks: tuple[tuple[str, list[str]], ...]
    """Blocks that are records, with the names of their flat columns."""
    rows: bool
    """Whether old and new rows are among them (then they have the same columns)."""
    names: frozenset[str]
    """Of all flat columns."""


def flat(frame: pl.DataFrame, schema: WriterSchema) -> Flat:
    """The frame a decoder made of records of this schema as flat columns."""
    layout = _layout(schema)
    parts = [frame]  # joined as frames: a Series object for each of their columns costs more than the rest
    rows: list[pl.DataFrame] = []
    for block, names in layout.blocks:
        fields = frame.get_column(block).struct.unnest()
        if layout.rows and block in ("before", "after"):
            rows.append(fields.clone())
        fields.columns = names
        parts.append(fields)
    return Flat(pl.concat(parts, how="horizontal"), rows[0].vstack(rows[1]).rechunk() if layout.rows else None, layout.names)


@lru_cache(maxsize=4096)
def _layout(schema: WriterSchema) -> _Layout:
    dtypes = schema.frame_schema()
    records = {block: dtype for block in BLOCKS if isinstance(dtype := dtypes.get(block), pl.Struct)}
    blocks = tuple((block, [BLOCKS[block] + one.name for one in dtype.fields]) for block, dtype in records.items())
    names = frozenset((*dtypes, *(name for _, names in blocks for name in names)))
    return _Layout(blocks, {"before", "after"} <= records.keys(), names)


def before(name: str) -> pl.Expr:
    """A column of the old row."""
    return pl.col(BLOCKS["before"] + name)


def after(name: str) -> pl.Expr:
    """A column of the new row."""
    return pl.col(BLOCKS["after"] + name)


def column(group: Flat, name: str, dtype: pl.DataType) -> pl.Series:
    """A flat column in this dtype; null where this version of the connector has no such field."""
    if name not in group.names:
        return pl.Series(name, [None], dtype=dtype).new_from_index(0, len(group.table))
    series = group.table.get_column(name)
    return series if series.dtype == dtype else series.cast(dtype, strict=False)


def row_columns(schema: WriterSchema, block: str) -> Sequence[Column]:
    """The table's columns as this block has them; empty when the block is no record."""
    try:
        return schema[block].fields
    except KeyError:
        return ()
