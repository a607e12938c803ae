"""The mirror tables: made, widened and given a view as captured tables appear and change; no row is ever lost to a type."""

from __future__ import annotations

import itertools
import json
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import structlog
from clickhouse_connect.driver.client import Client

from chronicle import config
from chronicle.model.batch import MirrorColumn, TableRows
from chronicle.sinks import mirror_types
from chronicle.sinks.clickhouse_errors import translated
from chronicle.sinks.engines import Engines, literal, quoted
from chronicle.sinks.mirror_names import INSERTED_AT, META, column_name, current_name, generation_name, mirror_name

log = structlog.get_logger("chronicle.mirror")
_ALTER: dict[str, str | int] = {"alter_sync": 1, "mutations_sync": 0}
"""Columns appear at once; converting old parts goes on in the background, reads convert until then."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where the rows of one writer schema go."""

    table: str
    """Name in the mirror database."""
    columns: tuple[tuple[str, str, str], ...]
    """(frame column, mirror column, the mirror column's ClickHouse type)."""
    key: tuple[str, ...]
    """Frame columns of the primary key."""


@dataclass(frozen=True, slots=True)
class _Generation:
    number: int
    table: str
    columns: Mapping[str, str]
    hows: Mapping[str, str]
    """How each column's values are written (`MirrorColumn.how`): its comment in ClickHouse."""
    key: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Wanted:
    frame: str
    name: str
    type: str
    key: bool
    how: str

    @property
    def definition(self) -> str:
        """As in DDL, after the name."""
        return f"{self.type} COMMENT {literal(self.how)}" if self.how else self.type


