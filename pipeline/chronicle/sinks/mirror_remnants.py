"""What a stricter policy leaves behind in mirrors: columns whose values were written in a way that holds no more.

A column of another class gets a mirror column of its own (`email__token_person`); the old one stays, with its old values,
until somebody drops it. A hidden column is written nowhere, and its old mirror column stays, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from clickhouse_connect.driver.client import Client

from chronicle import config
from chronicle.errors import ConfigError
from chronicle.policy.file import Policy
from chronicle.policy.rules import Class, Treatment
from chronicle.sinks import mirror_types
from chronicle.sinks.clickhouse_errors import translated
from chronicle.sinks.engines import Engines, quoted
from chronicle.sinks.mirror_names import INSERTED_AT, META, current_name, mirror_name

_ABSENT = (Class.DROP, Class.REDACT)


@dataclass(frozen=True, slots=True)
class MirrorHas:
    """One column of a mirror table as ClickHouse has it."""

    table: str
    column: str
    type: str
    key: bool
    how: str
    """How its values were written: its comment; empty: clear."""


@dataclass(frozen=True, slots=True)
class Remnant:
    """A mirror column whose values are of an older class."""

    table: str
    column: str
    """`*`: all of it."""
    how: str
    """How its values are written: `clear`, `mask 4`, …"""
    now: str
    """The class that the policy gives it now."""
    statements: tuple[str, ...]
    """What removes it, in this order. Safe to run once no worker runs under the older policy."""


def remnants(client: Client, clickhouse: config.ClickHouse, table: tuple[str, str, str], policy: Policy) -> list[Remnant]:
    """Those of a captured table (source, schema, table), under the policy given.

    Raises:
        TransientError, ConfigError: as ClickHouse says.
    """
    name, view = mirror_name(*table), current_name(*table)
    query = (
        "SELECT table, name, type, is_in_sorting_key, comment FROM system.columns WHERE database = {database:String}"
        " AND (table = {name:String} OR match(table, {later:String})) ORDER BY table, position"
    )
    asked = {"database": clickhouse.mirror_database, "name": name, "later": f"^{re.escape(name)}__[0-9]+$"}
    seen = "SELECT as_select FROM system.tables WHERE database = {database:String} AND name = {view:String}"
    with translated(f"mirror {name}"):
        columns = [MirrorHas(row[0], row[1], row[2], bool(row[3]), row[4]) for row in client.query(query, asked).result_rows]
        shown = client.query(seen, {"database": clickhouse.mirror_database, "view": view}).result_rows
    if columns and policy.table(*table, (), ()).skip:
        return _whole(sorted({one.table for one in columns}), clickhouse, view)
    found = older(columns, table, policy)
    return _with_statements(found, columns, clickhouse, view, shown[0][0] if shown else None)


def merges(client: Client, clickhouse: config.ClickHouse, table: tuple[str, str, str]) -> tuple[str, ...]:
    """What makes ClickHouse forget earlier versions of rows now, and not at some later merge: `changes`, then the mirrors.

    Raises:
        TransientError, ConfigError: as ClickHouse says.
    """
    name = mirror_name(*table)
    query = (
        "SELECT name FROM system.tables WHERE database = {database:String}"
        " AND (name = {name:String} OR match(name, {later:String})) ORDER BY name"
    )
    asked = {"database": clickhouse.mirror_database, "name": name, "later": f"^{re.escape(name)}__[0-9]+$"}
    with translated(f"mirror {name}"):
        mirrors = [f"{quoted(clickhouse.mirror_database)}.{quoted(row[0])}" for row in client.query(query, asked).result_rows]
    on_cluster = Engines(clickhouse.cluster).on_cluster
    return tuple(
        f"OPTIMIZE TABLE {one}{on_cluster} FINAL" for one in (f"{quoted(clickhouse.database)}.{quoted('changes')}", *mirrors)
    )


def older(columns: Iterable[MirrorHas], table: tuple[str, str, str], policy: Policy) -> list[tuple[MirrorHas, str]]:
    """The columns that are not written as the policy says now, each with what it says. Pure."""
    found = []
    tables: dict[str, list[MirrorHas]] = {}
    for one in columns:
        tables.setdefault(one.table, []).append(one)
    for mine in tables.values():
        own = [one for one in mine if one.column not in META and one.column != INSERTED_AT]
        bases = {one.column: _source_column(one, {each.column for each in own}) for one in own}
        key = [bases[one.column] for one in own if one.key]
        treatments = _treatments(policy, table, list(bases.values()), key)
        for one in own:
            treatment = treatments[bases[one.column]]
            if treatment.kind in _ABSENT or (one.how or "clear") != treatment.label:
                found.append((one, treatment.label))
    return found


def _treatments(policy: Policy, table: tuple[str, str, str], columns: list[str], key: list[str]) -> dict[str, Treatment]:
    try:
        resolved = policy.table(*table, columns, key)
    except ConfigError:  # a class that no key can have: an older generation's key
        resolved = policy.table(*table, columns, ())
    return {name: resolved.columns[name].treatment for name in columns}


def _source_column(one: MirrorHas, names: set[str]) -> str:
    """The captured column whose values stand there, as far as the mirror's names tell."""
    plain = one.column.removesuffix("__column")
    ending = mirror_types.slug(one.how or mirror_types.normal(one.type))
    split = re.fullmatch(rf"(.+)__{re.escape(ending)}(_\d+)?", plain)
    if split and (one.how or split[1] in names):
        return split[1]
    return plain


