"""`chronicle.attribution` on real databases: what only one client library, or one kind of database, has."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pymysql
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, create_async_engine
from sqlalchemy.orm import Session, registry

from chronicle import attribute
from chronicle.attribution import AttributionError
from chronicle.dev.stack import Stack
from tests.stack.attribution_clients import (
    CLIENTS,
    CONTEXT,
    HOSTILE,
    INSERT,
    ROW,
    MariaWorld,
    PostgresWorld,
    World,
    alchemy,
    client,
    opened_worlds,
    read_context,
)

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def worlds(stack: Stack) -> Iterator[dict[str, World]]:
    """One database of each kind for this module."""
    with opened_worlds(stack) as made:
        yield made


@pytest.fixture
def postgres(worlds: dict[str, World]) -> PostgresWorld:
    world = worlds["postgres"]
    assert isinstance(world, PostgresWorld)
    world.read()
    return world


@pytest.fixture
def maria(worlds: dict[str, World]) -> MariaWorld:
    world = worlds["mysql"]
    assert isinstance(world, MariaWorld)
    world.read()
    return world


@pytest.mark.parametrize("autocommit", [True, False])
def test_psycopg_copy_stream_and_procedures_are_writes(postgres: PostgresWorld, autocommit: bool) -> None:
    """With autocommit each in a transaction of its own, together with its message."""
    with psycopg.connect(postgres.dsn, autocommit=autocommit) as connection, attribute(connection, actor="a"):
        cursor = connection.cursor()
        with cursor.copy("COPY items (id) FROM STDIN") as copy:
            copy.write_row((1,))
        connection.commit()
        assert list(cursor.stream("INSERT INTO items (id) VALUES (%s) RETURNING id", (77,))) == [(77,)]
        connection.commit()
        cursor.execute(psycopg.sql.SQL("UPDATE {} SET id = 3 WHERE id = 77").format(psycopg.sql.Identifier("items")))
        assert cursor.rowcount == 1
        connection.commit()
        cursor.execute(b"CALL put_item(4)")
        connection.commit()
        assert cursor.execute("WITH x AS (INSERT INTO items VALUES (5) RETURNING id) SELECT * FROM x").fetchall() == [(5,)]
        connection.commit()
        with cursor.copy("COPY items TO STDOUT") as copy:
            assert len(b"".join(copy)) > 0
    assert postgres.read() == ([[CONTEXT, ROW]] * 5, [{"actor": "a"}] * 5)


def test_psycopg_autocommit_failures_leave_no_transaction_open(postgres: PostgresWorld) -> None:
    """The transaction opened for a statement ends with it."""
    with psycopg.connect(postgres.dsn, autocommit=True) as connection, attribute(connection, actor="a"):
        with pytest.raises(psycopg.errors.UndefinedTable):
            connection.execute("INSERT INTO nowhere VALUES (1)")
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        connection.execute(INSERT)
        connection.execute("VACUUM items")  # cannot run in a transaction
    assert postgres.read() == ([[CONTEXT, ROW]], [{"actor": "a"}])


@pytest.mark.parametrize("autocommit", [True, False])
def test_psycopg_pipelines_are_told(postgres: PostgresWorld, autocommit: bool) -> None:
    """Also where several statements are on their way at once."""
    with psycopg.connect(postgres.dsn, autocommit=autocommit) as connection, attribute(connection, actor="a"):
        with connection.pipeline(), connection.transaction():
            connection.execute(INSERT)
            connection.execute(INSERT)
        connection.commit()
        with connection.pipeline():
            connection.execute(INSERT)
        connection.commit()
    assert postgres.read() == ([[CONTEXT, ROW, ROW], [CONTEXT, ROW]], [{"actor": "a"}] * 2)


def test_psycopg_an_older_cursor_may_read_but_not_write(postgres: PostgresWorld) -> None:
    """It is not watched, so it is refused instead of writing without an author; given to `attribute`, it is watched."""
    with psycopg.connect(postgres.dsn) as connection:
        older = connection.cursor()
        with attribute(connection, actor="a"):
            assert older.execute("SELECT 1").fetchone() == (1,)
            for write in (older.execute, lambda sql: older.executemany(sql, [()]), lambda sql: list(older.stream(sql))):
                with pytest.raises(AttributionError, match="inside the block"):
                    write(INSERT)
            with pytest.raises(AttributionError), older.copy("COPY items (id) FROM STDIN"):
                pass
        with attribute(older, actor="b"):
            older.execute(INSERT)
        assert type(older) is psycopg.Cursor
        connection.commit()
    assert postgres.read() == ([[CONTEXT, ROW]], [{"actor": "b"}])


@pytest.mark.parametrize("kind", [psycopg.ClientCursor, psycopg.RawCursor])
def test_psycopg_cursors_of_every_kind_are_watched(postgres: PostgresWorld, kind: Any) -> None:
    """Whatever `cursor_factory` makes."""
    with psycopg.connect(postgres.dsn, cursor_factory=kind) as connection:
        with attribute(connection, actor="a"):
            assert isinstance(connection.cursor(), kind)
            connection.execute(INSERT)
        assert connection.cursor_factory is kind
    assert postgres.read() == ([[CONTEXT, ROW]], [{"actor": "a"}])


def test_psycopg_a_transaction_written_in_sql_is_one(postgres: PostgresWorld) -> None:
    """BEGIN, COMMIT and savepoints as statements; all of it in one string has no place for a message and is refused."""
    with psycopg.connect(postgres.dsn, autocommit=True) as connection, attribute(connection, actor="a"):
        for sql in ("BEGIN", "SAVEPOINT s", INSERT, "ROLLBACK TO s", INSERT, "COMMIT", "BEGIN", INSERT, "COMMIT"):
            connection.execute(sql)
        connection.execute(f"{INSERT}; {INSERT}")
        with pytest.raises(AttributionError, match="apart"):
            connection.execute(f"BEGIN; {INSERT}; COMMIT")
    assert postgres.read() == ([[CONTEXT, ROW], [CONTEXT, ROW], [CONTEXT, ROW, ROW]], [{"actor": "a"}] * 3)


def test_functions_that_write_are_told_where_queries_count(postgres: PostgresWorld) -> None:
    """By `selects_write`, and only by it."""
    with psycopg.connect(postgres.dsn, autocommit=True) as connection, attribute(connection, actor="a"):
        connection.execute("SELECT add_item(1)")
        with attribute(connection, selects_write=True, reason="r"):
            connection.execute("SELECT add_item(1)")
    assert postgres.read() == ([[ROW], [CONTEXT, ROW]], [{"actor": "a", "reason": "r"}])


def test_an_asynchronous_psycopg_connection_is_told(postgres: PostgresWorld) -> None:
    """`execute`, `executemany`, `stream`, `copy`, with autocommit and without; older cursors may not write."""

    async def work(autocommit: bool) -> None:
        async with await psycopg.AsyncConnection.connect(postgres.dsn, autocommit=autocommit) as connection:
            older = connection.cursor()
            async with attribute(connection, actor="a"):
                with pytest.raises(AttributionError):
                    await older.execute(INSERT)
                await connection.execute(INSERT)
                await connection.commit()
                async with connection.cursor() as cursor:
                    await cursor.executemany("INSERT INTO items (id) VALUES (%s)", [(1,)])
                    await connection.commit()
                    assert [row async for row in cursor.stream(INSERT + " RETURNING id")] == [(1,)]
                    await connection.commit()
                    async with cursor.copy("COPY items (id) FROM STDIN") as copy:
                        await copy.write_row((1,))
                    await connection.commit()
                async with connection.pipeline(), connection.transaction():
                    await connection.execute(INSERT)
            async with attribute(older, actor="b"):
                await older.execute(INSERT)

    for autocommit in (True, False):
        asyncio.run(work(autocommit))
        assert postgres.read() == ([[CONTEXT, ROW]] * 6, [{"actor": "a"}] * 5 + [{"actor": "b"}])


def test_asynchronous_sqlalchemy_is_told(postgres: PostgresWorld) -> None:
    """Connections and sessions, also one that has begun."""

    @asynccontextmanager
    async def opened(kind: type[Any]) -> AsyncIterator[Any]:
        engine = create_async_engine(f"postgresql+psycopg://postgres:postgres@127.0.0.1:{postgres.port}/{postgres.name}")
        async with engine.connect() if kind is AsyncConnection else AsyncSession(engine) as made:
            yield made
        await engine.dispose()

    async def work(kind: type[Any]) -> None:
        async with opened(kind) as target:
            async with attribute(target, actor="a"), target.begin():
                await target.execute(sa.text(INSERT))
            async with target.begin(), attribute(target, actor="b"):
                await target.execute(sa.text(INSERT))

    for kind in (AsyncConnection, AsyncSession):
        asyncio.run(work(kind))
        assert postgres.read() == ([[CONTEXT, ROW]] * 2, [{"actor": "a"}, {"actor": "b"}])


def test_sqlalchemy_a_pooled_connection_takes_no_author_along(postgres: PostgresWorld) -> None:
    """What another session does with the same connection of the pool, while the block is open, is not the block's."""
    engine = alchemy(postgres, "psycopg")
    with Session(engine) as ours, attribute(ours, actor="a"):
        ours.execute(sa.text(INSERT))
        ours.commit()
        with engine.begin() as theirs:
            theirs.execute(sa.text(INSERT))
        with ours.begin():
            ours.execute(sa.text(INSERT))
    engine.dispose()
    assert postgres.read() == ([[CONTEXT, ROW], [ROW], [CONTEXT, ROW]], [{"actor": "a"}] * 2)


