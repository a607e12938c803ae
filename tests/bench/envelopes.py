"""Debezium Postgres envelopes in Avro for benchmarks: rows by fastavro, the envelope around them spliced, so it is quick."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random
from typing import Any

import fastavro

FIRST_LSN = 1 << 30
FIRST_TRANSACTION, PER_TRANSACTION = 1000, 10
VARIANTS = 4_000
"""Different rows of a table, apart from their ids: enough that nothing compresses away, few enough to be encoded quickly."""
_DECIMAL = {
    "type": "bytes",
    "logicalType": "decimal",
    "precision": 12,
    "scale": 2,
    "connect.version": 1,
    "connect.parameters": {"scale": "2", "connect.decimal.precision": "12"},
    "connect.name": "org.apache.kafka.connect.data.Decimal",
}


def _semantic(kind: str, name: str) -> dict[str, Any]:
    return {"type": kind, "connect.version": 1, "connect.name": name}


def _record(namespace: str, name: str, fields: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "record", "name": name, "namespace": namespace, "fields": fields, "connect.name": f"{namespace}.{name}"}


def _field(name: str, kind: Any) -> dict[str, Any]:
    return {"name": name, "type": kind}


def _optional(name: str, kind: Any) -> dict[str, Any]:
    return {"name": name, "type": ["null", kind], "default": None}


_ROW = [
    _field("id", "long"),
    _field("email", "string"),
    _optional("full_name", "string"),
    _optional("status", "string"),
    _field("city", "string"),
    _optional("amount", _DECIMAL),
    _field("quantity", "int"),
    _field("active", "boolean"),
    _field("created_at", _semantic("long", "io.debezium.time.MicroTimestamp")),
    _optional("updated_at", _semantic("string", "io.debezium.time.ZonedTimestamp")),
    _optional("score", "double"),
    _optional("note", "string"),
]
_SNAPSHOT = _semantic("string", "io.debezium.data.Enum") | {"connect.default": "false"}
SOURCE = [
    *(_field(name, "string") for name in ("version", "connector", "name")),
    _field("ts_ms", "long"),
    {"name": "snapshot", "type": [_SNAPSHOT, "null"], "default": "false"},
    _field("db", "string"),
    _optional("sequence", "string"),
    _optional("ts_us", "long"),
    _optional("ts_ns", "long"),
    _field("schema", "string"),
    _field("table", "string"),
    *(_optional(name, "long") for name in ("txId", "lsn", "xmin")),
    _optional("origin", "string"),
    _optional("origin_lsn", "long"),
]
BLOCK = [_field("id", "string"), _field("total_order", "long"), _field("data_collection_order", "long")]


def row_schema(topic: str) -> dict[str, Any]:
    """The record of one table's row; 12 columns."""
    return _record(topic, "Value", _ROW)


def envelope_schema(topic: str) -> dict[str, Any]:
    """The envelope as Debezium 3.7 and the Avro converter write it."""
    return _record(
        topic,
        "Envelope",
        [
            _optional("before", row_schema(topic)),
            _optional("after", f"{topic}.Value"),
            _field("source", _record("io.debezium.connector.postgresql", "Source", SOURCE)),
            _optional("transaction", _record("event", "block", BLOCK)),
            _field("op", "string"),
            *(_optional(name, "long") for name in ("ts_ms", "ts_us", "ts_ns")),
        ],
    )


def key_schema(topic: str) -> dict[str, Any]:
    """The key: one long."""
    return _record(topic, "Key", [_field("id", "long")])


