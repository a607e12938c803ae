"""Events in a table of an SQL database, by SQLAlchemy: in batches, again when the database was away, each id once.

The table has the fields that one asks by as columns, and the event whole as JSON (`event`). It is made when it is not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from chronicle.errors import ConfigError
from chronicle.events.event import Event
from chronicle.journal.transports import TransportAway

if TYPE_CHECKING:
    from sqlalchemy import Engine, Table
    from sqlalchemy.engine import Connection
    from sqlalchemy.exc import DBAPIError

    from chronicle.journal.outgoing import Outgoing

TABLE = "journal_events"
ROWS_MAX = 500
"""Of one INSERT: SQLite takes 32,766 values."""
_TYPES_LENGTH, _WORD_LENGTH, _TEXT_LENGTH = 200, 20, 1_024
_REFUSED_STATES = ("22", "23", "44", "P0")
"""SQLSTATE's classes: data, integrity, a view's check, raised by a trigger."""
_REFUSED_CODES = (4025, 3819, 1644)
"""MariaDB's and MySQL's failed CHECK, and SIGNAL, which their drivers call operational errors."""
_TEXTS = ("source", "actor_id", "action", "resource_type", "resource_id", "outcome", "request_id", "session", "tenant")


class SqlEvents:
    """A transport to an SQL database. Durable: `send` returns when the transaction is committed. Safe in threads.

    Args:
        database: an SQLAlchemy `Engine`, which stays the caller's, or a URL.
        table: its name, with at most one dot for a schema.
        create: make the table when it is not there; else it must be.

    Raises:
        ConfigError: SQLAlchemy or the driver is not installed, the URL is none, or the table cannot be made.
    """

    name = "sql"
    durable = True

    def __init__(self, database: Engine | str, *, table: str = TABLE, create: bool = True) -> None:
        try:
            import sqlalchemy
        except ImportError:
            raise ConfigError("install sqlalchemy: events are to be kept in an SQL database") from None
        self._own = isinstance(database, str)
        try:
            self._engine: Engine = sqlalchemy.create_engine(database) if isinstance(database, str) else database
        except (sqlalchemy.exc.ArgumentError, ImportError) as error:  # the URL may hold a password: it is not repeated
            raise ConfigError(f"correct the journal's database URL, or install its driver ({type(error).__name__})") from None
        self._table = _table(table)
        self._create, self._made = create, False

    def send(self, batch: Sequence[Outgoing]) -> Sequence[str | None]:
        """Insert the events, all in one transaction; an id that is there already is left as it is.

        What the database refuses for good (a text longer than it takes, say) is found by halving, and refused alone.

        Raises:
            TransportAway: the database is away or busy; nothing of the batch is told to be kept.
        """
        from sqlalchemy import exc

        rows = [_row(outgoing.event, outgoing.text) for outgoing in batch]
        try:
            self._make()
            return self._inserted(rows)
        except exc.TimeoutError as error:
            raise TransportAway(f"the journal's database is busy ({type(error).__name__})") from None

    def close(self) -> None:
        """Close its connections, where the engine is its own."""
        if self._own:
            self._engine.dispose()

    def forked(self) -> None:
        """The journal calls it in a child of fork: connections are the parent's."""
        self._engine.dispose(close=False)

    def _make(self) -> None:
        from sqlalchemy import exc

        if self._made or not self._create:
            return
        try:
            self._table.metadata.create_all(self._engine, checkfirst=True)
        except exc.DBAPIError as error:
            if not _there(self._engine, self._table):  # else another process made it at the same moment
                raise _away(error) from None
        self._made = True

    def _inserted(self, rows: list[dict[str, Any]]) -> list[str | None]:
        """As many results; halves of what is refused, until the rows at fault are alone."""
        from sqlalchemy import exc

        try:
            with self._engine.begin() as connection:
                for at in range(0, len(rows), ROWS_MAX):
                    self._insert(connection, rows[at : at + ROWS_MAX])
        except exc.DBAPIError as error:
            if not _for_good(error):
                raise _away(error) from None
            if len(rows) == 1:
                return [f"the journal's database refuses it ({type(error).__name__})"]
            middle = len(rows) // 2
            return [*self._inserted(rows[:middle]), *self._inserted(rows[middle:])]
        return [None] * len(rows)

    def _insert(self, connection: Connection, rows: list[dict[str, Any]]) -> None:
        dialect = connection.dialect.name
        if dialect == "postgresql":
            from sqlalchemy.dialects import postgresql

            connection.execute(postgresql.insert(self._table).on_conflict_do_nothing(index_elements=["id"]), rows)
        elif dialect == "sqlite":
            from sqlalchemy.dialects import sqlite

            connection.execute(sqlite.insert(self._table).on_conflict_do_nothing(index_elements=["id"]), rows)
        elif dialect in ("mysql", "mariadb"):
            from sqlalchemy.dialects import mysql

            # INSERT IGNORE would pass over other mistakes as well
            connection.execute(mysql.insert(self._table).on_duplicate_key_update(id=self._table.c.id), rows)
        else:
            self._insert_missing(connection, rows)

    def _insert_missing(self, connection: Connection, rows: list[dict[str, Any]]) -> None:
        """For any database: those whose id is not there. Another writer's between the two makes it fail and come again."""
        import sqlalchemy

        by_id = {row["id"]: row for row in rows}
        asked = sqlalchemy.select(self._table.c.id).where(self._table.c.id.in_(by_id))
        there = set(connection.execute(asked).scalars())
        missing = [row for id_, row in by_id.items() if id_ not in there]
        if missing:
            connection.execute(self._table.insert(), missing)


