"""The batcher: limits, one batch in flight, and that nothing unprocessed is acknowledged."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from chronicle.model.chunk import Chunk
from chronicle.worker.batcher import Batcher, Limits
from chronicle.worker.ledger import Ledger
from chronicle.worker.transport import Delivery

DEADLINE_S = 10.0


class Bench:
    """A batcher over a ledger; `gate` holds batches in `process` while it is clear."""

    def __init__(self, *, rows_max: int = 10, bytes_max: int = 1_000_000, flush_s: float = 0.0) -> None:
        self.ledger = Ledger()
        self.ledger.begin(("t", 0), 0, None)
        self.batches: list[list[int]] = []
        self.acknowledged: list[int] = []
        self.failures: list[BaseException] = []
        self.gate = threading.Event()
        self.gate.set()
        self.error: BaseException | None = None
        self.at = 0
        self.batcher = Batcher(
            Limits(rows_max, bytes_max, flush_s),
            process=self._process,
            acknowledge=self._acknowledge,
            is_current=lambda delivery: delivery.ticket.epoch == self.ledger.epoch,
            failed=self.failures.append,
        )

    def _process(self, chunks: list[Chunk]) -> None:
        assert self.gate.wait(DEADLINE_S)
        if self.error is not None:
            raise self.error
        self.batches.append([offset for chunk in chunks for offset in chunk.offsets])

    def _acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        self.acknowledged += [offset for delivery in deliveries for offset in delivery.chunk.offsets]

    def add(self, rows: int, size: int = 1) -> None:
        offsets = range(self.at, self.at + rows)
        self.at += rows
        chunk = Chunk("t", 0, offsets, offsets, [None] * rows, [None] * rows, [()] * rows)
        ticket = self.ledger.deliver(("t", 0), first=offsets[0], last=offsets[-1], timestamp_ms=0, rows=rows, size=size)
        self.batcher.add(Delivery(chunk, ticket))


def run(law: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(law(), DEADLINE_S))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_a_batch_waits_for_company_until_the_flush_interval() -> None:
    """Chunks that arrive within the interval make one batch."""

    async def law() -> None:
        bench = Bench(flush_s=0.05)
        bench.add(2)
        bench.add(3)
        assert bench.batches == []
        await until(lambda: len(bench.acknowledged) == 5)
        assert bench.batches == [[0, 1, 2, 3, 4]]

    run(law)


def test_a_full_batch_does_not_wait() -> None:
    """At the row limit the interval does not matter."""

    async def law() -> None:
        bench = Bench(flush_s=60)
        bench.add(10)
        await until(lambda: len(bench.acknowledged) == 10)

    run(law)


def test_a_batch_is_cut_at_its_limits() -> None:
    """What gathered while one was in flight is cut by rows and by bytes, and a chunk above the limit goes alone."""

    async def law() -> None:
        bench = Bench(rows_max=10, bytes_max=100)
        bench.gate.clear()
        bench.add(1)
        for rows, size in ((4, 1), (4, 1), (4, 1), (1, 90), (1, 90), (25, 1)):
            bench.add(rows, size)
        bench.gate.set()
        await until(lambda: len(bench.acknowledged) == bench.at)
        assert [len(batch) for batch in bench.batches] == [1, 8, 5, 1, 25]
        assert [offset for batch in bench.batches for offset in batch] == list(range(bench.at))

    run(law)


def test_nothing_is_acknowledged_when_processing_fails() -> None:
    """The failure is handed over, no further batch is started, and no exception leaves."""

    async def law() -> None:
        bench = Bench()
        bench.error = RuntimeError("a bug")
        bench.add(10)
        await until(lambda: bool(bench.failures))
        bench.error = None
        bench.add(10)
        assert not await bench.batcher.drain(0.05)
        assert (bench.batches, bench.acknowledged) == ([], [])

    run(law)


def test_revoked_chunks_are_not_processed() -> None:
    """After a rebalance only the batch that was in flight has been processed; waiting chunks come again by themselves."""

    async def law() -> None:
        bench = Bench(rows_max=5)
        bench.gate.clear()
        bench.add(5)
        bench.add(5)
        settled = asyncio.create_task(bench.batcher.settle(DEADLINE_S))
        await asyncio.sleep(0)
        bench.gate.set()
        assert await settled
        bench.ledger.reset()
        bench.ledger.begin(("t", 0), 5, None)
        bench.batcher.release()
        bench.add(5)
        await until(lambda: len(bench.batches) == 2)
        assert bench.batches == [[0, 1, 2, 3, 4], [10, 11, 12, 13, 14]]

    run(law)


def test_settling_gives_up_on_a_batch_that_takes_too_long() -> None:
    """A declared retry does not hold up a rebalance."""

    async def law() -> None:
        bench = Bench()
        bench.gate.clear()
        bench.add(10)
        assert not await bench.batcher.settle(0.01)
        bench.gate.set()

    run(law)


def test_draining_processes_everything_that_was_delivered_at_once() -> None:
    """A stop does not wait for the flush interval, and says when all is done."""

    async def law() -> None:
        bench = Bench(flush_s=60)
        bench.add(3)
        bench.add(3)
        assert await bench.batcher.drain(DEADLINE_S)
        assert bench.acknowledged == list(range(6))

    run(law)
