"""The records of one raw topic, read beside every consumer group: by time or the last ones, as chunks for the pure path.

Partitions are assigned, never subscribed to, and nothing is committed: no worker's offsets move by it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from chronicle.config import Kafka
from chronicle.errors import ChronicleError, ConfigError, TransientError
from chronicle.model.chunk import Chunk
from chronicle.refusals import refused

TIMEOUT_S = 15.0
"""For each answer of the broker."""
POLL_S = 1.0
FETCH_BYTES_MAX = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Span:
    """Offsets of one partition: from `start` up to, and without, `end`."""

    partition: int
    start: int
    end: int

    @property
    def length(self) -> int:
        """Offsets, which are records where nothing was compacted away."""
        return self.end - self.start


class RawTopic:
    """A connection for one reading; a context manager."""

    def __init__(self, kafka: Kafka, topic: str) -> None:
        """Connects at the first question."""
        self.topic = topic
        self._kafka = kafka
        self._consumer = Consumer(
            {
                **kafka.client_config(),
                "group.id": "chronicle-raw-records",  # never joined
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "isolation.level": "read_uncommitted",  # as the worker reads
                "fetch.message.max.bytes": FETCH_BYTES_MAX,
                "queued.max.messages.kbytes": 64 * 1024,
            }
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._consumer.close()

    def between(self, since: datetime, until: datetime | None = None) -> tuple[Span, ...]:
        """The records stamped from `since` on and before `until` (None: all there are now). Partitions without one are absent.

        Raises:
            ConfigError: there is no such topic, or the broker refuses us.
            TransientError: the broker does not answer.
        """
        try:
            ends = self._watermarks()
            starts = self._at(since, {number: high for number, (_, high) in ends.items()})
            stops = {n: high for n, (_, high) in ends.items()}
            if until is not None:
                stops = self._at(until, stops)
        except KafkaException as error:
            raise self._meaning(error.args[0]) from None
        spans = (Span(n, max(starts[n], low), stops[n]) for n, (low, _) in ends.items())
        return tuple(span for span in spans if span.length > 0)

    def last(self, count: int) -> tuple[Span, ...]:
        """The last records, the same number of each partition, `count` in all. Raises as `between`."""
        try:
            ends = self._watermarks()
        except KafkaException as error:
            raise self._meaning(error.args[0]) from None
        each = -(-count // max(1, sum(high > low for low, high in ends.values())))
        spans = (Span(n, max(low, high - each), high) for n, (low, high) in ends.items())
        return tuple(span for span in spans if span.length > 0)

    def chunks(self, spans: Sequence[Span], rows_max: int, bytes_max: int = 64 * 1024 * 1024) -> Iterator[list[Chunk]]:
        """Batches of at most `rows_max` records, and about `bytes_max` bytes; a chunk for each partition in it, in order.

        Raises:
            TransientError: the broker does not answer.
            ChronicleError: records of the spans were deleted meanwhile.
        """
        left = {span.partition: span.end for span in spans}
        self._consumer.assign([TopicPartition(self.topic, span.partition, span.start) for span in spans])
        waiting: list[Message] = []
        size, heard = 0, time.monotonic()
        while left:
            try:
                found = self._consumer.consume(min(rows_max - len(waiting), 1000), POLL_S)
            except KafkaException as error:
                raise self._meaning(error.args[0]) from None
            if not found and time.monotonic() - heard > TIMEOUT_S:
                raise TransientError("start the broker or correct kafka.bootstrap_servers: no answer from it")
            if found:
                heard = time.monotonic()
            for message in found:
                if self._belongs(message, left):
                    waiting.append(message)
                    size += len(message.key() or b"") + len(message.value() or b"")
            if len(waiting) >= rows_max or size >= bytes_max:
                yield _chunks(self.topic, waiting)
                waiting, size, heard = [], 0, time.monotonic()
        if waiting:
            yield _chunks(self.topic, waiting)

    def _meaning(self, error: KafkaError) -> ChronicleError:
        return refused(error, self._kafka.client_config(), about=self.topic) or _translated(error, self.topic)

    def _belongs(self, message: Message, left: dict[int, int]) -> bool:
        """Whether it is a record of the spans; a partition whose end is reached is taken out of `left`."""
        partition, offset, error = message.partition(), message.offset(), message.error()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            raise self._meaning(error)
        if partition is None or partition not in left:
            return False
        if error is not None:  # the log's end
            del left[partition]
            return False
        end = left[partition]
        if offset is None or offset + 1 >= end:
            del left[partition]
        return offset is not None and offset < end

    def _watermarks(self) -> dict[int, tuple[int, int]]:
        described = self._consumer.list_topics(self.topic, timeout=TIMEOUT_S).topics[self.topic]
        if described.error is not None:
            raise self._meaning(described.error)
        return {
            number: self._consumer.get_watermark_offsets(TopicPartition(self.topic, number), timeout=TIMEOUT_S)
            for number in sorted(described.partitions)
        }

    def _at(self, when: datetime, ends: dict[int, int]) -> dict[int, int]:
        """The offset of the first record stamped then or later; the end where there is none."""
        asked = [TopicPartition(self.topic, number, int(when.timestamp() * 1000)) for number in ends]
        found = self._consumer.offsets_for_times(asked, timeout=TIMEOUT_S)
        return {
            one.partition: min(one.offset, ends[one.partition]) if one.offset >= 0 else ends[one.partition] for one in found
        }


def _chunks(topic: str, messages: Sequence[Message]) -> list[Chunk]:
    by_partition: dict[int, list[Message]] = {}
    for message in messages:
        by_partition.setdefault(message.partition() or 0, []).append(message)
    return [_chunk(topic, partition, mine) for partition, mine in sorted(by_partition.items())]


def _chunk(topic: str, partition: int, messages: Sequence[Any]) -> Chunk:
    return Chunk(
        topic,
        partition,
        [message.offset() for message in messages],
        [max(0, message.timestamp()[1]) for message in messages],
        [message.key() for message in messages],
        [message.value() for message in messages],
        [tuple(message.headers() or ()) for message in messages],
    )


def _translated(error: Any, topic: str) -> ChronicleError:
    code, name = error.code(), error.name()
    if code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
        return ConfigError(f"name a captured table as source.schema.table: the broker has no topic {topic}")
    if code in (KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET):
        return ChronicleError(f"run it again: {topic} deleted records while it was read")
    return TransientError(f"start the broker or correct kafka.bootstrap_servers: no answer from it ({name})")
