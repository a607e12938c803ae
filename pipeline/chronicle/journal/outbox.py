"""`journal.in_transaction(connection)`: events that are part of the application's own database transaction.

    with psycopg.connect(…) as connection:
        connection.execute("UPDATE orders SET status = 'paid' WHERE id = 7")
        journal.in_transaction(connection).publish("order.paid", resource=("order", 7))

Delivered if and only if the transaction commits. Events are kept in memory until then; directly before COMMIT one INSERT writes
them all into the outbox table (`chronicle outbox ddl`) and one DELETE takes them away again, so the table stays empty: Debezium
reads the INSERT in the database's log and makes records of the events topic of it. A rollback, or the end of the process, drops
them; a rollback to a savepoint drops those published since it. Events of one partition key keep their order.

Whom it takes: a connection or cursor of psycopg 3 (asyncio too), a Connection or Session of SQLAlchemy 2 (asyncio too; any
driver), `django.db.connection`, a PyMySQL connection; PostgreSQL, MySQL, MariaDB. What is published before a transaction's
first statement belongs to the transaction that this begins; where there can be none (autocommit) it is refused. It goes
together with `attribute(connection, …)`: a transaction with events alone is told who acts, as any that writes.

Commit by the connection's own methods and blocks. A COMMIT sent as text is seen too, except by psycopg, which refuses it while
there are events. More events than fit into 4 MiB of text take one INSERT for every 4 MiB.

In counts: `in_transaction` (taken), `written` (part of a transaction at its commit), `rolled_back`, `lost` (their transaction
ended unseen, and an `OutboxError` said so).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from chronicle.journal import outbox_table
from chronicle.journal.outbox_table import OUTBOX_TABLE, OutboxError

if TYPE_CHECKING:
    from typing import Unpack

    from chronicle.events.event import Event
    from chronicle.events.payload import Payload
    from chronicle.journal.composing import Said
    from chronicle.journal.journal import Journal
    from chronicle.journal.outbox_pending import Entry, Fate

__all__ = ["OutboxError", "TransactionJournal"]

EVENTS_TOPIC = "chronicle.events"


class TransactionJournal:
    """A journal whose events are part of a connection's transactions; for the connection's life, one transaction after another.

    Args:
        journal: composes, protects, routes and checks the events.
        connection: see the module.
        table: the outbox table, with its schema where the connection's search path does not find it.
        events_topic: the deployment's, for events that are routed to another topic, which must begin with it.

    Raises:
        OutboxError: the connection is none of those above, or not to one of the databases above.
    """

    def __init__(
        self, journal: Journal, connection: Any, *, table: str = OUTBOX_TABLE, events_topic: str = EVENTS_TOPIC
    ) -> None:
        outbox_table.quoted(table, "postgres")
        self._journal = journal
        self._table = table
        self._events_topic = events_topic
        self._add = _adder(connection)

    def publish(self, what: Event | Payload | str = "", /, **said: Unpack[Said]) -> str | None:
        """Take an event into the transaction; arguments as `Journal.publish`, without `timeout`.

        Returns its id, or None when it was sampled out. Nothing is sent to the database yet.

        Raises:
            OutboxError: there can be no transaction on this connection as it is (autocommit); the event's topic is none of
                events; or the transaction before was ended unseen, and its events are lost.
            EventRefused: as `Journal.publish`.
        """
        from chronicle.journal.outbox_pending import Entry

        out = self._journal.prepared(what, **said)
        if out is None:
            return None
        row = outbox_table.row(out.event.id, out.text, out.key, self._behind(out.topic))

        def settle(fate: Fate) -> None:
            self._journal.count(fate)
            if fate == "written":
                self._journal.heard(out)

        self._add(Entry(self._table, row, settle))
        self._journal.count("in_transaction")
        return out.event.id

    def _behind(self, topic: str | None) -> str:
        """What stands behind the events topic's name."""
        if topic is None:
            return ""
        if topic != self._events_topic and not topic.startswith(f"{self._events_topic}."):
            raise OutboxError(f"route events of a transaction to {self._events_topic}, or to {self._events_topic}.<name>")
        return topic.removeprefix(self._events_topic)


def _adder(connection: object) -> Callable[[Entry], None]:
    """By the package that the object's classes come from: a driver is imported when one of its connections is here."""
    for kind in type(connection).__mro__:
        package = kind.__module__.partition(".")[0]
        if package == "psycopg":
            from chronicle.journal import outbox_psycopg

            return outbox_psycopg.adder(connection)
        if package == "sqlalchemy":
            from chronicle.journal import outbox_sqlalchemy

            return outbox_sqlalchemy.adder(connection)
        if package == "django":
            from chronicle.journal import outbox_django

            return outbox_django.adder(connection)
        if package == "pymysql":
            from chronicle.journal import outbox_pymysql

            return outbox_pymysql.adder(connection)
    raise OutboxError("pass a connection of psycopg 3, SQLAlchemy 2, Django or PyMySQL")
