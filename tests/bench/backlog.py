"""Fills raw topics with a backlog of Debezium changes on the real broker, schemas in the real registry."""

from __future__ import annotations

import struct
import time
import zlib
from dataclasses import dataclass
from typing import Any

import httpx
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from tests.bench.envelopes import VARIANTS, envelope_schema, key_schema, records, schema_text

_HEADERS: Any = [("chronicle.epoch", b"0")]


@dataclass(frozen=True, slots=True)
class Backlog:
    """What was produced."""

    topics: tuple[str, ...]
    changes: int
    tombstones: int
    value_bytes: int

    @property
    def mean_bytes(self) -> float:
        """Of a change's value."""
        return self.value_bytes / self.changes


def register(registry_url: str, subject: str, schema: str) -> int:
    """The schema's id in the registry."""
    reply = httpx.post(f"{registry_url}/subjects/{subject}/versions", json={"schema": schema}, timeout=30)
    reply.raise_for_status()
    return int(reply.json()["id"])


def create_topics(kafka: str, topics: list[str], partitions: int) -> None:
    """Create topics and wait until the broker says they are there."""
    admin = AdminClient({"bootstrap.servers": kafka})  # bound: its futures end with it
    made = admin.create_topics(
        [NewTopic(topic, partitions, 1, config={"max.message.bytes": "10485760"}) for topic in topics], operation_timeout=30
    )
    for future in made.values():
        future.result(30)


def produce(
    kafka: str,
    registry_url: str,
    source: str,
    *,
    tables: int,
    changes: int,
    partitions: int,
    seed: int,
    variants: int = VARIANTS,
) -> Backlog:
    """`changes` changes over `tables` tables of the source, each with a schema of its own. `variants`: of rows."""
    topics = [f"{source}.public.t{number:03d}" for number in range(tables)]
    create_topics(kafka, topics, partitions)
    heads = []
    for topic in topics:
        value = register(registry_url, f"{topic}-value", schema_text(envelope_schema(topic)))
        key = register(registry_url, f"{topic}-key", schema_text(key_schema(topic)))
        heads.append((struct.pack(">bI", 0, key), struct.pack(">bI", 0, value)))
    options: dict[str, Any] = {
        "bootstrap.servers": kafka,
        "enable.idempotence": True,
        "compression.type": "lz4",
        "linger.ms": 50,
    }
    producer = Producer(options | {"queue.buffering.max.messages": 200_000, "delivery.report.only.error": True})
    failed: list[str] = []

    def delivered(error: Any, _: Any) -> None:
        if error:
            failed.append(str(error))

    size = tombstones = 0
    for index, record in records(topics, changes, seed, time.time_ns() // 1000, variants):
        key_head, value_head = heads[index]
        body = None if record.value is None else value_head + record.value
        tombstones += body is None
        size += len(body or b"")
        partition = zlib.crc32(record.key) % partitions
        while True:
            try:
                producer.produce(topics[index], body, key_head + record.key, partition, headers=_HEADERS, on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.1)
    left = producer.flush(120)
    if left or failed:
        raise RuntimeError(f"backlog not written: {left} left, {failed[:1]}")
    return Backlog(tuple(topics), changes, tombstones, size)
