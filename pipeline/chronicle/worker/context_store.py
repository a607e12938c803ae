"""What the follower knows of transactions: the best context of each, and whether it has ended. Bounded in memory and on disk.

The newest are in memory, what is beyond goes to a private SQLite file that is gone with the process, however that ends:
nothing here must survive, because everything can be read again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable
from itertools import islice
from typing import Any

from chronicle.stages.attribute import Transaction

MEMORY_MAX = 100_000
"""Transactions in memory, 400 to 700 bytes each."""
DISK_MAX = 2_000_000
"""Transactions on disk, about 300 bytes each."""
SPILL_SHARE = 4
"""A quarter of the memory is moved at once: one write for many."""
DISK_CACHE_KIB = 8_192

OPEN, DOUBTFUL, ENDED = 0, 1, 2
"""What is known of a transaction's end. Doubtful: its END was read but not its BEGIN, so a context may stand before both."""

_SCHEMA = """
    CREATE TABLE known (source TEXT, epoch INT, transaction_id TEXT, rank INT, at INT, context TEXT, ended INT, ms INT,
        PRIMARY KEY (source, epoch, transaction_id)) WITHOUT ROWID;
    CREATE INDEX by_age ON known (ms);
"""
_SPILL = """
    INSERT INTO known VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
        context = CASE WHEN (excluded.rank, excluded.at) >= (rank, at) THEN excluded.context ELSE context END,
        at = CASE WHEN (excluded.rank, excluded.at) >= (rank, at) THEN excluded.at ELSE at END,
        rank = max(rank, excluded.rank), ended = max(ended, excluded.ended), ms = max(ms, excluded.ms)
"""
_ASK = "SELECT rank, at, context, ended, ms FROM known WHERE source = ? AND epoch = ? AND transaction_id = ?"


class Known:
    """One transaction. A rank of 0: no context was read."""

    __slots__ = ("at", "context", "ended", "ms", "rank")

    def __init__(self, ms: int) -> None:
        self.rank = 0
        self.at = 0
        self.context: str | None = None
        self.ended = OPEN
        self.ms = ms
        """Time of its newest record, in milliseconds since 1970."""

    @property
    def answers(self) -> bool:
        """Nothing more needs to be waited for."""
        return self.rank > 0 or self.ended > OPEN

    @property
    def is_open(self) -> bool:
        """A context may still be found, or may have been missed."""
        return self.rank == 0 and self.ended != ENDED