def _with_statements(
    found: list[tuple[MirrorHas, str]], columns: list[MirrorHas], clickhouse: config.ClickHouse, view: str, shown: str | None
) -> list[Remnant]:
    on_cluster, database = Engines(clickhouse.cluster).on_cluster, clickhouse.mirror_database
    whole = {one.table for one, _ in found if one.key}
    gone = {(one.table, one.column) for one, _ in found}
    made: list[Remnant] = []
    for one, now in found:
        place = f"{quoted(database)}.{quoted(one.table)}"
        if one.table in whole:  # the key itself: all of that generation
            statements: tuple[str, ...] = (f"DROP TABLE {place}{on_cluster}",)
        else:
            statements = (f"ALTER TABLE {place}{on_cluster} DROP COLUMN {quoted(one.column)}",)
            kept = [each.column for each in columns if each.table == one.table and (each.table, each.column) not in gone]
            if shown is not None and (seen := _view(kept, shown, one.table)):
                head = f"CREATE OR REPLACE VIEW {quoted(database)}.{quoted(view)}{on_cluster} AS "
                statements = (head + seen, *statements)
        made.append(Remnant(one.table, one.column, one.how or "clear", now, statements))
    return made


def _whole(tables: list[str], clickhouse: config.ClickHouse, view: str) -> list[Remnant]:
    """A table that is skipped now has no mirror: all of it goes."""
    on_cluster, database = Engines(clickhouse.cluster).on_cluster, quoted(clickhouse.mirror_database)
    seen = f"DROP VIEW IF EXISTS {database}.{quoted(view)}{on_cluster}"
    return [
        Remnant(one, "*", "whole rows", "skip", (seen, f"DROP TABLE {database}.{quoted(one)}{on_cluster}")) for one in tables
    ]


def _view(columns: list[str], shown: str, table: str) -> str | None:
    """The view's SELECT without the columns that go; None: it reads another table."""
    found = re.search(rf"\sFROM\s+(?:`[^`]*`|\w+)\.`?{re.escape(table)}`?\s+FINAL\s.*", shown, re.DOTALL)
    if found is None:
        return None
    names = ", ".join(quoted(name) for name in columns if name != "_deleted")
    return f"SELECT {names}{found[0]}"
