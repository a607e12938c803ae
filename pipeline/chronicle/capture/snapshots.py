"""Incremental snapshots: ask for them until the connector has really begun, and read what it said about each table."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import fastavro
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

from chronicle.capture import topics
from chronicle.capture.sources import Source
from chronicle.config import Kafka

ATTEMPTS = 4
BEGINS_S = 25.0
"""How long an answer to a signal is waited for. Seen: 1 to 10 s after the connector runs again."""
POLL_S = 0.5
IN_PROGRESS, COMPLETED = "IN_PROGRESS", "TABLE_SCAN_COMPLETED"
READ = ("SUCCEEDED", "EMPTY")
NO_PRIMARY_KEY = "NO_PRIMARY_KEY"

# Debezium's `io.debezium.connector.common.Notification`, as Apicurio's and Confluent's converters write it. Known here, so
# that a snapshot can be followed without the registry; a stack test holds it against the real connectors.
NOTIFICATION = fastavro.parse_schema(
    {
        "type": "record",
        "name": "Notification",
        "fields": [
            {"name": "id", "type": "string"},
            {"name": "type", "type": "string"},
            {"name": "aggregate_type", "type": "string"},
            {"name": "additional_data", "type": ["null", {"type": "map", "values": "string"}]},
            {"name": "timestamp", "type": "long"},
        ],
    }
)
FRAME_BYTES = 5


@dataclass(frozen=True, slots=True)
class Scan:
    """What the connector said about one table of an incremental snapshot.

    `begun`: a chunk was read into memory; it is not in its topic yet, and may still fail.
    `failed`: Debezium skipped the table, or the rest of it, and went on with the next.
    """

    table: str
    state: Literal["begun", "done", "failed"]
    reason: str = ""
    """Of a failure, in Debezium's word: SQL_EXCEPTION, NO_PRIMARY_KEY, UNKNOWN_SCHEMA, SKIPPED."""


