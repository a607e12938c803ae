"""The follower of the reference data: all entities in memory, as the topic has them, and the same in ClickHouse.

A batch gets the state that holds everything confirmed before it began: `snapshot` asks the broker where the topic ends and
waits until that has been read. So an update is effective at the next batch, and no batch is processed before the topic was
read to its end. ClickHouse's table follows a little later; it is made equal to the topic at every start.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import polars as pl
import structlog

from chronicle.codec.entity import Record
from chronicle.errors import ConfigError, TransientError
from chronicle.observe import explain
from chronicle.stages.enrich import EntityFrame
from chronicle.worker.entity_log import EntityLog, covered
from chronicle.worker.ledger import Partition

log = structlog.get_logger("chronicle.entities")

WAIT_S = 2.0
"""One call of `snapshot` waits so long for the reading of what is new; then it is a declared retry."""
POLL_S = 0.2
RETRY_S = 1.0
CLOSE_S = 5.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is kept in memory."""

    entities: int
    bytes: int
    """Of ids, names and metadata as text; the process needs about twice as much."""


class Table(Protocol):
    """ClickHouse's copy (`sinks.entities.EntityTable`)."""

    def known(self) -> pl.DataFrame:
        """Which states of which entities it holds. Raises TransientError, ConfigError."""

    def write(self, records: Iterable[Record]) -> None:
        """Hold these states. Raises TransientError, ConfigError."""

    def close(self) -> None:
        """Give back the connection."""


class EntityFollower:
    """Reads the topic in a thread of its own; a second one keeps the table. Implements `stages.enrich.Entities`."""

    def __init__(self, entity_log: EntityLog, bounds: Bounds, *, table: Table | None = None) -> None:
        """Nothing happens before `start`."""
        self._log, self._bounds, self._table = entity_log, bounds, table
        self._news = threading.Condition()
        self._frame = EntityFrame()
        self._reached: Mapping[Partition, int] = {}
        self._failure: BaseException | None = None
        self._away: TransientError | None = None
        self._stopping = threading.Event()
        self._unwritten: dict[str, Record] | None = None  # None: everything will be compared
        self.unreadable = 0
        """Records of the topic that are no entities."""
        self._threads = [threading.Thread(target=self._guarded(self._follow), name="entities", daemon=True)]
        if table is not None:
            self._threads.append(threading.Thread(target=self._guarded(self._keep), name="entities-table", daemon=True))

    def start(self) -> None:
        """Begin to read."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End the threads, as soon as what they wait for has answered."""
        self._stopping.set()
        with self._news:
            self._news.notify_all()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(CLOSE_S)

    def __len__(self) -> int:
        """Entities known now, without asking anybody."""
        return len(self._frame)

    def snapshot(self) -> EntityFrame:
        """Everything that the broker had confirmed when this was called.

        Raises:
            TransientError: the broker is away, or the topic is still being read.
            ConfigError: there are more entities than `worker.entities_max` or `worker.entities_bytes_max` allow, the topic
                is gone, or ClickHouse has no table for them.
            StopWorker: the topic was made anew.
        """
        with self._news:
            self._await(lambda: self._reached, f"the broker has not said where {self._log.topic} begins")
        ends = self._log.ends()
        with self._news:
            if any(self._reached[place] > end for place, end in ends.items()):
                raise self._log.made_anew()
            self._await(lambda: covered(self._reached, ends), f"{self._log.topic} is still being read")
            return self._frame

    def _await(self, condition: Callable[[], object], why: str) -> None:
        """Returns when it holds, within `WAIT_S`; the lock is held."""
        done = self._news.wait_for(lambda: self._failure is not None or condition(), WAIT_S)
        if self._failure is not None:
            raise self._failure
        if not done:
            raise self._away or TransientError(f"{why} ({len(self._frame)} entities so far)")

    # --- the topic

    def _follow(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    if not self._reached:
                        self._opened(self._log.open())
                    self._take()
                    self._away = None
                except TransientError as error:
                    self._away = error
                    self._stopping.wait(RETRY_S)
        finally:
            self._log.close()

    def _opened(self, starts: Mapping[Partition, int]) -> None:
        with self._news:
            self._reached = starts
            self._news.notify_all()

    def _take(self) -> None:
        """Read on, and make what is read the state."""
        found = self._log.read(POLL_S)
        frame = self._frame.changed(found.records)
        self._check(frame)
        if found.unreadable:
            log.warning("entities.unreadable", topic=self._log.topic, records=found.unreadable)
        with self._news:
            self._frame = frame
            self.unreadable += found.unreadable
            self._reached = found.reached
            if self._unwritten is not None:
                for record in found.records:
                    self._unwritten[record.id] = record
            self._news.notify_all()

    def _check(self, frame: EntityFrame) -> None:
        if len(frame) > self._bounds.entities:
            raise ConfigError(f"raise worker.entities_max: {self._log.topic} has more than {self._bounds.entities} entities")
        if frame.size > self._bounds.bytes:
            raise ConfigError(
                f"raise worker.entities_bytes_max: the entities of {self._log.topic} have more than {self._bounds.bytes} bytes"
            )

    # --- the table

    def _keep(self) -> None:
        table = self._table
        if table is None:
            raise AssertionError("no table: a bug")
        waiting: dict[str, Record] = {}
        compared = False
        try:
            while not self._stopping.is_set():
                try:
                    if not compared:
                        waiting = {record.id: record for record in self._compared(table)}
                        compared = True
                    if waiting:
                        table.write(waiting.values())
                    with self._news:
                        self._news.wait_for(lambda: self._stopping.is_set() or self._unwritten)
                        waiting, self._unwritten = self._unwritten or {}, {}
                except TransientError as error:
                    log.warning("entities.table_behind", reason=str(error))
                    self._stopping.wait(RETRY_S)
        finally:
            table.close()

    def _compared(self, table: Table) -> list[Record]:
        """What the table lacks. It is read first: whatever it holds then is in the state that is waited for afterwards."""
        known = table.known()
        self.snapshot()
        with self._news:
            self._unwritten = {}
            frame = self._frame
        return lacking(frame, known)

    def _guarded(self, work: Callable[[], None]) -> Callable[[], None]:
        """A thread that ends with an error makes every later snapshot fail with it: the state would be old."""

        def run() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 (raised again by whoever asks next)
                log.error("entities.failed", **explain(error))
                with self._news:
                    self._failure = self._failure or error
                    self._news.notify_all()

        return run


def lacking(entities: EntityFrame, known: pl.DataFrame) -> list[Record]:
    """What must be written so that a table that held `known` (id, at_ms, offset of its entities) equals these entities.

    What the table has besides becomes deleted, in a state that is newer than the table's and older than any other.
    """
    version = ["at_ms", "offset"]
    both = entities.frame.join(known, on="id", how="left", suffix="_known")
    newer = pl.struct(version) != pl.struct(*(pl.col(f"{name}_known").alias(name) for name in version))
    fresh = both.filter(pl.col("at_ms_known").is_null() | newer).select("id", "body", *version)
    gone = known.join(entities.frame, on="id", how="anti").select("id", *version)
    return [
        *(Record(id_, body, at_ms, offset) for id_, body, at_ms, offset in fresh.iter_rows()),
        *(Record(id_, None, at_ms, offset + 1) for id_, at_ms, offset in gone.iter_rows()),
    ]
