"""Attribution on PyMySQL: everything a connection runs passes its `query`, which is covered while a block is open."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from pymysql.connections import Connection
from pymysql.constants import CLIENT, SERVER_STATUS
from pymysql.cursors import Cursor

from chronicle.attribution.context import AttributionError
from chronicle.attribution.covering import Leave, Watches, cover, note
from chronicle.attribution.watching import Block, Watch

_BOUNDARIES = ("begin", "commit", "rollback", "autocommit", "connect")


def enter(target: Any, block: Block) -> Leave:
    """Begin a block on a connection, or on a cursor's; returns what ends it."""
    connection = target.connection if isinstance(target, Cursor) else target
    if not isinstance(connection, Connection):
        raise AttributionError("pass an open PyMySQL Connection or Cursor")
    return _WATCHES.enter(connection, "mysql", block)


def _attach(connection: Any, watch: Watch, undo: ExitStack) -> None:
    note(connection, _BOUNDARIES, watch, undo)
    cover(connection, "query", _told(connection, watch), undo)


_WATCHES = Watches(_attach)


def _told(connection: Any, watch: Watch) -> Callable[..., Any]:
    query = connection.query

    def told(sql: Any, unbuffered: bool = False) -> Any:
        status = connection.server_status or 0
        in_transaction = bool(status & SERVER_STATUS.SERVER_STATUS_IN_TRANS)
        if not in_transaction:
            watch.forget()
        step = watch.before(
            sql if isinstance(sql, str) else bytes(sql).decode(errors="replace"),
            several=bool(connection.client_flag & CLIENT.MULTI_STATEMENTS),
            backslashes=not status & SERVER_STATUS.SERVER_STATUS_NO_BACKSLASH_ESCAPES,
        )
        if step.say is not None:
            if connection.get_autocommit() and not in_transaction:
                raise AttributionError("call begin() first, or pass comment=True: with autocommit a write is alone")
            text, (content,) = watch.row(step.say)
            query(text % connection.escape(content))
            watch.heard()
        if step.comment is not None:
            sql = step.comment + sql if isinstance(sql, str) else step.comment.encode() + bytes(sql)
        result = query(sql, unbuffered)
        watch.after(step)
        return result

    return told
