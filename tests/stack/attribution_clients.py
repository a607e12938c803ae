"""Real databases with one table and what their logs hold of it, and every client library's way to write to them.

Postgres is read through a logical slot, MariaDB through its binlog: the transactions that committed, each with the rows it
wrote and the contexts it was told, in their order.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import psycopg
import pymysql
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from chronicle.attribution import context_table_ddl
from chronicle.codec.transaction import context_of_message
from chronicle.dev.stack import Stack

CONTEXT, ROW = "context", "items"
INSERT = "INSERT INTO items (id) VALUES (1)"
HOSTILE = [
    "*/ DELETE FROM items; /*",
    "'; DELETE FROM items; --",
    '"\\',
    "\\'); DELETE FROM items; #",
    "a\x00b",
    "%s %(x)s %% :content",
    "é\U0001f600\r\n\t",
    "`$1` $$ {}",
    "x" * 20_000,
]
CLIENTS = [
    "psycopg",
    "psycopg cursor",
    "psycopg blocks",
    "sqlalchemy psycopg",
    "sqlalchemy psycopg2",
    "sqlalchemy mysql pymysql",
    "sqlalchemy mysql mysqldb",
    "session psycopg",
    "session mysql pymysql",
    "django",
    "django mysql",
    "pymysql",
]


class PostgresWorld:
    """A database with one table, and what its log has of it."""

    dialect = "postgres"

    def __init__(self, stack: Stack, name: str) -> None:
        self.name, self.port, self.dsn = name, stack.ports.postgres, stack.postgres_dsn(name)
        with psycopg.connect(stack.postgres_dsn(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        self.admin = psycopg.connect(self.dsn, autocommit=True)
        self.admin.execute("CREATE TABLE items (id int, note text)")
        self.admin.execute("CREATE FUNCTION add_item(int) RETURNS void LANGUAGE sql AS 'INSERT INTO items VALUES ($1)'")
        self.admin.execute("CREATE PROCEDURE put_item(int) LANGUAGE sql AS 'INSERT INTO items VALUES ($1)'")
        self.admin.execute("SELECT pg_create_logical_replication_slot(%s, 'test_decoding')", (name,))

    def drop(self, stack: Stack) -> None:
        self.admin.execute("SELECT pg_drop_replication_slot(%s)", (self.name,))
        self.admin.close()
        with psycopg.connect(stack.postgres_dsn(), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {self.name} WITH (FORCE)")

    def read(self) -> tuple[list[list[str]], list[dict[str, Any]]]:
        """The transactions since the last call that have something in them, and the contexts in their order."""
        transactions: list[list[str]] = []
        contexts = []
        rows = self.admin.execute("SELECT data FROM pg_logical_slot_get_changes(%s, NULL, NULL)", (self.name,)).fetchall()
        for (data,) in rows:
            if data.startswith("BEGIN"):
                transactions.append([])
            elif message := re.match(r"message: transactional: (\d) prefix: (\w+), sz: \d+ content:(.*)", data, re.DOTALL):
                assert message.groups()[:2] == ("1", "chronicle")
                transactions[-1].append(CONTEXT)
                contexts.append(read_context(message.group(3)))
            elif data.startswith("table public.items:"):
                transactions[-1].append(ROW)
        return [one for one in transactions if one], contexts


class MariaWorld:
    """The same on MariaDB; contexts are rows of the context table."""

    dialect = "mysql"

    def __init__(self, stack: Stack, name: str) -> None:
        self.name, self.port, self.login = name, stack.ports.mariadb, stack.mariadb_params(name)
        with pymysql.connect(**stack.mariadb_params(), autocommit=True) as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
        self.admin = pymysql.connect(**self.login, autocommit=True)
        self.ask("CREATE TABLE items (id int, note longtext) CHARACTER SET utf8mb4")
        self.ask("CREATE PROCEDURE put_item(IN x int) INSERT INTO items VALUES (x, NULL)")
        self.ask(context_table_ddl("mariadb"))
        self.ask(context_table_ddl("mariadb"))  # may be repeated
        self.ask(context_table_ddl("mariadb", "other_context"))
        self.at = self.ask("SHOW BINLOG STATUS")[0][:2]

    def drop(self, stack: Stack) -> None:
        self.ask(f"DROP DATABASE {self.name}")
        self.admin.close()

    def ask(self, sql: str) -> Any:
        with self.admin.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()

    def events(self) -> list[tuple[str, str]]:
        """Type and text of the binlog's events since the last call."""
        file, position = self.at
        self.at = self.ask("SHOW BINLOG STATUS")[0][:2]
        assert self.at[0] == file
        return [(row[2], row[5]) for row in self.ask(f"SHOW BINLOG EVENTS IN '{file}' FROM {position}") if row[1] < self.at[1]]

    def read(self) -> tuple[list[list[str]], list[dict[str, Any]]]:
        """The transactions since the last call that have something in them, and the contexts in their order."""
        transactions: list[list[str]] = []
        for kind, text in self.events():
            if kind == "Gtid":
                transactions.append([])
            elif kind == "Table_map":
                table = re.search(rf"\({self.name}\.(\w+)\)", text)
                if table:
                    transactions[-1].append(ROW if table.group(1) == "items" else CONTEXT)
        contexts = [read_context(text) for (text,) in self.ask("SELECT context FROM chronicle_context ORDER BY created_at")]
        self.ask("DELETE FROM chronicle_context")
        self.events()
        return [one for one in transactions if one], contexts