class ContextStore:
    """Not thread-safe: the follower holds its lock."""

    def __init__(self, memory_max: int = MEMORY_MAX, disk_max: int = DISK_MAX) -> None:
        self._memory_max, self._disk_max = memory_max, disk_max
        self._memory: dict[Transaction, Known] = {}  # in the order in which they were first read
        self._disk: sqlite3.Connection | None = None
        self.on_disk = 0
        self.forgotten_ms = 0
        """What is not known and older than this may have been forgotten for want of room."""
        self.forgotten = 0

    @property
    def in_memory(self) -> int:
        """Transactions in memory."""
        return len(self._memory)

    @property
    def full(self) -> bool:
        """The next transaction makes older ones go to disk."""
        return len(self._memory) >= self._memory_max

    def context(self, transaction: Transaction, rank: int, at: int, context: str, ms: int) -> None:
        """A context was read. Of several the best counts, by (rank, at); `at` is its offset."""
        known = self._known(transaction, ms)
        if (rank, at) >= (known.rank, known.at):
            known.rank, known.at, known.context = rank, at, context

    def end(self, transaction: Transaction, ms: int, *, doubtful: bool) -> None:
        """Its END was read."""
        known = self._known(transaction, ms)
        known.ended = max(known.ended, DOUBTFUL if doubtful else ENDED)

    def _known(self, transaction: Transaction, ms: int) -> Known:
        known = self._memory.get(transaction)
        if known is None:
            if len(self._memory) >= self._memory_max:
                self._spill()
            known = self._memory[transaction] = Known(ms)
        elif ms > known.ms:
            known.ms = ms
        return known

    def get(self, transactions: Collection[Transaction]) -> dict[Transaction, Known]:
        """What is known of these; the unknown are absent."""
        memory = self._memory
        found = {one: memory[one] for one in transactions if one in memory}
        if not self.on_disk or self._disk is None:
            return found
        ask = self._disk.execute
        for one in transactions:  # also what is in memory: its better context may have been moved before
            row = ask(_ASK, one).fetchone()
            if row is not None:
                mine, known = found.get(one), Known(0)
                known.rank, known.at, known.context, known.ended, known.ms = row
                found[one] = known if mine is None else _merged(mine, known)
        return found

    def forget_before(self, ms: int) -> None:
        """Nobody will ask for transactions that ended before this time. Those without an END stay: outages last."""
        self._memory = {one: known for one, known in self._memory.items() if known.ms >= ms or known.ended == OPEN}
        if self._disk is not None and self.on_disk:
            self.on_disk -= self._disk.execute("DELETE FROM known WHERE ms < ? AND ended > 0", (ms,)).rowcount

    def clear(self) -> None:
        """Forget everything: it will be read again."""
        self._memory.clear()
        self.forgotten_ms = 0
        self.close()

    def close(self) -> None:
        """Give back the file."""
        if self._disk is not None:
            self._disk.close()
        self._disk, self.on_disk = None, 0

    # --- disk

    def _spill(self) -> None:
        """Move the oldest to disk, where the oldest that ended make room when need be."""
        if self._disk is None:
            self._disk = _opened()
        oldest = list(islice(self._memory.items(), max(1, self._memory_max // SPILL_SHARE)))
        rows = ((*one, known.rank, known.at, known.context, known.ended, known.ms) for one, known in oldest)
        _all(self._disk, _SPILL, rows)
        for one, _ in oldest:
            del self._memory[one]
        self.on_disk = self._count("SELECT count(*) FROM known")
        excess = self.on_disk - self._disk_max
        if excess > 0:
            self._make_room(self._disk, excess)

    def _make_room(self, disk: sqlite3.Connection, excess: int) -> None:
        """Oldest ended first; open ones only when that is not enough."""
        for condition in ("ended > 0", "1"):
            if excess <= 0:
                return
            chosen = f"SELECT source, epoch, transaction_id FROM known WHERE {condition} ORDER BY ms LIMIT {excess}"  # noqa: S608
            self.forgotten_ms = max(
                self.forgotten_ms,
                self._count(f"SELECT max(ms) FROM (SELECT ms FROM known WHERE {condition} ORDER BY ms LIMIT {excess})"),  # noqa: S608
            )
            gone = disk.execute(f"DELETE FROM known WHERE (source, epoch, transaction_id) IN ({chosen})").rowcount  # noqa: S608
            self.forgotten += gone
            self.on_disk -= gone
            excess -= gone

    def _count(self, query: str) -> int:
        if self._disk is None:
            return 0
        (number,) = self._disk.execute(query).fetchone()
        return int(number or 0)


def _all(disk: sqlite3.Connection, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
    """In one transaction, which makes it ten times cheaper."""
    disk.execute("BEGIN")
    disk.executemany(statement, rows)
    disk.execute("COMMIT")


def _merged(newer: Known, older: Known) -> Known:
    both = Known(max(newer.ms, older.ms))
    best = max(older, newer, key=lambda one: (one.rank, one.at))
    both.rank, both.at, both.context = best.rank, best.at, best.context
    both.ended = max(newer.ended, older.ended)
    return both


def _opened() -> sqlite3.Connection:
    """A private file in SQLite's temporary directory, unlinked from the start: a killed process leaves nothing."""
    disk = sqlite3.connect("", check_same_thread=False, isolation_level=None)
    for pragma in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{DISK_CACHE_KIB}"):
        disk.execute(f"PRAGMA {pragma}")
    disk.executescript(_SCHEMA)
    return disk
