"""Debezium's Avro records as its Postgres connector writes them, made with fastavro under schemas in the real registry."""

from __future__ import annotations

import io
import json
from typing import Any

import fastavro
import httpx

COLUMNS: list[dict[str, Any]] = [
    {"name": "id", "type": "long"},
    {"name": "email", "type": ["null", "string"], "default": None},
    {"name": "note", "type": ["null", "string"], "default": None},
    {"name": "amount", "type": ["null", "double"], "default": None},
]
SOURCE_FIELDS: list[dict[str, Any]] = [
    {"name": "version", "type": "string"},
    {"name": "connector", "type": "string"},
    {"name": "name", "type": "string"},
    {"name": "ts_ms", "type": "long"},
    {"name": "snapshot", "type": [{"type": "string", "connect.name": "io.debezium.data.Enum"}, "null"], "default": "false"},
    {"name": "db", "type": "string"},
    {"name": "sequence", "type": ["null", "string"], "default": None},
    {"name": "ts_us", "type": ["null", "long"], "default": None},
    {"name": "ts_ns", "type": ["null", "long"], "default": None},
    {"name": "schema", "type": "string"},
    {"name": "table", "type": "string"},
    {"name": "txId", "type": ["null", "long"], "default": None},
    {"name": "lsn", "type": ["null", "long"], "default": None},
    {"name": "xmin", "type": ["null", "long"], "default": None},
]
TRANSACTION_FIELDS: list[dict[str, Any]] = [
    {"name": "id", "type": "string"},
    {"name": "total_order", "type": "long"},
    {"name": "data_collection_order", "type": "long"},
]


class Table:
    """Makes records of one captured table `<source>.public.<name>` with an integer key `id`."""

    def __init__(self, registry_url: str, source: str, name: str, columns: list[dict[str, Any]] | None = None) -> None:
        self.source, self.name, self.topic = source, name, f"{source}.public.{name}"
        row = {"type": "record", "name": "Value", "fields": columns or COLUMNS, "connect.name": f"{self.topic}.Value"}
        namespace, connector = self.topic, "io.debezium.connector.postgresql"
        source_block = {
            "type": "record", "name": "Source", "namespace": connector, "connect.name": f"{connector}.Source",
            "fields": SOURCE_FIELDS,
        }  # fmt: skip
        self.value_schema = {
            "type": "record", "name": "Envelope", "namespace": namespace, "connect.name": f"{self.topic}.Envelope",
            "fields": [
                {"name": "before", "type": ["null", row], "default": None},
                {"name": "after", "type": ["null", "Value"], "default": None},
                {"name": "source", "type": source_block},
                {"name": "transaction", "type": ["null", {"type": "record", "name": "block", "namespace": "event",
                                                          "connect.name": "event.block", "fields": TRANSACTION_FIELDS}],
                 "default": None},
                {"name": "op", "type": "string"},
                {"name": "ts_ms", "type": ["null", "long"], "default": None},
                {"name": "ts_us", "type": ["null", "long"], "default": None},
                {"name": "ts_ns", "type": ["null", "long"], "default": None},
            ],
        }  # fmt: skip
        self.key_schema = {
            "type": "record", "name": "Key", "namespace": namespace, "connect.name": f"{self.topic}.Key",
            "fields": [{"name": "id", "type": "long"}],
        }  # fmt: skip
        self.value_id = register(registry_url, f"{self.topic}-value", self.value_schema)
        self.key_id = register(registry_url, f"{self.topic}-key", self.key_schema)
        self._value, self._key = fastavro.parse_schema(self.value_schema), fastavro.parse_schema(self.key_schema)

    def key(self, number: int) -> bytes:
        return framed(self.key_id, self._key, {"id": number})

    def value(self, op: str, number: int, lsn: int, *, ts_us: int = 1_790_000_000_000_000, **columns: Any) -> bytes:
        """One change of row `number`: op `c`, `u`, `d`. `columns` are the new values (for `d` the old ones)."""
        row = {"id": number, "email": f"p{number}@example.org", "note": None, "amount": 1.5, **columns}
        old = {**row, "note": "before"}
        return framed(
            self.value_id,
            self._value,
            {
                "before": None if op == "c" else old,
                "after": None if op == "d" else row,
                "source": {
                    "version": "3.7.0.Final", "connector": "postgresql", "name": self.source, "ts_ms": ts_us // 1000,
                    "snapshot": "false", "db": "shop", "sequence": f'["{lsn - 1}","{lsn}"]', "ts_us": ts_us,
                    "ts_ns": ts_us * 1000, "schema": "public", "table": self.name, "txId": lsn, "lsn": lsn, "xmin": None,
                },
                "transaction": {"id": f"{lsn}:{lsn}", "total_order": 1, "data_collection_order": 1},
                "op": op, "ts_ms": ts_us // 1000, "ts_us": ts_us, "ts_ns": ts_us * 1000,
            },
        )  # fmt: skip


def register(registry_url: str, subject: str, schema: dict[str, Any]) -> int:
    """The id of a schema, registered under a subject."""
    answer = httpx.post(f"{registry_url}/subjects/{subject}/versions", json={"schema": json.dumps(schema)}, timeout=30)
    answer.raise_for_status()
    return int(answer.json()["id"])


def framed(schema_id: int, schema: Any, datum: dict[str, Any]) -> bytes:
    """A datum in the Confluent frame."""
    out = io.BytesIO()
    out.write(b"\0" + schema_id.to_bytes(4, "big"))
    fastavro.schemaless_writer(out, schema, datum)
    return out.getvalue()