World = PostgresWorld | MariaWorld


def read_context(text: str) -> dict[str, Any]:
    """As the pipeline reads it."""
    context = context_of_message(text.encode())
    assert context is not None
    return context


@contextmanager
def opened_worlds(stack: Stack) -> Iterator[dict[str, World]]:
    """One database of each kind, dropped at the end."""
    with ExitStack() as undo:
        made: dict[str, World] = {}
        for kind in (PostgresWorld, MariaWorld):
            world = made[kind.dialect] = kind(stack, f"attribution_{stack.ports.base}")
            undo.callback(world.drop, stack)
        configure_django(*made.values())
        yield made


def configure_django(*worlds: World) -> None:
    """Once a process: Django's settings are global."""
    import django  # type: ignore[import-untyped]
    from django.conf import settings  # type: ignore[import-untyped]

    if settings.configured:
        return
    try:
        import MySQLdb  # type: ignore[import-untyped]  # noqa: F401
    except ImportError:  # as many projects do
        pymysql.install_as_MySQLdb()
    databases = {}
    for world in worlds:
        engine, user = ("postgresql", "postgres") if isinstance(world, PostgresWorld) else ("mysql", "chronicle")
        databases["default" if engine == "postgresql" else "mysql"] = {
            "ENGINE": f"django.db.backends.{engine}",
            "NAME": world.name,
            "HOST": "127.0.0.1",
            "PORT": world.port,
            "USER": user,
            "PASSWORD": user,
        }
    settings.configure(DATABASES=databases, USE_TZ=True)
    django.setup()


class Client:
    """One way to talk to a database: what is given to `attribute`, and the few things the laws need."""

    def __init__(self, world: World, target: Any) -> None:
        self.world, self.target = world, target

    def run(self, sql: str) -> Any:
        raise NotImplementedError

    def many(self, sql: str, rows: list[tuple[int]]) -> None:
        raise NotImplementedError

    def transaction(self) -> AbstractContextManager[Any]:
        raise NotImplementedError

    def savepoint(self) -> AbstractContextManager[Any]:
        """Rolled back when an exception leaves it."""
        raise NotImplementedError


class PsycopgClient(Client):
    def run(self, sql: str) -> Any:
        return self.target.execute(sql)

    def many(self, sql: str, rows: list[tuple[int]]) -> None:
        (self.target if isinstance(self.target, psycopg.Cursor) else self.target.cursor()).executemany(sql, rows)

    @property
    def connection(self) -> psycopg.Connection[Any]:
        found: psycopg.Connection[Any] = getattr(self.target, "connection", self.target)
        return found

    @contextmanager
    def transaction(self) -> Iterator[None]:
        try:
            yield
            self.connection.commit()
        except BaseException:
            self.connection.rollback()
            raise

    def savepoint(self) -> AbstractContextManager[Any]:
        return self.connection.transaction()


