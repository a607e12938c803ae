"""Faust's Kafka driver for batches, `chronicle://`: one Faust message carries a whole fetched chunk of raw records.

Registered in the entry-point group `faust.transports`. Differences from Faust's own driver, each for a measured reason
(`shared/facts.md` 18 to 20, 24, 28, 46 to 49):

- a message's value is a `Delivery` with a `Chunk`, so that Faust's per-message cost is paid once per chunk;
- nothing is fetched while too many rows or bytes are delivered and not acknowledged;
- the committed offset is the end of the acknowledged prefix, never a guess; acknowledgements of an earlier epoch are void;
- every (re)assignment compares committed offsets with the log, and a jump in offsets is checked against the log's start;
- errors of a broker that is away are a declared retry, not a crash.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import structlog
from aiokafka.errors import ConsumerStoppedError, KafkaError
from faust import Schema
from faust.transport.drivers.aiokafka import Consumer, Transport
from faust.types import TP, ConsumerMessage

from chronicle.errors import StopWorker
from chronicle.model.chunk import Chunk
from chronicle.worker.fetching import FetchThread
from chronicle.worker.ledger import Gap, Ledger, Partition, Ticket, describe, find_gaps
from chronicle.worker.status import Status

log = structlog.get_logger("chronicle.transport")

POLL_S = 1.0
SETTLE_S = 5.0
"""How long a rebalance waits for the batch in flight, so that its offsets can still be committed."""
COMMIT_S = 5.0
"""How long a rebalance or a stop waits for a commit; what is not committed comes again."""
FETCH_BYTES_MIN, FETCH_BYTES_MAX = 64 * 1024, 2 * 1024 * 1024


@dataclass(frozen=True, slots=True, eq=False)
class Delivery:
    """A chunk on its way through the agent, and the ledger's ticket for it."""

    chunk: Chunk
    ticket: Ticket


async def _nothing() -> None:
    return None


@dataclass(slots=True)
class Control:
    """What the worker tells its transport; found at `app.control`."""

    status: Status
    rows_max: int
    """Delivered and not acknowledged: no fetch beyond it."""
    bytes_max: int
    chunk_rows_max: int
    chunk_bytes_max: int
    accept_gap: bool = False
    settle: Callable[[], Awaitable[None]] = _nothing
    """Called when partitions are revoked: returns when the batch in flight is done or cannot be awaited."""
    released: Callable[[], None] = lambda: None
    """Called after the revoked chunks became void."""
    failpoint: Callable[[str], None] = lambda _name: None


