"""The topic of reference data, read from its start, outside any group; by the worker's follower and by the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from chronicle import config
from chronicle.codec.entity import Record, record_of
from chronicle.errors import ChronicleError, ConfigError, StopWorker, TransientError
from chronicle.refusals import refused
from chronicle.worker.ledger import Partition
from chronicle.worker.topics import Broker, translated

TIMEOUT_S = 10.0
RECORDS_MAX = 50_000
"""Of one read."""
QUEUED_KIB_MAX = 16_384
"""Fetched and not read yet."""
_GONE = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION)


@dataclass(frozen=True, slots=True)
class Read:
    """What one read brought."""

    records: list[Record] = field(default_factory=list, repr=False)
    """In the order of the topic."""
    unreadable: int = 0
    """Records that say nothing about an entity, or what no entity can be."""
    reached: Mapping[Partition, int] = field(default_factory=dict)
    """The offset up to which each partition is in this or an earlier read (excluded)."""


def covered(reached: Mapping[Partition, int], ends: Mapping[Partition, int]) -> bool:
    """Whether everything before these offsets has been read."""
    return all(reached.get(place, 0) >= end for place, end in ends.items())


class EntityLog:
    """A consumer of `chronicle.entities`. One thread opens and reads; `ends` may be asked from any."""

    def __init__(self, kafka: config.Kafka) -> None:
        """Connects to nothing yet."""
        self.topic = kafka.entities_topic
        self._options = kafka.client_config()
        self._broker = Broker(self._options)
        self._consumer = Consumer(
            {
                **self._options,
                "group.id": "chronicle-entities",  # asked for by the library; assign() never joins it
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 500,
                "queued.max.messages.kbytes": QUEUED_KIB_MAX,
                "allow.auto.create.topics": False,
            }
        )
        self._reached: Mapping[Partition, int] = {}

    def open(self) -> Mapping[Partition, int]:
        """Begin at the start of each partition; where that is.

        Raises:
            TransientError: the broker is away.
            ConfigError: there is no such topic, or the broker refuses us.
        """
        try:
            about = self._consumer.list_topics(self.topic, timeout=TIMEOUT_S).topics[self.topic]
            if about.error is not None:
                raise self._meaning(about.error)
            places = [(self.topic, number) for number in sorted(about.partitions)]
            starts = {}
            for place in places:
                low, _ = self._consumer.get_watermark_offsets(TopicPartition(*place), timeout=TIMEOUT_S)
                starts[place] = low
            self._consumer.assign([TopicPartition(*place, offset) for place, offset in starts.items()])
        except KafkaException as error:
            raise refused(error.args[0], self._options, about=self.topic) or translated(error) from None
        self._reached = starts
        return starts

    def ends(self) -> dict[Partition, int]:
        """Where each partition ends now.

        Raises:
            TransientError: the broker is away.
            ConfigError: it refuses us.
        """
        return self._broker.ends(self._reached)

    def read(self, timeout_s: float) -> Read:
        """What has been fetched, at most `RECORDS_MAX` records; waits up to `timeout_s` for the first.

        Raises:
            TransientError: the broker answers with an error that may pass. Nothing read is lost.
            ConfigError: the topic is gone, or the broker refuses us.
            StopWorker: the topic was made anew: what was read of the old one no longer holds.
        """
        try:
            first = self._consumer.poll(timeout_s)
            messages = [] if first is None else [first, *self._consumer.consume(RECORDS_MAX - 1, timeout=0)]
        except KafkaException as error:
            raise translated(error) from None
        records: list[Record] = []
        reached, unreadable, problem = dict(self._reached), 0, None
        for message in messages:
            place, offset = (message.topic() or "", message.partition() or 0), message.offset() or 0
            fault = message.error()
            if fault is not None and fault.code() != KafkaError._PARTITION_EOF:
                problem = fault
                continue
            if offset < reached.get(place, 0):
                raise self.made_anew()
            reached[place] = offset + (fault is None)
            if fault is None:
                record = record_of(_bytes(message.key()), _bytes(message.value()), message.timestamp()[1], offset)
                unreadable += record is None or not record.readable
                if record is not None:
                    records.append(record)
        if problem is not None and not records:
            raise self._meaning(problem)
        self._reached = reached
        return Read(records, unreadable, reached)

    def made_anew(self) -> StopWorker:
        """What is to be said when the topic is shorter than what was read of it."""
        return StopWorker(f"start again: {self.topic} was deleted and made anew, so what was read of it is no longer true")

    def close(self) -> None:
        """Give back the connection."""
        self._consumer.close()

    def _meaning(self, error: KafkaError) -> ChronicleError:
        if error.code() in _GONE:
            return ConfigError(f"run `chronicle setup`: there is no topic {self.topic}")
        found = refused(error, {}, about=self.topic) or translated(KafkaException(error))
        return found if isinstance(found, ConfigError) else TransientError(f"reading {self.topic}: {found}")


def _bytes(given: bytes | str | None) -> bytes | None:
    return given.encode() if isinstance(given, str) else given
