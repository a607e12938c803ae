"""The follower: reads the transaction topics beside the consumer group, and answers who did the transactions of a batch.

Contexts and rows travel on different topics, and only the transaction's END proves that no context will come (fact 35). So
a batch waits, for each of its transactions, until the context or the END has been read: for a bounded time once the follower
has read all there is, because a transaction whose connector was killed has no END yet. Nothing is kept over a restart:
everything is read again from the time of the oldest change that is not processed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Protocol

import polars as pl
import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from chronicle.engine import Path, Resolver
from chronicle.errors import TransientError
from chronicle.model.chunk import Chunk
from chronicle.stages.attribute import CONTEXTS, RANKS, Transaction
from chronicle.worker.context_store import ContextStore, Known
from chronicle.worker.ledger import Partition
from chronicle.worker.transaction_log import Read

log = structlog.get_logger("chronicle.follower")

MARGIN_MS = 60_000
"""So much before the oldest needed change the reading begins: a context stands before its rows, by the length of what its
transaction wrote before them. One that began earlier still is doubted (see `context_store.DOUBTFUL`), not taken for none."""
CATCH_UP_S = 10.0
"""How long one wait lets the follower read a backlog; what is not found by then is pending, and corrected by the view."""
OLD_MS = 60_000
"""A transaction so much older than the newest record has no END that is only late: nothing but reading is waited for."""
REFRESH_S = 5.0
REFRESH_ASKED_S = 1.0
"""A source without a transaction topic is looked for again when a batch asks, this often."""
POLL_S = 0.1
BEGUN_MAX = 100_000
"""BEGINs that wait for their END. DDL in a binlog has none: the oldest are forgotten."""
WAIT_BUCKETS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0)
_RUNG_OF = {rank: rung for rung, rank in RANKS.items()}


class Log(Protocol):
    """The topics (`transaction_log.TransactionLog`)."""

    stale: bool

    @property
    def sources(self) -> frozenset[str]:
        """Sources whose topic is there."""

    def whole(self, topic: str) -> bool:
        """Whether it was read from its first record on."""

    def seek(self, from_ms: int) -> dict[Partition, int]:
        """Read from this time on; where that is."""

    def refresh(self) -> dict[Partition, int]:
        """Look for new topics; where their reading begins."""

    def read(self, timeout_s: float) -> Read:
        """What there is."""

    def ends(self, sources: Iterable[str]) -> dict[Partition, int]:
        """Where the logs end now."""

    def lag(self) -> dict[Partition, int]:
        """Records not read yet."""

    def close(self) -> None:
        """The end."""


class Follower:
    """One per worker process. `need_from` and `wait` are called by the worker; a thread of the follower's own reads.

    A collector of Prometheus metrics, too: register it.
    """

    def __init__(
        self,
        transactions: Log,
        path: Path,
        registry: Resolver,
        *,
        store: ContextStore | None = None,
        margin_ms: int = MARGIN_MS,
        catch_up_s: float = CATCH_UP_S,
    ) -> None:
        """`path` and `registry` are the follower's own: neither may be used by another thread. Reading begins with the
        first `need_from`, or the first `wait`."""
        self._log, self._path, self._registry = transactions, path, registry
        self._store = store or ContextStore()
        self._margin_ms, self._catch_up_s = margin_ms, catch_up_s
        self._changed = threading.Condition()  # guards everything below, and the store
        self._missing: set[Transaction] = set()
        self._from_ms: int | None = None
        self._seek_ms: int | None = None
        self._swept_ms = 0
        self._newest_ms = 0
        self._read_to: dict[Partition, int] = {}
        self._begun: dict[Transaction, None] = {}
        self._trouble: TransientError | None = None
        self._failure: BaseException | None = None
        self._refreshed_at = 0.0
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._closing = False
        self._unapplied: Read | None = None
        self._waits = _Waits()

    # --- called by the worker

    def need_from(self, timestamp_ms: int) -> None:
        """The oldest change that is not processed was received then (milliseconds since 1970).

        To be called when partitions were assigned, and every few seconds: what ended before is forgotten, and an earlier
        time than before makes the follower read from there again. Cheap; never blocks on the broker.
        """
        with self._changed:
            self._need_from(timestamp_ms - self._margin_ms)

    def wait(self, transactions: Mapping[Transaction, int], timeout_s: float) -> tuple[pl.DataFrame, frozenset[Transaction]]:
        """The contexts of these transactions (columns `CONTEXTS`), and those of which no context was found and no END.

        `transactions`: as `stages.attribute.wanted` gives them, with the time their newest change was received. Returns as
        soon as each has its context or its END; `timeout_s` after the call at the latest, unless the topic has not been
        read to the end that it had by then: that is waited for, up to `catch_up_s`. May be repeated.

        Raises:
            TransientError: something is missing, and the broker (or the registry) is away. Repeat the call.
            ConfigError: the broker refuses our credentials.
        """
        if not transactions:
            return _frame({}), frozenset()
        began = time.monotonic()
        with self._changed:
            if self._from_ms is None:
                self._need_from(min(transactions.values()) - self._margin_ms)
            found = self._store.get(transactions)
            gone_ms = max(self._from_ms or 0, self._store.forgotten_ms)
            missing = {one for one in transactions if one not in found or not found[one].answers}
            forgotten = {one for one in missing if transactions[one] < gone_ms}
            self._missing = missing - forgotten
        behind = 0
        if self._missing:
            try:
                behind = self._await(transactions, began, timeout_s)
            finally:
                with self._changed:
                    self._missing = set()
            with self._changed:
                found = self._store.get(transactions)
        open_ = frozenset(one for one in transactions if one not in found or found[one].is_open)
        self._waits.add(time.monotonic() - began, forgotten=len(open_ & forgotten), behind=behind, unanswered=len(open_))
        return _frame(found), open_

    def close(self) -> None:
        """Stop reading and leave the broker."""
        with self._changed:
            self._closing = True
            thread = self._thread
        self._wake.set()
        if thread is not None:
            thread.join(timeout=30)
        self._log.close()
        self._store.close()

    def collect(self) -> Iterator[Metric]:
        """Called by Prometheus' registry."""
        lag = GaugeMetricFamily("chronicle_follower_lag_records", "Transaction records not read yet.", labels=["topic"])
        with self._changed:
            places = (self._store.in_memory, self._store.on_disk)
            reading = self._thread is not None and not self._closing
        for (topic, _), records in (self._log.lag() if reading else {}).items():
            lag.add_metric([topic], records)
        yield lag
        kept = GaugeMetricFamily("chronicle_follower_transactions", "Transactions known to the follower.", labels=["place"])
        for place, count in zip(("memory", "disk"), places, strict=True):
            kept.add_metric([place], count)
        yield kept
        yield from self._waits.collect()

    # --- waiting

    def _await(self, transactions: Mapping[Transaction, int], began: float, timeout_s: float) -> int:
        """Until nothing is missing, or what is missing is not there. The number that was given up while still reading."""
        with self._changed:
            fresh = any(transactions[one] > self._newest_ms - OLD_MS for one in self._missing)
        deadline = began + (timeout_s if fresh else 0.0)
        last = began + max(timeout_s, self._catch_up_s)
        ends: dict[Partition, int] | None = None
        while True:
            with self._changed:
                self._leave_out_absent(began)
                self._wake.set()
                placed = self._placed()
                due = deadline if ends is None and placed else last
                self._changed.wait_for(partial(self._settled, ends, placed), max(0.0, due - time.monotonic()))
                if not self._missing or (ends is not None and self._covers(ends)):
                    return 0
                if self._failure is not None:
                    raise self._failure
                if self._trouble is not None:
                    raise self._trouble
                if time.monotonic() >= last:
                    return len(self._missing)
                sources = {source for source, _, _ in self._missing}
                asks = ends is None and self._placed() and time.monotonic() >= deadline
            if asks:
                ends = self._log.ends(sources)

    def _settled(self, ends: Mapping[Partition, int] | None, placed: bool) -> bool:
        """Whether there is something to do for the one who waits."""
        stopped = self._failure is not None or self._trouble is not None
        return not self._missing or stopped or placed != self._placed() or (ends is not None and self._covers(ends))

    def _placed(self) -> bool:
        """Whether the topics of all that is missing are being read."""
        return {source for source, _, _ in self._missing} <= self._log.sources

    def _covers(self, ends: Mapping[Partition, int]) -> bool:
        """Whether everything that was in the logs then has been read."""
        return all(self._read_to.get(place, -1) >= end for place, end in ends.items())

    def _leave_out_absent(self, began: float) -> None:
        """A source without a transaction topic, which was looked for just now, says nothing about its transactions."""
        absent = {source for source, _, _ in self._missing} - self._log.sources
        if absent and self._refreshed_at > began - REFRESH_ASKED_S:
            self._missing = {one for one in self._missing if one[0] not in absent}

    # --- reading (the follower's thread)

    def _need_from(self, from_ms: int) -> None:
        if self._from_ms is None or from_ms < self._from_ms:
            self._seek_ms = from_ms
            self._start()
        self._from_ms = from_ms
        if self._seek_ms is None and (from_ms > self._swept_ms + self._margin_ms // 2 or self._store.full):
            self._store.forget_before(from_ms)
            self._swept_ms = from_ms

    def _start(self) -> None:
        self._wake.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="follower", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        delay = 0.1
        while not self._closing:
            try:
                self._step()
            except TransientError as error:
                self._tell(trouble=error)
                self._wake.clear()
                self._wake.wait(delay)
                delay = min(delay * 2, 2.0)
            except BaseException as error:  # noqa: BLE001 (raised where somebody waits)
                self._tell(failure=error)
                return
            else:
                delay = 0.1
                if self._trouble is not None:
                    self._tell()

    def _tell(self, trouble: TransientError | None = None, failure: BaseException | None = None) -> None:
        with self._changed:
            if (trouble is None) != (self._trouble is None):
                log.info("follower.away" if trouble else "follower.reading", reason=str(trouble or ""))
            self._trouble, self._failure = trouble, failure
            self._changed.notify_all()

    def _step(self) -> None:
        self._place()
        with self._changed:
            idle = self._store.full and not self._missing
            if idle:
                self._wake.clear()
        if idle:  # read ahead no further than fits into memory: nobody asks for it yet
            self._wake.wait(1.0)
            return
        if self._unapplied is None:
            self._unapplied = self._log.read(POLL_S)
        read = self._unapplied
        contexts = self._decoded(read.chunks) if read.chunks else None
        self._unapplied = None
        if not read.reached:
            return
        newest = {chunk.topic: max(chunk.timestamps_ms) for chunk in read.chunks}
        with self._changed:
            if contexts is not None:
                self._apply(contexts, newest)
            self._read_to.update(read.reached)
            self._changed.notify_all()

    def _place(self) -> None:
        """Go where reading should go on, and look for topics when that is due."""
        with self._changed:
            seek_ms = self._seek_ms
            asked = bool({source for source, _, _ in self._missing} - self._log.sources)
            due = REFRESH_ASKED_S if asked or self._log.stale else REFRESH_S
        began = time.monotonic()
        if seek_ms is not None:
            starts = self._log.seek(seek_ms)
            self._unapplied = None
        elif began - self._refreshed_at > due:
            starts = self._log.refresh()
        else:
            return
        with self._changed:
            self._refreshed_at = began
            self._read_to.update(starts)
            if seek_ms is not None:
                self._store.forgotten_ms = 0
                if self._seek_ms == seek_ms:
                    self._seek_ms = None
            self._leave_out_absent(began)
            self._changed.notify_all()

    def _decoded(self, chunks: Sequence[Chunk]) -> pl.DataFrame:
        schemas = self._registry.resolve(self._path.schema_ids(chunks))
        return self._path.run(chunks, schemas, time.time_ns() // 1000).transactions

    def _apply(self, records: pl.DataFrame, newest: Mapping[str, int]) -> None:
        columns = ("source", "epoch", "transaction_id", "kind", "rung", "offset", "context", "topic")
        whole = {topic: self._log.whole(topic) for topic in newest}
        for source, epoch, transaction_id, kind, rung, offset, context, topic in records.select(columns).iter_rows():
            one = (source, epoch, transaction_id)
            if kind == "begin":
                self._begun[one] = None
                continue
            if kind == "context":
                self._store.context(one, RANKS[rung], offset, context, newest[topic])
            else:
                seen = self._begun.pop(one, False) is None
                self._store.end(one, newest[topic], doubtful=not (seen or whole[topic]))
            self._missing.discard(one)
        self._newest_ms = max(self._newest_ms, *newest.values())
        if len(self._begun) > BEGUN_MAX:
            self._begun = dict(list(self._begun.items())[BEGUN_MAX // 2 :])


def _frame(found: Mapping[Transaction, Known]) -> pl.DataFrame:
    said = {one: known for one, known in found.items() if known.rank}
    if not said:
        return pl.DataFrame(schema=dict(CONTEXTS))
    rungs = [_RUNG_OF[known.rank] for known in said.values()]
    columns = (
        *zip(*said, strict=True),
        rungs,
        [known.at for known in said.values()],
        [known.context for known in said.values()],
    )
    return pl.DataFrame(dict(zip(CONTEXTS, columns, strict=True)), schema=dict(CONTEXTS))


class _Waits:
    """How long batches waited, and for how many transactions in vain."""

    def __init__(self) -> None:
        self._counts = [0] * (len(WAIT_BUCKETS_S) + 1)
        self._sum = 0.0
        self._unanswered = {"open": 0, "behind": 0, "forgotten": 0}

    def add(self, seconds: float, *, forgotten: int, behind: int, unanswered: int) -> None:
        """One wait."""
        self._counts[next((at for at, bound in enumerate(WAIT_BUCKETS_S) if seconds <= bound), len(WAIT_BUCKETS_S))] += 1
        self._sum += seconds
        for reason, count in (("forgotten", forgotten), ("behind", behind), ("open", unanswered - forgotten - behind)):
            self._unanswered[reason] += max(0, count)

    def collect(self) -> Iterator[Metric]:
        """As Prometheus wants them."""
        waits = HistogramMetricFamily("chronicle_attribution_wait_seconds", "How long batches waited for contexts and ENDs.")
        buckets, seen = [], 0
        for bound, count in zip([*map(str, WAIT_BUCKETS_S), "+Inf"], list(self._counts), strict=True):
            seen += count
            buckets.append((bound, seen))
        waits.add_metric([], buckets=buckets, sum_value=self._sum)
        yield waits
        counted = CounterMetricFamily(
            "chronicle_attribution_unanswered",
            "Transactions of batches that were written pending: still open, not reached in time, or too old for the follower.",
            labels=["reason"],
        )
        for reason, count in self._unanswered.items():
            counted.add_metric([reason], count)
        yield counted
