"""The one way in which sinks produce to Kafka: idempotent, to all replicas, and confirmed before anything is acknowledged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from chronicle import config
from chronicle.codec.audit import Records
from chronicle.errors import ChronicleError, ConfigError, SinkRejected, StopWorker, TransientError
from chronicle.refusals import refused

RECORD_BYTES_MAX = 32 * 1024 * 1024
"""Of what the producer sends: an audit record holds the old and the new row, so it may be larger than the raw record."""
_QUEUE_MESSAGES_MAX = 200_000
_QUEUE_KBYTES_MAX = 512 * 1024
_LINGER_MS = 20
_DELIVERY_TIMEOUT_MS = 30_000
_FLUSH_TIMEOUT_S = 40.0
_METADATA_TIMEOUT_S = 10.0

Headers = Sequence[tuple[str, str | bytes | None]]

_REJECTED = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD, KafkaError.RECORD_LIST_TOO_LARGE})
_MISCONFIGURED: dict[int, str] = {
    KafkaError._UNKNOWN_TOPIC: "run `chronicle setup`: the topic does not exist",
    KafkaError.UNKNOWN_TOPIC_OR_PART: "run `chronicle setup`: the topic does not exist",
    KafkaError._UNKNOWN_PARTITION: "start again: a topic was made again with fewer partitions",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "grant this user WRITE on the topic",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "grant this user WRITE on the topics, or IDEMPOTENT_WRITE on the cluster",
}

_MAYBE_REFUSED = frozenset({KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._MSG_TIMED_OUT})
"""A broker that is away, or one that does not let us in."""
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


class ConfirmedProducer:
    """Produces, and then says whether the broker has confirmed every record (`flush() == 0`).

    Connects when it is first asked for something. Between two calls of `confirm` nothing is under way.
    """

    def __init__(self, kafka: config.Kafka) -> None:
        self._kafka = kafka
        self._producer: Producer | None = None
        self._failures: list[KafkaError] = []
        self._topic = ""
        """Of the last failure."""
        self._partitions: dict[str, int] = {}

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has; asked once for each connection.

        Raises:
            ConfigError: there is no such topic, or it may not be seen.
            TransientError: the broker does not answer.
        """
        producer = self._connected()
        if topic not in self._partitions:
            try:
                found = producer.list_topics(topic, timeout=_METADATA_TIMEOUT_S).topics[topic]
            except KafkaException as error:
                raise self._meaning([error.args[0]]) from None
            if found.error is not None:
                raise self._meaning([found.error], topic)
            self._partitions[topic] = len(found.partitions)
        return self._partitions[topic]

    def produce(self, topic: str, records: Records, headers: Headers | None = None) -> None:
        """Queue records, each for its partition. What fails is told by `confirm`."""
        producer = self._connected()
        produce = producer.produce
        if not all(records.values):  # would be a tombstone: compaction then deletes the change it stands for
            raise AssertionError("a record without a value: a bug; nothing was acknowledged")
        options: dict[str, Any] = {} if headers is None else {"headers": headers}
        try:
            # produce(), one by one: produce_batch ignores the partition (fact 45) and is no cheaper
            for key, value, partition in zip(records.keys, records.values, records.partitions, strict=True):
                try:
                    produce(topic, value, key, partition, **options)
                except BufferError:
                    self._drain(producer)
                    produce(topic, value, key, partition, **options)
        except KafkaException as error:
            self._failures.append(error.args[0])

    def produce_raw(self, topic: str, value: bytes | None, key: bytes | None, headers: Headers) -> None:
        """Queue one record for any partition; a null value is allowed."""
        producer = self._connected()
        try:
            try:
                producer.produce(topic, value, key, headers=list(headers))
            except BufferError:
                self._drain(producer)
                producer.produce(topic, value, key, headers=list(headers))
        except KafkaException as error:
            self._failures.append(error.args[0])

    def confirm(self) -> None:
        """Return when the broker has everything that was queued.

        Raises:
            ConfigError: a topic is absent or may not be written, or the broker does not let us in.
            SinkRejected: a record is larger than its topic takes.
            TransientError: the broker is away or busy; all is to be produced again.
            StopWorker: it refuses for a reason of unknown meaning.
        """
        if self._producer is not None:
            self._drain(self._producer)
        failures, self._failures = self._failures, []
        if failures:
            error = self._meaning(failures, self._topic)
            if not isinstance(error, SinkRejected):
                # An idempotent producer does nothing more after a fatal error, and what it says then (_FATAL, not fatal())
                # looks like any other: the next attempt gets a fresh one. Nothing is queued in this one.
                self._producer = None
            raise error

    def close(self) -> None:
        """Nothing is under way between two calls of `confirm`, so nothing is lost."""
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
            self._failures, self._partitions = [], {}
            self._producer = Producer(settings)
        return self._producer

    def _drain(self, producer: Producer) -> None:
        left = producer.flush(_FLUSH_TIMEOUT_S)
        if left:
            self._producer = None  # what is still queued there goes with it; the batch is written again
            raise TransientError(f"the broker has not confirmed {left} records in {_FLUSH_TIMEOUT_S:.0f} s")

    def _failed(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failures.append(error)
            self._topic = message.topic() or ""

    def _meaning(self, failures: Sequence[KafkaError], topic: str = "") -> ChronicleError:
        if all(failure.code() in _MAYBE_REFUSED for failure in failures):
            wrong = refused(failures[0], self._kafka.client_config())
            if wrong is not None:
                return wrong
        return _meaning(failures, topic)


def _meaning(failures: Iterable[KafkaError], topic: str = "") -> ChronicleError:
    """The worst of the failures: what the operator must do comes first, then what may pass, then what is wrong with a row."""
    rejected: ChronicleError | None = None
    transient: ChronicleError | None = None
    for failure in failures:
        code, name = failure.code(), failure.name()
        if code in _MISCONFIGURED:
            return ConfigError(f"{_MISCONFIGURED[code]} ({topic and topic + '; '}Kafka: {name})")
        if code in _REJECTED:
            rejected = SinkRejected(f"a record is larger than its topic takes (Kafka: {name})", reason="too_large")
        elif failure.retriable() or failure.fatal() or code < 0 or code in _PASSING:
            transient = TransientError(f"the broker is away or busy (Kafka: {name})")
        else:
            return StopWorker(f"the broker refuses records for a reason of unknown meaning (Kafka: {name})")
    found = transient or rejected
    assert found is not None  # noqa: S101  # called with at least one failure
    return found
