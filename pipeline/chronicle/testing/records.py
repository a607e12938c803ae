"""Kafka records of a test, and the chunks that the path takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from chronicle.model.chunk import Chunk, Headers


@dataclass(frozen=True, slots=True)
class Record:
    """One Kafka record as Debezium writes it."""

    topic: str
    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()
    partition: int = 0
    offset: int | None = None
    """None: one more than the offset of the record before it in this partition, or 0."""
    timestamp_ms: int = 0


def chunks(records: Iterable[Record]) -> list[Chunk]:
    """One chunk a partition, records in the order given."""
    by_partition: dict[tuple[str, int], list[Record]] = {}
    for record in records:
        by_partition.setdefault((record.topic, record.partition), []).append(record)
    return [_chunk(topic, partition, mine) for (topic, partition), mine in by_partition.items()]


def _chunk(topic: str, partition: int, records: Sequence[Record]) -> Chunk:
    offsets: list[int] = []
    for record in records:
        following = offsets[-1] + 1 if offsets else 0
        offsets.append(following if record.offset is None else record.offset)
    return Chunk(
        topic,
        partition,
        offsets,
        [record.timestamp_ms for record in records],
        [record.key for record in records],
        [record.value for record in records],
        [record.headers for record in records],
    )
