"""A source's transaction topic as a Debezium Postgres connector fills it: BEGIN, who did it, END, for every transaction."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator
from typing import Any

import fastavro
from confluent_kafka import Producer

from tests.bench.envelopes import BLOCK, FIRST_LSN, SOURCE, schema_text

_CONNECTOR = "io.debezium.connector.postgresql"
_COMMON = "io.debezium.connector.common"


def _named(namespace: str, name: str, fields: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "record", "name": name, "namespace": namespace, "connect.name": f"{namespace}.{name}", "fields": fields}


def _optional(name: str, kind: Any) -> dict[str, Any]:
    return {"name": name, "type": ["null", kind], "default": None}


MESSAGE = _named(
    _CONNECTOR,
    "MessageValue",
    [
        {"name": "op", "type": "string"},
        _optional("ts_ms", "long"),
        {"name": "source", "type": _named(_CONNECTOR, "Source", SOURCE)},
        _optional("transaction", _named("event", "block", BLOCK)),
        {
            "name": "message",
            "type": _named(_CONNECTOR, "Message", [_optional("prefix", "string"), _optional("content", "bytes")]),
        },
    ],
)
_COLLECTION = _named(
    "event", "collection", [{"name": "data_collection", "type": "string"}, {"name": "event_count", "type": "long"}]
)
MARKER = _named(
    _COMMON,
    "TransactionMetadataValue",
    [
        {"name": "status", "type": "string"},
        {"name": "id", "type": "string"},
        _optional("event_count", "long"),
        _optional("data_collections", {"type": "array", "items": ["null", _COLLECTION]}),
        {"name": "ts_ms", "type": "long"},
    ],
)


def schemas() -> dict[str, str]:
    """By the name that `records` gives each value."""
    return {"marker": schema_text(MARKER), "message": schema_text(MESSAGE)}


def records(source: str, transactions: range, rows: int, at_ms: int) -> Iterator[tuple[str, bytes]]:
    """(which schema, Avro body) in the order of the topic; `rows`: changes of each transaction."""
    marker, message = fastavro.parse_schema(MARKER), fastavro.parse_schema(MESSAGE)

    def written(schema: Any, datum: dict[str, Any]) -> bytes:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, schema, datum)
        return out.getvalue()

    for number in transactions:
        name, lsn = f"{number}:{FIRST_LSN + number}", FIRST_LSN + number
        begin = {"status": "BEGIN", "id": name, "event_count": None, "data_collections": None, "ts_ms": at_ms}
        yield "marker", written(marker, begin)
        said = {"actor": {"id": f"user{number % 500}@example.org", "type": "user"}, "request_id": f"req-{number:x}"}
        block = dict.fromkeys((one["name"] for one in SOURCE), None) | {
            "version": "3.7.0.Final", "connector": "postgresql", "name": source, "ts_ms": at_ms, "snapshot": "false",
            "db": "bench", "sequence": f'["{lsn - 8}","{lsn}"]', "schema": "", "table": "", "txId": number, "lsn": lsn,
        }  # fmt: skip
        content = {"prefix": "chronicle", "content": json.dumps(said).encode()}
        order = {"id": name, "total_order": 1, "data_collection_order": 1}
        datum = {"op": "m", "ts_ms": at_ms, "source": block, "transaction": order, "message": content}
        yield "message", written(message, datum)
        yield "marker", written(marker, {**begin, "status": "END", "event_count": rows})


def produce(kafka: str, topic: str, ids: dict[str, int], made: Iterator[tuple[str, bytes]]) -> int:
    """Write them to a topic with one partition; returns how many. `ids`: of the schemas in the registry."""
    heads = {name: struct.pack(">bI", 0, number) for name, number in ids.items()}
    producer = Producer({"bootstrap.servers": kafka, "enable.idempotence": True, "compression.type": "lz4", "linger.ms": 50})
    count = 0
    for name, body in made:
        count += 1
        while True:
            try:
                producer.produce(topic, heads[name] + body, partition=0)
                break
            except BufferError:
                producer.poll(0.1)
    if left := producer.flush(120):
        raise RuntimeError(f"{left} records of {topic} were not written")
    return count
