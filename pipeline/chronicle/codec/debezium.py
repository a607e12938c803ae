"""Debezium's envelope to the raw columns of a change: images, keys of the source block, what changed, what is unknown.

A `Plan` is compiled once per (source, writer schema, key columns) and then evaluated with one `select` per group of
records. Every quirk of facts 1 to 17 that concerns a row's content is handled here; where a row stands (position, identity)
follows from the columns this module hands on, for all groups at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
import polars as pl

from chronicle.codec import diff, types
from chronicle.codec.flat import WRITTEN, Flat, after, before, column, row_columns
from chronicle.codec.meaning import Make
from chronicle.codec.schema import Column, WriterSchema
from chronicle.codec.times import from_millis
from chronicle.codec.unavailable import is_placeholder
from chronicle.model.chunk import SourceSpec

NOTHING: Mapping[str, pl.Expr] = {}
NO_MAKES: Mapping[str, Make] = {}
OPERATIONS: Mapping[str, str] = {"r": "snapshot", "c": "create", "u": "update", "d": "delete", "t": "truncate"}


class Written(Protocol):
    """How a column's values are written in images, when not as they are (`stages.treatments.Treated`)."""

    @property
    def text(self) -> Make | None:
        """What stands for a value, null staying null; None: the column is left out."""

    @property
    def raw(self) -> bool:
        """Whether that is JSON text already."""


class Family(StrEnum):
    """What a source block looks like, and with it what gives order and identity."""

    POSTGRES = "postgres"
    BINLOG = "binlog"


def family_of(schema: WriterSchema) -> Family | None:
    """The family whose fields the envelope's source block has; None: no envelope of a connector that Chronicle knows."""
    blocks = {column.name: column for column in schema.columns}
    if not {"before", "after", "source", "op"} <= blocks.keys() or blocks["op"].dtype != pl.String:
        return None
    if blocks["before"].dtype != blocks["after"].dtype:
        return None
    fields = {field.name for field in blocks["source"].fields}
    if {"lsn", "sequence"} <= fields:
        return Family.POSTGRES
    return Family.BINLOG if {"file", "pos"} <= fields else None


@dataclass(frozen=True, slots=True)
class Trust:
    """Whether the old values of a Postgres table can be believed (fact 8: without REPLICA IDENTITY FULL Debezium
    invents the NOT NULL ones)."""

    updates: bool
    """An update's `before`, where there is one."""
    deletes: bool


FULL = Trust(updates=True, deletes=True)
DOUBTED = Trust(updates=True, deletes=False)
"""Declared FULL, but an update came without `before`: deletes keep only the key."""
KEY_ONLY = Trust(updates=False, deletes=False)


def trust_of(spec: SourceSpec, family: Family, schema: str, table: str) -> Trust:
    """What the source's declaration says about a table."""
    if family is Family.BINLOG or spec.full_identity is None:
        return FULL
    return FULL if f"{schema}.{table}" in spec.full_identity else KEY_ONLY


@dataclass(frozen=True, slots=True)
class Extract:
    """What a plan makes of a group's records: one row a record, in the same order."""

    core: list[pl.Series]
    """In the order and with the dtypes of `core_schema(family)`. `before` and `after` hold text for every row: it is
    nothing where `has_before`, `has_after` is false."""
    trust: Trust
    both: pl.Series
    """Updates of which the old row and the new one are here."""
    differs: diff.Flags
    """Rows × the plan's `diffed` columns: true where an update changed the column."""
    unavailable: diff.NameLists
    missing: Mapping[str, pl.Series]
    """Columns with an unavailable value somewhere in the group: true where it is."""
    extras: list[pl.Series]
    """Of the plan's `extras`, in their order."""
    doubted: bool
    """The table was trusted as FULL, but an update came without `before`."""


_MADE: Mapping[str, pl.DataType] = {
    "before": pl.String(),
    "after": pl.String(),
    "has_before": pl.Boolean(),
    "has_after": pl.Boolean(),
}
_FIELDS: Mapping[str, tuple[str, pl.DataType]] = {
    "op": ("op", pl.String()),
    "connector": ("s:connector", pl.String()),
    "table": ("s:table", pl.String()),
    "transaction": ("t:id", pl.String()),
    "transaction_order": ("t:total_order", pl.UInt64()),
    "source_us": ("s:ts_us", pl.Int64()),
    "source_ms": ("s:ts_ms", pl.Int64()),
    "envelope_us": ("ts_us", pl.Int64()),
    "envelope_ms": ("ts_ms", pl.Int64()),
}
_OF_FAMILY: Mapping[Family, Mapping[str, tuple[str, pl.DataType]]] = {
    Family.POSTGRES: {
        "schema": ("s:schema", pl.String()),
        "tx_id": ("s:txId", pl.Int64()),
        "lsn": ("s:lsn", pl.Int64()),
        "sequence": ("s:sequence", pl.String()),
    },
    Family.BINLOG: {
        "schema": ("s:db", pl.String()),
        "file": ("s:file", pl.String()),
        "pos": ("s:pos", pl.Int64()),
        "row": ("s:row", pl.Int64()),
        "gtid": ("s:gtid", pl.String()),
    },
}


