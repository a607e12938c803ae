"""Debezium's envelope to the raw columns of a change: images, keys of the source block, what changed, what is unknown.

A `Plan` is compiled once per (source, writer schema, key columns) and then evaluated with one `select` per group of
records. Every quirk of facts 1 to 17 that concerns a row's content is handled here; where a row stands (position, identity)
follows from the columns this module hands on, for all groups at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import polars as pl

from chronicle.codec import diff, types
from chronicle.codec.flat import Flat, after, before, column, row_columns
from chronicle.codec.schema import Column, WriterSchema
from chronicle.codec.times import from_millis
from chronicle.codec.unavailable import is_placeholder
from chronicle.model.chunk import SourceSpec

OPERATIONS: Mapping[str, str] = {"r": "snapshot", "c": "create", "u": "update", "d": "delete", "t": "truncate"}


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
    changed: diff.NameLists
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
        filtered: Mapping[str, str],
        extras: Sequence[pl.Expr] = (),
    ) -> None:
        """`filtered`: columns whose values never leave, and the constant that stands for them in `before` and `after`.
        `extras`: more expressions over the flat columns (`codec.flat`), with names of their own.

        Raises:
            ValueError: the schema is no envelope of a known connector.
        """
        family = family_of(schema)
        if family is None:
            raise ValueError("no envelope of a known connector")
        self.family = family
        self._trust = trust
        self._filtered = filtered
        self._fields = tuple({**_FIELDS, **_OF_FAMILY[family]}.values())
        old, new = row_columns(schema, "before"), row_columns(schema, "after")
        self._before, self._after = old, new
        self._keys = tuple(column for column in old if column.name in set(key_names))
        both = {column.name for column in old} & {column.name for column in new}
        self._diffed = tuple(column.name for column in new if column.name in both) if trust.updates else ()
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
            *(before(name).ne_missing(after(name)).alias(f"~{name}") for name in self._diffed),
            *extras,
        ]
        self._row_text = self._text(new, pl.col).alias("text")
        self._texts = [self._old(before).alias("before"), self._text(new, after).alias("after")]

    def run(self, group: Flat) -> Extract:
        """`group`: what a decoder made of the records, laid flat."""
        table = group.table
        out = iter(table.select(self._exprs).get_columns())
        given, now, both = next(out), next(out), next(out)
        doubted = self._doubtful and bool(next(out)[0])
        some_missing = bool(self._tests) and bool(next(out)[0])
        differs = [next(out) for _ in self._diffed]
        missing = self._missing(table) if some_missing else {}
        rows = len(both)
        core = [
            *(self._without(table, missing) if missing else self._images(group)),
            given,
            now,
            *(column(group, name, dtype) for name, dtype in self._fields),
        ]
        absent = (
            diff.name_lists(list(missing), diff.matrix(list(missing.values()), rows)) if missing else diff.none_marked(rows)
        )
        return Extract(core, self._trust, self._changed(differs, both, missing), absent, missing, list(out), doubted)

    def _images(self, group: Flat) -> list[pl.Series]:
        """Texts of the old and the new rows; of both in one pass where the old ones are wanted whole."""
        rows = len(group.table)
        if not self._after:  # no record has a row at all: nothing that an expression could take its length from
            nothing = pl.Series([None], dtype=pl.String).new_from_index(0, rows)
            return [nothing, nothing]
        if self._trust is FULL and group.rows is not None:
            text = group.rows.select(self._row_text).to_series()
            return [text.slice(0, rows), text.slice(rows, rows)]
        return group.table.select(self._texts).get_columns()

    def _missing(self, table: pl.DataFrame) -> dict[str, pl.Series]:
        found = table.select(test.alias(name) for name, test in self._tests.items())
        return {column.name: column for column in found.iter_columns() if column.any()}

    def _without(self, table: pl.DataFrame, missing: Mapping[str, pl.Series]) -> list[pl.Series]:
        """The images, each row without the columns whose value was not sent."""
        marked = table.with_columns(series.alias(f"?{name}") for name, series in missing.items())
        absent = {column.name: pl.col(f"?{column.name}") for column in self._after if column.name in missing}
        row = pl.col("after")
        replaced = self._replaced(self._after, row.struct.field)
        new = types.image(row, self._after, replaced=replaced, unavailable=absent)
        return marked.select(self._old(before).alias("before"), new.alias("after")).get_columns()

    def _changed(self, differs: list[pl.Series], both: pl.Series, missing: Mapping[str, pl.Series]) -> diff.NameLists:
        if not self._diffed or not both.any():
            return diff.none_marked(len(both))
        marks = diff.matrix(differs, len(both))
        marks &= both.to_numpy()[:, np.newaxis]
        for name, absent in missing.items():  # a value that was not sent has not changed
            if name in self._diffed:
                marks[:, self._diffed.index(name)] &= ~absent.to_numpy()
        return diff.name_lists(self._diffed, marks)

    def _old(self, value: Callable[[str], pl.Expr]) -> pl.Expr:
        """The old row, as far as it is trusted."""
        if self._trust.deletes:
            return self._text(self._before, value)
        key = self._text(self._keys, value) if self._keys else pl.lit(None, pl.String)
        if not self._trust.updates:
            return key
        return pl.when(pl.col("op") == "d").then(key).otherwise(self._text(self._before, value))

    def _text(self, columns: Sequence[Column], value: Callable[[str], pl.Expr]) -> pl.Expr:
        """Canonical JSON of a row out of flat columns."""
        fields = [(column, value(column.name)) for column in sorted(columns, key=lambda one: one.name)]
        return types.object_text(fields, replaced=self._replaced(columns, value))

    def _replaced(self, columns: Sequence[Column], value: Callable[[str], pl.Expr]) -> dict[str, pl.Expr]:
        marks = {column.name: self._filtered[column.name] for column in columns if column.name in self._filtered}
        return {name: pl.when(value(name).is_not_null()).then(pl.lit(mark)) for name, mark in marks.items()}


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
