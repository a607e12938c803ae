"""Values that the database did not send (unchanged TOAST): from earlier rows of the batch, else from the mirror itself."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from chronicle.sinks.engines import literal, quoted
from chronicle.sinks.mirror import Target
from chronicle.sinks.mirror_names import META

MISSING = "_missing"
"""Columns of a row that only the mirror can still fill."""
_NO_EVENT = "toUUID('00000000-0000-0000-0000-000000000000')"


def carried(frame: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    """The frame in order of position, unavailable values filled from the same key's earlier rows where they had one.

    `frame` has `_row`, `_unavailable`, `_deleted`, `position_hi`, `position_lo`. Adds
    `_missing` (List[String]): what is unfilled.
    """
    ordered = frame.sort("position_hi", "position_lo", maintain_order=True).with_row_index("_at")
    names = ordered["_unavailable"].explode(empty_as_null=False).unique().drop_nulls().to_list()
    names = [name for name in names if name in frame.columns]
    filled, missing = [], []
    for name in names:
        absent = pl.col("_unavailable").list.contains(name)
        sent = ~absent & (pl.col("_deleted") == 0)
        origin = pl.when(sent).then("_at").forward_fill().over(key)
        filled.append(pl.when(absent).then(pl.col(name).gather(origin)).otherwise(pl.col(name)).alias(name))
        missing.append(pl.when(absent & origin.is_null()).then(pl.lit(name)))
    lost = pl.concat_list(missing).list.drop_nulls() if missing else pl.lit([], pl.List(pl.String))
    return ordered.with_columns(*filled, lost.alias(MISSING)).drop("_at")


def structure(target: Target) -> str:
    """The columns of the rows that go along with `statement`, as ClickHouse declares an external table."""
    columns = [f"{quoted(name)} {kind}" for _, name, kind in target.columns]
    meta = [f"{quoted(name)} {kind}" for name, kind in META.items()]
    return ", ".join([*columns, *meta, f"{quoted(MISSING)} Array(String)"])


def statement(database: str, target: Target) -> str:
    """INSERT of the external table `fresh`, its missing values taken from the mirror's current rows.

    A row that the mirror does not have yet keeps NULL there, and `_flags` says that the source had a value.
    """
    table = f"{quoted(database)}.{quoted(target.table)}"
    keys = [quoted(name) for frame, name, _ in target.columns if frame in target.key]
    names = [quoted(name) for _, name, _ in target.columns] + [quoted(name) for name in META]
    values = [_value(quoted(name), literal(frame), frame in target.key) for frame, name, _ in target.columns]
    flags = f"if(m._event_id = {_NO_EVENT}, arrayConcat(n._flags, n._missing), n._flags)"
    values += [flags if name == "_flags" else f"n.{quoted(name)}" for name in META]
    on = " AND ".join(f"n.{name} = m.{name}" for name in keys)
    return (
        f"INSERT INTO {table} ({', '.join(names)}) SELECT {', '.join(values)} FROM fresh AS n LEFT JOIN"  # noqa: S608
        f" (SELECT * FROM {table} FINAL WHERE ({', '.join(keys)}) IN (SELECT {', '.join(keys)} FROM fresh)) AS m ON {on}"
        " SETTINGS join_use_nulls = 0, async_insert = 0"
    )


def _value(column: str, name: str, key: bool) -> str:
    return f"n.{column}" if key else f"if(has(n._missing, {name}), m.{column}, n.{column})"