def core_schema(family: Family) -> dict[str, pl.DataType]:
    """Names and dtypes of `Extract.core`."""
    taken = {**_FIELDS, **_OF_FAMILY[family]}
    return {**_MADE, **{name: dtype for name, (_, dtype) in taken.items()}}


OP_AT = list(core_schema(Family.POSTGRES)).index("op")
"""Place of `op` in `Extract.core`, in every family."""


def completed(core: pl.DataFrame) -> pl.DataFrame:
    """The cores of many groups, with trust_updates and trust_deletes beside them, made whole in one pass: images only
    where there is a row, `before_known`, and the times `committed_us` and `captured_us`."""
    op, given = pl.col("op"), pl.col("has_before")
    unknown = ((op == "u") & ~(pl.col("trust_updates") & given)) | ((op == "d") & ~(pl.col("trust_deletes") & given))
    committed = pl.coalesce(pl.col("source_us"), from_millis(pl.col("source_ms")))
    return core.with_columns(
        pl.when(given & (pl.col("trust_updates") | (op != "u"))).then(pl.col("before")),
        pl.when(pl.col("has_after")).then(pl.col("after")),
        (~unknown).fill_null(True).alias("before_known"),
        committed.alias("committed_us"),
        pl.coalesce(pl.col("envelope_us"), from_millis(pl.col("envelope_ms")), committed).alias("captured_us"),
    )