def test_sqlalchemy_objects_are_told(postgres: PostgresWorld) -> None:
    """A flush that the session makes by itself, in one batch."""

    class Item:
        def __init__(self, number: int) -> None:
            self.id, self.note = number, "%s"

    columns = (sa.Column("id", sa.Integer, primary_key=True), sa.Column("note", sa.Text))
    registry().map_imperatively(Item, sa.Table("items", sa.MetaData(), *columns))
    engine = alchemy(postgres, "psycopg2")
    with Session(engine) as session, attribute(session, actor="a"):
        session.add_all([Item(number) for number in (101, 102)])
        session.commit()
    engine.dispose()
    assert postgres.read() == ([[CONTEXT, ROW, ROW]], [{"actor": "a"}])


@pytest.mark.parametrize("dialect", ["postgres", "mysql"])
def test_sqlalchemy_autocommit_is_refused(worlds: dict[str, World], dialect: str) -> None:
    """There the context would be a transaction of its own; the write has not been run."""
    world = worlds[dialect]
    world.read()
    engine = alchemy(world, "psycopg" if dialect == "postgres" else "pymysql")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        with attribute(connection, actor="a"):
            connection.execute(sa.text("SELECT 1"))
            with pytest.raises(AttributionError, match="AUTOCOMMIT"):
                connection.execute(sa.text(INSERT))
        connection.execute(sa.text(INSERT))
    engine.dispose()
    assert world.read() == ([[ROW]], [])