def begin(
    kafka: Kafka,
    source: Source,
    tables: Sequence[str],
    *,
    since: int | None = None,
    condition: str | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> tuple[str, ...]:
    """Ask for a snapshot of `tables` until the connector has begun to read them; returns notes on what did not work.

    Asking is not enough. Debezium's Postgres connector closes the connection that reads the chunks when it has found its
    place in the log, seconds after its start or, on an idle database, with the very mark that a snapshot writes. It then
    skips the table, says SQL_EXCEPTION and COMPLETED, and goes on. What failed is asked for again: a snapshot twice is
    harmless, one that never happened is not.

    `since`: the first attempt was already asked for, and this is what `end` said before.

    Raises:
        TransientError: the broker is not reachable.
    """
    left, notes = set(tables), list[str]()
    for attempt in range(ATTEMPTS):
        if attempt or since is None:
            since = end(kafka, source)
            topics.request_snapshot(kafka, source, sorted(left), condition)
        report(f"{source.name}: wait for the snapshot of {', '.join(sorted(left))} to begin")
        heard = _answers(kafka, source, left, since)
        left -= {table for table, scan in heard.items() if scan.state != "failed"}
        failed = {table: heard[table] for table in left if table in heard}
        keyless = {table for table, scan in failed.items() if scan.reason == NO_PRIMARY_KEY}
        notes += [failure_note(source, failed[table]) for table in sorted(keyless)]
        left -= keyless
        again = left & set(failed)
        if any(scan.state == "begun" for scan in heard.values()):
            # What was not heard of stands in the connector's queue behind the table that is being read; so does this.
            if again:
                topics.request_snapshot(kafka, source, sorted(again), condition)
            return tuple(notes)
        left = again or left
        if not left:
            return tuple(notes)
    return (*notes, *(failure_note(source, failed.get(table) or Scan(table, "failed", "no answer")) for table in sorted(left)))


def failure_note(source: Source, scan: Scan) -> str:
    """What to do about a failed snapshot."""
    if scan.reason == NO_PRIMARY_KEY:
        return (
            f"{scan.table} has no primary key, so a snapshot beside running changes cannot read it: only its new changes are"
            f" captured; `chronicle connectors apply {source.name} --new-epoch` reads all tables again"
        )
    return (
        f"the snapshot of {scan.table} did not go through ({scan.reason}; Connect's log says why):"
        f" run `chronicle connectors snapshot {source.name}.{scan.table}`"
    )


def failures(kafka: Kafka, source: Source) -> tuple[Scan, ...]:
    """The captured tables whose last incremental snapshot failed, of those that the notification topic still knows.

    Raises:
        TransientError: the broker is not reachable.
    """
    last = {scan.table: scan for scan in _scans(kafka, source, None, 0.0)}
    return tuple(last[table] for table in source.tables if table in last and last[table].state == "failed")


def end(kafka: Kafka, source: Source) -> int:
    """Where the next notification will be. Raises TransientError when the broker is not reachable."""
    with _consumer(kafka, source) as consumer:
        return _watermarks(consumer, source)[1]


def _answers(kafka: Kafka, source: Source, tables: set[str], since: int) -> dict[str, Scan]:
    """The last word on each table, until all are through, or one has certainly begun, or the time is over.

    The first chunk says nothing: the connection may be closed between reading it and marking its end. The second is read
    when the first is through.
    """
    heard: dict[str, Scan] = {}
    for scan in _scans(kafka, source, since, BEGINS_S):
        if scan.table not in tables:
            continue
        again = scan.state == "begun" and heard.get(scan.table) == scan
        heard[scan.table] = scan
        if again or (tables <= set(heard) and all(each.state != "begun" for each in heard.values())):
            break
    return heard


def _scans(kafka: Kafka, source: Source, since: int | None, wait_s: float) -> Iterator[Scan]:
    """Scans from an offset (None: the beginning) to the end, and what comes within `wait_s`."""
    deadline = time.monotonic() + wait_s
    with _consumer(kafka, source) as consumer:
        at, last = _watermarks(consumer, source)
        if since is not None:
            at = max(at, since)
        if wait_s == 0 and at >= last:
            return
        consumer.assign([TopicPartition(source.notification_topic, 0, at or OFFSET_BEGINNING)])
        while at < last or time.monotonic() < deadline:
            message = consumer.poll(POLL_S if at >= last else topics.TIMEOUT_S)
            if message is None or message.error() is not None:
                if at < last:
                    raise topics.silent(kafka)
                continue
            at = (message.offset() or 0) + 1
            scan = scan_of(message.value())
            if scan is not None:
                yield scan


@contextmanager
def _consumer(kafka: Kafka, source: Source) -> Iterator[Consumer]:
    """A reader of notifications: it commits nothing, its group is only a name that has rights."""
    consumer = Consumer({**kafka.client_config(), "group.id": source.signal_group, "enable.auto.commit": False})
    try:
        yield consumer
    except KafkaException as error:
        raise topics.translated(kafka, error) from None
    finally:
        consumer.close()


def _watermarks(consumer: Consumer, source: Source) -> tuple[int, int]:
    """First and next offset of the notification topic; (0, 0) while there is none."""
    found = consumer.list_topics(source.notification_topic, timeout=topics.TIMEOUT_S).topics[source.notification_topic]
    if not found.partitions:
        return 0, 0
    low, high = consumer.get_watermark_offsets(TopicPartition(source.notification_topic, 0), timeout=topics.TIMEOUT_S)
    return low, high


def scan_of(value: str | bytes | None) -> Scan | None:
    """What a notification (Avro in Confluent's frame, or JSON with or without schema) says about a table of an incremental
    snapshot; None when it says something else, or cannot be read. No key value of it is kept."""
    data = value.encode() if isinstance(value, str) else value or b""
    try:
        if data[:1] == b"{":
            said = json.loads(data)
            said = said.get("payload", said)
        else:
            said = fastavro.schemaless_reader(io.BytesIO(data[FRAME_BYTES:]), NOTIFICATION, None)
    except (ValueError, EOFError, IndexError, TypeError):
        return None
    return _scan(said) if isinstance(said, dict) and said.get("aggregate_type") == "Incremental Snapshot" else None


def _scan(said: dict[str, Any]) -> Scan | None:
    more = said.get("additional_data") or {}
    if said.get("type") == IN_PROGRESS and "current_collection_in_progress" in more:
        return Scan(more["current_collection_in_progress"], "begun")
    if said.get("type") == COMPLETED and "scanned_collection" in more:
        status = str(more.get("status"))
        return Scan(more["scanned_collection"], "done" if status in READ else "failed", "" if status in READ else status)
    return None
