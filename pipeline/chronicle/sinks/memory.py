"""A sink that keeps everything in this process: for tests and for the embedded mode, under the same contract."""

from __future__ import annotations

from typing import Any

from chronicle.errors import SinkRejected
from chronicle.model.batch import Batch
from chronicle.model.dead_letters import DeadLetter


class MemorySink:
    """Holds each change once by `event_id`, the latest processing of it; nothing survives the process."""

    name = "memory"

    def __init__(self, *, image_bytes_max: int | None = None) -> None:
        """`image_bytes_max`: changes whose `after`, and events whose payload is longer are refused, as a store with a record
        limit would."""
        self._image_bytes_max = image_bytes_max
        self.changes: dict[bytes, dict[str, Any]] = {}
        self.rows: dict[tuple[str, str, str], dict[bytes, dict[str, Any]]] = {}
        """Mirror rows by (source, schema, table) and event id."""
        self.transactions: dict[tuple[str, int, int], dict[str, Any]] = {}
        """Transaction records by (topic, partition, offset)."""
        self.dead_letters: dict[tuple[str, int, int], DeadLetter] = {}
        self.alerts: dict[bytes, dict[str, Any]] = {}
        """By alert id, the latest."""
        self.events: dict[tuple[str, str, str, bytes], dict[str, Any]] = {}
        """What applications said, by (source, tenant, type, event id), the latest processing."""

    def write(self, batch: Batch) -> None:
        """As `Sink.write`: all or nothing, so a refused batch leaves no trace."""
        self._refuse_large(batch)
        for change in batch.changes.iter_rows(named=True):
            known = self.changes.get(change["event_id"])
            if known is None or known["processed_at"] <= change["processed_at"]:
                self.changes[change["event_id"]] = change
        ids = batch.changes["event_id"]
        for rows in batch.tables:
            table = self.rows.setdefault((rows.source, rows.schema, rows.table), {})
            for row in rows.frame.iter_rows(named=True):
                table[ids[row["_row"]]] = row
        for record in batch.transactions.iter_rows(named=True):
            self.transactions[record["topic"], record["partition"], record["offset"]] = record
        for alert in batch.alerts.iter_rows(named=True):
            known = self.alerts.get(alert["alert_id"])
            if known is None or known["raised_at"] <= alert["raised_at"]:
                self.alerts[alert["alert_id"]] = alert
        for event in batch.events.iter_rows(named=True):
            at = (event["source"], event["tenant"] or "", event["type"], event["event_id"])
            known = self.events.get(at)
            if known is None or known["processed_at"] <= event["processed_at"]:
                self.events[at] = event
        for letter in batch.dead_letters:
            self.dead_letters[letter.topic, letter.partition, letter.offset] = letter

    def _refuse_large(self, batch: Batch) -> None:
        for column in (batch.changes["after"], batch.events["payload"]):
            longest = column.str.len_bytes().max()
            if self._image_bytes_max is not None and isinstance(longest, int) and longest > self._image_bytes_max:
                raise SinkRejected("a change or an event is larger than this memory sink takes")

    def close(self) -> None:
        """Nothing to give back: what was written can still be read."""