class BatchConsumer(Consumer):
    """Delivers chunks, keeps the ledger, commits acknowledged prefixes."""

    _thread: FetchThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.control: Control = cast(Any, self.app).control
        self.ledger = Ledger()
        self.closing = False
        """Set for good when the worker stops: what is in flight may finish, nothing more is delivered."""
        self._seek_pending = False
        self._recreated: set[Partition] = set()
        self._room = asyncio.Event()
        self._commit_lock = asyncio.Lock()

    def _new_consumer_thread(self) -> FetchThread:
        return FetchThread(self, loop=self.loop, beacon=self.beacon)

    def verify_event_path(self, now: float, tp: Any) -> None:
        """Silent: see `FetchThread.verify_event_path`."""

    # --- acknowledging and committing

    def acknowledge(self, deliveries: Iterable[Delivery]) -> None:
        """The sinks hold these chunks. Void for chunks that were revoked meanwhile."""
        for delivery in deliveries:
            self.ledger.acknowledge(delivery.ticket)
        self._room.set()

    def is_current(self, delivery: Delivery) -> bool:
        """False when the chunk was revoked and will be delivered again, here or elsewhere."""
        return delivery.ticket.epoch == self.ledger.epoch

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:  # noqa: ARG002 (Faust's signature)
        """Commit what is acknowledged. Not while rebalancing: it would fail and force one more rebalance."""
        return False if self.app.rebalancing else await self.commit_now()

    async def commit_now(self) -> bool:
        """Commit acknowledged prefixes of this epoch; True when the broker holds all of them."""
        async with self._commit_lock:
            offsets, epoch = self.ledger.committable(), self.ledger.epoch
            if not offsets:
                return True
            try:
                done = await self._thread.commit({TP(*partition): offset for partition, offset in offsets.items()})
            except KafkaError as error:
                if error.retriable:
                    return False
                self._fatal(
                    StopWorker(f"the broker refuses to commit offsets ({type(error).__name__}): check the group's rights")
                )
                return False
            if done:
                self.ledger.committed(offsets, epoch)
                log.debug("offsets.committed", partitions=len(offsets))
            return bool(done)

    def _fatal(self, error: StopWorker) -> None:
        self.control.status.fail(error)

    # --- rebalancing

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Let the batch in flight end, commit while the old generation is valid, then void everything delivered."""
        self.control.status.unassigned()
        if revoked:
            await self.control.settle()
            self.control.failpoint("rebalance")
            try:
                await asyncio.wait_for(self.commit_now(), COMMIT_S)
            except TimeoutError:
                log.warning("commit.timeout", seconds=COMMIT_S)
        self._void()
        self.control.released()
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        await super().on_partitions_assigned(assigned, generation_id)
        if not assigned:
            self.control.status.assigned(0)

    async def perform_seek(self) -> None:
        """Faust asks for it after every assignment; done in the fetch loop, where it can be repeated."""
        self._void()

    def _void(self) -> None:
        self.ledger.reset()
        self._seek_pending = True
        self._room.set()

    async def _seek(self) -> None:  # type: ignore[override]
        self._seek_pending = False
        self.ledger.reset()  # whatever is in flight comes again
        self.control.released()
        epoch, status = self.ledger.epoch, self.control.status
        partitions = self.assignment()
        if not partitions:
            return
        committed, starts, ends = await self._thread.offsets(partitions)
        status.recovered("broker")
        gaps = find_gaps(committed, starts, ends)
        if gaps and not self._accepted(gaps):
            return
        lost = {gap.partition for gap in gaps} | (self._recreated & set(committed))
        positions = {
            tp: starts[tp] if offset is None or tp in lost else offset for tp, offset in committed.items() if tp in starts
        }
        fetch_bytes = max(FETCH_BYTES_MIN, min(FETCH_BYTES_MAX, self.control.bytes_max // len(positions)))
        sought = await self._thread.seek_all(positions, fetch_bytes)
        if not sought or epoch != self.ledger.epoch:
            self._seek_pending = True
            return
        for tp, position in positions.items():
            known = None if tp in lost else committed[tp]
            self.ledger.begin(tp, position, known)
        self._recreated.clear()
        log.info("partitions.assigned", partitions=len(positions))
        status.assigned(len(positions))

    def _accepted(self, gaps: Sequence[Gap]) -> bool:
        if self.control.accept_gap:
            for gap in gaps:
                log.error("gap.accepted", topic=gap.partition[0], partition=gap.partition[1], first=gap.first, last=gap.last)
            return True
        self._fatal(StopWorker(describe(gaps)))
        return False

    # --- fetching

    async def _drain_messages(self, fetcher: Any) -> None:
        try:
            while not (self._stopped.is_set() or fetcher._stopped.is_set()):
                try:
                    await self._step()
                except ConsumerStoppedError:
                    if self.app.should_stop:
                        return
                    raise
                except KafkaError as error:
                    if not error.retriable:
                        self._fatal(
                            StopWorker(f"the broker refuses to be read ({type(error).__name__}): check rights and topics")
                        )
                    self.control.status.retrying("broker", error)
                    self._seek_pending = True
                    await self.sleep(1.0)
        except asyncio.CancelledError:
            if not self.app.should_stop:
                raise
        except Exception as error:  # noqa: BLE001 (told, not swallowed)
            self.control.status.fail(error)  # a bug: the process ends, unacknowledged

    async def _step(self) -> None:
        if not self.flow_active:
            await self.wait(self.can_resume_flow.wait())
            return
        room = min(self.control.rows_max - self.ledger.rows, self.control.chunk_rows_max)
        if self.closing or self.control.status.failed.is_set() or room <= 0 or self.ledger.size >= self.control.bytes_max:
            self._room.clear()
            await self.wait_first(self._room.wait(), self.suspend_flow.wait(), timeout=POLL_S)
            return
        if self._seek_pending:
            await self._seek()
            return
        active = self._get_active_partitions()
        if not active:
            await self.sleep(0.2)
            return
        epoch = self.ledger.epoch
        records = await self._thread.poll(active, timeout=POLL_S, max_records=room)
        if epoch != self.ledger.epoch or self._seek_pending or not self.flow_active:
            self._seek_pending = True  # what was fetched is dropped, so it must be fetched again
            return
        if not records:
            await self._skip_markers(epoch)
        for tp, found in records.items():
            if not await self._deliver_all(tp, found, epoch):
                self._seek_pending = True
                return

    async def _skip_markers(self, epoch: int) -> None:
        """Nothing was fetched, so nothing is between ledger and fetcher: what the fetcher skipped are markers."""
        positions = await self._thread.positions(self._get_active_partitions())
        if epoch == self.ledger.epoch and self.flow_active:
            for tp, position in positions.items():
                self.ledger.skip_to(tp, position)

    async def _deliver_all(self, tp: TP, records: Sequence[Any], epoch: int) -> bool:
        """Hand all records of one partition to the agent; False when a rebalance came between."""
        partition = (tp.topic, tp.partition)
        expected, first = self.ledger.position(partition), records[0].offset
        if expected is None:
            return False
        if first != expected and not await self._jump(partition, expected, first):
            return False
        for chunk, size in cut(partition, records, self.control.chunk_bytes_max):
            if epoch != self.ledger.epoch or not self.flow_active:
                return False
            delivery = self._delivery(chunk, size)
            await self.wait_first(self.callback(self._message(tp, delivery)), self.suspend_flow.wait())
        return True

    def _message(self, tp: TP, delivery: Delivery) -> ConsumerMessage:
        """Faust's message around a delivery; its offset is the chunk's last."""
        ticket = delivery.ticket
        stamp = ticket.timestamp_ms / 1000.0
        value: Any = delivery  # Faust says bytes, and only passes it on
        message = ConsumerMessage(tp.topic, tp.partition, ticket.last, stamp, 0, None, None, value, None, 0, 0, tp)
        message.generation_id = self.app.consumer_generation_id
        return message

    def _delivery(self, chunk: Chunk, size: int) -> Delivery:
        ticket = self.ledger.deliver(
            (chunk.topic, chunk.partition),
            first=chunk.offsets[0],
            last=chunk.offsets[-1],
            timestamp_ms=chunk.timestamps_ms[0],
            rows=len(chunk),
            size=size,
        )
        return Delivery(chunk, ticket)

    async def _jump(self, partition: Partition, expected: int, first: int) -> bool:
        """The next record is not the next offset: markers (harmless), retention, or a topic that was recreated."""
        _, starts, ends = await self._thread.offsets([partition])
        gaps = find_gaps({partition: expected}, starts, ends)
        if first < expected and not gaps:
            gaps = [Gap(partition, first, expected - 1, "the log starts again at lower offsets: the topic was recreated")]
        if gaps and not self._accepted(gaps):
            return False
        if first < expected:
            self._recreated.add(partition)  # accepted: read the new log from its start
            return False
        return True


def cut(partition: Partition, records: Sequence[Any], bytes_max: int) -> Iterator[tuple[Chunk, int]]:
    """aiokafka's records of one partition as chunks of at most `bytes_max` (a larger record is alone), and the bytes of each
    chunk's keys and values."""
    keys, values = [r.key for r in records], [r.value for r in records]
    size = sum(map(len, filter(None, keys))) + sum(map(len, filter(None, values)))
    if size > bytes_max and len(records) > 1:
        middle = len(records) // 2
        yield from cut(partition, records[:middle], bytes_max)
        yield from cut(partition, records[middle:], bytes_max)
        return
    chunk = Chunk(
        topic=partition[0],
        partition=partition[1],
        offsets=[r.offset for r in records],
        timestamps_ms=[r.timestamp for r in records],
        keys=keys,
        values=values,
        headers=[tuple(r.headers) for r in records],
    )
    yield chunk, size


class BatchTransport(Transport):
    """The driver behind `chronicle://host:port`."""

    Consumer = BatchConsumer


class RawSchema(Schema):  # type: ignore[type-arg]
    """Hands the message's value to the agent as it is."""

    def compile(self, app: Any, **kwargs: Any) -> Any:  # noqa: ARG002 (Faust's signature)
        """The function Faust calls for each message: no codec, no copy."""
        create = app.create_event

        async def decode(message: Any, *, propagate: bool = False) -> Any:  # noqa: ARG001 (Faust's signature)
            return create(None, message.value, None, message)

        return decode
