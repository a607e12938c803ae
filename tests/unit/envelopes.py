"""Debezium records for tests: recorded ones, and Avro ones made to measure."""

from __future__ import annotations

import base64
import gzip
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import fastavro

from chronicle.testing import Record

DATA = Path(__file__).parent.parent / "data" / "changes"


@dataclass(frozen=True)
class Recorded:
    """Records of a real connector with the schemas they were written with."""

    records: tuple[Record, ...]
    schemas: Mapping[int, str]


@cache
def recorded(name: str) -> Recorded:
    """`captured_*`: the project's own templates (Debezium 3.7.0, 3.5.0, 3.6.1). `events_*`: decimals as text, bytes as
    base64, all types and edge cases of `events/*.sql` (Debezium 3.6.3)."""
    lines = gzip.decompress((DATA / f"{name}.jsonl.gz").read_bytes()).decode().splitlines()
    schemas = {int(id_): text for id_, text in json.loads(lines[0])["schemas"].items()}
    return Recorded(tuple(_record(json.loads(line)) for line in lines[1:]), schemas)


def _record(line: dict[str, Any]) -> Record:
    def data(text: str | None) -> bytes | None:
        return None if text is None else base64.b64decode(text)

    headers = tuple((name, base64.b64decode(value)) for name, value in line["headers"])
    return Record(
        line["topic"], data(line["value"]), data(line["key"]), headers, line["partition"], line["offset"], line["timestamp"]
    )


_SOURCE: dict[str, list[tuple[str, Any]]] = {
    "postgresql": [
        *(("version", "string"), ("connector", "string"), ("name", "string"), ("ts_ms", "long")),
        *(("snapshot", ["null", "string"]), ("db", "string"), ("sequence", ["null", "string"]), ("ts_us", ["null", "long"])),
        *(("schema", "string"), ("table", "string"), ("txId", ["null", "long"]), ("lsn", ["null", "long"])),
    ],
    "mariadb": [
        *(("version", "string"), ("connector", "string"), ("name", "string"), ("ts_ms", "long")),
        *(("snapshot", ["null", "string"]), ("db", "string"), ("table", ["null", "string"]), ("gtid", ["null", "string"])),
        *(("file", "string"), ("pos", "long"), ("row", "int"), ("ts_us", ["null", "long"])),
    ],
}


@dataclass(frozen=True)
class Table:
    """A captured table: makes its records."""

    columns: Sequence[tuple[str, Any]]
    """Name, Avro type."""
    key: Sequence[str] = ("id",)
    name: str = "t"
    schema: str = "public"
    source: str = "shop"
    connector: str = "postgresql"
    schema_id: int = 100
    _parsed: dict[str, Any] = field(default_factory=dict)

    @property
    def topic(self) -> str:
        return f"{self.source}.{self.schema}.{self.name}"

    @property
    def schemas(self) -> dict[int, str]:
        """Value schema under `schema_id`, key schema under the next id."""
        return {self.schema_id: json.dumps(self._value_schema()), self.schema_id + 1: json.dumps(self._key_schema())}

    def _value_schema(self) -> dict[str, Any]:
        row = {"type": "record", "name": "Value", "fields": [{"name": name, "type": kind} for name, kind in self.columns]}
        source = [{"name": name, "type": kind} for name, kind in _SOURCE[self.connector]]
        block = [{"name": "id", "type": "string"}, {"name": "total_order", "type": "long"}]
        return {
            "type": "record",
            "name": "Envelope",
            "namespace": f"{self.source}.{self.schema}.{self.name}",
            "connect.name": f"{self.topic}.Envelope",
            "fields": [
                {"name": "before", "type": ["null", row]},
                {"name": "after", "type": ["null", "Value"]},
                {"name": "source", "type": {"type": "record", "name": "Source", "namespace": "io", "fields": source}},
                {
                    "name": "transaction",
                    "type": ["null", {"type": "record", "name": "block", "namespace": "ev", "fields": block}],
                },
                {"name": "op", "type": "string"},
                {"name": "ts_ms", "type": ["null", "long"]},
            ],
        }

    def _key_schema(self) -> dict[str, Any]:
        fields = [{"name": name, "type": dict(self.columns)[name]} for name in self.key]
        return {"type": "record", "name": "Key", "namespace": self.topic, "connect.name": f"{self.topic}.Key", "fields": fields}

    def _encode(self, id_: int, schema: dict[str, Any], datum: Any) -> bytes:
        parsed = self._parsed.setdefault(str(id_), fastavro.parse_schema(schema))
        out = io.BytesIO(b"")
        out.write(b"\0" + id_.to_bytes(4, "big"))
        fastavro.schemaless_writer(out, parsed, datum)
        return out.getvalue()

    def change(
        self,
        op: str,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
        *,
        headers: tuple[tuple[str, bytes], ...] = (),
        partition: int = 0,
        offset: int | None = None,
        key: Mapping[str, Any] | None = None,
        order: int = 1,
        **source: Any,
    ) -> Record:
        """One change; `source` overrides fields of the source block (`lsn`, `pos`, …)."""
        block = {
            "version": "3.7",
            "connector": self.connector,
            "name": self.source,
            "ts_ms": 1_700_000_000_000,
            "table": self.name,
        }
        block |= {"snapshot": "true" if op == "r" else "false", "ts_us": 1_700_000_000_000_001}
        if self.connector == "postgresql":
            block |= {"db": "d", "schema": self.schema, "txId": 7, "lsn": 100, "sequence": '["90","100"]'}
        else:
            block |= {"db": self.schema, "gtid": "0-1-5", "file": "mysql-bin.000003", "pos": 400, "row": 0}
        block |= source
        datum = {
            "before": before,
            "after": after,
            "source": block,
            "transaction": {"id": f"{block.get('txId')}:{block.get('lsn')}", "total_order": order},
            "op": op,
            "ts_ms": 1_700_000_000_500,
        }
        if self.connector != "postgresql":
            datum["transaction"] = {"id": block["gtid"], "total_order": order}
        row = key or after or before
        raw = None
        if self.key and row is not None and op != "t":
            raw = self._encode(self.schema_id + 1, self._key_schema(), {name: row[name] for name in self.key})
        return Record(self.topic, self._encode(self.schema_id, self._value_schema(), datum), raw, headers, partition, offset)


ENVELOPE: dict[str, Any] = {
    "before": None,
    "after": {"id": 1, "v": "v1"},
    "source": {
        "connector": "postgresql",
        "ts_us": 1,
        "sequence": '["1","2"]',
        "schema": "public",
        "table": "t",
        "txId": 7,
        "lsn": 2,
    },
    "transaction": {"id": "7:2", "total_order": 1},
    "op": "c",
    "ts_ms": 2,
}
"""A create on Postgres as JSON without a schema."""
