"""The dead-letter topic itself: read letters with their original bytes, and send them back to be processed again.

Who shows original bytes to a person takes them from `read_raw`, which records that on the audit topic first.
ClickHouse's `dead_letters` table holds the metadata of every letter (`trail.letters`); the bytes are only here, for as
long as the topic keeps them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any
from uuid import uuid4

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from chronicle.codec import access
from chronicle.config import Kafka
from chronicle.errors import ChronicleError, ConfigError, TransientError
from chronicle.refusals import refused, turned_away

LETTER = "chronicle.dead-letter."
ORIGINAL = "chronicle.original."
TIMEOUT_S = 15.0
"""For each answer of the broker while reading or listing offsets."""
FLUSH_S = 60.0
QUEUE_BYTES_MAX = 64 * 1024 * 1024
"""Of records on their way to the retry topic; reading waits meanwhile."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One record of the dead-letter topic."""

    topic: str
    """Topic, partition and offset are those of the original record."""
    partition: int
    offset: int
    timestamp_ms: int
    reason: str
    stage: str
    detail: str
    schema_id: int | None
    at: str
    """When it became a dead letter, ISO 8601."""
    version: str
    key: bytes | None = field(repr=False)
    value: bytes | None = field(repr=False)
    headers: tuple[tuple[str, bytes | None], ...] = field(repr=False)
    """The original headers, without Chronicle's own."""

    @property
    def coordinates(self) -> tuple[str, int, int]:
        """What names the original record."""
        return self.topic, self.partition, self.offset


@dataclass(frozen=True, slots=True)
class Selection:
    """Which letters; None means any. They all hold together."""

    reason: str | None = None
    topic: str | None = None
    source: str | None = None
    """Letters of topics whose name begins with `<source>.`."""
    since: datetime | None = None
    """Dead since this time."""

    def holds(self, letter: Letter) -> bool:
        """Whether a letter is one of these (`since` is applied when reading); never one that says not where it comes from."""
        return (
            bool(letter.topic and letter.partition >= 0 and letter.offset >= 0)
            and self.reason in (None, letter.reason)
            and self.topic in (None, letter.topic)
            and (self.source is None or letter.topic.startswith(f"{self.source}."))
        )


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay did."""

    read: int
    """Letters in the topic since the asked time."""
    chosen: int
    """Distinct original records among them that were asked for."""
    sent: int
    """Confirmed by the broker; 0 in a dry run."""
    by_reason: Mapping[str, int]


def read(kafka: Kafka, since: datetime | None = None) -> Iterator[Letter]:
    """All letters up to the topic's end as it is now, partition by partition, in order of offset.

    Raises:
        ConfigError: the topic is not there, or the broker refuses us.
        TransientError: the broker does not answer.
    """
    options = kafka.client_config()
    if wrong := turned_away(options):  # or the first question would wait out its whole time
        raise wrong
    settings = {
        **options,
        "group.id": "chronicle-dead-letters",  # never joined: partitions are assigned, nothing is committed
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",
        "fetch.message.max.bytes": 16 * 1024 * 1024,
    }
    consumer = Consumer(settings)
    try:
        for start, end in _ranges(consumer, kafka, since):
            yield from _read_partition(consumer, kafka, start, end)
    except KafkaException as error:
        raise _translated(error.args[0], kafka) from None
    finally:
        consumer.close()


def find(kafka: Kafka, topic: str, partition: int, offset: int) -> Letter:
    """The latest letter of one original record.

    Raises:
        ChronicleError: the topic holds no such letter (any more).
    """
    found = None
    for letter in read(kafka):
        found = letter if letter.coordinates == (topic, partition, offset) else found
    if found is None:
        named = f"{topic} {partition} {offset}"
        raise ChronicleError(f"look with `chronicle dead-letters list`: {kafka.dead_letter_topic} holds no letter of {named}")
    return found


@dataclass(frozen=True, slots=True)
class Reader:
    """Who looks at original bytes: the operating system's user, and where."""

    user: str
    uid: int
    host: str


