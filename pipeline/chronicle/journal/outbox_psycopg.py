"""Events in transactions of psycopg 3: connections and cursors, with and without asyncio.

A connection's own ways to commit and roll back are covered from its first event on, for as long as it lives.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
from psycopg import pq, rows, sql

from chronicle.attribution.covering import cover
from chronicle.journal.outbox_pending import Ask, Entry, Mark, Pending, Step, drive, ending
from chronicle.journal.outbox_table import OutboxError

_IDLE, _FAILED = pq.TransactionStatus.IDLE, pq.TransactionStatus.INERROR
_PENDING: WeakKeyDictionary[Any, Pending] = WeakKeyDictionary()
_RAW = (psycopg.RawCursor, psycopg.AsyncRawCursor)


def adder(target: Any) -> Callable[[Entry], None]:
    """What adds an event to the transaction of a connection (or a cursor's); raises OutboxError where there can be none."""
    connection = target.connection if isinstance(target, psycopg.Cursor | psycopg.AsyncCursor) else target
    if not isinstance(connection, psycopg.Connection | psycopg.AsyncConnection):
        raise OutboxError("pass a psycopg Connection, AsyncConnection, Cursor or AsyncCursor")
    pending = _PENDING.get(connection)
    if pending is None:
        pending = _PENDING[connection] = Pending("postgres")
        _attach(connection, pending)
    kept = pending
    return lambda entry: kept.add(entry, begun=_begun(connection, kept))


def _begun(connection: Any, pending: Pending) -> bool:
    idle = connection.pgconn.transaction_status == _IDLE and not connection.pgconn.pipeline_status
    if not idle:
        return True
    pending.found_over()
    if connection.autocommit:
        raise OutboxError("open a transaction first (`with connection.transaction():`): with autocommit there is none here")
    return False


def _attach(connection: Any, pending: Pending) -> None:
    asynchronous = isinstance(connection, psycopg.AsyncConnection)
    forever = ExitStack()
    commits, ends, blocks, waits = (_async_commits, _async_ends, _async_blocks, _async_waits) if asynchronous else _SYNC
    for name in ("commit", "tpc_prepare", "tpc_commit"):
        cover(connection, name, commits(connection, getattr(connection, name), pending), forever)
    for name in ("rollback", "tpc_rollback", "close"):
        cover(connection, name, ends(getattr(connection, name), pending), forever)
    cover(connection, "transaction", blocks(connection, connection.transaction, pending), forever)
    cover(connection, "wait", waits(connection.wait, pending), forever)
    forever.pop_all()


def _waiting(connection: Any, pending: Pending) -> bool:
    """Whether there is something to write before a commit."""
    if not len(pending):
        return False
    status = connection.pgconn.transaction_status
    if status == _IDLE and not connection.pgconn.pipeline_status:
        pending.found_over()
    return len(pending) > 0 and status != _FAILED  # the server makes a rollback of a failed transaction's commit


def _commits(connection: Any, method: Callable[..., Any], pending: Pending) -> Callable[..., Any]:
    def commit(*args: Any, **kwargs: Any) -> Any:
        if _waiting(connection, pending):
            _flush(connection, pending)
        failed = connection.pgconn.transaction_status == _FAILED
        try:
            result = method(*args, **kwargs)
        except BaseException:
            pending.rolled_back()
            raise
        (pending.rolled_back if failed else pending.committed)()
        return result

    return commit


def _async_commits(connection: Any, method: Callable[..., Any], pending: Pending) -> Callable[..., Any]:
    async def commit(*args: Any, **kwargs: Any) -> Any:
        if _waiting(connection, pending):
            await _async_flush(connection, pending)
        failed = connection.pgconn.transaction_status == _FAILED
        try:
            result = await method(*args, **kwargs)
        except BaseException:
            pending.rolled_back()
            raise
        (pending.rolled_back if failed else pending.committed)()
        return result

    return commit


def _async_ends(method: Callable[..., Any], pending: Pending) -> Callable[..., Any]:
    async def end(*args: Any, **kwargs: Any) -> Any:
        try:
            return await method(*args, **kwargs)
        finally:
            pending.rolled_back()

    return end


def _blocks(connection: Any, method: Callable[..., Any], pending: Pending) -> Callable[..., Any]:
    @contextmanager
    def transaction(*args: Any, **kwargs: Any) -> Iterator[Any]:
        name, block = None, None
        try:
            with method(*args, **kwargs) as block:
                name = _entered(block, pending)
                yield block
                if not name and not block.force_rollback and _waiting(connection, pending):
                    _flush(connection, pending)
        except BaseException:
            _left(name, pending, committed=False)
            raise
        _left(name, pending, committed=block.status == block.Status.COMMITTED)

    return transaction


def _async_blocks(connection: Any, method: Callable[..., Any], pending: Pending) -> Callable[..., Any]:
    @asynccontextmanager
    async def transaction(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        name, block = None, None
        try:
            async with method(*args, **kwargs) as block:
                name = _entered(block, pending)
                yield block
                if not name and not block.force_rollback and _waiting(connection, pending):
                    await _async_flush(connection, pending)
        except BaseException:
            _left(name, pending, committed=False)
            raise
        _left(name, pending, committed=block.status == block.Status.COMMITTED)

    return transaction


def _entered(block: Any, pending: Pending) -> str:
    """A name of the block, if it is a savepoint; empty: it is the transaction."""
    if block._outer_transaction:
        return ""
    name = f"block {id(block)}"
    pending.savepoint(name)
    return name


def _left(name: str | None, pending: Pending, *, committed: bool) -> None:
    if name is None:  # never entered
        return
    if not name:
        (pending.committed if committed else pending.rolled_back)()
    elif committed:
        pending.release(name)
    else:
        pending.back(name)


def _seen(generator: Any, pending: Pending) -> Step:
    """What `execute` and its kin are about to run, which psycopg has no public place for: everything it runs is a generator
    given to `wait`. Should a later psycopg build these otherwise, `Pending.found_over` still says what ended unseen."""
    if pending.speaking or not len(pending):
        return Step()
    frame = getattr(generator, "gi_frame", None)
    names = frame.f_locals if frame is not None else {}
    cursor, query = names.get("self"), names.get("query", names.get("statement"))
    if query is None or not isinstance(cursor, psycopg.Cursor | psycopg.AsyncCursor):
        return Step()
    step = pending.before(_text(query, cursor.connection), several=not names.get("params"))
    if step.flush and (step.word in ("COMMIT", "END", "PREPARE") or (step.statement and step.statement.several)):
        raise OutboxError(
            "commit by connection.commit() or connection.transaction(): a COMMIT given as text is past the moment for events"
        )
    return step


def _waits(wait: Callable[..., Any], pending: Pending) -> Callable[..., Any]:
    def waited(generator: Any, *args: Any, **kwargs: Any) -> Any:
        step = _seen(generator, pending)
        result = wait(generator, *args, **kwargs)
        pending.after(step)
        return result

    return waited


def _async_waits(wait: Callable[..., Any], pending: Pending) -> Callable[..., Any]:
    async def waited(generator: Any, *args: Any, **kwargs: Any) -> Any:
        step = _seen(generator, pending)
        result = await wait(generator, *args, **kwargs)
        pending.after(step)
        return result

    return waited


_SYNC = (_commits, ending, _blocks, _waits)


def _text(query: Any, connection: Any) -> str:
    if isinstance(query, str):
        return query
    if isinstance(query, bytes):
        return query.decode(errors="replace")
    if isinstance(query, sql.Composable):
        return query.as_string(connection)
    return "''".join(getattr(query, "strings", ())) or str(query)  # a template string


def _mark(cursor: Any) -> Mark:
    return (lambda at: f"${at + 1}") if isinstance(cursor, _RAW) else (lambda _: "%s")


def _flush(connection: Any, pending: Pending) -> None:
    pending.speaking = True
    try:
        with connection.cursor(row_factory=rows.tuple_row) as cursor:

            def run(ask: Ask) -> list[str]:
                cursor.execute(ask.sql, ask.values)
                return [str(row[0]) for row in cursor.fetchall()] if ask.answers else []

            drive(pending.flush(_mark(cursor)), run)
    finally:
        pending.speaking = False


async def _async_flush(connection: Any, pending: Pending) -> None:
    pending.speaking = True
    try:
        async with connection.cursor(row_factory=rows.tuple_row) as cursor:
            asking = pending.flush(_mark(cursor))
            try:
                ask = next(asking)
                while True:
                    await cursor.execute(ask.sql, ask.values)
                    ask = asking.send([str(row[0]) for row in await cursor.fetchall()] if ask.answers else [])
            except StopIteration:
                return
    finally:
        pending.speaking = False