class Mirrors:
    """Finds or makes the mirror of a table. One thread per captured table at a time; different tables in parallel."""

    def __init__(self, client: Client, clickhouse: config.ClickHouse) -> None:
        self.client = client
        self._database = clickhouse.mirror_database
        self._trail = clickhouse.database
        self._engines = Engines(clickhouse.cluster)
        self._targets: dict[tuple[str, str, str], dict[tuple[MirrorColumn, ...], Target]] = {}

    def target(self, rows: TableRows) -> Target:
        """The table that takes these rows, made or changed first where needed; remembered until `forget`.

        Raises:
            TransientError, ConfigError: as ClickHouse says.
        """
        known = self._targets.setdefault((rows.source, rows.schema, rows.table), {})
        found = known.get(rows.columns)
        if found is None:
            found = known[rows.columns] = self._resolved(rows)
        return found

    def forget(self, rows: TableRows) -> None:
        """Look at ClickHouse again at the next `target`: its tables are not as remembered."""
        self._targets.pop((rows.source, rows.schema, rows.table), None)

    def _resolved(self, rows: TableRows) -> Target:
        wanted = _wanted(rows.columns)
        generations, shown = self._load(rows)
        fitting = [each for each in generations if _keeps_key(each, wanted)]
        if fitting:
            generation, names = self._altered(fitting[-1], wanted, rows)
        else:
            generation = self._made(rows, wanted, generations)
            names = {column.frame: column.name for column in wanted}
        newest = not generations or generation.number >= generations[-1].number
        if newest and not (shown == _shown(generation.columns) and self._view_reads(rows, generation.table)):
            self._show(rows, generation)
        return Target(
            generation.table,
            tuple((column.frame, names[column.frame], generation.columns[names[column.frame]]) for column in wanted),
            tuple(column.frame for column in wanted if column.key),
        )

    def _load(self, rows: TableRows) -> tuple[list[_Generation], dict[str, str] | None]:
        """Generations in order, and the view's columns with their types (None: there is no view)."""
        name = mirror_name(rows.source, rows.schema, rows.table)
        view = current_name(rows.source, rows.schema, rows.table)
        query = (
            "SELECT table, name, type, is_in_sorting_key, comment FROM system.columns WHERE database = {database:String}"
            " AND (table IN ({name:String}, {view:String}) OR match(table, {later:String})) ORDER BY table, position"
        )
        parameters = {"database": self._database, "name": name, "view": view, "later": f"^{name}__[0-9]+$"}
        with translated(f"mirror {name}"):
            found = self.client.query(query, parameters=parameters).result_rows
        tables: dict[str, list[tuple[str, str, bool, str]]] = {}
        for table, column, kind, sorting, comment in found:
            tables.setdefault(table, []).append((column, kind, bool(sorting), comment))
        shown = tables.pop(view, None)
        generations = [
            _Generation(
                number=1 if table == name else int(table.removeprefix(f"{name}__")),
                table=table,
                columns={column: kind for column, kind, _, _ in columns},
                hows={column: comment for column, _, _, comment in columns},
                key=frozenset(column for column, _, sorting, _ in columns if sorting),
            )
            for table, columns in tables.items()
        ]
        generations.sort(key=lambda each: each.number)
        return generations, None if shown is None else {column: mirror_types.normal(kind) for column, kind, _, _ in shown}

    def _view_reads(self, rows: TableRows, table: str) -> bool:
        query = "SELECT as_select FROM system.tables WHERE database = {database:String} AND name = {view:String}"
        view = current_name(rows.source, rows.schema, rows.table)
        with translated(f"mirror {table}"):
            found = self.client.query(query, parameters={"database": self._database, "view": view}).result_rows
        return any(re.search(rf"[.`]{re.escape(table)}`? FINAL", text) for (text,) in found)

    def _altered(
        self, generation: _Generation, wanted: Iterable[_Wanted], rows: TableRows
    ) -> tuple[_Generation, dict[str, str]]:
        """The generation with every wanted column in it, and frame column → mirror column."""
        columns, hows = dict(generation.columns), dict(generation.hows)
        names: dict[str, str] = {}
        changes: list[str] = []
        for column in wanted:
            for name in _candidates(column):
                existing = columns.get(name)
                if existing is None:
                    columns[name], hows[name] = column.type, column.how
                    changes.append(f"ADD COLUMN IF NOT EXISTS {quoted(name)} {column.definition}")
                    if name != column.name:
                        self._warn_split(rows, column, name, columns[column.name])
                else:
                    joined = mirror_types.join(existing, column.type) if hows[name] == column.how else None
                    if joined is None:
                        continue
                    if joined != mirror_types.normal(existing):
                        columns[name] = joined
                        changes.append(f"MODIFY COLUMN {quoted(name)} {joined}")
                names[column.frame] = name
                break
        if changes:
            self._command(f"ALTER TABLE {self._name(generation.table)}{self._engines.on_cluster} {', '.join(changes)}", _ALTER)
        return _Generation(generation.number, generation.table, columns, hows, generation.key), names

    def _warn_split(self, rows: TableRows, column: _Wanted, name: str, existing: str) -> None:
        log.warning(
            "mirror.column_split",
            table=f"{rows.source}.{rows.schema}.{rows.table}",
            column=column.name,
            existing=existing,
            wanted=column.type,
            new_column=name,
        )

    def _made(self, rows: TableRows, wanted: list[_Wanted], earlier: list[_Generation]) -> _Generation:
        """A new table; after a change of the primary key, with the earlier generation's rows where they have the new key."""
        number = earlier[-1].number + 1 if earlier else 1
        table = generation_name(mirror_name(rows.source, rows.schema, rows.table), number)
        key = [column.name for column in wanted if column.key]
        columns = {column.name: column.type for column in wanted} | META
        made = _Generation(number, table, columns, {column.name: column.how for column in wanted}, frozenset(key))
        definitions = {column.name: column.definition for column in wanted} | META
        if not earlier:
            self._create(table, definitions, key, rows, number)
            return made
        building = f"{table}__building_{uuid.uuid4().hex}"
        self._create(building, definitions, key, rows, number)
        copied = self._copy(earlier[-1], building, made, key)
        self._command(f"RENAME TABLE {self._name(building)} TO {self._name(table)}{self._engines.on_cluster}")
        log.warning(
            "mirror.new_generation",
            table=f"{rows.source}.{rows.schema}.{rows.table}",
            mirror=table,
            key=key,
            earlier_rows="copied" if copied else "absent: snapshot the table to fill them in",
        )
        return made

    def _create(self, table: str, definitions: Mapping[str, str], key: list[str], rows: TableRows, number: int) -> None:
        body = ", ".join(f"{quoted(name)} {definition}" for name, definition in definitions.items())
        about = json.dumps({"source": rows.source, "schema": rows.schema, "table": rows.table, "generation": number})
        statement = (
            f"CREATE TABLE IF NOT EXISTS {self._name(table)}{self._engines.on_cluster} ({body},"
            f" {quoted(INSERTED_AT)} DateTime64(6, 'UTC') DEFAULT now64(6))"
            f" ENGINE = {self._engines.named('ReplacingMergeTree')}(`_position`, `_deleted`)"
            f" ORDER BY ({', '.join(quoted(name) for name in key)})"
        )
        self._command(f"{statement} COMMENT {literal(about)}")

    def _copy(self, old: _Generation, table: str, new: _Generation, key: list[str]) -> bool:
        both = [
            name
            for name, kind in new.columns.items()
            if name in old.columns
            and old.hows[name] == new.hows.get(name, "")
            and _converts(old.columns[name], kind, name in key)
        ]
        if not set(key) <= set(both):
            return False
        target = ", ".join(quoted(name) for name in both)
        values = ", ".join(f"assumeNotNull({quoted(name)})" if name in key else quoted(name) for name in both)
        whole = " AND ".join(f"{quoted(name)} IS NOT NULL" for name in key)
        source = f"{self._name(old.table)} FINAL WHERE {whole}"
        self._command(f"INSERT INTO {self._name(table)} ({target}) SELECT {values} FROM {source}")  # noqa: S608
        return True

    def _show(self, rows: TableRows, generation: _Generation) -> None:
        """The view of the rows as they are now: the latest of each key, not deleted, not from before the last TRUNCATE."""
        view = current_name(rows.source, rows.schema, rows.table)
        truncated = (
            f"SELECT max(position) FROM {quoted(self._trail)}.truncates"  # noqa: S608
            f" WHERE source = {literal(rows.source)} AND schema = {literal(rows.schema)} AND table = {literal(rows.table)}"
        )
        columns = ", ".join(quoted(name) for name in _shown(generation.columns))
        self._command(
            f"CREATE OR REPLACE VIEW {self._name(view)}{self._engines.on_cluster} AS SELECT {columns}"  # noqa: S608
            f" FROM {self._name(generation.table)} FINAL WHERE `_deleted` = 0 AND `_position` >= ({truncated})"
        )

    def _name(self, table: str) -> str:
        return f"{quoted(self._database)}.{quoted(table)}"

    def _command(self, statement: str, settings: Mapping[str, str | int] | None = None) -> None:
        with translated(f"a table of {self._database}"):
            self.client.command(statement, settings=dict(settings or {}))


