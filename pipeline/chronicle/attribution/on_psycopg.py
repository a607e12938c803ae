"""Attribution on psycopg 3: connections and cursors, with and without asyncio.

The cursors that a connection makes inside the block watch what they run; the connection's own ways to begin and end a
transaction are noted. Everything is put back when the last block on the connection ends.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from functools import cache
from typing import Any

import psycopg
from psycopg import pq, sql

from chronicle.attribution.context import AttributionError
from chronicle.attribution.covering import Leave, Watches, cover, note
from chronicle.attribution.watching import Block, Step, Watch

_IDLE, _FAILED = pq.TransactionStatus.IDLE, pq.TransactionStatus.INERROR
_BOUNDARIES = ("commit", "rollback", "tpc_begin", "tpc_prepare", "tpc_commit", "tpc_rollback")


def enter(target: Any, block: Block) -> Leave:
    """Begin a block on a connection, or on a cursor's connection and that cursor; returns what ends it."""
    cursor = target if isinstance(target, psycopg.Cursor | psycopg.AsyncCursor) else None
    connection = target if cursor is None else cursor.connection
    if not isinstance(connection, psycopg.Connection | psycopg.AsyncConnection):
        raise AttributionError("pass a psycopg Connection, AsyncConnection, Cursor or AsyncCursor")
    end = _WATCHES.enter(connection, "postgres", block)
    plain: Any = None if cursor is None or isinstance(cursor, _Watching | _AsyncWatching) else type(cursor)
    if cursor is not None and plain is not None:
        cursor.__class__ = _watching(plain)

    def leave() -> None:
        if cursor is not None and plain is not None:
            cursor.__class__ = plain
        end()

    return leave


def _attach(connection: Any, watch: Watch, undo: ExitStack) -> None:
    undo.callback(setattr, connection, "cursor_factory", connection.cursor_factory)
    connection.cursor_factory = _watching(connection.cursor_factory)
    note(connection, _BOUNDARIES, watch, undo)
    transaction = _async_transaction if isinstance(connection, psycopg.AsyncConnection) else _transaction
    cover(connection, "transaction", transaction(connection.transaction, watch), undo)
    cover(connection, "wait", _guarded(connection.wait, watch), undo)


_WATCHES = Watches(_attach)


def _transaction(method: Callable[..., Any], watch: Watch) -> Callable[..., Any]:
    @contextmanager
    def transaction(*args: Any, **kwargs: Any) -> Iterator[Any]:
        try:
            with method(*args, **kwargs) as opened:
                watch.forget()
                yield opened
        finally:
            watch.forget()

    return transaction


