"""The backlog's records are what a Debezium connector writes: fastavro reads each, in the promised proportions."""

from __future__ import annotations

import io
from collections import Counter
from typing import Any

import fastavro

from tests.bench.envelopes import envelope_schema, key_schema, records


def test_every_record_of_a_backlog_decodes() -> None:
    """Spliced envelopes read back whole with the registry's schema; updates carry the row that was there before."""
    topics = ["bench.public.a", "bench.public.b"]
    envelopes = [fastavro.parse_schema(envelope_schema(topic)) for topic in topics]
    keys = [fastavro.parse_schema(key_schema(topic)) for topic in topics]
    rows: dict[tuple[int, int], Any] = {}
    operations: Counter[str] = Counter()
    size = tombstones = 0
    for index, record in records(topics, 4000, seed=1, start_us=1_700_000_000_000_000):
        key: Any = fastavro.schemaless_reader(io.BytesIO(record.key), keys[index], None)
        if record.value is None:
            tombstones += 1
            continue
        stream = io.BytesIO(record.value)
        envelope: Any = fastavro.schemaless_reader(stream, envelopes[index], None)
        assert not stream.read(), "nothing is left behind the datum"
        operations[envelope["op"]] += 1
        size += len(record.value)
        name = (index, key["id"])
        assert envelope["before"] == rows.get(name)
        assert (envelope["after"] or envelope["before"])["id"] == key["id"]
        assert envelope["source"]["table"] == topics[index].split(".")[2]
        rows[name] = envelope["after"]
    assert tombstones == operations["d"]
    assert 0.27 < operations["c"] / 4000 < 0.34
    assert 0.55 < operations["u"] / 4000 < 0.65
    assert 430 < size / 4000 < 560
