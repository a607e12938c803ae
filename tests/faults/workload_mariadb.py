"""Seeded writes on MariaDB: the same dangers as on Postgres, as far as this database has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pymysql

from tests.faults.actions_mariadb import Connection, MariadbActions
from tests.faults.canonical import parse
from tests.faults.catalog import Column, Table, read_mariadb
from tests.faults.contexts import Contexts, shown
from tests.faults.observation import TruthContext, TruthRow

SCHEMA = Path(__file__).with_name("schema_mariadb.sql")


def _text(column: Column, prefix: str) -> str:
    """SQL that writes a column's value as text without loss (JSON_OBJECT alone rounds doubles and nests documents)."""
    name = f"{prefix}`{column.name}`"
    if column.kind == "bytes":
        return f"CONCAT('hex:', HEX({name}))"
    if column.kind == "bits":
        return f"LPAD(BIN({name} + 0), {column.scale}, '0')"
    return f"CAST({name} AS CHAR CHARACTER SET utf8mb4)"


def _object(table: Table, prefix: str) -> str:
    """SQL for a row as a JSON object of texts."""
    return "JSON_OBJECT(" + ", ".join(f"'{column.name}', {_text(column, prefix)}" for column in table.columns.values()) + ")"


class MariadbWorkload(MariadbActions):
    """Writes to one database, one caller at a time. `parameters`: as `pymysql.connect` takes them, without the database."""

    def __init__(self, parameters: Mapping[str, Any], database: str, source: str, seed: int) -> None:
        super().__init__(seed)
        self.parameters, self.database, self.source = dict(parameters), database, source
        self.seed = seed
        self.transactions = 0
        self.contexts = Contexts(self.values, source)
        self.columns_max = 6
        self.connection = self._connect()

    def _connect(self) -> Connection:
        options = self.parameters | {"database": self.database, "charset": "utf8mb4", "autocommit": False}
        return pymysql.connect(**options, init_command="SET time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES'")

    def create(self) -> None:
        """Tables and triggers, in an empty database."""
        for statement in SCHEMA.read_text().split(";\n"):
            if any(not line.startswith("--") for line in statement.strip().splitlines()):
                self.execute(self.connection, statement)
        for table in self.tables():
            self._witness(table)

    def _witness(self, table: Table) -> None:
        """(Re)make a table's triggers. An UPDATE that changes nothing is not in the binlog, so it is not in the truth."""
        old, new = _object(table, "OLD."), _object(table, "NEW.")
        write = "INSERT INTO truth (tbl, op, old_row, new_row, tx) VALUES"
        tag = "coalesce(@workload_tx, 'none')"
        bodies = {
            "INSERT": f"{write} ('{table.name}', 'c', NULL, {new}, {tag})",
            "UPDATE": f"IF {old} <> {new} THEN {write} ('{table.name}', 'u', {old}, {new}, {tag}); END IF",
            "DELETE": f"{write} ('{table.name}', 'd', {old}, NULL, {tag})",
        }
        for event, body in bodies.items():
            name = f"witness_{table.name}_{event.lower()}"
            statement = f"CREATE OR REPLACE TRIGGER {name} AFTER {event} ON `{table.name}` FOR EACH ROW {body}"
            self.execute(self.connection, statement)

    def close(self) -> None:
        """Give the connection back."""
        self.connection.close()

    @contextmanager
    def transaction(self, connection: Connection | None = None, *, rollback: bool = False) -> Iterator[Connection]:
        """One transaction with a name of its own in the truth."""
        used = connection or self.connection
        self.transactions += 1
        self.execute(used, "SET @workload_tx = %s", (f"{self.seed}-{self.transactions}",))
        used.begin()
        try:
            yield used
        except BaseException:
            used.rollback()
            raise
        if rollback:
            used.rollback()
        else:
            used.commit()

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
            elif draw < 0.115:
                self.truncate()
            elif draw < 0.125:
                self.add_column()
            elif draw < 0.135:
                self.say_apart()
            else:
                with self.transaction() as connection:
                    self.speak(connection)
                    for _ in range(self.random.choice((1, 1, 1, 2, 3))):
                        self.action(connection)
                    if self.random.random() < 0.1:
                        self.speak(connection)

    def speak(self, connection: Connection) -> None:
        """What an application says about the open transaction: mostly nothing, now and then several things."""
        for _ in self.contexts.rungs():
            self.say(connection)

    def say(self, connection: Connection) -> None:
        """One context (this database has no logical messages), and its truth."""
        document = self.contexts.document()
        truth = shown(document)
        actor = document.pop("actor") if self.random.random() < 0.5 else None
        statement = "INSERT INTO chronicle_context (actor, context) VALUES (%s, %s)"
        self.execute(connection, statement, (actor, self.contexts.written(document)))
        self.execute(connection, "INSERT INTO truth (tbl, op, new_row, tx) VALUES ('table', 'x', %s, @workload_tx)", (truth,))

    def say_apart(self) -> None:
        """A context without any row, and contexts that are cleaned away: neither is a change."""
        with self.transaction() as connection:
            self.say(connection)
        with self.transaction() as connection:
            ((last,),) = self.execute(connection, "SELECT max(id) FROM chronicle_context")
            self.execute(connection, "DELETE FROM chronicle_context WHERE id < %s", (last - 5,))

    def rolled_back(self) -> None:
        """Nothing of this may ever be seen."""
        with self.transaction(rollback=True) as connection:
            self.say(connection)
            for _ in range(3):
                self.action(connection)

    def with_savepoints(self) -> None:
        """An inner part that is taken back, between parts that stay."""
        with self.transaction() as connection:
            self.action(connection)
            self.speak(connection)
            self.execute(connection, "SAVEPOINT inner_part")
            self.say(connection)
            self.action(connection)
            self.insert_accounts(connection)
            self.execute(connection, "ROLLBACK TO SAVEPOINT inner_part")
            self.update_accounts(connection)

    def commit_in_other_order(self) -> None:
        """The first to write is the last to commit."""
        other = self._connect()
        try:
            with self.transaction() as connection:
                self.say(connection)
                self.insert_accounts(connection)
                with self.transaction(other):
                    self.say(other)
                    self.write_lines(other)
                    self.insert_accounts(other)
                self.write_lines(connection)
        finally:
            other.close()

    def truncate(self) -> None:
        """No trigger sees it here, so the truth is written by hand (nobody else writes meanwhile)."""
        table = self.random.choice(("bulk", "slots"))
        self.execute(self.connection, f"TRUNCATE TABLE {table}")
        self.execute(self.connection, "INSERT INTO truth (tbl, op, tx) VALUES (%s, 't', '')", (table,))
        self.connection.commit()

    def add_column(self) -> None:
        """The table grows in mid-stream, and its triggers with it."""
        if self.columns_added < self.columns_max:
            kind = ("int", "bigint", "decimal(10,2)")[self.columns_added % 3]
            self.execute(self.connection, f"ALTER TABLE evolving ADD COLUMN added_{self.columns_added} {kind}")
            self.columns_added += 1
            self._witness(next(table for table in self.tables() if table.name == "evolving"))

    def truth(self, observed_through: int = 0) -> list[TruthRow]:
        """All truth, in order; up to `observed_through` it was there before the snapshot."""
        self.connection.commit()
        rows = self.execute(
            self.connection, "SELECT seq, tbl, op, old_row, new_row, tx FROM truth WHERE op <> 'x' ORDER BY seq"
        )
        return [self._truth(row, row[0] <= observed_through) for row in rows]

    def _truth(self, row: tuple[Any, ...], observed: bool) -> TruthRow:
        seq, table, op, old, new, tx = row
        before, after = parse(old) if old else None, parse(new) if new else None
        return TruthRow(seq, self.source, self.database, table, op, before, after, tx, observed)

    def said(self, observed_through: int = 0) -> list[TruthContext]:
        """All contexts of transactions that were committed, in order; `tx`: as the workload names them."""
        self.connection.commit()
        rows = self.execute(self.connection, "SELECT seq, tbl, new_row, tx FROM truth WHERE op = 'x' ORDER BY seq")
        return [TruthContext(seq, self.source, tx, rung, text, seq <= observed_through) for seq, rung, text, tx in rows]

    def last_seq(self) -> int:
        """The last truth there is now."""
        return int(self.execute(self.connection, "SELECT coalesce(max(seq), 0) FROM truth")[0][0])

    def tables(self) -> list[Table]:
        """The captured tables as they are now."""
        return read_mariadb(self.connection, self.source, self.database)

    def rows(self, table: str) -> list[dict[str, Any]]:
        """A table's rows as they are now, as the truth writes them."""
        self.connection.commit()
        spec = next(item for item in self.tables() if item.name == table)
        return [parse(text) for (text,) in self.execute(self.connection, f"SELECT {_object(spec, '')} FROM `{table}`")]
