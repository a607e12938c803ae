"""Attribution on Django's connections to PostgreSQL, MySQL and MariaDB."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from django.db import connections, transaction  # type: ignore[import-untyped]
from django.db.backends.base.base import BaseDatabaseWrapper  # type: ignore[import-untyped]

from chronicle.attribution.context import AttributionError
from chronicle.attribution.covering import Leave, Watches, cover, note
from chronicle.attribution.statements import Dialect
from chronicle.attribution.watching import Block, Voice, Watch, commented

_DIALECTS: dict[str, Dialect] = {"postgresql": "postgres", "mysql": "mysql"}
_BOUNDARIES = ("set_autocommit", "commit", "rollback", "connect", "close")
_COPIES = ("copy", "copy_expert", "copy_from")


def enter(target: Any, block: Block) -> Leave:
    """Begin a block on `django.db.connection` or one of `django.db.connections`; returns what ends it."""
    connection = target if isinstance(target, BaseDatabaseWrapper) else connections[target.alias]
    dialect = _DIALECTS.get(connection.vendor)
    if dialect is None:
        raise AttributionError("pass a connection to PostgreSQL, MySQL or MariaDB")
    return _WATCHES.enter(connection, dialect, block)


def _attach(connection: Any, watch: Watch, undo: ExitStack) -> None:
    undo.enter_context(connection.execute_wrapper(_wrapper(connection, watch)))
    note(connection, _BOUNDARIES, watch, undo)
    for name in ("make_cursor", "make_debug_cursor"):
        cover(connection, name, _maker(getattr(connection, name), connection, watch), undo)


_WATCHES = Watches(_attach)


def _wrapper(connection: Any, watch: Watch) -> Callable[..., Any]:
    def wrapper(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
        if watch.speaking:
            return execute(sql, params, many, context)
        with _told(connection, watch, sql, many) as text:
            return execute(text, params, many, context)

    return wrapper


@contextmanager
def _told(connection: Any, watch: Watch, sql: Any, many: bool = False) -> Iterator[Any]:
    """Around a statement: what must be said first, in the same transaction. Gives the statement to run."""
    alone = connection.get_autocommit() and not connection.in_atomic_block
    if alone:
        watch.forget()
    step = watch.before(sql if isinstance(sql, str) else _text(sql, connection))
    with ExitStack() as stack:
        if step.say is not None and not connection.needs_rollback:
            if alone:
                stack.enter_context(transaction.atomic(using=connection.alias))
            _say(connection, watch, step.say)
        yield sql if step.comment is None else commented(str(sql), step.comment, many=many)
    watch.after(step)


def _say(connection: Any, watch: Watch, voice: Voice) -> None:
    said = watch.message(voice) if watch.dialect == "postgres" else watch.row(voice)
    watch.speaking = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(*said)
    finally:
        watch.speaking = False
    watch.heard()


def _text(sql: Any, connection: Any) -> str:
    """psycopg's composed statements."""
    if isinstance(sql, bytes):
        return sql.decode(errors="replace")
    as_string = getattr(sql, "as_string", None)
    return str(sql) if as_string is None else str(as_string(connection.connection))


def _maker(make: Callable[..., Any], connection: Any, watch: Watch) -> Callable[..., Any]:
    """Cursors whose COPY and procedures are watched: Django's wrappers do not see these."""

    def maker(driver_cursor: Any) -> Any:
        cursor = make(driver_cursor)
        callproc = cursor.callproc

        def watched_callproc(name: str, *args: Any, **kwargs: Any) -> Any:
            with _told(connection, watch, "CALL it"):
                return callproc(name, *args, **kwargs)

        cursor.callproc = watched_callproc
        for name in _COPIES:
            method = getattr(driver_cursor, name, None)
            if method is not None:
                setattr(cursor, name, _copier(method, name, connection, watch))
        return cursor

    return maker


def _copier(method: Callable[..., Any], name: str, connection: Any, watch: Watch) -> Callable[..., Any]:
    def copied(statement: Any, *args: Any, **kwargs: Any) -> Any:
        text = "COPY it FROM STDIN" if name == "copy_from" else statement  # psycopg2's takes a file
        with _told(connection, watch, text):
            return method(statement, *args, **kwargs)

    @contextmanager
    def copy(statement: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        with _told(connection, watch, statement), method(statement, *args, **kwargs) as copying:
            yield copying

    return copy if name == "copy" else copied