def _async_transaction(method: Callable[..., Any], watch: Watch) -> Callable[..., Any]:
    @asynccontextmanager
    async def transaction(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        try:
            async with method(*args, **kwargs) as opened:
                watch.forget()
                yield opened
        finally:
            watch.forget()

    return transaction


def _guarded(wait: Callable[..., Any], watch: Watch) -> Callable[..., Any]:
    """A cursor made before the block is not watched: what it wrote would have no author, so it must not write.

    psycopg has no public place that sees it, but everything it runs is a generator given to `wait`. Should a later psycopg
    build these otherwise, nothing is refused here any more; what the cursors made inside the block do does not change.
    """

    def guarded(generator: Any, *args: Any, **kwargs: Any) -> Any:
        frame = getattr(generator, "gi_frame", None)
        names = frame.f_locals if frame is not None else {}
        cursor = names.get("self")
        if (
            not watch.speaking
            and isinstance(cursor, psycopg.Cursor | psycopg.AsyncCursor)
            and not isinstance(cursor, _Watching | _AsyncWatching | psycopg.ServerCursor | psycopg.AsyncServerCursor)
            and (query := names.get("query", names.get("statement"))) is not None
            and watch.concerned(watch.before(_text(query, cursor.connection)).statement)
        ):
            raise AttributionError("make the cursor inside the block, or pass it to attribute(): an older one is not watched")
        return wait(generator, *args, **kwargs)

    return guarded


class _Watching(psycopg.Cursor[Any]):
    """What a cursor of any kind becomes, in front of its own class."""

    __slots__ = ()

    def execute(self, query: Any, *args: Any, **kwargs: Any) -> Any:
        with _told(self, query):
            return super().execute(query, *args, **kwargs)

    def executemany(self, query: Any, *args: Any, **kwargs: Any) -> None:
        with _told(self, query):
            super().executemany(query, *args, **kwargs)

    def stream(self, query: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        with _told(self, query):
            yield from super().stream(query, *args, **kwargs)

    @contextmanager
    def copy(self, statement: Any, *args: Any, **kwargs: Any) -> Iterator[psycopg.Copy]:
        with _told(self, statement), super().copy(statement, *args, **kwargs) as copy:
            yield copy


class _AsyncWatching(psycopg.AsyncCursor[Any]):
    __slots__ = ()

    async def execute(self, query: Any, *args: Any, **kwargs: Any) -> Any:
        async with _async_told(self, query):
            return await super().execute(query, *args, **kwargs)

    async def executemany(self, query: Any, *args: Any, **kwargs: Any) -> None:
        async with _async_told(self, query):
            await super().executemany(query, *args, **kwargs)

    async def stream(self, query: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        async with _async_told(self, query):
            async for row in super().stream(query, *args, **kwargs):
                yield row

    @asynccontextmanager
    async def copy(self, statement: Any, *args: Any, **kwargs: Any) -> AsyncIterator[psycopg.AsyncCopy]:
        async with _async_told(self, statement), super().copy(statement, *args, **kwargs) as copy:
            yield copy


@cache
def _watching(plain: Any) -> type[Any]:
    """The cursor class, watched."""
    front: type[Any] = _AsyncWatching if issubclass(plain, psycopg.AsyncCursor) else _Watching
    return plain if issubclass(plain, front) else type(plain.__name__, (front, plain), {"__slots__": ()})


@contextmanager
def _told(cursor: psycopg.Cursor[Any], query: object) -> Iterator[None]:
    """Around a statement: what must be said first, in the same transaction."""
    connection = cursor.connection
    watch = _WATCHES.of(connection)
    if watch is None:  # the block is over
        yield
        return
    step = _before(connection, watch, query)
    with ExitStack() as stack:
        if step.say is not None:
            if connection.autocommit and connection.pgconn.pipeline_status:
                stack.enter_context(connection.pipeline()).sync()  # only then is the status that of the server
            if connection.autocommit and connection.pgconn.transaction_status == _IDLE:
                stack.enter_context(connection.transaction())
            watch.speaking = True
            try:
                psycopg.Cursor(connection).execute(*watch.message(step.say))
            finally:
                watch.speaking = False
            watch.heard()
        yield
    watch.after(step)


@asynccontextmanager
async def _async_told(cursor: psycopg.AsyncCursor[Any], query: object) -> AsyncIterator[None]:
    connection = cursor.connection
    watch = _WATCHES.of(connection)
    if watch is None:
        yield
        return
    step = _before(connection, watch, query)
    async with AsyncExitStack() as stack:
        if step.say is not None:
            if connection.autocommit and connection.pgconn.pipeline_status:
                await (await stack.enter_async_context(connection.pipeline())).sync()
            if connection.autocommit and connection.pgconn.transaction_status == _IDLE:
                await stack.enter_async_context(connection.transaction())
            watch.speaking = True
            try:
                await psycopg.AsyncCursor(connection).execute(*watch.message(step.say))
            finally:
                watch.speaking = False
            watch.heard()
        yield
    watch.after(step)


def _before(connection: Any, watch: Watch, query: object) -> Step:
    status = connection.pgconn.transaction_status
    if status == _IDLE:
        watch.forget()
    step = watch.before(_text(query, connection))
    # in a failed transaction the application's own statement is to get the error
    return Step(step.statement) if status == _FAILED else step


def _text(query: Any, connection: Any) -> str:
    if isinstance(query, str):
        return query
    if isinstance(query, bytes):
        return query.decode(errors="replace")
    if isinstance(query, sql.Composable):
        return query.as_string(connection)
    return "''".join(getattr(query, "strings", ())) or str(query)  # a template string
