"""Reads source files: one database captured by one connector, and the names of its topics."""

from __future__ import annotations

import re
import secrets
import tomllib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chronicle.capture.templates import Template, load_template, text
from chronicle.errors import ConfigError

RESERVED = ("chronicle", "events")
"""Chronicle's own topics begin with the one; the other means what applications say (`chronicle worker --sources events`)."""
NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")
"""Also part of a replication slot's name, which allows no more than this."""
TABLE = re.compile(r"[^.,\s][^.,]*\.[^.,]*[^.,\s]")
REFERENCE = re.compile(r"\$\{(?P<provider>[A-Za-z0-9_-]+):(?P<name>[^}]+)\}")
"""How Connect's configuration providers are addressed: `${env:NAME}`, `${file:path:key}`, …"""
SECRET = re.compile(r"password|passwd|secret|token|credential|\bkey\b|private|user\.info|jaas", re.IGNORECASE)
KEYS = {
    "template", "format", "epoch", "tables", "context_table", "outbox_table", "signal_table",
    "unavailable_value_placeholder", "full_identity", "keyless", "attribution_comments", "server_id", "database", "options",
}  # fmt: skip
DATABASE_KEYS = ("host", "port", "name", "user", "password")
CONTEXT_TABLE = "chronicle_context"
OUTBOX_TABLE = "chronicle_outbox"
SIGNAL_TABLE = "chronicle_signal"


@dataclass(frozen=True, slots=True)
class Database:
    """Where the database is, as the file says it: plain text, or `${env:NAME}`, which Connect resolves."""

    host: str
    port: str
    name: str
    user: str
    password: str


@dataclass(frozen=True, slots=True)
class Source:
    """One source file. Table names are exact and of the form `schema.table` (MySQL, MariaDB: `database.table`)."""

    name: str
    template: str
    kind: str
    """postgres, mysql or mariadb."""
    format: str
    """avro-apicurio, avro-confluent or json."""
    tables: tuple[str, ...]
    signal_table: str
    database: Database
    context_table: str | None = None
    outbox_table: str | None = None
    """Where applications write events in their own transactions (`chronicle outbox ddl`)."""
    epoch: int = 0
    unavailable_value_placeholder: str | None = None
    """PostgreSQL only: what stands for a large value that the database did not send. None elsewhere."""
    full_identity: tuple[str, ...] = ()
    """PostgreSQL: the tables with REPLICA IDENTITY FULL. Of any other table Debezium invents what was in a deleted row, and
    no record says which it is; so a table that is not named here keeps only the key of a deleted row."""
    keyless: tuple[str, ...] = ()
    """The tables without a primary key. A record without a key is a row of one of these, or else a dead letter."""
    attribution_comments: bool = False
    server_id: int | None = None
    """MySQL and MariaDB: the connector's id among the server's replicas."""
    options: Mapping[str, str] = field(default_factory=dict)
    file: Path = field(default=Path(), compare=False)

    @property
    def captured(self) -> tuple[str, ...]:
        """Everything that Debezium reads: the tables, the context table and the outbox table."""
        return (*self.tables, *self.routed)

    @property
    def routed(self) -> tuple[str, ...]:
        """The context table and the outbox table, as far as there are: rows of theirs are no changes of the trail, and go
        to other topics."""
        return tuple(table for table in (self.context_table, self.outbox_table) if table is not None)

    @property
    def transaction_topic(self) -> str:
        """BEGIN, contexts and END of every transaction; one partition."""
        return f"{self.name}.transaction"

    @property
    def heartbeat_topic(self) -> str:
        return f"__debezium-heartbeat.{self.name}"

    @property
    def signal_topic(self) -> str:
        """Commands to the connector; one partition; created before the connector."""
        return f"chronicle.signals.{self.name}"

    @property
    def signal_group(self) -> str:
        """The connector's consumer group on its signal topic."""
        return f"chronicle-signals-{self.name}"

    @property
    def notification_topic(self) -> str:
        return f"chronicle.notifications.{self.name}"

    @property
    def schema_history_topic(self) -> str | None:
        """MySQL and MariaDB: the DDL that Debezium needs to read the binlog; None on PostgreSQL."""
        return None if self.kind == "postgres" else f"chronicle.schema-history.{self.name}.{self.epoch}"

    def topic(self, table: str) -> str:
        """The topic of a table's changes: Debezium replaces what Kafka does not allow in a name."""
        return re.sub(r"[^A-Za-z0-9._-]", "_", f"{self.name}.{table}")

    @property
    def topics(self) -> dict[str, str]:
        """Topic of each captured table (not of those that are `routed`) → table."""
        return {self.topic(table): table for table in self.tables}

    @property
    def slot(self) -> str:
        """PostgreSQL: the replication slot."""
        return self.options.get("slot.name", f"chronicle_{self.name}")

    @property
    def publication(self) -> str:
        """PostgreSQL: the publication."""
        return self.options.get("publication.name", f"chronicle_{self.name}")


