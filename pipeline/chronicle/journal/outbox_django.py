"""Events in transactions of Django's connections to PostgreSQL, MySQL and MariaDB.

A connection's own ways to commit and roll back are covered from its first event on, for as long as it lives; savepoints, and
what raw SQL does to the transaction, are seen by an execute wrapper.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from weakref import WeakKeyDictionary

from django.db import connections  # type: ignore[import-untyped]
from django.db.backends.base.base import BaseDatabaseWrapper  # type: ignore[import-untyped]

from chronicle.attribution.covering import cover
from chronicle.attribution.statements import Dialect
from chronicle.journal.outbox_pending import Ask, Entry, Pending, committing, drive, ending
from chronicle.journal.outbox_table import OutboxError

_DIALECTS: dict[str, Dialect] = {"postgresql": "postgres", "mysql": "mysql"}
_PENDING: WeakKeyDictionary[Any, Pending] = WeakKeyDictionary()


def adder(target: Any) -> Callable[[Entry], None]:
    """What adds an event to the transaction of `django.db.connection`, or of one of `django.db.connections`; raises OutboxError
    where there can be none."""
    connection = target if isinstance(target, BaseDatabaseWrapper) else connections[target.alias]
    dialect = _DIALECTS.get(connection.vendor)
    if dialect is None:
        raise OutboxError("pass a connection to PostgreSQL, MySQL or MariaDB: Debezium's router reads the logs of these")
    pending = _PENDING.get(connection)
    if pending is None:
        pending = _PENDING[connection] = Pending(dialect)
        _attach(connection, pending)
    kept = pending

    def add(entry: Entry) -> None:
        if connection.get_autocommit() and not connection.in_atomic_block:
            raise OutboxError("publish inside transaction.atomic(): with autocommit there is no transaction here")
        kept.add(entry, begun=True)

    return add


def _attach(connection: Any, pending: Pending) -> None:
    forever = ExitStack()
    cover(connection, "commit", _commits(connection, connection.commit, pending), forever)
    cover(connection, "set_autocommit", _autocommits(connection, connection.set_autocommit, pending), forever)
    for name in ("rollback", "close", "connect"):
        cover(connection, name, ending(getattr(connection, name), pending), forever)
    forever.pop_all()
    connection.execute_wrappers.insert(0, _wrapper(connection, pending))  # first: others are popped from the end


def _commits(connection: Any, method: Callable[..., Any], pending: Pending) -> Callable[..., Any]:
    def commit() -> Any:
        if len(pending):
            connection.validate_no_atomic_block()
            _flush(connection, pending)
        return committing(method, pending)

    return commit


def _autocommits(connection: Any, method: Callable[..., Any], pending: Pending) -> Callable[..., Any]:
    def set_autocommit(autocommit: bool, *args: Any, **kwargs: Any) -> Any:
        if autocommit and len(pending) and connection.connection is not None:  # MySQL commits by it
            _flush(connection, pending)
        result = method(autocommit, *args, **kwargs)
        if autocommit:
            pending.committed()
        return result

    return set_autocommit


def _wrapper(connection: Any, pending: Pending) -> Callable[..., Any]:
    def wrapper(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
        step = pending.before(sql if isinstance(sql, str) else _text(sql, connection))
        if step.flush:
            _flush(connection, pending)
        result = execute(sql, params, many, context)
        pending.after(step)
        return result

    return wrapper


def _text(sql: Any, connection: Any) -> str:
    """psycopg's composed statements."""
    if isinstance(sql, bytes):
        return sql.decode(errors="replace")
    as_string = getattr(sql, "as_string", None)
    return str(sql) if as_string is None else str(as_string(connection.connection))


def _flush(connection: Any, pending: Pending) -> None:
    pending.speaking = True
    try:
        with connection.cursor() as cursor:

            def run(ask: Ask) -> list[str]:
                cursor.execute(ask.sql, ask.values)
                return [str(row[0]) for row in cursor.fetchall()] if ask.answers else []

            drive(pending.flush(lambda _: "%s"), run)
    finally:
        pending.speaking = False
