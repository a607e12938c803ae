"""Values that the database did not send (unchanged TOAST): from earlier rows of the batch, else from the mirror itself."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from chronicle.sinks.engines import literal, quoted
from chronicle.sinks.mirror import Target
from chronicle.sinks.mirror_names import META

MORE = {
    "?missing": "Array(String)",  # columns of a row that only the mirror can fill
    "?carried": "Array(String)",  # columns that an earlier row of the batch filled …
    "?from_hi": "Array(UInt64)",  # … and where that row stands, for each of them
    "?from_lo": "Array(UInt64)",
}
"""What `carried` adds and `statement` needs of a row beside the mirror's columns, with its ClickHouse type. Debezium's
adjustment for Avro leaves no `?` in a captured column's name, so these never meet one."""
POSITION = {"position_hi": "?hi", "position_lo": "?lo"}
"""Column of the changes → its name beside a mirror's columns."""
_NO_EVENT = "toUUID('00000000-0000-0000-0000-000000000000')"


def carried(frame: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    """The frame in order of position, unavailable values filled from the same key's earlier rows where they had one.

    `frame` has `_row`, `_unavailable`, `_deleted` and `POSITION`. Adds the columns `MORE`. What `_flags` and
    `_nulls` say of a value goes with it.
    """
    ordered = frame.sort("?hi", "?lo", maintain_order=True).with_row_index("_at")
    names = ordered["_unavailable"].explode(empty_as_null=False).unique().drop_nulls().to_list()
    names = [name for name in names if name in frame.columns]
    filled: list[pl.Expr] = []
    lists: dict[str, list[pl.Expr]] = {name: [] for name in ("_flags", "_nulls", *MORE)}
    for name in names:
        absent = pl.col("_unavailable").list.contains(name)
        sent = ~absent & (pl.col("_deleted") == 0)
        origin = pl.when(sent).then("_at").forward_fill().over(key)
        filled.append(pl.when(absent).then(pl.col(name).gather(origin)).otherwise(pl.col(name)).alias(name))
        known = absent & origin.is_not_null()
        lists["?missing"].append(pl.when(absent & origin.is_null()).then(pl.lit(name)))
        lists["?carried"].append(pl.when(known).then(pl.lit(name)))
        lists["?from_hi"].append(pl.when(known).then(pl.col("?hi").gather(origin)))
        lists["?from_lo"].append(pl.when(known).then(pl.col("?lo").gather(origin)))
        for mark in ("_flags", "_nulls"):
            lists[mark].append(pl.when(known & pl.col(mark).gather(origin).list.contains(name)).then(pl.lit(name)))
    return ordered.with_columns(*filled, *(_list(name, items) for name, items in lists.items())).drop("_at")


def _list(name: str, items: Sequence[pl.Expr]) -> pl.Expr:
    """The items that are there, behind those that the column has already."""
    made = pl.concat_list(items).list.drop_nulls() if items else None
    if name in MORE:
        inner = pl.UInt64() if MORE[name] == "Array(UInt64)" else pl.String()
        return (pl.lit([], pl.List(inner)) if made is None else made).alias(name)
    return pl.col(name) if made is None else pl.concat_list(pl.col(name), made)


def asks() -> pl.Expr:
    """Whether the mirror must be asked for a row of `carried`."""
    return (pl.col("?missing").list.len() > 0) | (pl.col("?carried").list.len() > 0)


def structure(target: Target) -> str:
    """The columns of the rows that go along with `statement`, as ClickHouse declares an external table."""
    columns = [f"{quoted(name)} {kind}" for _, name, kind in target.columns]
    meta = [f"{quoted(name)} {kind}" for name, kind in (*META.items(), *MORE.items())]
    return ", ".join([*columns, *meta])


def statement(database: str, target: Target) -> str:
    """INSERT of the external table `fresh`, its missing values taken from the mirror's current rows.

    So is a value that was carried on within the batch, where the mirror's row is later than the one it was carried from (a
    dead letter that was sent back stands beside much later changes). A row that the mirror does not have yet keeps NULL,
    and `_flags` says that the source had a value; what the mirror's `_flags` and `_nulls` say of a value comes with it.
    """
    table = f"{quoted(database)}.{quoted(target.table)}"
    keys = [quoted(name) for frame, name, _ in target.columns if frame in target.key]
    names = [quoted(name) for _, name, _ in target.columns] + [quoted(name) for name in META]
    origin = "bitShiftLeft(toUInt128(n.`?from_hi`[i]), 64) + n.`?from_lo`[i]"
    later = f"arrayFilter((x, i) -> m._position > {origin}, n.`?carried`, arrayEnumerate(n.`?carried`))"
    marks = {
        "_flags": f"m._event_id = {_NO_EVENT} OR has(m._flags, x)",
        "_nulls": "has(m._nulls, x)",
    }
    values = [_value(quoted(name), literal(frame), frame in target.key) for frame, name, _ in target.columns]
    for name in META:
        own = f"n.{quoted(name)}"
        kept = f"arrayFilter(x -> NOT has(asked, x), {own})"
        values.append(f"arrayConcat({kept}, arrayFilter(x -> {marks[name]}, asked))" if name in marks else own)
    on = " AND ".join(f"n.{name} = m.{name}" for name in keys)
    return (
        f"INSERT INTO {table} ({', '.join(names)}) WITH arrayConcat(n.`?missing`, {later}) AS asked"  # noqa: S608
        f" SELECT {', '.join(values)} FROM fresh AS n LEFT JOIN"
        f" (SELECT * FROM {table} FINAL WHERE ({', '.join(keys)}) IN (SELECT {', '.join(keys)} FROM fresh)) AS m ON {on}"
        " SETTINGS join_use_nulls = 0, async_insert = 0"
    )


def _value(column: str, name: str, key: bool) -> str:
    return f"n.{column}" if key else f"if(has(asked, {name}), m.{column}, n.{column})"