class Plan:
    """The compiled form of one table's envelope. Build once, call `run` per group."""

    def __init__(
        self,
        schema: WriterSchema,
        key_names: Sequence[str],
        spec: SourceSpec,
        trust: Trust,
        *,
        written: Mapping[str, Written],
        once: Mapping[str, Make] = NO_MAKES,
        only_changed: bool = False,
        bare_deletes: bool = False,
        extras: Sequence[pl.Expr] = (),
    ) -> None:
        """`written`: columns whose values do not leave as they are; of those in `once` it is made once for a group and then
        read by everyone (`codec.flat.WRITTEN`). `only_changed`: the images of an update hold its key and
        what it changed; `bare_deletes`: that of a delete its key. `extras`: more expressions over the flat columns
        (`codec.flat`), with names of their own.

        Raises:
            ValueError: the schema is no envelope of a known connector.
        """
        family = family_of(schema)
        if family is None:
            raise ValueError("no envelope of a known connector")
        self.family = family
        self._trust = trust
        self._written, self._once = written, dict(once)
        self._only_changed = only_changed
        self._deletes_whole = trust.deletes and not bare_deletes
        self._fields = tuple({**_FIELDS, **_OF_FAMILY[family]}.values())
        old, new = row_columns(schema, "before"), row_columns(schema, "after")
        self._before, self._after = old, new
        self._keys = tuple(column for column in old if column.name in set(key_names))
        both = {column.name for column in old} & {column.name for column in new}
        self.diffed = tuple(column.name for column in new if column.name in both) if trust.updates else ()
        self._doubtful = family is Family.POSTGRES and trust is FULL
        # with REPLICA IDENTITY FULL the database sends every value
        self._tests = _placeholder_tests(new, spec) if family is Family.POSTGRES and trust is not FULL else {}
        given, now = _given("before", old), _given("after", new)
        self._exprs = [
            given.alias("b?"),
            now.alias("a?"),
            ((pl.col("op") == "u") & given & now).fill_null(False).alias("both"),
            *([((pl.col("op") == "u") & ~given).any().alias("doubted")] if self._doubtful else []),
            *([pl.any_horizontal(self._tests.values()).any().alias("missing")] if self._tests else []),
            *(before(name).ne_missing(after(name)).alias(f"~{name}") for name in self.diffed),
            *extras,
        ]
        self._row_text = self._text(new, pl.col).alias("text")
        self._texts = [self._old(before).alias("before"), self._text(new, after).alias("after")]

    def run(self, group: Flat) -> Extract:
        """`group`: what a decoder made of the records, laid flat."""
        group = group.with_written(self._once)
        table = group.table
        out = iter(table.select(self._exprs).get_columns())
        given, now, both = next(out), next(out), next(out)
        doubted = self._doubtful and bool(next(out)[0])
        some_missing = bool(self._tests) and bool(next(out)[0])
        differs = [next(out) for _ in self.diffed]
        missing = self._missing(table) if some_missing else {}
        rows = len(both)
        marks = self._marks(differs, both, missing)
        absent = self._absent(marks, both, missing)
        core = [
            *(self._without(table, absent) if absent else self._images(group)),
            given,
            now,
            *(column(group, name, dtype) for name, dtype in self._fields),
        ]
        unsent = (
            diff.name_lists(list(missing), diff.matrix(list(missing.values()), rows)) if missing else diff.none_marked(rows)
        )
        return Extract(core, self._trust, both, marks, unsent, missing, list(out), doubted)

    def _images(self, group: Flat) -> list[pl.Series]:
        """Texts of the old and the new rows; of both in one pass where the old ones are wanted whole."""
        rows = len(group.table)
        if not self._after:  # no record has a row at all: nothing that an expression could take its length from
            nothing = pl.Series([None], dtype=pl.String).new_from_index(0, rows)
            return [nothing, nothing]
        if self._trust is FULL and self._deletes_whole and group.rows is not None:
            text = group.rows.select(self._row_text).to_series()
            return [text.slice(0, rows), text.slice(rows, rows)]
        return group.table.select(self._texts).get_columns()

    def _missing(self, table: pl.DataFrame) -> dict[str, pl.Series]:
        found = table.select(test.alias(name) for name, test in self._tests.items())
        return {column.name: column for column in found.iter_columns() if column.any()}

    def _without(self, table: pl.DataFrame, absent: Mapping[str, pl.Series]) -> list[pl.Series]:
        """The images, each row without the columns that are absent in it."""
        marked = table.with_columns(series.alias(f"?{name}") for name, series in absent.items())
        masks = {name: pl.col(f"?{name}") for name in absent}
        old = self._old(before, masks if self._only_changed else {})
        return marked.select(old.alias("before"), self._text(self._after, after, masks).alias("after")).get_columns()

    def _marks(self, differs: list[pl.Series], both: pl.Series, missing: Mapping[str, pl.Series]) -> diff.Flags:
        if not self.diffed or not both.any():
            return np.zeros((len(both), len(self.diffed)), np.bool_)
        marks = diff.matrix(differs, len(both))
        marks &= both.to_numpy()[:, np.newaxis]
        for name, absent in missing.items():  # a value that was not sent has not changed
            if name in self.diffed:
                marks[:, self.diffed.index(name)] &= ~absent.to_numpy()
        return marks

    def _absent(self, marks: diff.Flags, both: pl.Series, missing: Mapping[str, pl.Series]) -> Mapping[str, pl.Series]:
        """By column: the rows whose images are to be without it."""
        if not self._only_changed or not both.any():
            return missing
        keys, updated = {column.name for column in self._keys}, both.to_numpy()
        same = {name: pl.Series(updated & ~marks[:, index]) for index, name in enumerate(self.diffed) if name not in keys}
        return {**same, **{name: one | same[name] if name in same else one for name, one in missing.items()}}

    def _old(self, value: Callable[[str], pl.Expr], absent: Mapping[str, pl.Expr] = NOTHING) -> pl.Expr:
        """The old row, as far as it is trusted."""
        if self._deletes_whole:
            return self._text(self._before, value, absent)
        key = self._text(self._keys, value) if self._keys else pl.lit(None, pl.String)
        if not self._trust.updates:
            return key
        return pl.when(pl.col("op") == "d").then(key).otherwise(self._text(self._before, value, absent))

    def _text(
        self, columns: Sequence[Column], value: Callable[[str], pl.Expr], absent: Mapping[str, pl.Expr] = NOTHING
    ) -> pl.Expr:
        """Canonical JSON of a row out of flat columns."""
        makes = {name: one.text for name, one in self._written.items()}
        kept = [column for column in columns if column.name not in makes or makes[column.name] is not None]
        fields = [(column, value(column.name)) for column in sorted(kept, key=lambda one: one.name)]
        here = {column.name for column in columns}
        replaced = {
            name: value(WRITTEN + name) if name in self._once else make(value(name))
            for name, make in makes.items()
            if make is not None and name in here
        }
        raw = [name for name, one in self._written.items() if one.raw]
        return types.object_text(fields, replaced=replaced, raw=raw, unavailable=absent)


def _given(block: str, columns: Sequence[Column]) -> pl.Expr:
    """Whether the row is there; never, where the block is no record (JSON without a schema: null throughout, or garbage)."""
    return pl.col(block).is_not_null() if columns else pl.col("op").is_null() & pl.lit(False)


def _placeholder_tests(columns: Sequence[Column], spec: SourceSpec) -> dict[str, pl.Expr]:
    tests = {}
    for one in columns:
        test = is_placeholder(one, after(one.name), spec.unavailable_value_placeholder)
        if test is not None:
            tests[one.name] = test
    return tests
