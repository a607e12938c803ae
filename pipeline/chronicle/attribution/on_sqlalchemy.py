"""Attribution on SQLAlchemy 2: connections and sessions, with and without asyncio, whatever the driver.

Listens to the events of the one Connection, never of the pool's connection behind it: that one may serve another thread
before the block ends.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from sqlalchemy import Connection, event, text
from sqlalchemy.exc import InvalidRequestError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from chronicle.attribution.context import AttributionError
from chronicle.attribution.covering import Leave, Watches
from chronicle.attribution.statements import Dialect
from chronicle.attribution.watching import Block, Step, Voice, Watch, commented

_DIALECTS: dict[str, Dialect] = {"postgresql": "postgres", "mysql": "mysql", "mariadb": "mysql"}
_BOUNDARIES = ("begin", "rollback", "begin_twophase", "prepare_twophase", "commit_twophase", "rollback_twophase")
"""Not `commit`, which is heard before it happens: what others write then (the journal's outbox) is of the transaction that has
been told. The next one begins."""


def enter(target: Any, block: Block) -> Leave:
    """Begin a block on a connection or on whatever connections a session uses; returns what ends it."""
    if isinstance(target, scoped_session | async_scoped_session):
        target = target.registry()
    if isinstance(target, AsyncSession):
        target = target.sync_session
    if isinstance(target, AsyncConnection):
        target = target.sync_connection
    if isinstance(target, Session):
        return _enter_session(target, block)
    if isinstance(target, Connection):
        return _enter_connection(target, block)
    raise AttributionError("pass a Connection or a Session of SQLAlchemy, opened: an engine or a session's maker is none")


def _enter_session(session: Session, block: Block) -> Leave:
    leaving: dict[Connection, Leave] = {}

    def after_begin(_session: Session, _transaction: object, connection: Connection) -> None:
        for ended in [one for one in leaving if one.closed]:
            leaving.pop(ended)()
        if connection not in leaving:  # a savepoint begins on the same connection
            leaving[connection] = _enter_connection(connection, block)

    event.listen(session, "after_begin", after_begin)

    def leave() -> None:
        event.remove(session, "after_begin", after_begin)
        for one in leaving.values():
            one()

    if session.in_transaction():
        try:
            after_begin(session, None, session.connection())
        except SQLAlchemyError:
            leave()
            raise AttributionError("begin the block before the session's first statement, or pass its Connection") from None
        except BaseException:
            leave()
            raise
    return leave


def _enter_connection(connection: Connection, block: Block) -> Leave:
    dialect = _DIALECTS.get(connection.dialect.name)
    if dialect is None:
        raise AttributionError("pass a connection to PostgreSQL, MySQL or MariaDB")
    return _WATCHES.enter(connection, dialect, block)


def _attach(connection: Connection, watch: Watch, undo: ExitStack) -> None:
    def before(
        running: Connection, _cursor: object, statement: str, parameters: Any, execution: Any, many: bool
    ) -> tuple[str, Any]:
        if watch.speaking:
            return statement, parameters
        autocommit = autocommits(running)
        if autocommit:
            watch.forget()
        step = execution.chronicle_step = watch.before(statement)
        if step.say is not None:
            if autocommit:
                raise AttributionError(
                    "use a connection without isolation_level AUTOCOMMIT, or on MySQL comment=True: a write is alone there"
                )
            _say(running, watch, step.say)
        if step.comment is not None:
            statement = commented(statement, step.comment, many=many)
        return statement, parameters

    def after(_running: object, _cursor: object, _statement: str, _parameters: object, execution: Any, _many: bool) -> None:
        step: Step | None = getattr(execution, "chronicle_step", None)
        if step is not None:
            watch.after(step)

    def forget(*_args: object) -> None:
        watch.forget()

    _listen(connection, "before_cursor_execute", before, undo, retval=True)
    _listen(connection, "after_cursor_execute", after, undo)
    for name in _BOUNDARIES:
        _listen(connection, name, forget, undo)


_WATCHES = Watches(_attach)


def _listen(connection: Connection, name: str, heard: Callable[..., Any], undo: ExitStack, **options: Any) -> None:
    def remove() -> None:
        try:
            event.remove(connection, name, heard)
        except InvalidRequestError:  # the connection and its listeners are gone
            return

    event.listen(connection, name, heard, **options)
    undo.callback(remove)


def _say(connection: Connection, watch: Watch, voice: Voice) -> None:
    if watch.dialect == "postgres":
        said, values = watch.message(voice, (":content", ":tokens", ":token"))
        bound = dict(zip(("content", "tokens", "token"), values, strict=True))
    else:
        said, (content,) = watch.row(voice, ":content")
        bound = {"content": content}
    watch.speaking = True
    try:
        connection.execute(text(said), bound).close()
    finally:
        watch.speaking = False
    watch.heard()


def autocommits(connection: Connection) -> bool:
    """Whether each statement is a transaction of its own; what the driver says counts, not what was asked of it."""
    driver: Any = connection.connection.dbapi_connection
    try:
        return bool(connection.dialect.detect_autocommit_setting(driver))
    except (NotImplementedError, AttributeError):  # older than SQLAlchemy 2.1
        getter = getattr(driver, "get_autocommit", None)
        return bool(getter() if getter is not None else getattr(driver, "autocommit", False))
