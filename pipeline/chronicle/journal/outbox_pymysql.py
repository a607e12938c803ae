"""Events in transactions of PyMySQL: everything a connection runs passes its `query`; what ends a transaction is covered."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from weakref import WeakKeyDictionary

from pymysql.connections import Connection
from pymysql.constants import CLIENT, SERVER_STATUS
from pymysql.cursors import Cursor

from chronicle.attribution.covering import cover
from chronicle.journal.outbox_pending import Ask, Entry, Pending, committing, drive, ending
from chronicle.journal.outbox_table import OutboxError

_PENDING: WeakKeyDictionary[Any, Pending] = WeakKeyDictionary()


def adder(target: Any) -> Callable[[Entry], None]:
    """What adds an event to the transaction of a connection (or a cursor's); raises OutboxError where there can be none."""
    connection = target.connection if isinstance(target, Cursor) else target
    if not isinstance(connection, Connection):
        raise OutboxError("pass an open PyMySQL Connection or Cursor")
    pending = _PENDING.get(connection)
    if pending is None:
        pending = _PENDING[connection] = Pending("mysql")
        _attach(connection, pending)
    kept = pending
    return lambda entry: kept.add(entry, begun=_begun(connection, kept))


def _begun(connection: Any, pending: Pending) -> bool:
    if _in_transaction(connection):
        return True
    pending.found_over()
    if connection.get_autocommit():
        raise OutboxError("call begin() first: with autocommit there is no transaction here")
    return False


def _in_transaction(connection: Any) -> bool:
    return bool((connection.server_status or 0) & SERVER_STATUS.SERVER_STATUS_IN_TRANS)


def _attach(connection: Any, pending: Pending) -> None:
    forever = ExitStack()
    cover(connection, "commit", _commits(connection, connection.commit, pending), forever)
    for name in ("begin", "autocommit"):
        cover(connection, name, _implies(connection, getattr(connection, name), pending), forever)
    for name in ("rollback", "close", "connect"):
        cover(connection, name, ending(getattr(connection, name), pending), forever)
    cover(connection, "query", _queries(connection, connection.query, pending), forever)
    forever.pop_all()


def _commits(connection: Any, method: Callable[..., Any], pending: Pending) -> Callable[..., Any]:
    def commit() -> Any:
        if len(pending):
            if not _in_transaction(connection):
                pending.found_over()
            _flush(connection, pending)
        return committing(method, pending)

    return commit


def _implies(connection: Any, method: Callable[..., Any], pending: Pending) -> Callable[..., Any]:
    """Methods that commit what is open."""

    def implied(*args: Any, **kwargs: Any) -> Any:
        was_open = _in_transaction(connection)
        if was_open and len(pending):
            _flush(connection, pending)
        result = method(*args, **kwargs)
        if was_open:
            pending.committed()
        return result

    return implied


def _queries(connection: Any, query: Callable[..., Any], pending: Pending) -> Callable[..., Any]:
    def run(sql: Any, unbuffered: bool = False) -> Any:
        step = pending.before(
            sql if isinstance(sql, str) else bytes(sql).decode(errors="replace"),
            several=bool(connection.client_flag & CLIENT.MULTI_STATEMENTS),
            backslashes=not (connection.server_status or 0) & SERVER_STATUS.SERVER_STATUS_NO_BACKSLASH_ESCAPES,
        )
        if step.flush:
            _flush(connection, pending)
        result = query(sql, unbuffered)
        pending.after(step)
        return result

    return run


def _flush(connection: Any, pending: Pending) -> None:
    pending.speaking = True
    try:

        def run(ask: Ask) -> list[str]:
            with connection.cursor(Cursor) as cursor:
                cursor.execute(ask.sql, ask.values)
            return []

        drive(pending.flush(lambda _: "%s"), run)
    finally:
        pending.speaking = False
