"""The Kafka sink: changes and contexts to the audit topic, dead letters with their original bytes to theirs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from importlib.metadata import version

import polars as pl
from confluent_kafka import KafkaError, KafkaException, Producer

from chronicle import config
from chronicle.codec import audit
from chronicle.errors import ChronicleError, ConfigError, SinkRejected, StopWorker, TransientError
from chronicle.model.batch import Batch
from chronicle.model.dead_letters import DeadLetter

RECORD_BYTES_MAX = 32 * 1024 * 1024
"""Of what the producer sends: an audit record holds the old and the new row, so it may be larger than the raw record."""
_QUEUE_MESSAGES_MAX = 200_000
_QUEUE_KBYTES_MAX = 512 * 1024
_LINGER_MS = 20
_DELIVERY_TIMEOUT_MS = 30_000
_FLUSH_TIMEOUT_S = 40.0
_METADATA_TIMEOUT_S = 10.0

_REJECTED = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD, KafkaError.RECORD_LIST_TOO_LARGE})
_MISCONFIGURED: dict[int, str] = {
    KafkaError._UNKNOWN_TOPIC: "run `chronicle setup`: the topic does not exist",
    KafkaError.UNKNOWN_TOPIC_OR_PART: "run `chronicle setup`: the topic does not exist",
    KafkaError._UNKNOWN_PARTITION: "set kafka.audit_partitions to the audit topic's partition count",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "grant this user WRITE on the topic",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "grant this user IDEMPOTENT_WRITE on the cluster",
    KafkaError.SASL_AUTHENTICATION_FAILED: "correct kafka.sasl_username and kafka.sasl_password",
    KafkaError._AUTHENTICATION: "correct kafka.sasl_username and kafka.sasl_password",
    KafkaError._SSL: "correct kafka.ssl_ca_location",
}

_PASSING = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER,
        KafkaError.UNKNOWN_PRODUCER_ID,
        KafkaError.THROTTLING_QUOTA_EXCEEDED,
        KafkaError.KAFKA_STORAGE_ERROR,
    }
)


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
        self._producer: Producer | None = None
        self._failures: list[KafkaError] = []

    def write(self, batch: Batch) -> None:
        """As `Sink.write`. Raises ConfigError as well: a topic is absent, has other partitions, or may not be written."""
        if not (len(batch.changes) or len(batch.transactions) or batch.dead_letters):
            return
        producer = self._connected()
        partitions = self._kafka.audit_partitions
        try:
            self._produce_audit(producer, audit.changes(_told(batch.changes), partitions=partitions, version=self._version))
            self._produce_audit(producer, audit.contexts(batch.transactions, partitions=partitions, version=self._version))
            self._produce_dead_letters(producer, batch.dead_letters)
        except KafkaException as error:
            self._failures.append(error.args[0])
        self._confirm(producer)

    def close(self) -> None:
        """Nothing is under way between two calls of `write`, so nothing is lost."""
        self._producer = None

    def _connected(self) -> Producer:
        if self._producer is None:
            settings = self._kafka.client_config() | {
                "enable.idempotence": True,
                "linger.ms": _LINGER_MS,
                "compression.type": "lz4",
                "message.max.bytes": RECORD_BYTES_MAX,
                "message.timeout.ms": _DELIVERY_TIMEOUT_MS,
                "queue.buffering.max.messages": _QUEUE_MESSAGES_MAX,
                "queue.buffering.max.kbytes": _QUEUE_KBYTES_MAX,
                "delivery.report.only.error": True,
                "on_delivery": self._failed,  # named once: as an argument of each call it costs more
            }
            producer = Producer(settings)
            self._check_partitions(producer)
            self._failures = []
            self._producer = producer
        return self._producer

    def _check_partitions(self, producer: Producer) -> None:
        """A record's partition follows from its entity: another count would tear a row's records apart."""
        topic = self._kafka.audit_topic
        try:
            found = producer.list_topics(topic, timeout=_METADATA_TIMEOUT_S).topics[topic]
        except KafkaException as error:
            raise _meaning([error.args[0]]) from None
        if found.error is not None:
            raise _meaning([found.error])
        if len(found.partitions) != self._kafka.audit_partitions:
            raise ConfigError(
                f"set kafka.audit_partitions to {len(found.partitions)}: topic {topic} has that many, fixed for its life"
            )

    def _produce_audit(self, producer: Producer, records: audit.Records) -> None:
        produce, topic = producer.produce, self._kafka.audit_topic
        if not all(records.values):  # would be a tombstone: the topic's compaction then deletes the change it stands for
            raise AssertionError("an audit record without a value: a bug; nothing was acknowledged")
        # produce(), one by one: produce_batch ignores the partition (fact 45) and is no cheaper
        for key, value, partition in zip(records.keys, records.values, records.partitions, strict=True):
            try:
                produce(topic, value, key, partition)
            except BufferError:
                self._drain(producer)
                produce(topic, value, key, partition)

    def _produce_dead_letters(self, producer: Producer, letters: Iterable[DeadLetter]) -> None:
        at = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds")
        topic = self._kafka.dead_letter_topic
        for letter in letters:
            headers = dead_letter_headers(letter, at=at, chronicle_version=self._version)
            try:
                producer.produce(topic, letter.value, letter.key, headers=headers)
            except BufferError:
                self._drain(producer)
                producer.produce(topic, letter.value, letter.key, headers=headers)

    def _confirm(self, producer: Producer) -> None:
        self._drain(producer)
        failures, self._failures = self._failures, []
        if failures:
            error = _meaning(failures)
            if not isinstance(error, SinkRejected):
                # An idempotent producer does nothing more after a fatal error, and what it says then (_FATAL, not fatal())
                # looks like any other: the next attempt gets a fresh one. Nothing is queued in this one.
                self._producer = None
            raise error

    def _drain(self, producer: Producer) -> None:
        left = producer.flush(_FLUSH_TIMEOUT_S)
        if left:
            self._producer = None  # what is still queued there goes with it; the batch is written again
            raise TransientError(f"the broker has not confirmed {left} records in {_FLUSH_TIMEOUT_S:.0f} s")

    def _failed(self, error: KafkaError | None, _message: object) -> None:
        if error is not None:
            self._failures.append(error)


def _meaning(failures: Iterable[KafkaError]) -> ChronicleError:
    """The worst of the failures: what the operator must do comes first, then what may pass, then what is wrong with a row."""
    rejected: ChronicleError | None = None
    transient: ChronicleError | None = None
    for failure in failures:
        code, name = failure.code(), failure.name()
        if code in _MISCONFIGURED:
            return ConfigError(f"{_MISCONFIGURED[code]} (Kafka: {name})")
        if code in _REJECTED:
            rejected = SinkRejected(f"a record is larger than its topic takes (Kafka: {name})", reason="too_large")
        elif failure.retriable() or failure.fatal() or code < 0 or code in _PASSING:
            transient = TransientError(f"the broker is away or busy (Kafka: {name})")
        else:
            return StopWorker(f"the broker refuses records for a reason of unknown meaning (Kafka: {name})")
    found = transient or rejected
    assert found is not None  # noqa: S101  # called with at least one failure
    return found
