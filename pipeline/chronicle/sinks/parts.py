"""Sinks that hold one part of a batch, for workers of a role: they never write changes."""

from __future__ import annotations

from chronicle.model.batch import Batch
from chronicle.sinks.clickhouse import ClickHouseSink


class RoleSink:
    """Holds what ClickHouse is told by a role, and nothing else of a batch: its alerts, and where its dead letters are."""

    name = "clickhouse"

    def __init__(self, clickhouse: ClickHouseSink) -> None:
        self._clickhouse = clickhouse

    def write(self, batch: Batch) -> None:
        """As `Sink.write`. Raises ConfigError as well, when a table is absent or the user may not write."""
        if len(batch.alerts) or batch.dead_letters:
            part = Batch(
                batch.changes.clear(), (), batch.transactions.clear(), dead_letters=batch.dead_letters, alerts=batch.alerts
            )
            self._clickhouse.write(part)

    def close(self) -> None:
        """Give back threads and connections."""
        self._clickhouse.close()