@pytest.mark.parametrize("alias", ["default", "mysql"])
def test_django_autocommit_gets_a_transaction_for_each_write(worlds: dict[str, World], alias: str) -> None:
    """And the savepoints that Django itself sets are no new transactions."""
    from django.db import connections, transaction  # type: ignore[import-untyped]

    world = worlds["postgres" if alias == "default" else "mysql"]
    world.read()
    connection = connections[alias]
    with attribute(connection, actor="a"), connection.cursor() as cursor:
        cursor.execute(INSERT)
        cursor.execute("SELECT 1")
        cursor.execute("UPDATE items SET note = %s WHERE id < 0", ("x",))
        cursor.execute("INSERT INTO items (id, note) VALUES (%s, %s)", (1, "%"))
        with transaction.atomic(using=alias):
            for _ in range(3):
                with transaction.atomic(using=alias):
                    cursor.execute(INSERT)
    connection.close()
    transactions, contexts = world.read()
    assert [one for one in transactions if one != [CONTEXT]] == [[CONTEXT, ROW], [CONTEXT, ROW], [CONTEXT, ROW, ROW, ROW]]
    assert contexts == [{"actor": "a"}] * 4


def test_django_copy_and_procedures_are_writes(worlds: dict[str, World]) -> None:
    """Though Django's own wrappers do not see them."""
    from django.db import connections

    postgres, maria = worlds["postgres"], worlds["mysql"]
    postgres.read()
    maria.read()
    with (
        attribute(connections["default"], actor="a"),
        connections["default"].cursor() as cursor,
        cursor.copy("COPY items (id) FROM STDIN") as copy,
    ):
        copy.write_row((1,))
    with attribute(connections["mysql"], actor="b"), connections["mysql"].cursor() as cursor:
        cursor.callproc("put_item", (1,))
        while cursor.nextset():
            pass
    connections.close_all()
    assert postgres.read() == ([[CONTEXT, ROW]], [{"actor": "a"}])
    assert maria.read() == ([[CONTEXT, ROW]], [{"actor": "b"}])


