"""What the checker must know of a captured table, read from the database's own catalog: columns, kinds, key, identity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pymysql

UNCAPTURED = frozenset({"truth", "chronicle_signal", "chronicle_context", "chronicle_heartbeat"})
SECRET = frozenset({"api_token"})
"""Columns of the workload whose names look secret: redacted in images, absent from mirrors."""

_POSTGRES_KINDS = {
    "smallint": "int",
    "integer": "int",
    "bigint": "int",
    "numeric": "decimal",
    "real": "float4",
    "double precision": "float",
    "boolean": "bool",
    "text": "text",
    "standing": "text",
    "bytea": "bytes",
    "date": "date",
    "time without time zone": "time",
    "timestamp without time zone": "timestamp",
    "timestamp with time zone": "timestamptz",
    "uuid": "uuid",
    "json": "json",
    "jsonb": "json",
}
_MARIADB_KINDS = {
    "tinyint": "int",
    "smallint": "int",
    "int": "int",
    "bigint": "int",
    "decimal": "decimal",
    "double": "float",
    "varchar": "text",
    "text": "text",
    "longtext": "text",
    "enum": "text",
    "set": "text",
    "varbinary": "bytes",
    "date": "date",
    "time": "time",
    "datetime": "timestamp",
    "timestamp": "timestamptz",
    "bit": "bits",
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column: `kind` decides how its values are compared (`canonical.plain`)."""

    name: str
    kind: str
    scale: int = 0
    """Of a decimal; of bits: their number."""
    element: str | None = None
    """Of an array: the kind of its elements."""

    @property
    def secret(self) -> bool:
        """Whether an image shows `[FILTERED]` instead of the value."""
        return self.name in SECRET


@dataclass(frozen=True, slots=True)
class Table:
    """One captured table."""

    source: str
    schema: str
    name: str
    columns: Mapping[str, Column]
    key: tuple[str, ...]
    """Primary key columns in key order; empty without one."""
    full: bool = True
    """Whether the database sends old rows whole."""
    exact_transactions: bool = True
    """Whether the truth names the transaction as the trail does (Postgres). MariaDB draws a GTID at commit, when no trigger can
    write it down any more: there the names are only mapped one to one, by changes and by contexts."""

    @property
    def topic(self) -> str:
        """The raw topic."""
        return f"{self.source}.{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class Tables:
    """All captured tables of a workload, by raw topic."""

    by_topic: Mapping[str, Table] = field(default_factory=dict)

    def of(self, source: str, schema: str, table: str) -> Table | None:
        """The table of this name, or None when the workload has none."""
        return self.by_topic.get(f"{source}.{schema}.{table}")


def read_postgres(connection: psycopg.Connection[Any], source: str) -> list[Table]:
    """The captured tables of schema public, as they are now."""
    rows = connection.execute(
        """SELECT c.relname, c.relreplident, a.attname, format_type(a.atttypid, NULL), a.atttypmod,
                  coalesce(array_position(i.indkey::int2[], a.attnum), -1)
           FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
           LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
           WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' ORDER BY c.relname, a.attnum"""
    ).fetchall()
    found: dict[str, tuple[dict[str, Column], dict[int, str], bool]] = {}
    for name, identity, column, type_name, modifier, key_place in rows:
        if name in UNCAPTURED:
            continue
        columns, key, _ = found.setdefault(name, ({}, {}, str(identity) in ("f", "b'f'")))
        base, array = type_name.removesuffix("[]"), type_name.endswith("[]")
        kind = _POSTGRES_KINDS[base]
        scale = (modifier - 4) & 0xFFFF if kind == "decimal" and modifier > 0 else 0
        columns[column] = Column(column, "array" if array else kind, scale, kind if array else None)
        if key_place >= 0:
            key[key_place] = column
    return [
        Table(source, "public", name, columns, tuple(key[place] for place in sorted(key)), full)
        for name, (columns, key, full) in found.items()
    ]


def read_mariadb(connection: pymysql.Connection[Any], source: str, database: str) -> list[Table]:
    """The captured tables of one database, as they are now."""
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT c.table_name, c.column_name, c.data_type, c.numeric_precision, c.numeric_scale, k.ordinal_position
               FROM information_schema.columns c LEFT JOIN information_schema.key_column_usage k
                 ON k.table_schema = c.table_schema AND k.table_name = c.table_name AND k.column_name = c.column_name
                    AND k.constraint_name = 'PRIMARY'
               WHERE c.table_schema = %s ORDER BY c.table_name, c.ordinal_position""",
            (database,),
        )
        rows = cursor.fetchall()
    found: dict[str, tuple[dict[str, Column], dict[int, str]]] = {}
    for name, column, data_type, precision, scale, key_place in rows:
        if name in UNCAPTURED:
            continue
        columns, key = found.setdefault(name, ({}, {}))
        kind = "json" if (name, column) == ("accounts", "doc") else _MARIADB_KINDS[data_type]  # JSON is LONGTEXT to the catalog
        columns[column] = Column(column, kind, int(precision if kind == "bits" else scale or 0))
        if key_place is not None:
            key[int(key_place)] = column
    return [
        Table(source, database, name, columns, tuple(key[place] for place in sorted(key)), exact_transactions=False)
        for name, (columns, key) in found.items()
    ]
