"""The statements of the MariaDB workload: each method writes a few rows on a given connection, inside its transaction."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pymysql

from tests.faults.values import Values

if TYPE_CHECKING:
    Connection = pymysql.Connection[Any]
else:  # generic for the type checker only
    Connection = pymysql.Connection
LAST_TIMESTAMP = dt.datetime(2038, 1, 18, 23, 59, 59, 999999)


class MariadbActions:
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
            (self.upsert_codes, 6),
            (self.touch_codes, 6),
            (self.delete_codes, 2),
            (self.write_wide, 3),
            (self.write_lines, 5),
            (self.change_lines, 4),
            (self.write_journal, 4),
            (self.change_journal, 2),
            (self.write_slots, 4),
            (self.swap_keys, 1),
            (self.write_bulk, 1),
            (self.change_bulk, 2),
            (self.write_evolving, 4),
        )

    def action(self, connection: Connection) -> None:
        """One statement or a few, drawn by weight."""
        functions, weights = zip(*self.actions, strict=True)
        self.random.choices(functions, weights)[0](connection)

    def execute(self, connection: Connection, statement: str, arguments: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement and fetch what it gives."""
        with connection.cursor() as cursor:
            cursor.execute(statement, tuple(arguments) or None)
            return list(cursor.fetchall())

    def picked(self, connection: Connection, table: str, columns: str, limit: int) -> list[tuple[Any, ...]]:
        """Some rows that exist: which ones follows from the seed."""
        salt = str(self.random.random())
        return self.execute(
            connection, f"SELECT {columns} FROM `{table}` ORDER BY md5(concat({columns}, %s)) LIMIT {limit}", (salt,)
        )

    def _id(self) -> int:
        self.next_id += 1
        return self.next_id

    def insert(self, connection: Connection, table: str, rows: Sequence[Mapping[str, Any]], more: str = "") -> None:
        """One INSERT of all rows."""
        names = ", ".join(f"`{name}`" for name in rows[0])
        one = "(" + ", ".join(["%s"] * len(rows[0])) + ")"
        values = [value for row in rows for value in row.values()]
        self.execute(connection, f"INSERT INTO `{table}` ({names}) VALUES {', '.join([one] * len(rows))} {more}", values)

    def account(self, identifier: int) -> dict[str, Any]:
        """A row of `accounts`."""
        v = self.values
        return {
            "id": identifier,
            "name": v.text(),
            "note": v.maybe(v.text(), 0.4),
            "flag": v.maybe(v.integer(8)),
            "small": v.maybe(v.integer(16)),
            "big": v.maybe(v.integer(64), 0.3),
            "ubig": v.maybe(v.unsigned()),
            "balance": v.decimal(12, 2),
            "huge": v.maybe(v.decimal(38, 10)),
            "ratio": v.maybe(v.number(False)),
            "born": v.maybe(v.date(1000)),
            "seen_local": v.maybe(v.moment(1000), 0.3),
            "seen": v.maybe(v.moment(1970, LAST_TIMESTAMP)),
            "alarm": v.maybe(v.time()),
            "doc": v.maybe(v.json()),
            "bytes": v.maybe(v.binary()),
            "standing": v.maybe(v.random.choice(("new", "good", "barred")), 0.3),
            "colours": v.maybe(v.random.choice(("", "red", "red,blue", "red,green,blue"))),
            "bits": v.maybe(v.random.randint(0, 4095).to_bytes(2, "big")),
            "api_token": v.maybe("tok-" + v.word()),
        }

    def insert_accounts(self, connection: Connection) -> None:
        """One row, or many in one statement."""
        count = self.random.choice((1, 1, 1, 2, 20))
        self.insert(connection, "accounts", [self.account(self._id()) for _ in range(count)])

    def update_accounts(self, connection: Connection) -> None:
        """Some columns of some rows, NULL over defaults included."""
        for (identifier,) in self.picked(connection, "accounts", "id", self.random.choice((1, 1, 3, 10))):
            fresh = self.account(identifier)
            names = self.random.sample([name for name in fresh if name != "id"], self.random.randint(1, 5))
            sets = ", ".join(f"`{name}` = %s" for name in names)
            self.execute(
                connection, f"UPDATE accounts SET {sets} WHERE id = %s", [*(fresh[name] for name in names), identifier]
            )

    def delete_accounts(self, connection: Connection) -> None:
        """A few rows at once."""
        ids = [identifier for (identifier,) in self.picked(connection, "accounts", "id", 3)]
        if ids:
            self.execute(connection, f"DELETE FROM accounts WHERE id IN ({', '.join(['%s'] * len(ids))})", ids)

    def delete_and_reinsert(self, connection: Connection) -> None:
        """The same key again, at once."""
        for (identifier,) in self.picked(connection, "accounts", "id", 1):
            self.execute(connection, "DELETE FROM accounts WHERE id = %s", (identifier,))
            self.insert(connection, "accounts", [self.account(identifier)])

    def move_key(self, connection: Connection) -> None:
        """A primary-key change of a single and of a composite key."""
        for (identifier,) in self.picked(connection, "accounts", "id", 1):
            self.execute(connection, "UPDATE accounts SET id = %s, note = NULL WHERE id = %s", (self._id(), identifier))
        for order, line in self.picked(connection, "lines", "order_id, line_no", 1):
            self.execute(
                connection, "UPDATE `lines` SET line_no = line_no + 1000 WHERE order_id = %s AND line_no = %s", (order, line)
            )

    def upsert_codes(self, connection: Connection) -> None:
        """Text keys of any characters; ON DUPLICATE KEY UPDATE."""
        v = self.values
        code = v.text()[:60].rstrip() + str(self.random.randint(0, 60))
        row = {
            "code": code,
            "label": v.maybe(v.text(), 0.4),
            "n": v.integer(32),
            "body": v.maybe(v.long_text()),
            "seen": v.maybe(v.moment(1970)),
        }
        self.insert(connection, "codes", [row], "ON DUPLICATE KEY UPDATE n = VALUES(n), label = VALUES(label)")

    def touch_codes(self, connection: Connection) -> None:
        """Small changes beside a long text."""
        for (code,) in self.picked(connection, "codes", "code", 3):
            values = (self.values.integer(32), self.values.maybe("x"), code)
            self.execute(connection, "UPDATE codes SET n = %s, label = %s WHERE code = %s", values)

    def delete_codes(self, connection: Connection) -> None:
        """Deletes of text keys."""
        for (code,) in self.picked(connection, "codes", "code", 2):
            self.execute(connection, "DELETE FROM codes WHERE code = %s", (code,))

    def write_wide(self, connection: Connection) -> None:
        """A row of 85 columns, or an update of three of them."""
        v, rows = self.values, self.picked(connection, "wide", "id", 1)
        if not rows or self.random.random() < 0.4:
            filled: dict[str, Any] = {"id": self._id()}
            filled |= {f"c{i:02d}": v.maybe(i) for i in range(0, 84, 7)}
            filled |= {f"c{i:02d}": v.text()[:60] for i in range(1, 84, 7)}
            filled |= {f"c{i:02d}": v.maybe(v.decimal(14, 3)) for i in range(2, 84, 14)}
            filled |= {f"c{i:02d}": v.number(False) for i in range(3, 84, 21)}
            filled |= {f"c{i:02d}": v.moment(1970) for i in range(5, 84, 28)}
            self.insert(connection, "wide", [filled])
            return
        values = (v.maybe(1, 0.5), v.integer(64), v.maybe(v.text()[:60]), rows[0][0])
        self.execute(connection, "UPDATE wide SET c00 = %s, c83 = %s, c64 = %s WHERE id = %s", values)

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
            self.execute(connection, "UPDATE `lines` SET qty = coalesce(qty, 0) + 1 WHERE order_id = %s", (order,))
            self.execute(connection, "DELETE FROM `lines` WHERE order_id = %s AND line_no %% 4 = 3", (order,))

    def write_journal(self, connection: Connection) -> None:
        """Rows without a key, equal ones among them."""
        row = {"at": self.values.moment(1970), "message": self.values.maybe(self.values.text()), "n": self.random.randint(0, 9)}
        self.insert(connection, "journal", [row] * self.random.choice((1, 1, 3)))

    def change_journal(self, connection: Connection) -> None:
        """Updates and deletes of rows without a key."""
        self.execute(connection, "UPDATE journal SET n = n + 10 WHERE n = %s", (self.random.randint(0, 9),))
        self.execute(connection, "DELETE FROM journal WHERE n > 30")

    def write_slots(self, connection: Connection) -> None:
        """Rows with a unique column besides their key."""
        self.insert(
            connection,
            "slots",
            [{"id": self._id(), "holder": self.values.maybe(f"guest {self._id()}"), "n": self.values.maybe(3)}],
        )

    def swap_keys(self, connection: Connection) -> None:
        """Two rows change places by way of a third key."""
        rows = self.picked(connection, "slots", "id", 2)
        if len(rows) == 2:
            (one,), (two,) = rows
            for new, old in ((-one, one), (one, two), (two, -one)):
                self.execute(connection, "UPDATE slots SET id = %s WHERE id = %s", (new, old))

    def write_bulk(self, connection: Connection, rows: int = 0) -> None:
        """One INSERT of many rows."""
        count = rows or self.random.randint(50, 300)
        made = [{"id": self._id(), "grp": n % 10, "payload": "row", "amount": self.values.decimal(10, 2)} for n in range(count)]
        self.insert(connection, "bulk", made)

    def change_bulk(self, connection: Connection) -> None:
        """One statement over a tenth of the table."""
        self.execute(
            connection, "UPDATE bulk SET amount = -amount WHERE grp = %s AND id %% 7 = 0", (self.random.randint(0, 9),)
        )
        self.execute(connection, "DELETE FROM bulk WHERE id %% 50 = %s", (self.random.randint(0, 49),))

    def write_evolving(self, connection: Connection) -> None:
        """Rows of the table that grows columns."""
        names = [f"added_{number}" for number in range(self.columns_added)]
        row = {"id": self._id(), "a": self.values.text()} | {
            name: self.values.maybe(self.random.randint(0, 9)) for name in names
        }
        self.insert(connection, "evolving", [row])
        for (identifier,) in self.picked(connection, "evolving", "id", 1):
            self.execute(
                connection, "UPDATE evolving SET a = %s WHERE id = %s", (self.values.maybe(self.values.text()), identifier)
            )
