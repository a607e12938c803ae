"""Bad records, planted into a raw topic by hand: what each is, and the dead letter it has to become."""

from __future__ import annotations

import copy
import struct
from collections.abc import Callable
from typing import Any

from confluent_kafka import Message, Producer

from tests.faults.observation import DeadLetter
from tests.faults.raw import RawTopics

UNKNOWN_SCHEMA_ID = 0x7FFFFF00
LARGE_BYTES = 9_900_000
"""Just below the raw topics' limit of 10 MiB, and above what the worker takes."""
SWELLING_BYTES = 6_000_000
"""The worker takes a record of this size; as JSON a control character is six, and the audit topic does not take that."""
REFUSED_ID = 4_000_000_000_000
"""An `order_id` that no workload draws, and that the mirror of `lines` is told to refuse."""

Record = tuple[str, bytes | None, bytes]
"""(reason, key, value)."""


def bad_records(good: Message, raw: RawTopics) -> list[Record]:
    """One of each kind, made from a good record of `lines` that creates a row."""
    key, value = _bytes(good.key()), _bytes(good.value())

    def with_product(product: str) -> bytes:
        return _changed(raw, value, lambda envelope: envelope["after"].update(product=product))

    refused_key = _changed(raw, key, lambda identity: identity.update(order_id=REFUSED_ID))
    refused = _changed(raw, value, lambda envelope: envelope["after"].update(order_id=REFUSED_ID))
    return [
        ("wrong_frame", key, b"\x07" + value[1:]),
        ("unknown_schema", key, struct.pack(">bI", 0, UNKNOWN_SCHEMA_ID) + value[5:]),
        ("not_decodable", key, value[:-9]),
        ("missing_key", None, value),
        ("not_decodable", key, b'{"before": null, "after": {"id": 1'),
        ("too_large", key, with_product("x" * LARGE_BYTES)),
        ("too_large", key, value[:5] + b"\xff" * LARGE_BYTES),
        ("too_large", key, with_product("\x01" * SWELLING_BYTES)),
        ("value_refused", refused_key, refused),
    ]


def _changed(raw: RawTopics, framed: bytes, change: Callable[[Any], None]) -> bytes:
    datum = copy.deepcopy(raw.decode(framed))
    change(datum)
    return raw.encode(framed, datum)


def plant(kafka: str, good: Message, raw: RawTopics) -> list[DeadLetter]:
    """Write the bad records behind the good one, in its partition, copies of it among them; the dead letters to come."""
    topic, partition = str(good.topic()), int(good.partition() or 0)
    producer = Producer({"bootstrap.servers": kafka, "enable.idempotence": True, "message.max.bytes": 10_485_760})
    offsets: list[int] = []

    def delivered(error: Any, message: Message) -> None:
        if error:
            raise RuntimeError(f"a bad record was not written: {error}")
        offsets.append(int(message.offset() or 0))

    records = bad_records(good, raw)
    headers: Any = good.headers()
    for _, key, value in records:
        producer.produce(topic, value, key, partition, headers=headers, on_delivery=delivered)
        # a redelivery of the good one: the neighbours of bad records go through
        producer.produce(topic, _bytes(good.value()), _bytes(good.key()), partition, headers=headers)
    if producer.flush(60) or len(offsets) != len(records):
        raise RuntimeError("bad records were not written")
    return [DeadLetter(topic, partition, offset, reason) for offset, (reason, _, _) in zip(offsets, records, strict=True)]


def _bytes(value: str | bytes | None) -> bytes:
    return value if isinstance(value, bytes) else (value or "").encode()
