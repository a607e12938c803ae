"""Events in transactions of SQLAlchemy 2: connections and sessions, with and without asyncio, whatever the driver.

Listens to one Connection from its first event on, for as long as it lives. A session's events are those of its connection; what
is published before it has one waits for it in the session.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, event, text
from sqlalchemy.exc import MissingGreenlet, SQLAlchemyError, UnboundExecutionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, SessionTransaction, scoped_session

from chronicle.attribution.on_sqlalchemy import autocommits
from chronicle.attribution.statements import Dialect
from chronicle.journal.outbox_pending import Ask, Entry, Pending, Step, drive
from chronicle.journal.outbox_table import OutboxError

_DIALECTS: dict[str, Dialect] = {"postgresql": "postgres", "mysql": "mysql", "mariadb": "mysql"}
_PENDING: WeakKeyDictionary[Connection, Pending] = WeakKeyDictionary()


def adder(target: Any) -> Callable[[Entry], None]:
    """What adds an event to the transaction of a connection or a session; raises OutboxError where there can be none."""
    if isinstance(target, scoped_session | async_scoped_session):
        target = target.registry()
    asynchronous = isinstance(target, AsyncSession)
    if isinstance(target, AsyncSession):
        target = target.sync_session
    if isinstance(target, AsyncConnection):
        target = target.sync_connection
    if isinstance(target, Session):
        kept = _SESSIONS.get(target)
        if kept is None:
            kept = _SESSIONS[target] = _Homeless(target)
        waiting, session = kept, target
        return lambda entry: waiting.add(session, entry, asynchronous=asynchronous)
    if not isinstance(target, Connection):
        raise OutboxError("pass a Connection or a Session of SQLAlchemy, opened: an engine or a session's maker is none")
    connection = target
    _pending(connection)
    return lambda entry: _add(connection, entry)


def _pending(connection: Connection) -> Pending:
    pending = _PENDING.get(connection)
    if pending is None:
        dialect = _DIALECTS.get(connection.dialect.name)
        if dialect is None:
            raise OutboxError("pass a connection to PostgreSQL, MySQL or MariaDB: Debezium's router reads the logs of these")
        pending = _PENDING[connection] = Pending(dialect)
        _attach(connection, pending)
    return pending


def _add(connection: Connection, entry: Entry) -> None:
    pending = _pending(connection)
    if autocommits(connection):
        raise OutboxError("use a connection without isolation_level AUTOCOMMIT: there is no transaction with it")
    if not connection.in_transaction():
        connection.begin()  # as its first statement would; without it, its commit would be none
    pending.add(entry, begun=True)


class _Homeless:
    """A session's events while its transaction has no connection."""

    def __init__(self, session: Session) -> None:
        self.entries: list[Entry] = []
        event.listen(session, "after_begin", self._after_begin)
        event.listen(session, "before_commit", self._before_commit)
        event.listen(session, "after_soft_rollback", self._after_soft_rollback)

    def add(self, session: Session, entry: Entry, *, asynchronous: bool) -> None:
        """`asynchronous`: this is called by a coroutine, so a connection cannot be opened here."""
        if not session.in_transaction():
            session.begin()  # as its first statement would; without it, a rollback would be none
        if asynchronous and not getattr(session.get_transaction(), "_connections", True):
            self.entries.append(entry)
            return
        try:
            connection = session.connection()
        except MissingGreenlet:
            self.entries.append(entry)
        except UnboundExecutionError:
            raise OutboxError("pass session.connection(bind_arguments=…): this session has several databases") from None
        else:
            _add(connection, entry)

    def _after_begin(self, _session: Session, _transaction: object, connection: Connection) -> None:
        entries, self.entries = self.entries, []
        for entry in entries:
            _add(connection, entry)

    def _before_commit(self, session: Session) -> None:
        if self.entries:
            session.connection()  # begins, and takes them

    def _after_soft_rollback(self, _session: Session, previous: SessionTransaction) -> None:
        if not previous.nested:
            entries, self.entries = self.entries, []
            for entry in entries:
                entry.settle("rolled_back")


_SESSIONS: WeakKeyDictionary[Session, _Homeless] = WeakKeyDictionary()


def _attach(connection: Connection, pending: Pending) -> None:
    def before(running: Connection, _cursor: object, statement: str, _parameters: object, execution: Any, _many: bool) -> None:
        step = pending.before(statement)
        execution.chronicle_outbox_step = step
        if step.flush:
            _flush(running, pending)

    def after(_running: object, _cursor: object, _statement: str, _parameters: object, execution: Any, _many: bool) -> None:
        step: Step | None = getattr(execution, "chronicle_outbox_step", None)
        if step is not None:
            pending.after(step)

    def committing(running: Connection, *_args: object) -> None:
        if not len(pending):
            pending.committed()
            return
        try:
            _flush(running, pending)
        except BaseException:
            with suppress(SQLAlchemyError):  # SQLAlchemy counts the transaction as ended: it must not be committed later
                running.connection.rollback()
            pending.rolled_back()
            raise
        pending.committed()

    def preparing(running: Connection, *_args: object) -> None:
        if len(pending):
            _flush(running, pending)

    def rolled_back(*_args: object) -> None:
        pending.rolled_back()

    event.listen(connection, "before_cursor_execute", before)
    event.listen(connection, "after_cursor_execute", after)
    for name in ("commit", "commit_twophase"):
        event.listen(connection, name, committing)
    event.listen(connection, "prepare_twophase", preparing)
    for name in ("rollback", "rollback_twophase"):
        event.listen(connection, name, rolled_back)


def _flush(connection: Connection, pending: Pending) -> None:
    def run(ask: Ask) -> list[str]:
        result = connection.execute(text(ask.sql), {f"v{at}": value for at, value in enumerate(ask.values)})
        if not ask.answers:
            result.close()
            return []
        return [str(row[0]) for row in result]

    pending.speaking = True
    try:
        drive(pending.flush(lambda at: f":v{at}"), run)
    finally:
        pending.speaking = False
