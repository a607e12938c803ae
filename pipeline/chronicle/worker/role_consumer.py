"""The consumer of a role's workers: batches of whole records, committed only when they are acknowledged.

confluent-kafka and a plain loop, where the stream worker has Faust: a role reads few records, and waits for destinations
much longer than for Kafka.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from chronicle.errors import ConfigError, Interrupted, StopWorker, TransientError
from chronicle.model.chunk import Chunk, Headers
from chronicle.worker.ledger import Gap, Ledger, Partition, Ticket, find_gaps
from chronicle.worker.status import Status
from chronicle.worker.topics import translated

log = structlog.get_logger("chronicle.role")

T = TypeVar("T")

POLL_S = 0.2
TIMEOUT_S = 10.0
BATCH_BYTES_MAX = 64 * 1024 * 1024
"""A batch ends here as well: an audit record may have 32 MiB."""
_TAKEN_MAX = 500
_AT_END = KafkaError._PARTITION_EOF
_BEHIND_US = KafkaError._AUTO_OFFSET_RESET
_ABSENT = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC)


@dataclass(frozen=True, slots=True)
class Limits:
    """When a batch ends: at the first of these."""

    rows_max: int
    wait_s: float
    """Since its first record."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A batch and what acknowledges it."""

    chunks: Sequence[Chunk] = field(repr=False)
    tickets: Sequence[Ticket] = field(repr=False)


