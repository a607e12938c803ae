"""How long a committed transaction takes to be queryable, measured from outside: by asking ClickHouse again and again."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from clickhouse_connect.driver.client import Client

from chronicle.dev.traffic import Commit
from chronicle.errors import ChronicleError
from chronicle.trail.reading import rows

POLL_INTERVAL_S = 0.03
WINDOW_S = 10
"""Each poll looks at what was inserted in this time; longer than any pause between two polls."""


@dataclass(slots=True)
class Poller:
    """Asks which transactions are queryable, from a thread of its own, on a connection of its own.

    A latency is the time from when the application's COMMIT returned to the end of the first poll that shows a change of
    the transaction: an upper bound, by the poll's own interval and run time.
    """

    client: Client
    database: str
    seen: dict[tuple[str, str], float] = field(default_factory=dict)
    """(source, transaction id) → seconds since 1970 when it was first seen."""
    failure: ChronicleError | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to poll. What was queryable before is not counted."""
        self._poll()
        for known in self.seen:
            self.seen[known] = 0.0
        self._thread = threading.Thread(target=self._run, name="latency-poller", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """End the thread, whatever it has seen. May be repeated."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def stop(self) -> None:
        """End the thread.

        Raises:
            ChronicleError: polling failed meanwhile, so that the figures would lie.
        """
        self.end()
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        try:
            while not self._stop.wait(POLL_INTERVAL_S):
                self._poll()
        except ChronicleError as error:
            self.failure = error

    def _poll(self) -> None:
        sql = """
            SELECT DISTINCT source, transaction_id FROM {database:Identifier}.changes
            WHERE inserted_at > now64(6) - toIntervalSecond({window:UInt32}) AND transaction_id IS NOT NULL
        """
        found = rows(self.client, sql, {"database": self.database, "window": WINDOW_S})
        now = time.time()
        for row in found:
            self.seen.setdefault((row["source"], row["transaction_id"]), now)


@dataclass(frozen=True, slots=True)
class Latency:
    """Of one source, in milliseconds."""

    source: str
    measured: int
    p50_ms: float
    p99_ms: float
    max_ms: float


def latencies(commits: Iterable[Commit], seen: Mapping[tuple[str, str], float]) -> list[Latency]:
    """Percentiles per source. Transactions without a change (an update that found no row) are never seen, nor counted."""
    first: dict[tuple[str, str], float] = {}
    for commit in commits:
        first.setdefault((commit.source, commit.transaction_id), commit.returned_at)
    by_source: dict[str, list[float]] = {}
    for (source, transaction_id), returned_at in first.items():
        at = seen.get((source, transaction_id), 0.0)
        if at > 0:
            by_source.setdefault(source, []).append(max(0.0, at - returned_at) * 1000)
    return [
        Latency(source, len(found), percentile(found, 0.5), percentile(found, 0.99), max(found))
        for source, found in sorted(by_source.items())
    ]


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least `share` of all are not above."""
    ordered = sorted(values)
    return ordered[max(1, math.ceil(len(ordered) * share)) - 1]
