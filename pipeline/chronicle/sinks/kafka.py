"""The Kafka sink: changes, contexts and events to the audit topic, dead letters with their original bytes to theirs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from importlib.metadata import version

import polars as pl

from chronicle import config
from chronicle.codec import audit, audit_events
from chronicle.errors import ConfigError
from chronicle.model.batch import Batch
from chronicle.model.dead_letters import DeadLetter
from chronicle.sinks.producer import RECORD_BYTES_MAX, ConfirmedProducer

__all__ = ["RECORD_BYTES_MAX", "KafkaSink", "dead_letter_headers", "send_dead_letters"]


def dead_letter_headers(letter: DeadLetter, *, at: str, chronicle_version: str) -> list[tuple[str, str | bytes | None]]:
    """Why and where, as UTF-8 text, then the record's own headers. `at`: ISO 8601."""
    own = {
        "chronicle.dead-letter.reason": str(letter.reason),
        "chronicle.dead-letter.stage": str(letter.stage),
        "chronicle.dead-letter.detail": letter.detail,
        "chronicle.dead-letter.schema-id": "" if letter.schema_id is None else str(letter.schema_id),
        "chronicle.dead-letter.at": at,
        "chronicle.dead-letter.version": chronicle_version,
        "chronicle.original.topic": letter.topic,
        "chronicle.original.partition": str(letter.partition),
        "chronicle.original.offset": str(letter.offset),
        "chronicle.original.timestamp": str(letter.timestamp_ms),
    }
    return [*((name, text.encode()) for name, text in own.items()), *letter.headers]


def _told(changes: pl.DataFrame) -> pl.DataFrame:
    """Without stubs: what the policy leaves out has no audit record."""
    stubs = changes["stub"] != ""
    return changes.filter(~stubs) if stubs.any() else changes


def send_dead_letters(
    producer: ConfirmedProducer, letters: Iterable[DeadLetter], topic_of: Callable[[DeadLetter], str], *, at_s: float
) -> None:
    """Queue dead letters, each with its original bytes, for its topic. `at_s`: now, in seconds since 1970."""
    at = datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds")
    chronicle_version = version("chronicle")
    for letter in letters:
        headers = dead_letter_headers(letter, at=at, chronicle_version=chronicle_version)
        producer.produce_raw(topic_of(letter), letter.value, letter.key, headers)


class KafkaSink:
    """Holds a batch when the broker has confirmed every record of it (idempotent producer, all replicas, `flush() == 0`).

    Connects at the first write. A batch that comes again is written again: readers upsert by the record's key.
    """

    name = "kafka"

    def __init__(self, kafka: config.Kafka, *, clock: Callable[[], float] = time.time) -> None:
        """`clock`: seconds since 1970, for the time on dead letters."""
        self._kafka = kafka
        self._clock = clock
        self._version = version("chronicle")
        self._producer = ConfirmedProducer(kafka)

    def write(self, batch: Batch) -> None:
        """As `Sink.write`. Raises ConfigError as well: a topic is absent, has other partitions, or may not be written."""
        if not (len(batch.changes) or len(batch.transactions) or len(batch.events) or batch.dead_letters):
            return
        self._check_partitions()
        producer, topic, partitions = self._producer, self._kafka.audit_topic, self._kafka.audit_partitions
        producer.produce(topic, audit.changes(_told(batch.changes), partitions=partitions, version=self._version))
        producer.produce(topic, audit.contexts(batch.transactions, partitions=partitions, version=self._version))
        producer.produce(topic, audit_events.events(batch.events, partitions=partitions, version=self._version))
        send_dead_letters(producer, batch.dead_letters, lambda _: self._kafka.dead_letter_topic, at_s=self._clock())
        producer.confirm()

    def close(self) -> None:
        """Nothing is under way between two calls of `write`, so nothing is lost."""
        self._producer.close()

    def _check_partitions(self) -> None:
        """A record's partition follows from its entity: another count would tear a row's records apart."""
        topic, found = self._kafka.audit_topic, self._producer.partitions(self._kafka.audit_topic)
        if found != self._kafka.audit_partitions:
            raise ConfigError(f"set kafka.audit_partitions to {found}: topic {topic} has that many, fixed for its life")
