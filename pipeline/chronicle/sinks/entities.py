"""ClickHouse's copy of the reference data: the table `entities`, for SQL that wants today's names."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import islice

import msgspec
import polars as pl
from clickhouse_connect.driver.client import Client

from chronicle import config
from chronicle.codec.entity import Record, entity_of
from chronicle.sinks.clickhouse_client import connect
from chronicle.sinks.clickhouse_errors import translated
from chronicle.sinks.engines import quoted

ROWS_MAX = 50_000
"""Of one insert."""
_COLUMNS = ("id", "name", "metadata", "deleted", "put_at", "offset")
_SETTINGS = {"async_insert": 0, "insert_deduplicate": 0, "wait_end_of_query": 1}


class EntityTable:
    """Implements `worker.entities.Table`. Connects at the first call; a state that comes again replaces itself."""

    def __init__(self, clickhouse: config.ClickHouse) -> None:
        self._settings = clickhouse
        self._client: Client | None = None

    def known(self) -> pl.DataFrame:
        """Id, at_ms and offset of the entities that it holds.

        Raises:
            TransientError: ClickHouse is away.
            ConfigError: there is no such table, or it may not be read.
        """
        client = self._connected()
        query = f"SELECT id, toUnixTimestamp64Milli(put_at) AS at_ms, toInt64(offset) AS offset FROM {self._name} FINAL WHERE NOT deleted"  # noqa: S608, E501
        with translated("entities"):
            found = pl.from_arrow(client.query_arrow(query, use_strings=True))
        if not isinstance(found, pl.DataFrame):
            raise AssertionError("no table: a bug")
        return found.with_columns(pl.col("id").cast(pl.String), pl.col("at_ms", "offset").cast(pl.Int64))

    def write(self, records: Iterable[Record]) -> None:
        """Hold these states. Raises as `known`; what was written then may be written again."""
        client, rows = self._connected(), iter(records)
        while part := list(islice(rows, ROWS_MAX)):
            columns = list(zip(*map(_row, part), strict=True))
            with translated("entities", _COLUMNS):
                client.insert(
                    "entities",
                    columns,
                    column_names=_COLUMNS,
                    database=self._settings.database,
                    column_oriented=True,
                    settings=_SETTINGS,
                )

    def close(self) -> None:
        """Give back the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None

    @property
    def _name(self) -> str:
        return f"{quoted(self._settings.database)}.entities"

    def _connected(self) -> Client:
        if self._client is None:
            self._client = connect(self._settings)
        return self._client


def _row(record: Record) -> tuple[str, str, str, bool, datetime, int]:
    at = datetime.fromtimestamp(record.at_ms / 1000, UTC)
    if record.body is None:
        return record.id, "", "", True, at, record.offset
    entity = entity_of(record.id, record.body)
    metadata = msgspec.json.encode(entity.metadata, order="deterministic").decode()
    return record.id, entity.name, metadata, False, at, record.offset
