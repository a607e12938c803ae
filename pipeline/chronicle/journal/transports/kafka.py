"""Events straight to the topic: confirmed by all in-sync replicas, in order, not doubled by retries of the producer."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from chronicle.errors import ConfigError
from chronicle.journal.transports import TransportAway

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message, Producer

    from chronicle.journal.outgoing import Outgoing
    from chronicle.journal.settings import Settings

TOPIC = "chronicle.events"
_REFUSALS = ("_AUTHENTICATION", "_SSL")
_UNCLEAR = ("_MSG_TIMED_OUT", "_TRANSPORT", "_TIMED_OUT")
_FOR_GOOD = ("MSG_SIZE_TOO_LARGE", "INVALID_MSG", "INVALID_RECORD", "INVALID_MSG_SIZE", "_INVALID_ARG")


class Kafka:
    """A producer of confluent-kafka, made at the first event: acks=all, idempotent.

    Args:
        brokers: `host:port,host:port`.
        topic: for events that name none.
        config: more of librdkafka's settings, those of security first of all; they win.
        timeout_s: after which the brokers count as away.

    Raises:
        ConfigError: confluent-kafka is not installed.
    """

    name = "kafka"
    durable = True

    def __init__(
        self, brokers: str, *, topic: str = TOPIC, config: Mapping[str, str] | None = None, timeout_s: float = 10.0
    ) -> None:
        try:
            import confluent_kafka
        except ImportError:
            raise ConfigError("install confluent-kafka for a journal that writes to Kafka") from None
        self._make = confluent_kafka.Producer
        self._topic = topic
        self._timeout_s = timeout_s
        self._config: dict[str, Any] = {
            "bootstrap.servers": brokers,
            "acks": "all",
            "enable.idempotence": True,
            "compression.type": "zstd",
            "linger.ms": 2,  # the journal has gathered them already
            "message.timeout.ms": int(timeout_s * 1_000),
            "socket.timeout.ms": max(1_000, int(timeout_s * 500)),
            "topic.metadata.propagation.max.ms": 1_000,  # a topic that is not there is said soon
            "log_level": 0,  # its errors come with the messages
            "error_cb": self._on_error,
            **(config or {}),
        }
        self._refusal = ""
        """Kafka's name of why the broker did not let us in, the last time it said so."""
        self._lock = threading.Lock()
        self._producer: Producer | None = None

    def send(self, batch: Sequence[Outgoing]) -> Sequence[str | None]:
        """As `Transport.send`; returns when there is a report on each, which takes no longer than the timeout."""
        producer = self._made()
        reports: dict[int, KafkaError | None] = {}
        deadline = time.monotonic() + self._timeout_s + 5
        for at, out in enumerate(batch):
            self._produce(producer, at, out, reports, deadline)
        while len(reports) < len(batch) and time.monotonic() < deadline:
            producer.poll(0.1)
        confirmed = {at for at, error in reports.items() if error is None}
        if confirmed:
            self._refusal = ""
        refused = {
            at: f"kafka: {error.name()}" for at, error in reports.items() if error is not None and error.name() in _FOR_GOOD
        }
        if len(confirmed) + len(refused) < len(batch):
            why = next((error for at, error in reports.items() if error is not None and at not in refused), None)
            raise TransportAway(self._told(why), confirmed=confirmed)
        return [refused.get(at) for at in range(len(batch))]

    def _produce(
        self, producer: Producer, at: int, out: Outgoing, reports: dict[int, KafkaError | None], deadline: float
    ) -> None:
        from confluent_kafka import KafkaException

        def report(error: KafkaError | None, _: Message) -> None:
            reports[at] = error

        while time.monotonic() < deadline:
            try:
                producer.produce(out.topic or self._topic, out.text, out.key, on_delivery=report)
                return
            except BufferError:  # the producer's own queue is full: let it send
                producer.poll(0.05)
            except KafkaException as error:
                reports[at] = error.args[0]
                return

    def _told(self, why: KafkaError | None) -> str:
        """A wrong password and a wrong certificate look like a broker that is away: librdkafka tells them beside the report."""
        if why is None:
            return "kafka: no report"
        if why.name() in _UNCLEAR and (name := self._refusal):
            return f"kafka: {name}: correct the journal's settings of Kafka (CHRONICLE_JOURNAL_KAFKA)"
        return f"kafka: {why.name()}"

    def _on_error(self, error: KafkaError) -> None:
        """Called while the producer is polled."""
        if error.name() in _REFUSALS:
            self._refusal = error.name()

    def close(self) -> None:
        """Nothing is waiting in the producer: `send` waits for each report."""
        with self._lock:
            producer, self._producer = self._producer, None
        if producer is not None:
            producer.flush(0)

    def forked(self) -> None:
        """A producer's threads do not come along: the child makes its own, and must not even delete the parent's, which
        would wait for them."""
        self._lock = threading.Lock()
        producer, self._producer = self._producer, None
        if producer is not None:
            import ctypes

            ctypes.pythonapi.Py_IncRef(ctypes.py_object(producer))

    def _made(self) -> Producer:
        with self._lock:
            if self._producer is None:
                from confluent_kafka import KafkaException

                try:
                    self._producer = self._make(self._config)
                except KafkaException as error:  # its text may hold the setting's value
                    raise TransportAway(f"correct CHRONICLE_JOURNAL_KAFKA: {error.args[0].name()}") from None
            return self._producer


def opened(url: str, settings: Settings) -> Kafka:
    """`kafka://host:port,host:port/topic`."""
    brokers, _, topic = url.partition("://")[2].partition("/")
    config = dict(word.partition("=")[::2] for word in settings.kafka.split())
    if not brokers or "@" in brokers:
        raise ConfigError("write the journal's transport as kafka://host:port/topic; secrets go into CHRONICLE_JOURNAL_KAFKA")
    return Kafka(brokers, topic=unquote(topic) or TOPIC, config=config, timeout_s=settings.timeout_s)
