"""The demo's broken contract: what readers rely on is not there, the table's records wait, and nothing of them is lost.

The readers of orders agreed on a column that the shop never made. With that contract in force, what happens to orders
becomes dead letters; once the contract says what the table has, they are sent back and arrive.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from clickhouse_connect.driver.client import Client

from chronicle import dead_letters
from chronicle.codec.contract import VALUE, pinned
from chronicle.config import Settings
from chronicle.dead_letters import Selection
from chronicle.dev.stack import Stack
from chronicle.dev.traffic_shop import say, transaction_of
from chronicle.dev.worker_part import CONTRACTS, Worker
from chronicle.errors import ChronicleError
from chronicle.model.dead_letters import Reason
from chronicle.registry import Registry
from chronicle.schema_files import path_of, save
from chronicle.trail import letters
from chronicle.trail.letters import DeadLetter

TOPIC = "shop.public.orders"
COLUMN = "currency"
"""What the contract promises and the table lacks."""
ORDERS = 3
DEADLINE_S = 60.0
POLL_INTERVAL_S = 0.1
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Broken:
    """Changes that wait until their table keeps its contract."""

    transaction_id: str
    letters: Sequence[DeadLetter]


@dataclass(frozen=True, slots=True)
class ContractProof:
    """What became of changes while their table broke its contract."""

    file: Path
    table: str
    column: str
    waited: Sequence[DeadLetter]
    sent_back: int
    arrived: int
    """Of `ORDERS` that were written."""

    @property
    def holds(self) -> bool:
        """All waited, for this reason, and all arrived."""
        return len(self.waited) == self.sent_back == self.arrived == ORDERS

    @property
    def told(self) -> str:
        """For a person."""
        return (
            f"{self.file.name} promised a column {self.column} that {self.table} does not have: {len(self.waited)} changes "
            f"waited as dead letters; corrected and sent back, {self.arrived} are on the trail"
        )

    def as_json(self) -> dict[str, Any]:
        """For a pipe."""
        return {
            "contract": str(self.file),
            "table": self.table,
            "column": self.column,
            "written": ORDERS,
            "dead_letters": [letter.as_json() for letter in self.waited],
            "sent_back": self.sent_back,
            "arrived": self.arrived,
        }


def mended(stack: Stack, settings: Settings) -> bool:
    """Put the contract right that a demo which was interrupted may have left; says whether there was one.

    The worker must start again then.
    """
    file = path_of(stack.directory / CONTRACTS, TOPIC + VALUE)
    if not file.exists() or COLUMN not in _columns(file.read_text(encoding="utf-8")):
        return False
    _save(stack, _kept(settings))
    return True


def broken(stack: Stack, settings: Settings, client: Client, detail: Callable[[str], None]) -> Broken:
    """Put the broken contract in force and write to its table.

    Raises:
        ChronicleError: it did not become dead letters in time.
    """
    began = datetime.now(UTC)
    contract = json.loads(_kept(settings))
    contract["fields"].append({"name": COLUMN, "type": "string"})
    _save(stack, json.dumps(contract, indent=2) + "\n")
    _restart(stack, detail)
    written = _write(stack)
    filters = letters.Filters(topic=TOPIC, reason=Reason.CONTRACT_BROKEN, since=began)

    def waiting() -> list[DeadLetter] | None:
        there = letters.letters(client, settings.clickhouse.database, filters, limit=2 * ORDERS)
        return there if len(there) >= ORDERS else None

    detail(f"{ORDERS} orders written; waiting for their dead letters")
    found = _awaited(waiting, f"{ORDERS} dead letters of {TOPIC}")
    detail(f"{len(found)} changes of {TOPIC} wait: {found[0].reason}, {found[0].detail}")
    return Broken(written, found)


def corrected(
    stack: Stack, settings: Settings, client: Client, waiting: Broken, detail: Callable[[str], None]
) -> ContractProof:
    """Put the contract right, and send the dead letters back.

    Raises:
        ChronicleError: they did not arrive in time.
    """
    file = _save(stack, _kept(settings))
    _restart(stack, detail)
    since = min(letter.failed_at for letter in waiting.letters)
    sent = dead_letters.replay(settings.kafka, Selection(reason=Reason.CONTRACT_BROKEN, topic=TOPIC, since=since)).sent
    query = (
        "SELECT count() FROM {database:Identifier}.changes FINAL WHERE topic = {topic:String} AND transaction_id = {id:String}"
    )
    bound = {"database": settings.clickhouse.database, "topic": TOPIC, "id": waiting.transaction_id}

    def arrived() -> int | None:
        there = int(client.query(query, parameters=bound).result_rows[0][0])
        return there if there >= ORDERS else None

    detail(f"{sent} dead letters sent back")
    count = _awaited(arrived, f"{ORDERS} changes of {TOPIC}")
    detail(f"{file.name} says what the table has; {sent} dead letters sent back, {count} changes arrived")
    return ContractProof(file, TOPIC, COLUMN, waiting.letters, sent, count)


def _kept(settings: Settings) -> str:
    """The contract that the table keeps, as `chronicle schemas pull` writes it."""
    registry = Registry(settings.registry)
    try:
        found = registry.latest(TOPIC + VALUE)
    finally:
        registry.close()
    if found is None:
        raise ChronicleError(f"look at `chronicle connectors status`: the registry has no schema of {TOPIC}")
    return pinned(found[1])


def _save(stack: Stack, text: str) -> Path:
    directory = stack.directory / CONTRACTS
    save(directory, TOPIC + VALUE, text, force=True)
    return path_of(directory, TOPIC + VALUE)


def _columns(text: str) -> set[str]:
    return {one["name"] for one in json.loads(text)["fields"]}


def _restart(stack: Stack, detail: Callable[[str], None]) -> None:
    """Contracts are read at start, like the policy."""
    detail("the worker starts again: contracts are read then")
    stack.stop(Worker.name)
    stack.up([Worker.name], lambda progress: detail(f"worker {progress.step} {progress.detail}".rstrip()))


def _write(stack: Stack) -> str:
    """A few orders in one transaction; returns its id."""
    with psycopg.connect(stack.postgres_dsn("shop")) as connection, connection.cursor() as cursor:
        say(cursor, "alice@example.org", "orders by telephone")
        cursor.execute(
            "INSERT INTO orders (id, customer_id, total) "
            "SELECT gen_random_uuid(), id, 12.50 FROM customers ORDER BY id LIMIT %s",
            (ORDERS,),
        )
        return transaction_of(cursor)


def _awaited(ask: Callable[[], T | None], what: str) -> T:
    deadline = time.monotonic() + DEADLINE_S
    while (found := ask()) is None:
        if time.monotonic() > deadline:
            raise ChronicleError(f"look at the worker's log: {what} were not there after {DEADLINE_S:.0f} s")
        time.sleep(POLL_INTERVAL_S)
    return found
