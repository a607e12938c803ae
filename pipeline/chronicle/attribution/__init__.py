"""`attribute`: an application says who makes the changes in a block of code, and why, so that the trail can tell.

    from chronicle import Actor, attribute

    with attribute(connection, actor="alice", reason="ticket 4711", request_id=request.id, campaign="spring"):
        connection.execute("UPDATE customers SET tier = 'gold' WHERE id = 7")

How it is said. On PostgreSQL as one logical message in each transaction of the block that writes, sent just before its
first write; nothing in a transaction that only reads. On MySQL and MariaDB as one row of the table `chronicle_context`
(`context_table_ddl`), likewise; or, with `comment=True`, as a comment before each write, which the connector must be told to
keep (`attribution_comments = true`). What is rolled back to a savepoint is said again at the next write; so is a context
that an inner block adds to or changes. Inner blocks take over what they do not say themselves.

Whom it watches. The connection given, for as long as the block is open:

- psycopg 3 (`Connection`, `AsyncConnection`, or a cursor): `execute`, `executemany`, `stream` and `copy` of cursors made
  inside the block, and of the cursor given. An older cursor that writes is refused. With autocommit, each write outside a
  transaction gets one of its own, around message and write.
- SQLAlchemy 2 (`Connection`, `Session`, their async forms and scoped ones), whatever the driver: what is executed through
  it. A COPY on the driver's own cursor is not: pass `connection.connection.driver_connection` for that. AUTOCOMMIT is
  refused, except with comments. A session's connections are watched from the moment its transactions begin; enter the
  block before a session's first statement if it has several databases.
- Django (`django.db.connection`): ORM and cursors, COPY and `callproc` too. With autocommit, each write gets a
  `transaction.atomic` of its own.
- PyMySQL: everything the connection runs. With autocommit a write outside a transaction is refused, except with comments.

What counts as a write: INSERT, UPDATE, DELETE, MERGE, REPLACE, COPY … FROM, LOAD DATA, TRUNCATE (on PostgreSQL), a WITH
that holds one of them, CALL, DO, EXECUTE and everything not known. Not DDL, and not a SELECT: where functions called in
queries write, say `selects_write=True`.

A call that holds both COMMIT (or the like) and writes in one string is refused. Nothing here starts, retries or swallows
anything else; an error of the database is raised as the driver raises it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from chronicle.attribution import context as _context
from chronicle.attribution.context import (
    COMMENT_BYTES_MAX,
    CONTEXT_BYTES_MAX,
    Actor,
    AttributionError,
    Audit,
    ContextRefused,
    context_table_ddl,
    with_snapshots,
    without_audit,
)
from chronicle.attribution.watching import Block

if TYPE_CHECKING:
    from types import TracebackType
    from uuid import UUID

__all__ = [
    "COMMENT_BYTES_MAX",
    "CONTEXT_BYTES_MAX",
    "Actor",
    "AttributionError",
    "Audit",
    "ContextRefused",
    "attribute",
    "context_table_ddl",
    "with_snapshots",
    "without_audit",
]


class attribute:  # noqa: N801  # a context manager, named as it reads
    """The block in which changes made through `connection` are attributed. `with`, or `async with`; see the module.

    Args:
        connection: see the module.
        actor: who acts: a stable id, or an `Actor` with type and name.
        reason, request_id, ip, session, tenant: as they are named; text, whole numbers, UUIDs and `ipaddress` objects.
        comment: MySQL, MariaDB: say it in comments, in no table. None: as the block around it; else no.
        table: MySQL, MariaDB: the context table; None: as the block around it; else `chronicle_context`.
        selects_write: queries call functions that write, so they count as writes. None: as the block around it; else no.
        audit: what the transactions ask of the trail: `without_audit("price import")` or `with_snapshots()`. It holds for
            the whole transaction, of which the last context counts; the policy must allow it.
        tags: further fields by name, for names that are no Python identifiers or are taken; JSON's types, and those above.
        more_tags: further fields.

    Raises:
        ContextRefused: nothing is said, a value is none that a context can hold, or it is longer than
            `CONTEXT_BYTES_MAX` (`COMMENT_BYTES_MAX` in comments): at once, before any statement.
        AttributionError: the connection is none of those above (on entering); a statement cannot be attributed (from the
            call that runs it; it has not been run then).
    """

    def __init__(
        self,
        connection: Any,
        /,
        *,
        actor: Actor | str | int | UUID | None = None,
        reason: object = None,
        request_id: object = None,
        ip: object = None,
        session: object = None,
        tenant: object = None,
        comment: bool | None = None,
        table: str | None = None,
        selects_write: bool | None = None,
        audit: Audit | None = None,
        tags: Mapping[str, object] | None = None,
        **more_tags: object,
    ) -> None:
        named = {"reason": reason, "request_id": request_id, "ip": ip, "session": session, "tenant": tenant}
        said = _context.fields(actor=actor, named=named, tags={**(tags or {}), **more_tags}, audit=audit)
        _context.written(said, comment=bool(comment))
        self._connection = connection
        self._block = Block(said, comment, table, selects_write)
        self._leave: list[Callable[[], None]] = []

    def __enter__(self) -> None:
        self._leave.append(_adapter(self._connection)(self._connection, self._block))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._leave.pop()()

    async def __aenter__(self) -> None:
        run_sync = getattr(self._connection, "run_sync", None)
        if run_sync is None:
            self.__enter__()
        else:  # SQLAlchemy: a session that has begun may have to ask for its connection
            await run_sync(lambda _: self.__enter__())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


def _adapter(connection: object) -> Callable[[Any, Block], Callable[[], None]]:
    """By the package that the object's classes come from: a driver is imported when one of its connections is here."""
    for kind in type(connection).__mro__:
        package = kind.__module__.partition(".")[0]
        if package == "psycopg":
            from chronicle.attribution import on_psycopg

            return on_psycopg.enter
        if package == "sqlalchemy":
            from chronicle.attribution import on_sqlalchemy

            return on_sqlalchemy.enter
        if package == "django":
            from chronicle.attribution import on_django

            return on_django.enter
        if package == "pymysql":
            from chronicle.attribution import on_pymysql

            return on_pymysql.enter
    raise AttributionError("pass a connection of psycopg 3, SQLAlchemy 2, Django or PyMySQL")
