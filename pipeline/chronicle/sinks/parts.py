"""Sinks that hold one part of a batch, for workers of a role: they never write changes."""

from __future__ import annotations

from chronicle.model.batch import Batch
from chronicle.sinks.clickhouse import ClickHouseSink


class AlertSink:
    """Holds the alerts of a batch, and nothing else of it, when ClickHouse has them."""

    name = "alerts"

    def __init__(self, clickhouse: ClickHouseSink) -> None:
        self._clickhouse = clickhouse

    def write(self, batch: Batch) -> None:
        """As `Sink.write`. Raises ConfigError as well, when the table is absent or the user may not write."""
        if len(batch.alerts):
            self._clickhouse.write(Batch(batch.changes.clear(), (), batch.transactions.clear(), alerts=batch.alerts))

    def close(self) -> None:
        """Give back threads and connections."""
        self._clickhouse.close()
