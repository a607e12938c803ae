"""Events from the service to the store within one process: gathered to batches, processed by one thread, then confirmed."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from chronicle.errors import TransientError
from chronicle.model.chunk import Chunk

Record = tuple[bytes, bytes]
"""Key and value, as on the topic."""
CLOSE_S = 20.0
"""How long what was handed in may take to be held when the process is asked to end."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of what waits, and of a batch."""

    linger_s: float = 0.003
    """How long a batch waits for more once it has a record. Whatever comes while one is processed is in the next anyway."""
    batch_records_max: int = 10_000
    waiting_records_max: int = 50_000
    waiting_bytes_max: int = 64 * 1024 * 1024


class Overloaded(TransientError):
    """More is waiting than the bounds allow: hand it in again later."""


class Stopped(TransientError):
    """The pipeline has ended: nothing is taken any more."""


@dataclass(slots=True)
class _HandedIn:
    records: Sequence[Record]
    bytes: int
    done: Future[None]


class Pipeline:
    """`hand_in` may be called from any thread; its future is done when the store holds all of its records."""

    def __init__(
        self,
        process: Callable[[Chunk], object],
        topic: str,
        first_offset: int,
        *,
        stopping: threading.Event,
        failed: Callable[[BaseException], None],
        bounds: Bounds = Bounds(),
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """`process` returns when the store holds the chunk, and waits itself while the store is away, until `stopping` is set.

        `first_offset`: one more than the highest that the store has of this topic. `failed` is called with what ended the
        pipeline by itself: nothing can be decided any more, and the process should end.
        """
        self._process, self._topic, self._next = process, topic, first_offset
        self._stopping, self._failed, self._bounds, self._now_ms = stopping, failed, bounds, now_ms
        self._waiting: deque[_HandedIn] = deque()
        self._records = self._bytes = 0
        self._changed = threading.Condition()
        self._closing = False
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="pipeline", daemon=True)

    def start(self) -> None:
        """Begin to take records."""
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Records that are handed in and not held yet."""
        return self._records

    @property
    def ended(self) -> bool:
        """Whether nothing is taken any more."""
        return self._closing or self._ended

    def hand_in(self, records: Sequence[Record]) -> Future[None]:
        """Take these records, all of them in one batch. A future that fails says that they may or may not be held.

        Raises:
            Overloaded: too much is waiting.
            Stopped: the pipeline has ended.
        """
        size = sum(len(key) + len(value) for key, value in records)
        item = _HandedIn(records, size, Future())
        item.done.set_running_or_notify_cancel()  # from here on nobody can cancel it: the records are taken
        with self._changed:
            if self.ended:
                raise Stopped("hand it in again when the service is back: it is ending")
            if self._records and (
                self._records + len(records) > self._bounds.waiting_records_max
                or self._bytes + size > self._bounds.waiting_bytes_max
            ):
                raise Overloaded("hand it in again later: too many events are waiting for the store")
            self._waiting.append(item)
            self._records += len(records)
            self._bytes += size
            self._changed.notify()
        return item.done

    def close(self) -> None:
        """Take nothing more, finish what was handed in, and end; what the store cannot take in time is not confirmed."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(CLOSE_S)
            self._stopping.set()  # ends a wait for a store that is away
            self._thread.join(CLOSE_S)

    def _run(self) -> None:
        while batch := self._gathered():
            try:
                self._process(self._chunk(batch))
            except BaseException as error:  # noqa: BLE001 (whatever it is, nobody was told that these are held)
                self._end(batch, error)
                return
            self._let_go(batch)
            for item in batch:
                item.done.set_result(None)

    def _gathered(self) -> list[_HandedIn]:
        """The next batch; empty: closing, and nothing is left."""
        with self._changed:
            while not self._waiting and not self._closing:
                self._changed.wait()
            until = time.monotonic() + self._bounds.linger_s
            while self._records < self._bounds.batch_records_max and not self._closing:
                left = until - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            batch: list[_HandedIn] = []
            count = 0
            while self._waiting and (not batch or count + len(self._waiting[0].records) <= self._bounds.batch_records_max):
                batch.append(self._waiting.popleft())
                count += len(batch[-1].records)
            return batch

    def _chunk(self, batch: Sequence[_HandedIn]) -> Chunk:
        records = [record for item in batch for record in item.records]
        first, self._next = self._next, self._next + len(records)
        return Chunk(
            topic=self._topic,
            partition=0,
            offsets=range(first, first + len(records)),
            timestamps_ms=[self._now_ms()] * len(records),
            keys=[key for key, _ in records],
            values=[value for _, value in records],
            headers=[()] * len(records),
        )

    def _let_go(self, items: Sequence[_HandedIn]) -> None:
        with self._changed:
            self._records -= sum(len(item.records) for item in items)
            self._bytes -= sum(item.bytes for item in items)

    def _end(self, batch: Sequence[_HandedIn], error: BaseException) -> None:
        with self._changed:
            self._ended = True
            left = [*batch, *self._waiting]
            self._waiting.clear()
        self._let_go(left)
        try:
            self._failed(error)  # first: whoever hears that it ended can ask why
        finally:
            for item in left:
                item.done.set_exception(
                    Stopped("hand it in again when the service is back: it ended before the store held this")
                )