def load_sources(directory: Path) -> dict[str, Source]:
    """Every `<source>.toml` in `directory`, by name, each checked against its template in `<directory>/templates`.

    Raises:
        ConfigError: the directory or a file is not there or not right; says which file, which key, and what to write.
    """
    if not directory.is_dir():
        raise ConfigError(f"no directory {directory}: set connect.directory to where your connector files are")
    return {path.stem: load_source(path) for path in sorted(directory.glob("*.toml"))}


def load_source(path: Path) -> Source:
    """One source file. Raises ConfigError as `load_sources` does."""
    if not path.is_file():
        raise ConfigError(f"no source file {path}: write one, or name one of those that are there")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"correct {path}: not readable as TOML ({error})") from None
    unknown = set(content) - KEYS
    if unknown:
        raise ConfigError(f"correct {path}: unknown key {', '.join(sorted(unknown))}; known: {', '.join(sorted(KEYS))}")
    if not NAME.fullmatch(path.stem) or path.stem in RESERVED:
        raise ConfigError(
            f"rename {path}: a source is named with small letters, digits and _ (at most 48, a letter first), "
            f"not {' or '.join(RESERVED)}"
        )
    if not isinstance(content.get("template"), str):
        raise ConfigError(f'add `template = "postgres"` (or mysql, mariadb) to {path}')
    template = load_template(path.parent / "templates", content["template"])
    return _Reader(path, content, template).source()


