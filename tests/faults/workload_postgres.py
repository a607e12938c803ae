"""Seeded writes on Postgres: every shape of transaction whose changes are easily lost, doubled or put in a wrong order."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import psycopg

from tests.faults.actions_postgres import Connection, PostgresActions
from tests.faults.canonical import parse
from tests.faults.catalog import Table, read_postgres
from tests.faults.contexts import Contexts, shown
from tests.faults.observation import TruthContext, TruthRow

SCHEMA = Path(__file__).with_name("schema_postgres.sql")


class PostgresWorkload(PostgresActions):
    """Writes to one database, one caller at a time."""

    def __init__(self, dsn: str, source: str, seed: int) -> None:
        super().__init__(seed)
        self.dsn, self.source = dsn, source
        self.contexts = Contexts(self.values, source)
        self.columns_max = 6
        self.connection = self._connect()

    def _connect(self) -> Connection:
        connection = psycopg.connect(self.dsn, autocommit=True)
        connection.execute("SET TIME ZONE 'UTC'")
        return connection

    def create(self) -> None:
        """Tables and triggers, in an empty database."""
        self.connection.execute(SCHEMA.read_text())

    def close(self) -> None:
        """Give the connection back."""
        self.connection.close()

    def run(self, transactions: int) -> None:
        """Write this many transactions, one after another; about one in eight is one of the special shapes."""
        for _ in range(transactions):
            draw = self.random.random()
            if draw < 0.04:
                self.rolled_back()
            elif draw < 0.08:
                self.with_savepoints()
            elif draw < 0.11:
                self.commit_in_other_order()
            elif draw < 0.13:
                self.wait_for_unique()
            elif draw < 0.135:
                self.truncate()
            elif draw < 0.145:
                self.add_column()
            elif draw < 0.155:
                self.say_apart()
            else:
                with self.connection.transaction():
                    self.speak(self.connection)
                    for _ in range(self.random.choice((1, 1, 1, 2, 3))):
                        self.action(self.connection)
                    if self.random.random() < 0.1:
                        self.speak(self.connection)

    def speak(self, connection: Connection) -> None:
        """What an application says about the open transaction: mostly nothing, now and then several things."""
        for rung in self.contexts.rungs():
            self.say(connection, rung)

    def say(self, connection: Connection, rung: str) -> None:
        """One context, and its truth."""
        document = self.contexts.document()
        truth = shown(document)
        if rung == "message":
            text = self.contexts.written(document)
            connection.execute("SELECT pg_logical_emit_message(true, 'chronicle', %s::text)", (text,))
        else:
            actor = document.pop("actor") if self.random.random() < 0.5 else None
            statement = "INSERT INTO chronicle_context (actor, context) VALUES (%s, %s)"
            connection.execute(statement, (actor, self.contexts.written(document)))
        connection.execute("INSERT INTO truth (tbl, op, new_row) VALUES (%s, 'x', %s)", (rung, truth))

    def say_apart(self) -> None:
        """A context without any row; a message about no transaction; and contexts that are cleaned away: none is a change."""
        with self.connection.transaction():
            self.say(self.connection, self.random.choice(("message", "table")))
        self.connection.execute("SELECT pg_logical_emit_message(false, 'chronicle', %s)", (json.dumps({"actor": "nobody"}),))
        self.connection.execute("DELETE FROM chronicle_context WHERE id < (SELECT max(id) - 5 FROM chronicle_context)")

    def add_column(self) -> None:
        """The table grows in mid-stream (without a default: rows that nobody writes would change without an event)."""
        if self.columns_added < self.columns_max:
            kind = ("integer", "bigint", "numeric(10,2)")[self.columns_added % 3]
            self.connection.execute(f"ALTER TABLE evolving ADD COLUMN added_{self.columns_added} {kind}")
            self.columns_added += 1

    def rolled_back(self) -> None:
        """Nothing of this may ever be seen."""
        with self.connection.transaction(force_rollback=True):
            self.say(self.connection, "message")
            self.say(self.connection, "table")
            for _ in range(3):
                self.action(self.connection)

    def with_savepoints(self) -> None:
        """Inner parts that are taken back, between parts that stay."""
        with self.connection.transaction():
            self.action(self.connection)
            self.speak(self.connection)
            with self.connection.transaction(force_rollback=True):
                self.say(self.connection, "message")
                self.say(self.connection, "table")
                self.action(self.connection)
                with self.connection.transaction():
                    self.insert_accounts(self.connection)
            with self.connection.transaction():
                self.update_accounts(self.connection)

    def commit_in_other_order(self) -> None:
        """The first to write is the last to commit."""
        with self._connect() as other, self.connection.transaction():
            self.say(self.connection, "message")
            self.insert_accounts(self.connection)
            with other.transaction():
                self.say(other, "message")
                self.say(other, "table")
                self.write_lines(other)
                self.insert_accounts(other)
            self.write_journal(self.connection)

    def wait_for_unique(self) -> None:
        """An insert gets its log position, waits for a unique value, and commits after the row that held it is gone."""
        holder = f"holder {self.random.randint(0, 3)}"
        row = {"id": self._id(), "holder": holder, "n": 1}
        with self.connection.transaction():
            self.connection.execute("DELETE FROM slots WHERE holder = %s", (holder,))
        self.insert(self.connection, "slots", [row])
        successor = {"id": row["id"], "holder": holder, "n": 2}
        with self._connect() as other:
            backend = other.info.backend_pid
            with self.connection.transaction():
                self.connection.execute("DELETE FROM slots WHERE id = %s", (row["id"],))
                waiting = threading.Thread(target=lambda: self.insert(other, "slots", [successor]))
                waiting.start()
                self._until_blocked(backend)
            waiting.join()

    def _until_blocked(self, backend: int) -> None:
        """Wait until that backend waits for a lock of ours."""
        for _ in range(10_000):
            if self.connection.execute("SELECT cardinality(pg_blocking_pids(%s)) > 0", (backend,)).fetchone() == (True,):
                return
        raise TimeoutError("the second connection never waited for the first")

    def truncate(self) -> None:
        """One table, or two in one statement."""
        self.connection.execute(self.random.choice(("TRUNCATE bulk", "TRUNCATE bulk, spool", "TRUNCATE slots")))

    def truth(self, observed_through: int = 0) -> list[TruthRow]:
        """All truth, in order; up to `observed_through` it was there before the snapshot."""
        rows = self.connection.execute(
            "SELECT seq, tbl, op, old_row::text, new_row::text, tx FROM truth WHERE op <> 'x' ORDER BY seq"
        ).fetchall()
        return [
            TruthRow(
                seq,
                self.source,
                "public",
                table,
                op,
                parse(old) if old else None,
                parse(new) if new else None,
                tx,
                seq <= observed_through,
            )
            for seq, table, op, old, new, tx in rows
        ]

    def said(self, observed_through: int = 0) -> list[TruthContext]:
        """All contexts of transactions that were committed, in order."""
        rows = self.connection.execute("SELECT seq, tbl, new_row::text, tx FROM truth WHERE op = 'x' ORDER BY seq").fetchall()
        return [TruthContext(seq, self.source, tx, rung, text, seq <= observed_through) for seq, rung, text, tx in rows]

    def last_seq(self) -> int:
        """The last truth there is now."""
        row = self.connection.execute("SELECT coalesce(max(seq), 0) FROM truth").fetchone()
        return int(row[0]) if row else 0

    def tables(self) -> list[Table]:
        """The captured tables as they are now."""
        return read_postgres(self.connection, self.source)

    def rows(self, table: str) -> list[dict[str, Any]]:
        """A table's rows as they are now, as the truth writes them."""
        return [parse(text) for (text,) in self.connection.execute(f"SELECT row_to_json(t)::text FROM {table} t").fetchall()]
