"""Reads topics to their present end, a little further at each call, and decodes raw records without the product's code."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import fastavro
import httpx
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from tests.faults.catalog import Tables
from tests.faults.observation import RawMark, RawRecord
from tests.faults.raw_marks import TOPIC, mark

_POLL_S = 10.0


@dataclass
class TopicReader:
    """Remembers how far it read each partition, so that a test that checks often reads each record once."""

    kafka: str
    offsets: dict[tuple[str, int], int] = field(default_factory=dict)

    def read(self, topics: Sequence[str], prefixes: tuple[str, ...] = ()) -> Iterator[Message]:
        """All records of these topics, and of all whose names begin so, from where the last call ended to what the end is now.

        Missing topics are skipped.
        """
        consumer = Consumer({"bootstrap.servers": self.kafka, "group.id": "checker", "enable.auto.commit": False})
        try:
            known = consumer.list_topics(timeout=_POLL_S).topics
            left: dict[tuple[str, int], int] = {}
            for topic in sorted({*topics, *(name for name in known if prefixes and name.startswith(prefixes))}):
                for partition in known[topic].partitions if topic in known else ():
                    try:
                        low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=_POLL_S)
                    except KafkaException:  # a topic that is just being made has no leader yet: the next call reads it
                        continue
                    at = max(low, self.offsets.get((topic, partition), 0))
                    self.offsets[(topic, partition)] = at
                    if at < high:
                        left[(topic, partition)] = high
            consumer.assign([TopicPartition(*place, self.offsets[place]) for place in left])
            while left:
                for message in consumer.consume(10_000, 0.2):
                    yield from self._one(message, left)
                self._pass_markers(consumer, left)
        finally:
            consumer.close()

    def _one(self, message: Message, left: dict[tuple[str, int], int]) -> Iterator[Message]:
        if message.error():
            raise RuntimeError(f"reading a topic failed: {message.error()}")
        place, offset = (str(message.topic()), int(message.partition() or 0)), int(message.offset() or 0)
        if place not in left:
            return  # beyond the end this call reads to
        self.offsets[place] = offset + 1
        if offset + 1 >= left[place]:
            del left[place]
        if offset < left.get(place, offset + 1):
            yield message

    def _pass_markers(self, consumer: Consumer, left: dict[tuple[str, int], int]) -> None:
        """The last offsets of a partition may be transaction markers or compacted away: the position passes them."""
        for at in consumer.position([TopicPartition(*place) for place in left]):
            place = (str(at.topic), int(at.partition))
            if at.offset >= left[place]:
                self.offsets[place] = at.offset
                del left[place]


@dataclass
class RawTopics:
    """The records of all raw topics of the sources, as the checker needs them: what kind, and which change."""

    kafka: str
    registry_url: str
    records: list[RawRecord] = field(default_factory=list)
    signatures: set[tuple[Any, ...]] = field(default_factory=set)
    marks: list[RawMark] = field(default_factory=list)
    """Of the transaction topics."""
    said: set[tuple[str, str, str]] = field(default_factory=set)
    """(source, rung, text) of the contexts among them."""
    bad: set[tuple[str, int, int]] = field(default_factory=set)
    """Coordinates of planted records: not decoded here."""
    _schemas: dict[int, Any] = field(default_factory=dict)
    _reader: TopicReader | None = None

    def refresh(self, tables: Tables) -> None:
        """Read what came since the last call."""
        self._reader = self._reader or TopicReader(self.kafka)
        prefixes = tuple(sorted({f"{table.source}." for table in tables.by_topic.values()}))
        for message in self._reader.read([], prefixes):
            topic, partition, offset = str(message.topic()), int(message.partition() or 0), int(message.offset() or 0)
            if topic.endswith(f".{TOPIC}") and topic not in tables.by_topic:
                self._mark(message, topic, offset)
            elif (topic, partition, offset) in self.bad:
                self.records.append(RawRecord(topic, partition, offset, "bad"))
            elif topic not in tables.by_topic:
                self.records.append(RawRecord(topic, partition, offset, "unknown"))
            elif message.value() is None:
                self.records.append(RawRecord(topic, partition, offset, "tombstone"))
            else:
                keyless = not tables.by_topic[topic].key
                signature = self._signature(message, keyless, (partition, offset))
                self.signatures.add((topic, *signature))
                self.records.append(RawRecord(topic, partition, offset, "change", signature))

    def _mark(self, message: Message, topic: str, offset: int) -> None:
        value = message.value()
        found = mark(topic, offset, message.headers(), None if value is None else self.decode(_bytes(value)))
        self.marks.append(found)
        if found.kind == "context":
            self.said.add((found.source, found.rung, found.text))

    def _signature(self, message: Message, keyless: bool, coordinates: tuple[int, int]) -> tuple[Any, ...]:
        """What identifies a change by itself (facts 1 to 5), from the envelope."""
        envelope = self.decode(_bytes(message.value()))
        source, op = envelope["source"], envelope["op"]
        key = _bytes(message.key())[5:] if message.key() is not None else b""
        if op == "r":
            place = source.get("sequence") or f"{source.get('file')}:{source.get('pos')}"
            return (op, key, *coordinates) if keyless else (op, key, place)
        if "lsn" in source:
            order = (envelope["transaction"] or {}).get("total_order") if keyless else 0
            return (op, key, source["txId"], source["lsn"], order)
        return (op, key, source["file"], source["pos"], source["row"])

    def decode(self, data: bytes) -> Any:
        """A framed Avro datum."""
        return fastavro.schemaless_reader(io.BytesIO(data[5:]), self._schema(data), None)

    def encode(self, like: bytes, datum: Any) -> bytes:
        """A datum in the frame and under the schema of another one."""
        out = io.BytesIO()
        fastavro.schemaless_writer(out, self._schema(like), datum)
        return like[:5] + out.getvalue()

    def _schema(self, framed: bytes) -> Any:
        number = int.from_bytes(framed[1:5], "big")
        if number not in self._schemas:
            reply = httpx.get(f"{self.registry_url}/schemas/ids/{number}", timeout=30).raise_for_status()
            self._schemas[number] = fastavro.parse_schema(json.loads(reply.json()["schema"]))
        return self._schemas[number]

    def last_created(self, topic: str) -> Message:
        """The newest record of the topic that creates a row: to make bad ones of."""
        found = [message for message in TopicReader(self.kafka).read([topic]) if message.value() and message.key()]
        created = [message for message in found if self.decode(_bytes(message.value()))["op"] == "c"]
        if not created:
            raise LookupError(f"no created row in {topic}")
        return created[-1]


def _bytes(value: str | bytes | None) -> bytes:
    return value if isinstance(value, bytes) else (value or "").encode()