class BlocksClient(PsycopgClient):
    """With autocommit, transactions as blocks."""

    def transaction(self) -> AbstractContextManager[Any]:  # type: ignore[override]
        return self.connection.transaction()


class AlchemyClient(Client):
    def run(self, sql: str) -> Any:
        result = self.target.execute(sa.text(sql))
        return result.fetchone() if result.returns_rows else None

    def many(self, sql: str, rows: list[tuple[int]]) -> None:
        self.target.execute(sa.text(sql.replace("%s", ":id")), [{"id": row[0]} for row in rows])

    def transaction(self) -> AbstractContextManager[Any]:
        found: AbstractContextManager[Any] = self.target.begin()
        return found

    def savepoint(self) -> AbstractContextManager[Any]:
        found: AbstractContextManager[Any] = self.target.begin_nested()
        return found


class DjangoClient(Client):
    def run(self, sql: str) -> Any:
        with self.target.cursor() as cursor:
            cursor.execute(sql)

    def many(self, sql: str, rows: list[tuple[int]]) -> None:
        with self.target.cursor() as cursor:
            cursor.executemany(sql, rows)

    def transaction(self) -> AbstractContextManager[Any]:
        from django.db import transaction  # type: ignore[import-untyped]

        found: AbstractContextManager[Any] = transaction.atomic(using=self.target.alias)
        return found

    savepoint = transaction


class PyMySQLClient(Client):
    def run(self, sql: str) -> Any:
        with self.target.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchone()

    def many(self, sql: str, rows: list[tuple[int]]) -> None:
        with self.target.cursor() as cursor:
            cursor.executemany(sql, rows)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self.target.begin()
        try:
            yield
            self.target.commit()
        except BaseException:
            self.target.rollback()
            raise

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        self.run("SAVEPOINT here")
        try:
            yield
            self.run("RELEASE SAVEPOINT here")
        except BaseException:
            self.run("ROLLBACK TO SAVEPOINT here")
            raise


def alchemy(world: World, driver: str) -> sa.Engine:
    scheme, user = ("postgresql", "postgres") if isinstance(world, PostgresWorld) else ("mysql", "chronicle")
    if driver == "mysqldb" and "pymysql" in str(getattr(sys.modules.get("MySQLdb"), "__file__", "pymysql")):
        pytest.skip("mysqlclient is not installed here")
    return sa.create_engine(f"{scheme}+{driver}://{user}:{user}@127.0.0.1:{world.port}/{world.name}")


@contextmanager
def client(name: str, worlds: dict[str, World]) -> Iterator[Client]:
    library, _, detail = name.partition(" ")
    world = worlds["mysql" if library == "pymysql" or detail.startswith(("mysql", "pymysql")) else "postgres"]
    with ExitStack() as stack:
        if library == "psycopg":
            connection = stack.enter_context(psycopg.connect(world.dsn, autocommit=detail == "blocks"))  # type: ignore[union-attr]
            target = connection.cursor() if detail == "cursor" else connection
            yield (BlocksClient if detail == "blocks" else PsycopgClient)(world, target)
        elif library == "pymysql":
            assert isinstance(world, MariaWorld)
            yield PyMySQLClient(world, stack.enter_context(pymysql.connect(**world.login)))
        elif library == "sqlalchemy":
            engine = alchemy(world, detail.removeprefix("session ").removeprefix("mysql "))
            stack.callback(engine.dispose)
            yield AlchemyClient(world, stack.enter_context(engine.connect()))
        elif library == "session":
            engine = alchemy(world, detail.removeprefix("mysql "))
            stack.callback(engine.dispose)
            yield AlchemyClient(world, stack.enter_context(Session(engine)))
        else:
            from django.db import connection as default
            from django.db import connections

            target = connections["mysql"] if world.dialect == "mysql" else default
            stack.callback(target.close)
            yield DjangoClient(world, target)