def _table(name: str) -> Table:
    import sqlalchemy as sa
    from sqlalchemy.dialects import mysql

    schema, _, bare = name.rpartition(".")
    text = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
    moment = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
    return sa.Table(
        bare,
        sa.MetaData(),
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("type", sa.String(_TYPES_LENGTH), nullable=False, index=True),
        sa.Column("time", moment, nullable=False, index=True),
        *(sa.Column(one, sa.String(_WORD_LENGTH if one == "outcome" else _TEXT_LENGTH)) for one in _TEXTS),
        sa.Column("event", text, nullable=False),
        schema=schema or None,
        mysql_charset="utf8mb4",
        mariadb_charset="utf8mb4",
    )


def _row(event: Event, text: bytes) -> dict[str, Any]:
    actor = event.actor
    values = {name: getattr(event, name) for name in _TEXTS if name != "actor_id"}
    values["actor_id"] = actor if isinstance(actor, str) or actor is None else actor.id
    shown = {name: value if value is None else value.replace("\0", "\ufffd") for name, value in values.items()}
    at = msgspec.convert(event.time, datetime).astimezone(UTC).replace(tzinfo=None)  # UTC, whatever the server's zone
    return {"id": event.id, "type": event.type, "time": at, **shown, "event": text.decode()}


def _for_good(error: DBAPIError) -> bool:
    """Whether the rows are at fault: they would be refused again."""
    from sqlalchemy import exc

    if isinstance(error, exc.DataError | exc.IntegrityError):
        return True
    state = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
    code = next(iter(getattr(error.orig, "args", ())), None)
    return (isinstance(state, str) and state[:2] in _REFUSED_STATES) or code in _REFUSED_CODES


def _there(engine: Engine, table: Table) -> bool:
    from sqlalchemy import exc, inspect

    try:
        return inspect(engine).has_table(table.name, schema=table.schema)
    except exc.DBAPIError:
        return False


def _away(error: BaseException) -> TransportAway:
    """The driver's text may hold values: only the error's kind is told."""
    return TransportAway(f"the journal's database is away or refuses ({type(error).__name__})")