def long(value: int) -> bytes:
    """Avro's int and long."""
    rest = (value << 1) ^ (value >> 63)
    out = bytearray()
    while rest > 0x7F:
        out.append((rest & 0x7F) | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def text(value: str) -> bytes:
    """Avro's string."""
    raw = value.encode()
    return long(len(raw)) + raw


NULL, SOME = b"\x00", b"\x02"
"""The branch of a union of null and something."""
_NO_SNAPSHOT = NULL + text("false")  # the first branch here is the text


@dataclass(frozen=True, slots=True)
class Record:
    """One record to produce: Avro bodies without the registry's head. A tombstone has no value."""

    key: bytes
    value: bytes | None


@dataclass(slots=True)
class TableWriter:
    """The life of one table: 30 % creates, 60 % updates, 10 % deletes, old rows whole (REPLICA IDENTITY FULL)."""

    topic: str
    random: Random
    start_us: int
    tails: list[bytes]
    rows: dict[int, bytes] = field(default_factory=dict)
    alive: list[int] = field(default_factory=list)
    next_id: int = 1
    head: bytes = b""
    place: bytes = b""

    def __post_init__(self) -> None:
        source, schema, table = self.topic.split(".")
        self.head = text("3.7.0.Final") + text("postgresql") + text(source)
        self.place = text(schema) + text(table) + SOME

    def _row(self, identifier: int) -> bytes:
        """A row: its id, and one of the encoded variants of the other eleven columns."""
        return long(identifier) + self.random.choice(self.tails)

    def change(self, lsn: int, transaction: int, order: int) -> tuple[int, bytes, bool]:
        """Key, envelope, and whether it is a delete."""
        draw = self.random.random()
        if not self.alive or draw < 0.3:
            identifier, op, before = self.next_id, "c", NULL
            self.next_id += 1
            self.alive.append(identifier)
            self.rows[identifier] = self._row(identifier)
            after = SOME + self.rows[identifier]
        else:
            place = self.random.randrange(len(self.alive))
            identifier = self.alive[place]
            before = SOME + self.rows[identifier]
            if draw < 0.9:
                op, after = "u", SOME + self._row(identifier)
                self.rows[identifier] = after[1:]
            else:
                op, after = "d", NULL
                self.alive[place] = self.alive[-1]
                self.alive.pop()
                del self.rows[identifier]
        now_us = self.start_us + (lsn - FIRST_LSN) // 100
        times = SOME + long(now_us) + SOME + long(now_us * 1000)
        sequence = SOME + text(f'["{lsn - 8}","{lsn}"]')
        source = self.head + long(now_us // 1000) + _NO_SNAPSHOT + text("bench") + sequence + times
        source += self.place + long(transaction) + SOME + long(lsn) + NULL * 3
        block = SOME + text(f"{transaction}:{lsn}") + long(order) + long(order)
        return identifier, before + after + source + block + text(op) + SOME + long(now_us // 1000) + times, op == "d"


def tails(random: Random, start_us: int, variants: int) -> list[bytes]:
    """Encoded variants of all columns but the id, which comes first and is spliced before them."""
    schema = fastavro.parse_schema(row_schema("bench"))
    result = []
    for number in range(variants):
        values = {
            "id": 0,
            "email": f"user{number}.{random.getrandbits(60):x}@example.com",
            "full_name": f"Name {random.getrandbits(64):x} Surname",
            "status": random.choice(("new", "active", "blocked", None)),
            "city": random.choice(("Berlin", "Köln", "São Paulo", "Reykjavík")),
            "amount": Decimal(random.randint(0, 10_000_000)).scaleb(-2),
            "quantity": random.randint(0, 1000),
            "active": random.random() < 0.5,
            "created_at": start_us - random.randint(0, 10**12),
            "updated_at": "2026-01-02T03:04:05.678901Z",
            "score": random.random() * 100,
            "note": f"note {random.getrandbits(128):x} {random.getrandbits(64):x} of some length",
        }
        out = io.BytesIO()
        fastavro.schemaless_writer(out, schema, values)
        result.append(out.getvalue()[1:])  # the id 0 is one byte
    return result


def records(
    topics: list[str], changes: int, seed: int, start_us: int, variants: int = VARIANTS
) -> Iterator[tuple[int, Record]]:
    """(index of the topic, record): `changes` envelopes over all tables in turn, each delete followed by its tombstone.

    A transaction has `PER_TRANSACTION` changes; the first one's number is `FIRST_TRANSACTION`.
    """
    random = Random(seed)
    rows = tails(random, start_us, variants)
    writers = [TableWriter(topic, random, start_us, rows) for topic in topics]
    lsn = FIRST_LSN
    for number in range(changes):
        lsn += random.randint(80, 400)
        index = number % len(writers)
        identifier, value, gone = writers[index].change(
            lsn, FIRST_TRANSACTION + number // PER_TRANSACTION, number % PER_TRANSACTION + 1
        )
        yield index, Record(long(identifier), value)
        if gone:
            yield index, Record(long(identifier), None)


def schema_text(schema: dict[str, Any]) -> str:
    """A schema as the registry takes it."""
    return json.dumps(schema, separators=(",", ":"))
