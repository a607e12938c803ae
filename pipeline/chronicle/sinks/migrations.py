"""ClickHouse's tables from numbered `.sql` files: each applied once, in order, and recorded with a hash of its text."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib import resources
from typing import Literal

from clickhouse_connect.driver.client import Client

from chronicle import config
from chronicle.errors import ConfigError
from chronicle.sinks.clickhouse_errors import SchemaMismatch, translated
from chronicle.sinks.engines import Engines, quoted

_COMMENT = re.compile(r"^\s*--.*$", re.MULTILINE)
_RECORD = "0000_migrations"


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: `name` without suffix, statements in order, `hash` over its text."""

    name: str
    text: str

    @property
    def hash(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def statements(self) -> tuple[str, ...]:
        return tuple(part.strip() for part in _COMMENT.sub("", self.text).split(";\n") if part.strip())


@dataclass(frozen=True, slots=True)
class Applied:
    """What `migrate` did with one file."""

    name: str
    action: Literal["applied", "present"]


def migrations() -> tuple[Migration, ...]:
    """The files of this version, in the order of their numbers."""
    folder = resources.files("chronicle.sinks") / "ddl"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return tuple(Migration(file.name.removesuffix(".sql"), file.read_text(encoding="utf-8")) for file in files)


def migrate(client: Client, clickhouse: config.ClickHouse) -> tuple[Applied, ...]:
    """Make databases and tables. May be run any number of times, also by two processes at once.

    Raises:
        ConfigError: a file that was applied has changed since; a user without the right to create.
        TransientError: ClickHouse is away; what was applied stays and is recorded.
    """
    engines = Engines(clickhouse.cluster)
    for database in (clickhouse.database, clickhouse.mirror_database):
        with translated(f"database {database}"):
            client.command(f"CREATE DATABASE IF NOT EXISTS {quoted(database)}{engines.on_cluster}")
    first, *others = migrations()
    _run(client, first, clickhouse, engines)
    known = _recorded(client, clickhouse)
    done = []
    for migration in others:
        if migration.name in known:
            if known[migration.name] != migration.hash:
                raise ConfigError(
                    f"restore sinks/ddl/{migration.name}.sql: it was applied with another text; changes belong in a new file"
                )
            done.append(Applied(migration.name, "present"))
            continue
        _run(client, migration, clickhouse, engines)
        with translated("migrations"):
            client.insert(
                "migrations",
                [[migration.name, migration.hash]],
                column_names=["name", "hash"],
                database=clickhouse.database,
                settings={"async_insert": 0},
            )
        done.append(Applied(migration.name, "applied"))
    return tuple(done)


def check(client: Client, clickhouse: config.ClickHouse) -> None:
    """Are all tables there, as this version wants them? Called before a worker starts.

    Raises:
        ConfigError: `chronicle setup` was not run (or not by this version).
        TransientError: ClickHouse is away.
    """
    try:
        known = _recorded(client, clickhouse)
    except SchemaMismatch:
        known = {}
    missing = [each.name for each in migrations() if each.name != _RECORD and known.get(each.name) != each.hash]
    if missing:
        raise ConfigError(f"run `chronicle setup`: ClickHouse lacks {', '.join(missing)}")


def _recorded(client: Client, clickhouse: config.ClickHouse) -> dict[str, str]:
    with translated("migrations"):
        rows = client.query(f"SELECT name, hash FROM {quoted(clickhouse.database)}.migrations FINAL").result_rows  # noqa: S608
    return {str(name): str(hash_) for name, hash_ in rows}


def _run(client: Client, migration: Migration, clickhouse: config.ClickHouse, engines: Engines) -> None:
    for statement in migration.statements:
        rendered = engines.rendered(statement, database=clickhouse.database, mirror_database=clickhouse.mirror_database)
        with translated(migration.name):
            client.command(rendered)
