"""What changed in a table's columns from one writer schema to another, in words for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum

import polars as pl

from chronicle.codec.columns import DECIMAL, Column, WriterSchema

_PLAIN: Mapping[pl.DataType, str] = {
    pl.Boolean(): "boolean",
    pl.Int32(): "int",
    pl.Int64(): "long",
    pl.Float32(): "float",
    pl.Float64(): "double",
    pl.String(): "string",
    pl.Binary(): "bytes",
}


class How(StrEnum):
    """What happened to a column."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Difference:
    """One column that is not as it was."""

    column: str
    how: How
    old: str | None
    """Its type before, in words."""
    new: str | None

    def as_json(self) -> dict[str, str | None]:
        """For `--json`."""
        return asdict(self)

    @property
    def words(self) -> str:
        """`+ email string`, `- note string`, `~ total int → long`."""
        match self.how:
            case How.ADDED:
                return f"+ {self.column} {self.new}"
            case How.REMOVED:
                return f"- {self.column} {self.old}"
        return f"~ {self.column} {self.old} → {self.new}"


def differences(old: WriterSchema, new: WriterSchema) -> tuple[Difference, ...]:
    """Columns of the rows (of an envelope; else of the record) that were added, removed or changed, in the tables' order.

    A renamed column is one removed and one added: no connector says more.
    """
    before, after = ({one.name: described(one) for one in _columns(schema)} for schema in (old, new))
    found = [Difference(name, How.REMOVED, was, None) for name, was in before.items() if name not in after]
    for name, now in after.items():
        if name not in before:
            found.append(Difference(name, How.ADDED, None, now))
        elif before[name] != now:
            found.append(Difference(name, How.CHANGED, before[name], now))
    return tuple(found)


def described(column: Column) -> str:
    """A column's type: `Decimal(12, 2), nullable`, `ZonedTimestamp`, `list of string`."""
    return _kind(column) + (", nullable" if column.nullable else "")


def _kind(column: Column) -> str:
    name = (column.semantic or "").rpartition(".")[2]
    if column.semantic == DECIMAL:
        return f"Decimal({column.precision or '?'}, {column.params.get('scale', '0')})"
    if name:
        allowed = column.params.get("allowed")
        return f"{name}({allowed})" if allowed else name
    return "other" if column.as_text else _shape(column)


def _shape(column: Column) -> str:
    if column.items is not None:
        return f"{'list' if isinstance(column.dtype, pl.List) else 'map'} of {_kind(column.items)}"
    if column.fields:
        return "record of " + ", ".join(f"{one.name} {_kind(one)}" for one in column.fields)
    return f"int{column.width}" if column.width else _PLAIN.get(column.dtype, str(column.dtype))


def _columns(schema: WriterSchema) -> tuple[Column, ...]:
    return schema.row.columns if schema.row else schema.columns
