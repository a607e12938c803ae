"""Dead letters by their metadata: what failed, where, why, and whether it has been processed since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from clickhouse_connect.driver.client import Client

from chronicle.trail.reading import micros, rows

COORDINATES_PER_QUERY = 500
"""Bound values travel in the URL, which has a limit."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One record that could not be processed; its bytes are in the dead-letter topic."""

    topic: str
    partition: int
    offset: int
    timestamp: datetime
    """Of the original record."""
    stage: str
    reason: str
    detail: str
    schema_id: int | None
    key_bytes: int | None
    value_bytes: int | None
    version: str
    failed_at: datetime
    change_since: bool = False
    """A change with these coordinates is in the trail: it was sent back and processed."""

    @property
    def coordinates(self) -> tuple[str, int, int]:
        """What names the original record."""
        return self.topic, self.partition, self.offset

    def as_json(self) -> dict[str, Any]:
        """For a pipe: times in ISO 8601."""
        return {
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "timestamp": self.timestamp.isoformat(),
            "stage": self.stage,
            "reason": self.reason,
            "detail": self.detail,
            "schema_id": self.schema_id,
            "key_bytes": self.key_bytes,
            "value_bytes": self.value_bytes,
            "version": self.version,
            "failed_at": self.failed_at.isoformat(),
            "change_since": self.change_since,
        }


@dataclass(frozen=True, slots=True)
class Filters:
    """Which dead letters; None means any. They all hold together."""

    reason: str | None = None
    topic: str | None = None
    source: str | None = None
    since: datetime | None = None
    partition: int | None = None
    offset: int | None = None


_WHERE = """
    ({reason:String} = '' OR reason = {reason:String}) AND ({topic:String} = '' OR topic = {topic:String})
    AND ({source:String} = '' OR startsWith(topic, concat({source:String}, '.')))
    AND failed_at >= fromUnixTimestamp64Micro({since:Int64}, 'UTC')
    AND ({partition:Int64} < 0 OR partition = {partition:Int64}) AND ({offset:Int64} < 0 OR offset = {offset:Int64})
"""


def _parameters(database: str, filters: Filters) -> dict[str, Any]:
    return {
        "database": database,
        "reason": filters.reason or "",
        "topic": filters.topic or "",
        "source": filters.source or "",
        "since": 0 if filters.since is None else micros(filters.since),
        "partition": -1 if filters.partition is None else filters.partition,
        "offset": -1 if filters.offset is None else filters.offset,
    }


def letters(client: Client, database: str, filters: Filters, *, limit: int) -> list[DeadLetter]:
    """The newest `limit` dead letters that match, oldest of them first."""
    sql = f"""
        SELECT topic, partition, offset, timestamp, stage, reason, detail, schema_id, key_bytes, value_bytes, version, failed_at
        FROM {{database:Identifier}}.dead_letters FINAL WHERE {_WHERE}
        ORDER BY failed_at DESC, topic DESC, partition DESC, offset DESC LIMIT {{limit:UInt64}}
    """  # noqa: S608  (built from this module's own texts; every value is bound)
    found = [DeadLetter(**row) for row in rows(client, sql, {**_parameters(database, filters), "limit": limit})]
    processed = _processed(client, database, found)
    return [replace(letter, change_since=letter.coordinates in processed) for letter in reversed(found)]


def counts(client: Client, database: str, filters: Filters) -> Mapping[str, int]:
    """How many of those that match have which reason, the most frequent first."""
    sql = f"""
        SELECT reason, count() AS n FROM {{database:Identifier}}.dead_letters FINAL WHERE {_WHERE}
        GROUP BY reason ORDER BY n DESC, reason
    """  # noqa: S608  (built from this module's own texts; every value is bound)
    return {row["reason"]: row["n"] for row in rows(client, sql, _parameters(database, filters))}


def _processed(client: Client, database: str, found: Sequence[DeadLetter]) -> set[tuple[str, int, int]]:
    """Those coordinates that a change has now."""
    sql = """
        SELECT DISTINCT topic, partition, offset FROM {database:Identifier}.changes
        WHERE topic IN {topics:Array(String)} AND (topic, partition, offset) IN
            arrayZip({topics:Array(String)}, {partitions:Array(UInt32)}, {offsets:Array(UInt64)})
    """
    processed: set[tuple[str, int, int]] = set()
    for start in range(0, len(found), COORDINATES_PER_QUERY):
        part = found[start : start + COORDINATES_PER_QUERY]
        asked = {
            "database": database,
            "topics": [letter.topic for letter in part],
            "partitions": [letter.partition for letter in part],
            "offsets": [letter.offset for letter in part],
        }
        processed |= {(row["topic"], row["partition"], row["offset"]) for row in rows(client, sql, asked)}
    return processed
