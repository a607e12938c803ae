"""What one writes first: a Faust agent that handles event by event. The yardstick for the batch path, on the same backlog.

Per event: the schema's id, fastavro, a dictionary with the changed columns, JSON, `topic.send`, and an insert into
ClickHouse: of that one row (`each`), or of a thousand rows gathered by `stream.take` (`take`, the kinder variant).
Run as a process of its own: it prints its CPU microseconds per event.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
from typing import Any

import fastavro
import faust
import httpx

from chronicle.config import ClickHouse
from chronicle.sinks.clickhouse_client import connect
from tests.bench.meter import CpuMeter

RESULT = "us_per_event"
TAKEN, WITHIN_S = 1000, 0.25
WARM = 500
"""Events before the measurement begins."""
COLUMNS = ["event_id", "topic", "operation", "before", "after", "changed", "committed_at"]


class Plain:
    """The agent's work on one event, and its account."""

    def __init__(self, registry_url: str, clickhouse_url: str, database: str, rows: int) -> None:
        self.registry_url, self.rows = registry_url, rows
        self.schemas: dict[int, Any] = {}
        self.client = connect(ClickHouse(url=clickhouse_url))
        self.table = f"{database}.plain"
        columns = "event_id String, topic String, operation String, before String, after String, changed Array(String)"
        self.client.command(
            f"CREATE OR REPLACE TABLE {self.table} ({columns}, committed_at Int64)"
            " ENGINE = ReplacingMergeTree ORDER BY (topic, event_id)"
        )
        self.meter = CpuMeter(os.getpid())
        self.done = 0
        self.warm: tuple[int, float] | None = None

    def decode(self, data: bytes) -> Any:
        """A framed datum."""
        number = int.from_bytes(data[1:5], "big")
        if number not in self.schemas:
            text = httpx.get(f"{self.registry_url}/schemas/ids/{number}").raise_for_status().json()["schema"]
            self.schemas[number] = fastavro.parse_schema(json.loads(text))
        return fastavro.schemaless_reader(io.BytesIO(data[5:]), self.schemas[number], None)

    def change(self, topic: str, value: bytes) -> dict[str, Any]:
        """An event as a dictionary."""
        envelope = self.decode(value)
        before, after, source = envelope["before"] or {}, envelope["after"] or {}, envelope["source"]
        return {
            "event_id": f"{topic}:{source['txId']}:{source['lsn']}:{envelope['op']}",
            "topic": topic,
            "operation": envelope["op"],
            "before": json.dumps(before, default=str),
            "after": json.dumps(after, default=str),
            "changed": [name for name in after if name in before and after[name] != before[name]],
            "committed_at": source["ts_ms"],
        }

    def insert(self, changes: list[dict[str, Any]]) -> None:
        """Rows into ClickHouse."""
        self.client.insert(self.table, [[change[name] for name in COLUMNS] for change in changes], column_names=COLUMNS)

    def count(self, events: int) -> None:
        """Account for handled events; ends the process after the last."""
        self.done += events
        if self.warm is None:
            if self.done >= WARM:
                self.warm = (self.done, self.meter.seconds())
            return
        handled, spent = self.done - self.warm[0], self.meter.seconds() - self.warm[1]
        if handled >= self.rows:
            os.write(1, f"\n{RESULT} {spent / handled * 1e6}\n".encode())  # Faust takes sys.stdout for its log
            os._exit(0)


def main() -> None:
    """Run the agent until it has handled its events."""
    kafka, registry_url, clickhouse_url, database, rows, way, *topics = sys.argv[1:]
    plain = Plain(registry_url, clickhouse_url, database, int(rows))
    app = faust.App(
        f"plain_{database}_{way}_{int(time.time())}",
        broker=f"kafka://{kafka}",
        consumer_auto_offset_reset="earliest",
        store="memory://",
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
    )
    source = app.topic(*topics, key_serializer="raw", value_serializer="raw")
    target = app.topic(f"{database}_audit", key_serializer="raw", value_serializer="raw")

    async def each(stream: Any) -> None:
        async for event in stream.events():
            if event.value is not None:
                change = plain.change(event.message.topic, event.value)
                await target.send(key=change["event_id"].encode(), value=json.dumps(change).encode())
                plain.insert([change])
                plain.count(1)

    async def take(stream: Any) -> None:
        async for events in stream.take_events(TAKEN, within=WITHIN_S):
            changes = [plain.change(event.message.topic, event.value) for event in events if event.value is not None]
            for change in changes:
                await target.send(key=change["event_id"].encode(), value=json.dumps(change).encode())
            plain.insert(changes)
            plain.count(len(changes))

    app.agent(source)({"each": each, "take": take}[way])
    app.finalize()
    faust.Worker(app, loglevel="WARN", logfile=sys.stderr).execute_from_commandline()


if __name__ == "__main__":
    main()
