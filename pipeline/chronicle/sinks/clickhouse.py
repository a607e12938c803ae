"""The ClickHouse sink: changes, mirrors, transactions, events and dead letters, as Arrow, whole batches at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from importlib.metadata import version
from typing import Any

import polars as pl
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.external import ExternalData

from chronicle import config
from chronicle.errors import ConfigError, SinkRejected, TransientError
from chronicle.model.batch import Batch, TableRows
from chronicle.sinks import arrow, unavailable
from chronicle.sinks.alerts import alerts
from chronicle.sinks.clickhouse_client import connect
from chronicle.sinks.clickhouse_errors import SchemaMismatch, translated
from chronicle.sinks.engines import quoted
from chronicle.sinks.mirror import Mirrors, Target

__all__ = ["ClickHouseSink", "connect"]

SMALL_ROWS_MAX = 1_000
"""Below this an insert is asynchronous (and waited for): the server gathers quiet tables' rows of all workers into parts."""
WRITERS = 8
"""Inserts under way at once. Each waits on the server, so that 200 quiet tables are not 200 waits after one another."""
_COMMON: dict[str, str | int] = {
    "insert_deduplicate": 0,  # identity is the guarantee, not tokens (fact 21)
    "max_insert_threads": 1,
    "max_partitions_per_insert_block": 0,  # a batch may span any number of months
    "wait_end_of_query": 1,  # no 200 before all of it is in
}
_SMALL = _COMMON | {
    "async_insert": 1,
    "wait_for_async_insert": 1,
    "async_insert_deduplicate": 0,
    "async_insert_busy_timeout_min_ms": 10,
    "async_insert_busy_timeout_max_ms": 50,
}
_LARGE = _COMMON | {"async_insert": 0}


class ClickHouseSink:
    """Holds a batch when every table has it. Mirrors come first, so that a row they refuse is in no table at all.

    Connects at the first write; mirrors are made and widened as rows ask for it (see `Mirrors`).
    """

    name = "clickhouse"

    def __init__(
        self,
        clickhouse: config.ClickHouse,
        *,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._settings = clickhouse
        self._clock = clock
        self._version = version("chronicle")
        self._pool = ThreadPoolExecutor(WRITERS, thread_name_prefix="clickhouse")
        self._client: Client | None = None
        self._mirrors: Mirrors | None = None

    def write(self, batch: Batch) -> None:
        """As `Sink.write`. Raises ConfigError as well, when tables are absent or the user may not write."""
        client, mirrors = self._connected()
        changes = batch.changes.rechunk()  # the path puts it together from many small frames
        places = arrow.Places.of(changes)
        writes = [self._pool.submit(self._write_mirror, mirrors, group, changes, places) for group in _by_table(batch)]
        if len(batch.transactions):  # beside the mirrors: one wait on the server less
            writes.append(self._pool.submit(self._write_transactions, client, batch.transactions))
        if len(batch.events):
            writes.append(self._pool.submit(self._write_events, client, batch.events))
        try:
            rows = arrow.changes(changes, places) if len(changes) else None
        finally:
            wait(writes)
        _raise_worst(writes)
        if rows is not None:
            self._insert(client, rows, "changes", self._settings.database)
        if len(batch.alerts):
            self._insert(client, alerts(batch.alerts), "alerts", self._settings.database)
        if batch.dead_letters:
            letters = arrow.dead_letters(batch.dead_letters, failed_at_us=self._clock() // 1000, version=self._version)
            self._insert(client, letters, "dead_letters", self._settings.database)

    def close(self) -> None:
        """Give back threads and connections."""
        self._pool.shutdown()
        if self._client is not None:
            self._client.close()
            self._client = self._mirrors = None

    def _connected(self) -> tuple[Client, Mirrors]:
        if self._client is None or self._mirrors is None:
            self._client = connect(self._settings)
            self._mirrors = Mirrors(self._client, self._settings)
        return self._client, self._mirrors

    def _write_transactions(self, client: Client, transactions: pl.DataFrame) -> None:
        self._insert(client, arrow.transactions(transactions), "transactions", self._settings.database)

    def _write_events(self, client: Client, events: pl.DataFrame) -> None:
        self._insert(client, arrow.events(events), "events", self._settings.database)

    def _write_mirror(self, mirrors: Mirrors, group: list[TableRows], changes: pl.DataFrame, places: arrow.Places) -> None:
        for rows in group:
            try:
                self._write_rows(mirrors, rows, changes, places)
            except SchemaMismatch:
                # Another worker changed the table, or somebody dropped it: look again, once.
                mirrors.forget(rows)
                self._write_rows(mirrors, rows, changes, places)

    def _write_rows(self, mirrors: Mirrors, rows: TableRows, changes: pl.DataFrame, places: arrow.Places) -> None:
        target, frame = mirrors.target(rows), rows.frame
        if frame["_unavailable"].list.len().sum():
            of_changes = changes.select(unavailable.POSITION.keys()).rename(unavailable.POSITION)[frame["_row"]]
            frame = unavailable.carried(frame.hstack(of_changes), target.key)
            asking, frame = frame.filter(unavailable.asks()), frame.filter(~unavailable.asks())
            if len(asking):
                self._insert_asking(mirrors.client, target, asking, places.at(asking["_row"]))
        if len(frame):
            table = arrow.mirror(frame, target.columns, places.at(frame["_row"]))
            self._insert(mirrors.client, table, target.table, self._settings.mirror_database)

    def _insert(self, client: Client, table: Any, name: str, database: str) -> None:
        settings = _SMALL if table.num_rows < SMALL_ROWS_MAX else _LARGE
        columns = ", ".join(quoted(column) for column in table.schema.names)
        # The statement goes before the data, not into the URL (which urllib3 escapes slowly); one piece is sent at once.
        head = f"INSERT INTO {quoted(database)}.{quoted(name)} ({columns}) FORMAT Arrow\n"
        with translated(f"{database}.{name}", table.schema.names):
            client.raw_insert("", insert_block=arrow.encoded(table, head.encode()), settings=settings, fmt="Arrow")

    def _insert_asking(self, client: Client, target: Target, frame: pl.DataFrame, places: arrow.Places) -> None:
        table = arrow.mirror(frame, target.columns, places, more=list(unavailable.MORE))
        rows = ExternalData(file_name="fresh", data=arrow.encoded(table), fmt="Arrow", structure=unavailable.structure(target))
        with translated(f"{self._settings.mirror_database}.{target.table}", table.schema.names):
            client.command(unavailable.statement(self._settings.mirror_database, target), external_data=rows, settings=_COMMON)


def _by_table(batch: Batch) -> list[list[TableRows]]:
    """Mirror rows grouped by captured table: its schemas one after the other, for later ones may ask for earlier values."""
    groups: dict[tuple[str, str, str], list[TableRows]] = {}
    for rows in batch.tables:
        if len(rows.frame):
            groups.setdefault((rows.source, rows.schema, rows.table), []).append(rows)
    return list(groups.values())


def _raise_worst(writes: list[Future[None]]) -> None:
    """What stops everything comes before what may pass, and that before what is wrong with a row."""
    errors = [error for error in (write.exception() for write in writes) if error is not None]
    if not errors:
        return
    weight = {SinkRejected: 0, TransientError: 1, ConfigError: 2}
    raise max(errors, key=lambda error: next((rank for kind, rank in weight.items() if isinstance(error, kind)), 3))
