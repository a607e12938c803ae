"""The demo's shop: an application on Postgres that says who did what by logical messages, and what happened by events."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from importlib.resources import files
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier
from psycopg.types.json import Jsonb

from chronicle.dev.traffic import CLERKS, PEOPLE, email_of, weighted
from chronicle.dev.traffic_sessions import Sessions

DATABASE = "shop"
TABLES = ("public.customers", "public.orders", "public.order_items")
ORDER_PLACED = "order.placed"
SEEDED_CUSTOMERS, SEEDED_ORDERS = 40, 5
STAR, STAR_IMPORTED = 7, 100_007
"""The customer whose history the demo shows, and the number under which it is imported before it gets its own."""
FIRST_NEW = 1_000

ACTIONS = (
    (14, "sign_up"), (30, "order"), (18, "advance"), (18, "edit"), (4, "annotate"), (6, "cancel"), (2, "forget"),
    (3, "renumber"), (5, "roll_back"),
)  # fmt: skip
STORY = (
    (0.10, "import", "migration", "import of the old customer file"),
    (0.25, "renumber", "alice@example.org", "customer keeps the old number 7"),
    (0.40, "email", "carol@example.org", "ticket 4711: new address"),
    (0.55, "upgrade", "nightly-job", "spring promotion"),
    (0.70, "no_tier", "bob@example.org", "promotion is over"),
    (0.85, "password", "customer", "password reset"),
)


STAR_EDITS = {
    "email": "email = %(email)s",
    "upgrade": "tier = 'gold', credit = credit + 99.90, tags = '{vip,ünïcode}'",
    "no_tier": "tier = NULL",
    "password": "password = %(password)s",
}


class Shop:
    """An `Application` (see `traffic`): sign-ups, orders, edits, cancellations, and the story of one customer."""

    source = "shop"

    def __init__(self, dsn: str, sessions: Sessions) -> None:
        self.connection = psycopg.connect(dsn, autocommit=False)
        self.sessions = sessions
        with self.connection.transaction(), self.connection.cursor() as cursor:
            cursor.execute("SELECT id FROM customers ORDER BY id")
            self.customers = [row[0] for row in cursor.fetchall()]
            cursor.execute("SELECT id FROM orders ORDER BY placed_at, id")
            self.orders = [row[0] for row in cursor.fetchall()]
        self.next_customer = max([FIRST_NEW, *(one + 1 for one in self.customers if one < STAR_IMPORTED)])
        self.written_before = self.next_customer
        self.told = {"import", "renumber"} if STAR in self.customers else set[str]()
        self.truncated = self.ordered = False

    def close(self) -> None:
        """End the connection."""
        self.connection.close()

    def act(self, chosen: random.Random, step: float) -> tuple[str, str | None]:
        """One transaction of whatever is due: the story first, the clean-up once, else by weight."""
        for at, part, actor, reason in STORY:
            if step >= at and part not in self.told:
                self.told.add(part)
                return f"story_{part}", self._story(part, actor, reason, chosen)
        if step >= 0.5 and not self.truncated:
            self.truncated = True
            return "clean_up", self._clean_up(chosen)
        action = weighted(chosen, ACTIONS)
        return action, getattr(self, f"_{action}")(chosen)

    def finish(self, chosen: random.Random) -> str:
        """A sign-up."""
        return self._sign_up(chosen)

    # -- one transaction each ------------------------------------------------------------------------------------------

    def _sign_up(self, chosen: random.Random) -> str:
        number = self.next_customer
        with self._transaction(chosen) as cursor:
            insert_customer(cursor, number, chosen)
            transaction_id = transaction_of(cursor)
        self.next_customer += 1
        self.customers.append(number)
        return transaction_id

    def _order(self, chosen: random.Random) -> str:
        # the first of a run begins a session: the demo shows such a request
        with self._transaction(chosen, "checkout", login=not self.ordered or chosen.random() < 0.2) as cursor:
            number = cursor.execute("SELECT nextval('order_number')").fetchone()
            order = uuid.uuid5(uuid.NAMESPACE_URL, f"https://shop.example.org/orders/{number}")
            items, total = _insert_items(cursor, order, chosen)
            cursor.execute(
                "INSERT INTO orders (id, customer_id, total, gift, note) VALUES (%s, %s, %s, %s, %s)",
                (
                    order,
                    chosen.choice(self.customers),
                    total,
                    chosen.random() < 0.1,
                    chosen.choice((None, "ring twice", "→ 2. Stock")),
                ),
            )
            placed = {"total": str(total), "items": items}
            self.sessions.in_transaction(self.connection, ORDER_PLACED, ("order", order), placed)
            transaction_id = transaction_of(cursor)
        self.orders.append(order)
        self.ordered = True
        return transaction_id

    def _advance(self, chosen: random.Random) -> str:
        with self._transaction(chosen, "logistics") as cursor:
            cursor.execute(
                "UPDATE orders SET status = %s, shipped_on = CASE WHEN %s = 'shipped' THEN date '2026-11-23' END "
                "WHERE id = ANY(%s)",
                (
                    status := chosen.choice(("paid", "shipped", "returned")),
                    status,
                    chosen.sample(self.orders, min(3, len(self.orders))),
                ),
            )
            return transaction_of(cursor)

    def _edit(self, chosen: random.Random) -> str:
        column, value = chosen.choice(
            (
                ("tier", chosen.choice((None, "gold", "standard"))),
                ("credit", Decimal(chosen.randrange(-50_000, 500_000)) / 100),
                (
                    "preferences",
                    Jsonb({"newsletter": chosen.random() < 0.5, "language": chosen.choice(("de", "fr", "日本語"))}),
                ),
                ("tags", chosen.sample(["vip", "late payer", "b2b", "ünïcode"], chosen.randrange(4))),
                ("password", f"crypt${chosen.getrandbits(64):x}"),
            )
        )
        with self._transaction(chosen, "support") as cursor:
            edited = SQL("UPDATE customers SET {} = %s WHERE id = %s").format(Identifier(column))
            cursor.execute(edited, (value, chosen.choice(self._others())))
            return transaction_of(cursor)

    def _annotate(self, chosen: random.Random) -> str:
        """Of the note alone: the policy ignores it."""
        with self._transaction(chosen) as cursor:
            cursor.execute("UPDATE orders SET note = %s WHERE id = %s", ("call ada@example.org", chosen.choice(self.orders)))
            return transaction_of(cursor)

    def _cancel(self, chosen: random.Random) -> str:
        order = self.orders.pop(chosen.randrange(len(self.orders))) if self.orders else None
        if order is not None and chosen.random() < 0.3:
            self.sessions.refused(chosen, "orders.cancel", ("order", order))
        with self._transaction(chosen, "cancelled by the customer") as cursor:
            cursor.execute("DELETE FROM order_items WHERE order_id = %s", (order,))
            cursor.execute("DELETE FROM orders WHERE id = %s", (order,))
            return transaction_of(cursor)

    def _forget(self, chosen: random.Random) -> str:
        gone = chosen.choice(self._others())
        self.sessions.refused(chosen, "customers.erase", ("customer", gone))
        with self._transaction(chosen, "right to be forgotten") as cursor:
            cursor.execute("SELECT id FROM orders WHERE customer_id = %s", (gone,))
            orders = [row[0] for row in cursor.fetchall()]
            cursor.execute("DELETE FROM order_items WHERE order_id = ANY(%s)", (orders,))
            cursor.execute("DELETE FROM customers WHERE id = %s", (gone,))
            transaction_id = transaction_of(cursor)
        self.customers.remove(gone)
        self.orders = [order for order in self.orders if order not in set(orders)]
        return transaction_id

    def _renumber(self, chosen: random.Random) -> str:
        old = chosen.choice(self._others())
        return self._renumbered(old, self.next_customer, "merge of two shops", chosen.choice(CLERKS), chosen)

    def _roll_back(self, chosen: random.Random) -> None:
        with self.connection.transaction(force_rollback=True), self.connection.cursor() as cursor:
            insert_customer(cursor, -1, chosen)
            cursor.execute("UPDATE customers SET credit = credit - 1 WHERE id = %s", (chosen.choice(self.customers),))
            self.sessions.in_transaction(self.connection, ORDER_PLACED, ("order", "never"), {"items": 0})
        self.sessions.ended(committed=False)

    def _clean_up(self, chosen: random.Random) -> str:
        with self._transaction(chosen, "items of past seasons", "nightly-job") as cursor:
            cursor.execute("TRUNCATE order_items")
            return transaction_of(cursor)

    def _others(self) -> list[int]:
        """All but the star, whose story nobody else tells."""
        return [one for one in self.customers if one not in (STAR, STAR_IMPORTED)]

    def _story(self, part: str, actor: str, reason: str, chosen: random.Random) -> str:
        if part == "import":
            with self._transaction(chosen, reason, actor) as cursor:
                insert_customer(cursor, STAR_IMPORTED, chosen, name="Katalin Karikó")
                transaction_id = transaction_of(cursor)
            self.customers.append(STAR_IMPORTED)
            return transaction_id
        if part == "renumber":
            return self._renumbered(STAR_IMPORTED, STAR, reason, actor, chosen)
        made = {"email": f"kata.{chosen.randrange(1_000)}@example.org", "password": f"crypt${chosen.getrandbits(64):x}"}
        with self._transaction(chosen, reason, actor) as cursor:
            edited = SQL("UPDATE customers SET {} WHERE id = %(star)s").format(SQL(STAR_EDITS[part]))
            cursor.execute(edited, {"star": STAR, **made})
            return transaction_of(cursor)

    def _renumbered(self, old: int, new: int, reason: str, actor: str, chosen: random.Random) -> str:
        with self._transaction(chosen, reason, actor) as cursor:
            cursor.execute("UPDATE customers SET id = %s WHERE id = %s", (new, old))
            transaction_id = transaction_of(cursor)
        self.customers[self.customers.index(old)] = new
        self.next_customer = max(self.next_customer, new + 1)
        return transaction_id

    @contextmanager
    def _transaction(
        self, chosen: random.Random, reason: str | None = None, who: str | None = None, *, login: bool = False
    ) -> Iterator[psycopg.Cursor[Any]]:
        """One request in one transaction, with a reason. Not every part of the shop says who it is: without `who` and `login`
        four in ten do not, and none without a reason."""
        if who is None and (login or chosen.random() < 0.6):
            who = chosen.choice(CLERKS)
        with ExitStack() as open_:
            if who is not None and reason is not None:
                open_.enter_context(self.sessions.request(self.connection, chosen, who, reason, login=login))
            open_.enter_context(self.connection.transaction())
            yield open_.enter_context(self.connection.cursor())
        self.sessions.ended(committed=True)


def create(admin_dsn: str, dsn: str, seed: int) -> bool:
    """Make the database with its tables and first rows, unless it is there; says whether it was made now."""
    with psycopg.connect(admin_dsn, autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone():
            return False
        connection.execute("CREATE DATABASE shop ENCODING 'UTF8' TEMPLATE template0")
    chosen = random.Random(f"{seed} shop rows")  # noqa: S311  (repeatable on purpose)
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        cursor.execute(files("chronicle.dev").joinpath("demo_shop.sql").read_bytes())
        for number in range(1, SEEDED_CUSTOMERS + 1):
            if number != STAR:
                insert_customer(cursor, number, chosen)
        for number in range(1, SEEDED_ORDERS + 1):
            order = uuid.uuid5(uuid.NAMESPACE_URL, f"https://shop.example.org/old-orders/{number}")
            _, total = _insert_items(cursor, order, chosen)
            cursor.execute("INSERT INTO orders (id, customer_id, total) VALUES (%s, %s, %s)", (order, number, total))
    return True


def insert_customer(cursor: psycopg.Cursor[Any], number: int, chosen: random.Random, name: str | None = None) -> None:
    """A new customer, with everything that is hard to carry: unicode, arrays, JSON, decimals, NULL beside a default."""
    name = name or chosen.choice(PEOPLE)
    cursor.execute(
        "INSERT INTO customers (id, email, name, tier, credit, tags, preferences, born_on, password) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            number,
            email_of(name, number),
            name,
            chosen.choice(("standard", "gold", None)),
            Decimal(chosen.randrange(0, 100_000)) / 100,
            chosen.sample(["vip", "b2b", "newsletter"], chosen.randrange(3)),
            chosen.choice((None, Jsonb({"newsletter": True, "language": "de"}))),
            chosen.choice((None, f"{chosen.randrange(1930, 2005)}-02-28")),
            f"crypt${chosen.getrandbits(64):x}",
        ),
    )


def say(cursor: psycopg.Cursor[Any], actor: str, reason: str) -> None:
    """Tell the trail who does this transaction and why, without Chronicle's library: a logical message in it."""
    context = json.dumps({"actor": actor, "reason": reason}, ensure_ascii=False)
    cursor.execute("SELECT pg_logical_emit_message(true, 'chronicle', %s)", (context,))


def _insert_items(cursor: psycopg.Cursor[Any], order: uuid.UUID, chosen: random.Random) -> tuple[int, Decimal]:
    """How many there are now, and their total."""
    items = [
        (
            order,
            line,
            f"SKU-{chosen.randrange(500):03}",
            chosen.randrange(1, 9),
            Decimal(chosen.randrange(100, 9_999_999)) / 10_000,
        )
        for line in range(1, chosen.randrange(2, 6))
    ]
    cursor.executemany(
        "INSERT INTO order_items (order_id, line, sku, quantity, price, weight_kg) VALUES (%s, %s, %s, %s, %s, %s)",
        [(*item, chosen.choice((None, 0.1, 12.5))) for item in items],
    )
    return len(items), sum((quantity * price for *_, quantity, price in items), Decimal(0)).quantize(Decimal("0.01"))


def transaction_of(cursor: psycopg.Cursor[Any]) -> str:
    """The transaction's id as Debezium reports it: the lower 32 bits."""
    found = cursor.execute("SELECT pg_current_xact_id()::text::numeric % 4294967296").fetchone()
    return str(int(found[0])) if found else ""