def test_pymysql_autocommit_is_refused_and_older_cursors_are_watched(maria: MariaWorld) -> None:
    """A transaction begun by hand is fine."""
    with pymysql.connect(**maria.login, autocommit=True) as connection, connection.cursor() as older:
        with attribute(connection, actor="a"):
            with pytest.raises(AttributionError, match="begin"):
                older.execute(INSERT)
            connection.begin()
            older.execute(INSERT)
            connection.commit()
            connection.begin()
            older.execute(INSERT)
            connection.commit()
        older.execute(INSERT)
    assert maria.read() == ([[CONTEXT, ROW], [CONTEXT, ROW], [ROW]], [{"actor": "a"}] * 2)


def test_a_deadlock_that_took_the_context_has_it_said_again(maria: MariaWorld) -> None:
    """MySQL rolls the whole transaction back; the application may go on on the same connection without a ROLLBACK."""
    maria.ask("CREATE OR REPLACE TABLE pair (id int PRIMARY KEY, n int) ENGINE = InnoDB")
    maria.ask("INSERT INTO pair VALUES (1, 0), (2, 0)")
    maria.read()
    with pymysql.connect(**maria.login) as ours, pymysql.connect(**maria.login) as theirs, attribute(ours, actor="a"):
        mine, other = ours.cursor(), theirs.cursor()
        mine.execute(INSERT)
        mine.execute("SELECT * FROM pair WHERE id = 1 FOR UPDATE")
        # the heavier transaction is spared, so ours is the one that ends
        other.execute("INSERT INTO pair SELECT seq, 0 FROM seq_10_to_500")
        other.execute("SELECT * FROM pair WHERE id = 2 FOR UPDATE")
        waiting = threading.Thread(target=other.execute, args=("UPDATE pair SET n = 1 WHERE id = 1",))
        waiting.start()
        with pytest.raises(pymysql.OperationalError, match="1213"):
            mine.execute("UPDATE pair SET n = 1 WHERE id = 2")  # a deadlock, whichever of the two comes first
        waiting.join(30)
        theirs.rollback()
        mine.execute(INSERT)
        ours.commit()
    assert maria.read() == ([[CONTEXT, ROW]], [{"actor": "a"}])


def test_the_context_row_leaves_the_applications_last_id_alone(maria: MariaWorld) -> None:
    """`LAST_INSERT_ID()` of an earlier transaction is still the application's."""
    maria.ask("CREATE OR REPLACE TABLE numbered (id int AUTO_INCREMENT PRIMARY KEY)")
    with pymysql.connect(**maria.login) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO numbered VALUES (41)")
        cursor.execute("INSERT INTO numbered VALUES (NULL)")
        connection.commit()
        with attribute(connection, actor="a"):
            cursor.execute(INSERT)
            cursor.execute("SELECT LAST_INSERT_ID()")
            assert cursor.fetchone() == (42,)
    assert maria.read()[1] == []


def test_another_context_table_can_be_named(maria: MariaWorld) -> None:
    """With its schema or without."""
    with pymysql.connect(**maria.login) as connection, connection.cursor() as cursor:
        for table in ("other_context", f"{maria.name}.other_context"):
            with attribute(connection, actor=table, table=table):
                cursor.execute(INSERT)
                connection.commit()
    assert [json.loads(text)["actor"] for (text,) in maria.ask("SELECT context FROM other_context ORDER BY created_at")] == [
        "other_context",
        f"{maria.name}.other_context",
    ]
    assert maria.read() == ([[CONTEXT, ROW]] * 2, [])


@pytest.mark.parametrize("name", [one for one in CLIENTS if "mysql" in one])
def test_comments_reach_the_binlog_and_nothing_breaks_out_of_them(name: str, worlds: dict[str, World]) -> None:
    """One before each write, with autocommit too; the server keeps it, and its JSON is what was given."""
    maria = worlds["mysql"]
    assert isinstance(maria, MariaWorld)
    maria.read()
    hostile = "".join(HOSTILE[:-1])
    with client(name, worlds) as app, attribute(app.target, actor=hostile, comment=True):
        with app.transaction():
            app.run("SELECT 1")
            app.run(INSERT)
            app.many("INSERT INTO items (id) VALUES (%s)", [(1,), (2,)])
        if name == "pymysql":
            app.target.autocommit(True)
            app.run(INSERT)
    annotated = [text for kind, text in maria.events() if kind == "Annotate_rows" and "items" in text]
    assert len(annotated) == (3 if name == "pymysql" else 2), "rows were sent one by one"
    for text in annotated:
        (found,) = re.findall(r"/\* chronicle: (\{.*?\}) \*/", text, re.DOTALL)
        assert read_context(found) == {"actor": hostile}
    assert maria.read() == ([], [])