def read_raw(places: Sequence[Kafka], topic: str, partition: int, offset: int, reader: Reader) -> Letter:
    """As `find`; returns when the broker has confirmed a record of this reading on the audit topic, and not before.

    Args:
        places: settings with the dead-letter topics to look in, one after the other; at least one.

    Raises:
        ChronicleError: there is no such letter, or the reading could not be recorded: then nothing may be shown.
    """
    kafka, letter = _found(places, topic, partition, offset)
    reading = access.Reading(
        id=uuid4(),
        at=datetime.now(UTC),
        user=reader.user,
        uid=reader.uid,
        host=reader.host,
        bucket=kafka.dead_letter_topic,
        topic=topic,
        partition=partition,
        offset=offset,
    )
    _record(kafka, reading)
    return letter


def _found(places: Sequence[Kafka], topic: str, partition: int, offset: int) -> tuple[Kafka, Letter]:
    for kafka in places[:-1]:
        with suppress(ChronicleError):  # the last one says what is wrong
            return kafka, find(kafka, topic, partition, offset)
    return places[-1], find(places[-1], topic, partition, offset)


def _record(kafka: Kafka, reading: access.Reading) -> None:
    failures, confirmed = list[KafkaError](), 0

    def delivered(error: KafkaError | None, _message: Message) -> None:
        nonlocal confirmed
        confirmed += error is None
        failures.extend([error] if error is not None else [])

    key, value = access.record(reading, version=version("chronicle"))
    # the shorter time is for a topic that is not there, which otherwise looks like a broker that does not answer
    waits = {"message.timeout.ms": int(TIMEOUT_S * 1000), "topic.metadata.propagation.max.ms": 3000}
    producer = _producer(kafka, waits)
    try:
        producer.produce(kafka.audit_topic, value=value, key=key, on_delivery=delivered)
    except KafkaException as error:
        failures.append(error.args[0])
    producer.flush(2 * TIMEOUT_S)
    if failures or confirmed != 1:
        why = (
            _translated(failures[0], kafka)
            if failures
            else "start the broker or correct kafka.bootstrap_servers: no answer from it"
        )
        raise ChronicleError(f"{why}; nothing is shown, because the reading could not be recorded on {kafka.audit_topic}")


def replay(
    kafka: Kafka, selection: Selection, *, dry_run: bool = False, progress: Callable[[int, int], None] | None = None
) -> Replayed:
    """Send the chosen letters to the retry topic: original key, bytes and headers, original coordinates in headers.

    Each original record is sent once, whatever number of letters it has. Repeating a replay changes nothing, because the
    worker identifies a change by what it is and not by how often it arrives.

    Args:
        progress: called with (letters read, records chosen) now and then.

    Raises:
        TransientError: the broker is away, or did not confirm every record. Running it again is safe.
    """
    sent, failures = 0, list[KafkaError]()

    def delivered(error: KafkaError | None, _message: Message) -> None:
        nonlocal sent
        if error is None:
            sent += 1
        else:
            failures.append(error)

    producer = None if dry_run else _producer(kafka)
    chosen: set[tuple[str, int, int]] = set()
    by_reason: dict[str, int] = {}
    count = 0
    for count, letter in enumerate(read(kafka, selection.since), start=1):
        if progress is not None:
            progress(count, len(chosen))
        if not selection.holds(letter) or letter.coordinates in chosen:
            continue
        chosen.add(letter.coordinates)
        by_reason[letter.reason] = by_reason.get(letter.reason, 0) + 1
        if producer is not None:
            _send(producer, kafka.retry_topic, letter, delivered)
    left = producer.flush(FLUSH_S) if producer is not None else 0
    if failures:
        raise _translated(failures[0], kafka)
    if left or (producer is not None and sent != len(chosen)):
        raise TransientError(f"run it again: the broker confirmed {sent} of {len(chosen)} records")
    return Replayed(count, len(chosen), sent, dict(sorted(by_reason.items())))


def _producer(kafka: Kafka, more: Mapping[str, Any] | None = None) -> Producer:
    return Producer(
        {
            **kafka.client_config(),
            "enable.idempotence": True,
            "compression.type": "zstd",
            "message.max.bytes": 16 * 1024 * 1024,
            "queue.buffering.max.kbytes": QUEUE_BYTES_MAX // 1024,
            **(more or {}),
        }
    )