def _wanted(columns: Iterable[MirrorColumn]) -> list[_Wanted]:
    taken: set[str] = set()
    wanted = []
    for column in columns:
        plain = column_name(column.name)
        name = next(
            each for each in itertools.chain([plain], (f"{plain}__{i}" for i in itertools.count(2))) if each not in taken
        )
        taken.add(name)
        wanted.append(_Wanted(column.name, name, mirror_types.normal(column.clickhouse_type), column.key, column.how))
    return wanted


def _candidates(column: _Wanted) -> Iterable[str]:
    """Names under which a column's values may live: its own, then one that says how they are written, or their type."""
    own = f"{column.name}__{mirror_types.slug(column.how or column.type)}"
    return itertools.chain([column.name, own], (f"{own}_{i}" for i in itertools.count(2)))


def _keeps_key(generation: _Generation, wanted: Iterable[_Wanted]) -> bool:
    """Can the rows go there? Only an enum may widen in a sorting key; another type or other columns need a new table."""
    keys = {column.name: column.type for column in wanted if column.key}
    if set(keys) != generation.key or any(generation.hows[one.name] != one.how for one in wanted if one.key):
        return False
    for name, kind in keys.items():
        existing = mirror_types.normal(generation.columns[name])
        joined = mirror_types.join(existing, kind)
        if joined is None or (joined != existing and not joined.startswith("Enum16")):
            return False
    return True


def _converts(old: str, new: str, key: bool) -> bool:
    joined = mirror_types.join(old, new)
    return joined is not None and (mirror_types.base(joined) == mirror_types.base(new) if key else joined == new)


def _shown(columns: Mapping[str, str]) -> dict[str, str]:
    """The view's columns. Their types are the view's own: it converts, silently, when the table's have changed since."""
    shown = {name: mirror_types.normal(kind) for name, kind in columns.items() if name not in ("_deleted", INSERTED_AT)}
    return shown | {INSERTED_AT: "DateTime64(6, 'UTC')"}