class RoleConsumer:
    """Used from one thread; `ledger.standings()` may be read from another.

    Every assignment begins at the committed offsets, or at a log's start. Records that were deleted before they were read
    stop the worker (`StopWorker`), unless the gap is accepted.
    """

    def __init__(
        self,
        client_config: Mapping[str, Any],
        group: str,
        topics: Sequence[str],
        *,
        status: Status,
        limits: Limits,
        accept_gap: bool = False,
    ) -> None:
        """Joins the group with the first `fetch`."""
        self.ledger = Ledger()
        self._status, self._limits, self._accept_gap = status, limits, accept_gap
        self._held: dict[Partition, list[Message]] = {}
        self._rows = self._bytes = 0
        self._began = 0.0
        self._at_end: set[Partition] = set()
        self._consumer = Consumer(
            {
                **client_config,
                "group.id": group,
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",  # a gap is an alarm, not a jump
                "partition.assignment.strategy": "roundrobin",
                "session.timeout.ms": 10_000,
                "queued.max.messages.kbytes": BATCH_BYTES_MAX // 1024,
            }
        )
        self._consumer.subscribe(list(topics), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked)

    def fetch(self, ended: Callable[[], bool]) -> Fetched | None:
        """The next batch; None when `ended` says so before one is whole (what was read then comes again)."""
        while not ended():
            self._status.beat()
            left = self._began + self._limits.wait_s - time.monotonic() if self._rows else POLL_S
            if self._rows >= self._limits.rows_max or self._bytes >= BATCH_BYTES_MAX or left <= 0:
                return self._batch()
            self._take(min(left, POLL_S))
            if self._rows:
                self._status.progress()  # waiting for the batch to fill is no stall
            else:
                self.commit()  # what could not be committed before
        return None

    def keep_alive(self) -> None:
        """To be called while a batch is being processed for long: the group goes on, nothing more is fetched."""
        self._status.beat()
        self._call(lambda: self._consumer.pause(self._consumer.assignment()))
        self._take(POLL_S)

    def acknowledge(self, fetched: Fetched) -> None:
        """Every sink holds the batch: commit it, as far as its partitions are still ours. What is not committed comes again."""
        current = [self.ledger.acknowledge(ticket) for ticket in fetched.tickets]
        if not all(current):
            log.warning("batch.revoked", chunks=current.count(False))
        self._call(lambda: self._consumer.resume(self._consumer.assignment()))
        self.commit()

    def commit(self) -> None:
        """Commit what is acknowledged; a refusal is logged, and the next call tries again."""
        offsets, epoch = self.ledger.committable(), self.ledger.epoch
        if not offsets:
            return
        places = [TopicPartition(topic, number, offset) for (topic, number), offset in offsets.items()]
        try:
            self._consumer.commit(offsets=places, asynchronous=False)
        except KafkaException as error:
            log.warning("commit.refused", reason=error.args[0].name())
        else:
            self.ledger.committed(offsets, epoch)

    def drained(self) -> bool:
        """Whether every partition is at its end and acknowledged, and there is an assignment."""
        standings = list(self.ledger.standings())
        settled = self._status.not_ready() is None and not self._rows
        return settled and all(one.partition in self._at_end and one.unacknowledged_from == one.position for one in standings)

    def close(self) -> None:
        """Leave the group; commits nothing."""
        self._consumer.close()

    # --- records

    def _take(self, timeout_s: float) -> None:
        for message in self._call(lambda: self._consumer.consume(_TAKEN_MAX, timeout_s)):
            partition = (message.topic() or "", message.partition() or 0)
            error = message.error()
            if error is None:
                self._hold(partition, message)
            elif error.code() == _AT_END:
                self._at_end.add(partition)
                if partition not in self._held:
                    self.ledger.skip_to(partition, message.offset() or 0)
            else:
                self._complain(error, partition)
            self._status.recovered("broker")

    def _hold(self, partition: Partition, message: Message) -> None:
        if self.ledger.position(partition) is None:
            return  # of an assignment that is over
        if not self._rows:
            self._began = time.monotonic()
        self._held.setdefault(partition, []).append(message)
        self._at_end.discard(partition)
        self._rows += 1
        self._bytes += _size(message)

    def _batch(self) -> Fetched:
        chunks, tickets = [], []
        for partition, messages in self._held.items():
            chunk = _chunk(partition, messages)
            chunks.append(chunk)
            ticket = self.ledger.deliver(
                partition,
                first=chunk.offsets[0],
                last=chunk.offsets[-1],
                timestamp_ms=chunk.timestamps_ms[0],
                rows=len(chunk),
                size=sum(map(_size, messages)),
            )
            tickets.append(ticket)
        self._let_go()
        return Fetched(chunks, tickets)

    def _let_go(self) -> None:
        self._held, self._rows, self._bytes = {}, 0, 0

    def _complain(self, error: KafkaError, partition: Partition) -> None:
        if error.code() == _BEHIND_US:
            raise StopWorker(
                f"records of {partition[0]}[{partition[1]}] were deleted before they were read; start once with --accept-gap"
            )
        if error.code() in _ABSENT:
            raise ConfigError(f"run `chronicle setup`: there is no topic {partition[0]}")
        found = translated(KafkaException(error))
        if isinstance(found, ConfigError):
            raise found
        self._status.retrying("broker", found)

    def _call(self, call: Callable[[], T]) -> T:
        """A call to the library; what goes wrong with the broker is waited for."""
        while True:
            try:
                result = call()
            except KafkaException as error:
                found = translated(error)
                if not isinstance(found, TransientError):
                    raise found from None
                self._status.retrying("broker", found)
                if self._status.stopping.wait(1.0):
                    raise Interrupted("stopping while the broker is away; nothing was acknowledged") from None
            else:
                return result

    # --- assignments (called by the library inside of `consume`)

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._begin_again()
        found = self._call(lambda: consumer.committed(partitions, timeout=TIMEOUT_S)) if partitions else []
        starts, ends = {}, {}
        for one in partitions:
            low, high = self._call(lambda one=one: consumer.get_watermark_offsets(one, timeout=TIMEOUT_S))  # type: ignore[misc]
            starts[one.topic, one.partition], ends[one.topic, one.partition] = low, high
        committed = {(one.topic, one.partition): one.offset for one in found}
        # a role may begin late; only what it had begun to read must not vanish
        gaps = find_gaps({name: offset for name, offset in committed.items() if offset >= 0}, starts, ends)
        if gaps and not self._accept_gap:
            raise StopWorker("\n".join([_GAP, *map(str, gaps)]))
        for gap in gaps:
            log.warning("gap.accepted", missing=str(gap))
        placed = []
        for name, offset in committed.items():
            start = offset if offset >= 0 else starts[name]
            start = _after(gaps, name, start, starts)
            self.ledger.begin(name, start, offset if offset == start else None)
            placed.append(TopicPartition(*name, start))
        consumer.assign(placed)
        self._status.assigned(len(placed))
        log.info("partitions.assigned", partitions=len(placed))

    def _revoked(self, consumer: Consumer, _partitions: list[TopicPartition]) -> None:
        self._begin_again()
        self._status.unassigned()
        consumer.unassign()

    def _begin_again(self) -> None:
        self.ledger.reset()
        self._let_go()
        self._at_end = set()


_GAP = "records of a route are missing; if that is known, start once with --accept-gap"


def _after(gaps: Sequence[Gap], partition: Partition, offset: int, starts: Mapping[Partition, int]) -> int:
    """Where to go on: behind the gap, or at the start of a topic that was made again."""
    return starts[partition] if any(gap.partition == partition for gap in gaps) else offset


def _size(message: Message) -> int:
    return len(message.value() or b"") + len(message.key() or b"")


def _chunk(partition: Partition, messages: Sequence[Message]) -> Chunk:
    return Chunk(
        topic=partition[0],
        partition=partition[1],
        offsets=[message.offset() or 0 for message in messages],
        timestamps_ms=[max(0, message.timestamp()[1]) for message in messages],
        keys=[message.key() for message in messages],
        values=[message.value() for message in messages],
        headers=[_headers(message) for message in messages],
    )


def _headers(message: Message) -> Headers:
    pairs: Any = message.headers() or ()
    return tuple((name, value or b"") for name, value in pairs)