def _send(producer: Producer, topic: str, letter: Letter, delivered: Callable[[KafkaError | None, Message], None]) -> None:
    coordinates = {
        "topic": letter.topic,
        "partition": str(letter.partition),
        "offset": str(letter.offset),
        "timestamp": str(letter.timestamp_ms),
    }
    headers: list[tuple[str, str | bytes | None]] = [(ORIGINAL + name, text.encode()) for name, text in coordinates.items()]
    headers += letter.headers
    while True:
        try:
            producer.produce(topic, value=letter.value, key=letter.key, headers=headers, on_delivery=delivered)
            producer.poll(0)
            return
        except BufferError:  # the queue is full: wait until something was delivered
            producer.poll(1.0)


def _ranges(consumer: Consumer, kafka: Kafka, since: datetime | None) -> list[tuple[TopicPartition, int]]:
    """Where to begin in each partition, and its end."""
    topic = kafka.dead_letter_topic
    described = consumer.list_topics(topic, timeout=TIMEOUT_S).topics[topic]
    if described.error is not None:
        raise _translated(described.error, kafka)
    starts = []
    for partition in sorted(described.partitions):
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=TIMEOUT_S)
        start = low
        if since is not None:
            asked = TopicPartition(topic, partition, int(since.timestamp() * 1000))
            offset = consumer.offsets_for_times([asked], timeout=TIMEOUT_S)[0].offset
            start = offset if offset >= 0 else high
        if start < high:
            starts.append((TopicPartition(topic, partition, start), high))
    return starts


def _read_partition(consumer: Consumer, kafka: Kafka, start: TopicPartition, end: int) -> Iterator[Letter]:
    consumer.assign([start])
    while True:
        message = consumer.poll(TIMEOUT_S)
        if message is None:
            raise TransientError("start the broker or correct kafka.bootstrap_servers: no answer from it")
        error = message.error()
        if error is not None and error.code() == KafkaError._PARTITION_EOF:
            return
        if error is not None:
            raise _translated(error, kafka)
        if (message.offset() or 0) >= end:
            return
        yield _letter(message)


def _letter(message: Message) -> Letter:
    pairs: list[tuple[str, bytes | None]] = message.headers() or []  # type: ignore[assignment]  # what a consumer gets
    headers = tuple(pairs)
    own: dict[str, str] = {}
    for name, value in headers:
        if name.startswith((LETTER, ORIGINAL)):
            own.setdefault(name, (value or b"").decode(errors="replace"))
    schema_id = own.get(LETTER + "schema-id", "")
    return Letter(
        topic=own.get(ORIGINAL + "topic", ""),
        partition=_number(own.get(ORIGINAL + "partition", "")),
        offset=_number(own.get(ORIGINAL + "offset", "")),
        timestamp_ms=_number(own.get(ORIGINAL + "timestamp", "")),
        reason=own.get(LETTER + "reason", ""),
        stage=own.get(LETTER + "stage", ""),
        detail=own.get(LETTER + "detail", ""),
        schema_id=int(schema_id) if schema_id.isdigit() else None,
        at=own.get(LETTER + "at", ""),
        version=own.get(LETTER + "version", ""),
        key=message.key(),
        value=message.value(),
        headers=tuple((name, value) for name, value in headers if not name.startswith((LETTER, ORIGINAL))),
    )


_AWAY = frozenset(
    {
        KafkaError._TRANSPORT,
        KafkaError._TIMED_OUT,
        KafkaError._MSG_TIMED_OUT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._RESOLVE,
    }
)


def _number(text: str) -> int:
    return int(text) if text.isdigit() else -1


def _translated(error: Any, kafka: Kafka) -> ChronicleError:
    if error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
        return ConfigError("run `chronicle setup`: the dead-letter, retry or audit topic is not there")
    if wrong := refused(error, kafka.client_config()):
        return wrong
    if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
        return ConfigError("run `chronicle setup`: a topic takes smaller records than Chronicle needs")
    away = error.code() in _AWAY
    return TransientError(
        f"start the broker or correct kafka.bootstrap_servers: {'no answer from it' if away else error.name()}"
    )