class _Reader:
    """Turns the parsed file into a `Source`, or into an error that says what to write."""

    def __init__(self, path: Path, content: Mapping[str, Any], template: Template) -> None:
        self.path = path
        self.content = content
        self.template = template
        self.kind = template.kind

    def fail(self, fix: str) -> ConfigError:
        return ConfigError(f"correct {self.path}: {fix}")

    def source(self) -> Source:
        database = self.database()
        name_space = "public" if self.kind == "postgres" else database.name
        context_table = self.content.get("context_table")
        if context_table is not None:
            context_table = self.table("context_table", context_table, database, CONTEXT_TABLE)
        outbox_table = self.content.get("outbox_table")
        if outbox_table is not None:
            outbox_table = self.table("outbox_table", outbox_table, database, OUTBOX_TABLE)
        signal_table = self.content.get("signal_table", f"{name_space}.{SIGNAL_TABLE}")
        tables = self.tables(database)
        clash = {context_table, outbox_table, signal_table} & set(tables)
        if clash:
            raise self.fail(f"take {', '.join(sorted(map(str, clash)))} out of `tables`: it is named by its own key")
        return Source(
            name=self.path.stem,
            template=self.template.name,
            kind=self.kind,
            format=self.format(),
            tables=tables,
            signal_table=self.table("signal_table", signal_table, database, None),
            database=database,
            context_table=context_table,
            outbox_table=outbox_table,
            epoch=self.integer("epoch", 0, 0, 255),
            unavailable_value_placeholder=self.placeholder(),
            full_identity=self.full_identity(tables),
            keyless=self.some_of("keyless", tables, "those without a primary key"),
            attribution_comments=self.attribution_comments(),
            server_id=self.server_id(),
            options=self.options(),
            file=self.path,
        )

    def database(self) -> Database:
        section = self.content.get("database")
        if not isinstance(section, dict) or set(section) != set(DATABASE_KEYS):
            raise self.fail(f"[database] needs exactly these keys: {', '.join(DATABASE_KEYS)}")
        password = text(section["password"])
        if not REFERENCE.fullmatch(password):
            example = f"${{env:{self.path.stem.upper()}_DB_PASSWORD}}"
            raise self.fail(
                f'write `password = "{example}"` under [database]: Connect resolves it, a secret is never in a file'
            )
        if REFERENCE.search(text(section["name"])):
            raise self.fail("write the database's name itself under [database]: it is part of names that are checked here")
        return Database(*(text(section[key]) for key in DATABASE_KEYS))

    def tables(self, database: Database) -> tuple[str, ...]:
        tables = self.content.get("tables")
        if not isinstance(tables, list) or not tables:
            example = "public.orders" if self.kind == "postgres" else f"{database.name}.orders"
            raise self.fail(f'add `tables = ["{example}"]`: what is not listed is not captured')
        checked = tuple(self.table("tables", table, database, None) for table in tables)
        twice = {table for table in checked if checked.count(table) > 1}
        if twice:
            raise self.fail(f"name each table once: {', '.join(sorted(twice))}")
        topics = [re.sub(r"[^A-Za-z0-9._-]", "_", table) for table in checked]
        merged = [table for table, topic in zip(checked, topics, strict=True) if topics.count(topic) > 1]
        if merged:
            raise self.fail(f"rename one of {', '.join(merged)}, or capture only one: their topics would have one name")
        return checked

    def table(self, key: str, table: Any, database: Database, named: str | None) -> str:
        if not isinstance(table, str) or not TABLE.fullmatch(table):
            form = "schema.table" if self.kind == "postgres" else "database.table"
            raise self.fail(f"write tables as {form}, without commas, in `{key}`: {table!r}")
        name_space, _, name = table.partition(".")
        if self.kind != "postgres" and name_space != database.name:
            raise self.fail(f"`{key}`: {table} is not in the database {database.name} that [database] names")
        if named is not None and name != named:
            raise self.fail(f"`{key}` must be a table called {named}: the route of its rows goes by that name")
        return table

    def format(self) -> str:
        chosen = self.content.get("format", "avro-apicurio")
        if chosen not in self.template.formats:
            raise self.fail(f"set `format` to one of: {', '.join(sorted(self.template.formats))}")
        return str(chosen)

    def integer(self, key: str, default: int, low: int, high: int) -> int:
        value = self.content.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.fail(f"`{key}` must be a whole number from {low} to {high}")
        return value

    def placeholder(self) -> str | None:
        value = self.content.get("unavailable_value_placeholder")
        if self.kind != "postgres":
            if value is not None:
                raise self.fail("take `unavailable_value_placeholder` out: only PostgreSQL leaves values unsent")
            return None
        if not isinstance(value, str) or len(value) < 16:
            made = secrets.token_hex(16)
            raise self.fail(
                f'add `unavailable_value_placeholder = "{made}"` (random, made for you just now; keep it for ever: it stands'
                " for values that PostgreSQL did not send, and no row may hold it)"
            )
        return value

    def full_identity(self, tables: tuple[str, ...]) -> tuple[str, ...]:
        if self.kind != "postgres" and self.content.get("full_identity"):
            raise self.fail("take `full_identity` out: the binlog's rows are whole (binlog_row_image=FULL)")
        return self.some_of("full_identity", tables, "those with REPLICA IDENTITY FULL")

    def some_of(self, key: str, tables: tuple[str, ...], which: str) -> tuple[str, ...]:
        value = self.content.get(key, [])
        if not isinstance(value, list) or not set(map(str, value)) <= set(tables):
            raise self.fail(f"`{key}` must list tables that are in `tables`: {which}")
        return tuple(value)

    def attribution_comments(self) -> bool:
        value = self.content.get("attribution_comments", False)
        if not isinstance(value, bool):
            raise self.fail("`attribution_comments` must be true or false")
        if value and not self.template.attribution_comments:
            raise self.fail(
                "take `attribution_comments` out: this database's log carries no statements; use messages or contexts"
            )
        return value

    def server_id(self) -> int | None:
        if self.kind == "postgres":
            if "server_id" in self.content:
                raise self.fail("take `server_id` out: only MySQL and MariaDB have it")
            return None
        # The default follows from the name, high enough to stay clear of the small ids that people give to replicas.
        return self.integer("server_id", 100_000_000 + zlib.crc32(self.path.stem.encode()) % 900_000_000, 1, 2**32 - 1)

    def options(self) -> dict[str, str]:
        section = self.content.get("options", {})
        if not isinstance(section, dict):
            raise self.fail("[options] must be a table of connector options")
        checked: dict[str, str] = {}
        for option, value in section.items():
            if isinstance(value, dict | list):
                raise self.fail(f'quote the whole option under [options]: `"{option}.…" = "…"`')
            reason = self.template.why_refused(option)
            if reason is not None:
                raise self.fail(f'take "{option}" out of [options]: {reason}')
            if is_secret(option) and not REFERENCE.search(text(value)):
                raise self.fail(f'write "{option}" as "${{env:NAME}}": Connect resolves it, a secret is never in a file')
            checked[option] = text(value)
        return checked


def is_secret(option: str) -> bool:
    """Whether an option's name says that its value is a secret (`key.converter` and its like are not)."""
    return bool(SECRET.search(option.removeprefix("key.").removeprefix("message.key").removesuffix(".field.event.key")))
