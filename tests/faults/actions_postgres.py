"""The statements of the Postgres workload: each method writes a few rows on a given connection, inside its transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg import sql

from tests.faults.values import UTC, Values

Connection = psycopg.Connection[Any]


class PostgresActions:
    """What a transaction is made of. `action` draws one by weight; equal seeds draw equal ones."""

    def __init__(self, seed: int) -> None:
        self.values = Values(seed)
        self.random = self.values.random
        self.next_id = 1
        self.columns_added = 0
        self.actions: tuple[tuple[Callable[[Connection], None], int], ...] = (
            (self.insert_accounts, 6),
            (self.update_accounts, 8),
            (self.delete_accounts, 2),
            (self.delete_and_reinsert, 3),
            (self.move_key, 3),
            (self.swap_keys, 1),
            (self.upsert_codes, 5),
            (self.touch_codes, 6),
            (self.move_code, 2),
            (self.delete_codes, 2),
            (self.write_documents, 3),
            (self.touch_documents, 4),
            (self.write_wide, 3),
            (self.write_lines, 5),
            (self.change_lines, 4),
            (self.write_journal, 4),
            (self.change_journal, 2),
            (self.copy_spool, 1),
            (self.copy_bulk, 1),
            (self.change_bulk, 2),
            (self.change_nothing, 1),
            (self.write_evolving, 4),
            (self.write_slots, 3),
        )

    def action(self, connection: Connection) -> None:
        """One statement or a few, drawn by weight."""
        functions, weights = zip(*self.actions, strict=True)
        self.random.choices(functions, weights)[0](connection)

    def picked(self, connection: Connection, table: str, columns: str, limit: int) -> list[tuple[Any, ...]]:
        """Some rows that exist: which ones follows from the seed."""
        salt = str(self.random.random())
        return connection.execute(
            f"SELECT {columns} FROM {table} ORDER BY md5(({columns})::text || %s) LIMIT %s", (salt, limit)
        ).fetchall()

    def _id(self) -> int:
        self.next_id += 1
        return self.next_id

    def account(self, identifier: int) -> dict[str, Any]:
        """A row of `accounts`."""
        v = self.values
        return {
            "id": identifier,
            "name": v.text(),
            "note": v.maybe(v.text(), 0.4),
            "flag": v.maybe(v.random.random() < 0.5),
            "small": v.maybe(v.integer(16)),
            "big": v.maybe(v.integer(64), 0.3),
            "balance": v.decimal(12, 2),
            "huge": v.maybe(v.decimal(38, 10)),
            "ratio": v.maybe(v.number(True)),
            "share": v.maybe(v.single()),
            "born": v.maybe(v.date(1)),
            "seen_local": v.maybe(v.moment(1)),
            "seen": v.maybe(v.moment(1).replace(tzinfo=UTC), 0.3),
            "alarm": v.maybe(v.time()),
            "ref": v.maybe(v.uuid()),
            "doc": v.maybe(v.json()),
            "raw": v.maybe(v.json()),
            "tags": v.maybe(v.texts()),
            "numbers": v.maybe(v.integers()),
            "bytes": v.maybe(v.binary()),
            "standing": v.maybe(v.random.choice(("new", "good", "barred", 'it\'s "quoted"')), 0.3),
            "api_token": v.maybe("tok-" + v.word()),
        }

    def insert(self, connection: Connection, table: str, rows: Sequence[dict[str, Any]], more: str = "") -> None:
        """One INSERT of all rows."""
        names = list(rows[0])
        one = sql.SQL("({})").format(sql.SQL(", ").join([sql.Placeholder()] * len(names)))
        statement = sql.SQL("INSERT INTO {} ({}) VALUES {} " + more).format(
            sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, names)), sql.SQL(", ").join([one] * len(rows))
        )
        connection.execute(statement, [value for row in rows for value in row.values()])

    def insert_accounts(self, connection: Connection) -> None:
        """One row, or many in one statement."""
        count = self.random.choice((1, 1, 1, 2, 20))
        self.insert(connection, "accounts", [self.account(self._id()) for _ in range(count)])

    def update_accounts(self, connection: Connection) -> None:
        """Some columns of some rows, NULL over defaults included."""
        for (identifier,) in self.picked(connection, "accounts", "id", self.random.choice((1, 1, 3, 10))):
            fresh = self.account(identifier)
            names = self.random.sample([name for name in fresh if name != "id"], self.random.randint(1, 5))
            sets = sql.SQL(", ").join(sql.SQL("{} = %s").format(sql.Identifier(name)) for name in names)
            connection.execute(
                sql.SQL("UPDATE accounts SET {} WHERE id = %s").format(sets), [*(fresh[name] for name in names), identifier]
            )

    def delete_accounts(self, connection: Connection) -> None:
        """A few rows at once."""
        ids = [identifier for (identifier,) in self.picked(connection, "accounts", "id", 3)]
        connection.execute("DELETE FROM accounts WHERE id = ANY(%s)", (ids,))

    def delete_and_reinsert(self, connection: Connection) -> None:
        """The same key again, at once."""
        for (identifier,) in self.picked(connection, "accounts", "id", 1):
            connection.execute("DELETE FROM accounts WHERE id = %s", (identifier,))
            self.insert(connection, "accounts", [self.account(identifier)])

    def move_key(self, connection: Connection) -> None:
        """A primary-key change of a single and of a composite key."""
        for (identifier,) in self.picked(connection, "accounts", "id", 1):
            connection.execute("UPDATE accounts SET id = %s, note = NULL WHERE id = %s", (self._id(), identifier))
        for order, line in self.picked(connection, "lines", "order_id, line_no", 1):
            connection.execute("UPDATE lines SET line_no = line_no + 1000 WHERE order_id = %s AND line_no = %s", (order, line))

    def swap_keys(self, connection: Connection) -> None:
        """Two rows change places by way of a third key."""
        rows = self.picked(connection, "slots", "id", 2)
        if len(rows) == 2:
            (one,), (two,) = rows
            for new, old in ((-one, one), (one, two), (two, -one)):
                connection.execute("UPDATE slots SET id = %s WHERE id = %s", (new, old))

    def upsert_codes(self, connection: Connection) -> None:
        """Text keys of any characters; the body is TOASTed."""
        v = self.values
        code = v.text() + str(self.random.randint(0, 60))
        body = v.maybe(v.long_text() if self.random.random() < 0.6 else v.text())
        row = {
            "code": code,
            "label": v.maybe(v.text(), 0.4),
            "n": v.integer(32),
            "body": body,
            "seen": v.maybe(v.moment(1970).replace(tzinfo=UTC)),
        }
        self.insert(connection, "codes", [row], "ON CONFLICT (code) DO UPDATE SET n = excluded.n, label = excluded.label")

    def touch_codes(self, connection: Connection) -> None:
        """An update that leaves the TOASTed column alone, under REPLICA IDENTITY DEFAULT."""
        for (code,) in self.picked(connection, "codes", "code", 3):
            connection.execute(
                "UPDATE codes SET n = %s, label = %s WHERE code = %s", (self.values.integer(32), self.values.maybe("x"), code)
            )

    def move_code(self, connection: Connection) -> None:
        """A key change that leaves the TOASTed column alone."""
        for (code,) in self.picked(connection, "codes", "code", 1):
            connection.execute("UPDATE codes SET code = %s WHERE code = %s", (f"{code}→{self._id()}"[-90:], code))

    def delete_codes(self, connection: Connection) -> None:
        """Deletes under REPLICA IDENTITY DEFAULT: only the key is known."""
        for (code,) in self.picked(connection, "codes", "code", 2):
            connection.execute("DELETE FROM codes WHERE code = %s", (code,))

    def write_documents(self, connection: Connection) -> None:
        """Large values under REPLICA IDENTITY FULL."""
        v = self.values
        self.insert(
            connection,
            "documents",
            [
                {
                    "id": self._id(),
                    "title": v.text(),
                    "body": v.maybe(v.long_text()),
                    "attachment": v.maybe(v.binary(5000)),
                    "n": 0,
                }
            ],
        )

    def touch_documents(self, connection: Connection) -> None:
        """Updates of small and of large columns, and deletes."""
        for (identifier,) in self.picked(connection, "documents", "id", 2):
            draw = self.random.random()
            if draw < 0.6:
                connection.execute("UPDATE documents SET n = n + 1 WHERE id = %s", (identifier,))
            elif draw < 0.85:
                connection.execute("UPDATE documents SET body = %s WHERE id = %s", (self.values.long_text(), identifier))
            else:
                connection.execute("DELETE FROM documents WHERE id = %s", (identifier,))

    def write_wide(self, connection: Connection) -> None:
        """A row of 85 columns, or an update of one to three of them."""
        v, rows = self.values, self.picked(connection, "wide", "id", 1)
        if not rows or self.random.random() < 0.4:
            filled = (
                {"id": self._id()}
                | {f"c{i:02d}": v.maybe(i) for i in range(0, 84, 7)}
                | {f"c{i:02d}": v.text() for i in range(1, 84, 7)}
            )
            filled |= {f"c{i:02d}": v.maybe(v.decimal(14, 3)) for i in range(2, 84, 14)} | {
                f"c{i:02d}": v.number(False) for i in range(3, 84, 21)
            }
            filled |= {f"c{i:02d}": v.moment(1970).replace(tzinfo=UTC) for i in range(5, 84, 28)}
            self.insert(connection, "wide", [filled])
            return
        connection.execute(
            "UPDATE wide SET c00 = %s, c83 = %s, c64 = %s WHERE id = %s",
            (v.maybe(1, 0.5), v.integer(64), v.maybe(v.text()), rows[0][0]),
        )

    def write_lines(self, connection: Connection) -> None:
        """Rows of a composite key, one statement."""
        v, order = self.values, self._id()
        rows = [
            {"order_id": order, "line_no": n, "product": v.text(), "qty": v.maybe(n, 0.3), "price": v.maybe(v.decimal(10, 2))}
            for n in range(self.random.randint(1, 8))
        ]
        self.insert(connection, "lines", rows)

    def change_lines(self, connection: Connection) -> None:
        """Many rows by one statement; some leave."""
        for (order,) in self.picked(connection, "lines", "order_id", 1):
            connection.execute("UPDATE lines SET qty = coalesce(qty, 0) + 1 WHERE order_id = %s", (order,))
            connection.execute("DELETE FROM lines WHERE order_id = %s AND line_no %% 4 = 3", (order,))

    def write_journal(self, connection: Connection) -> None:
        """Rows without a key, equal ones among them."""
        row = {
            "at": self.values.moment(1970).replace(tzinfo=UTC),
            "message": self.values.maybe(self.values.text()),
            "n": self.random.randint(0, 9),
        }
        self.insert(connection, "journal", [row] * self.random.choice((1, 1, 3)))

    def change_journal(self, connection: Connection) -> None:
        """Updates and deletes of rows without a key."""
        connection.execute("UPDATE journal SET n = n + 10 WHERE n = %s", (self.random.randint(0, 9),))
        connection.execute("DELETE FROM journal WHERE n > 30")

    def copy_rows(self, connection: Connection, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """COPY: many rows at few log positions."""
        with connection.cursor() as cursor, cursor.copy(f"COPY {table} FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)

    def copy_spool(self, connection: Connection) -> None:
        """COPY into a table without a key, with equal rows."""
        self.copy_rows(connection, "spool", [(n % 3, "same") for n in range(self.random.randint(2, 40))])

    def copy_bulk(self, connection: Connection, rows: int = 0) -> None:
        """COPY into a table with a key."""
        count = rows or self.random.randint(50, 300)
        first = self.next_id
        self.next_id += count
        self.copy_rows(connection, "bulk", [(first + n + 1, n % 10, "row", self.values.decimal(10, 2)) for n in range(count)])

    def change_bulk(self, connection: Connection) -> None:
        """One statement over a tenth of the table."""
        connection.execute("UPDATE bulk SET amount = -amount WHERE grp = %s AND id %% 7 = 0", (self.random.randint(0, 9),))
        connection.execute("DELETE FROM bulk WHERE id %% 50 = %s", (self.random.randint(0, 49),))

    def change_nothing(self, connection: Connection) -> None:
        """An update to the same values is a change too."""
        for (identifier,) in self.picked(connection, "slots", "id", 1):
            connection.execute("UPDATE slots SET n = n WHERE id = %s", (identifier,))

    def write_evolving(self, connection: Connection) -> None:
        """Rows of the table that grows columns."""
        names = [f"added_{number}" for number in range(self.columns_added)]
        row = {"id": self._id(), "a": self.values.text()} | {
            name: self.values.maybe(self.random.randint(0, 9)) for name in names
        }
        self.insert(connection, "evolving", [row])
        for (identifier,) in self.picked(connection, "evolving", "id", 1):
            connection.execute("UPDATE evolving SET a = %s WHERE id = %s", (self.values.maybe(self.values.text()), identifier))

    def write_slots(self, connection: Connection) -> None:
        """Rows with a unique column besides their key; now and then without a holder."""
        self.insert(
            connection,
            "slots",
            [{"id": self._id(), "holder": self.values.maybe(f"guest {self._id()}"), "n": self.values.maybe(3)}],
        )
