"""Collects chunks into batches and processes one batch at a time in its own thread, while the next one is fetched.

The batcher never acknowledges what was not processed, and no exception leaves it: whatever goes wrong is handed to
`failed`, after which no further batch is started.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import structlog

from chronicle.model.chunk import Chunk
from chronicle.worker.transport import Delivery

log = structlog.get_logger("chronicle.batcher")


@dataclass(frozen=True, slots=True)
class Limits:
    """When a batch is full."""

    rows_max: int
    bytes_max: int
    flush_interval_s: float
    """The oldest chunk waits no longer than this for company, unless a batch is in flight."""


class Batcher:
    """One batch in flight, the next one growing. All methods run in the event loop's thread."""

    def __init__(
        self,
        limits: Limits,
        *,
        process: Callable[[list[Chunk]], object],
        acknowledge: Callable[[Sequence[Delivery]], None],
        is_current: Callable[[Delivery], bool],
        failed: Callable[[BaseException], None],
    ) -> None:
        """`process` runs in the batcher's thread and returns only when every sink holds the batch."""
        self._limits = limits
        self._process = process
        self._acknowledge = acknowledge
        self._is_current = is_current
        self._failed = failed
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="batch")
        self._waiting: list[Delivery] = []
        self._rows = self._size = 0
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._flight: asyncio.Task[None] | None = None
        self._held = False
        self._draining = False
        self._dead = False

    def add(self, delivery: Delivery) -> None:
        """Take one chunk. The transport bounds how many there can be."""
        if not self._waiting:
            self._since = asyncio.get_running_loop().time()
        self._waiting.append(delivery)
        self._rows += delivery.ticket.rows
        self._size += delivery.ticket.size
        self._start_if_due()

    async def settle(self, timeout: float) -> bool:
        """Start nothing more until `release`, and wait for the batch in flight; False when it took too long."""
        self._held = True
        flight = self._flight
        if flight is None:
            return True
        done, _ = await asyncio.wait([flight], timeout=timeout)
        return bool(done)

    def release(self) -> None:
        """After a rebalance: forget chunks that were revoked and go on."""
        self._held = False
        self._drop_void()
        self._start_if_due()

    async def drain(self, timeout: float) -> bool:
        """Process all that was delivered, without waiting for more; False when it took too long."""
        self._draining = True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        self._start_if_due()
        while self._flight is not None and loop.time() < deadline:
            await asyncio.wait([self._flight], timeout=deadline - loop.time())
        return self._flight is None and not self._waiting

    def close(self) -> None:
        """Give back the thread; a batch that is still in it is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _drop_void(self) -> None:
        kept = [delivery for delivery in self._waiting if self._is_current(delivery)]
        if len(kept) != len(self._waiting):
            self._waiting = kept
            self._rows = sum(delivery.ticket.rows for delivery in kept)
            self._size = sum(delivery.ticket.size for delivery in kept)

    def _full(self) -> bool:
        return self._rows >= self._limits.rows_max or self._size >= self._limits.bytes_max

    def _start_if_due(self) -> None:
        if self._flight is not None or self._held or self._dead or not self._waiting:
            return
        loop = asyncio.get_running_loop()
        left = self._since + self._limits.flush_interval_s - loop.time()
        if self._full() or left <= 0 or self._draining:
            batch = self._cut()
            if batch:
                self._flight = loop.create_task(self._run(batch))
        elif self._timer is None:
            self._timer = loop.call_later(left, self._fire)

    def _fire(self) -> None:
        self._timer = None
        self._start_if_due()

    def _cut(self) -> list[Delivery]:
        """The oldest chunks up to the limits: the waiting part grows while a batch is in flight."""
        self._drop_void()
        rows = size = count = 0
        for delivery in self._waiting:
            ticket = delivery.ticket
            if count and (rows + ticket.rows > self._limits.rows_max or size + ticket.size > self._limits.bytes_max):
                break
            rows, size, count = rows + ticket.rows, size + ticket.size, count + 1
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        self._rows -= rows
        self._size -= size
        self._since = asyncio.get_running_loop().time()
        return batch

    async def _run(self, batch: list[Delivery]) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._pool, self._process, [delivery.chunk for delivery in batch])
            self._acknowledge(batch)
        except BaseException as error:  # noqa: BLE001 (no exception may leave: Faust would acknowledge, fact 18)
            self._dead = True
            self._failed(error)
        finally:
            self._flight = None
            self._start_if_due()
