"""The transaction topics as the follower reads them: outside any group, from a time on, noticing topics that come and go."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # its stubs miss it

from chronicle import config
from chronicle.errors import ChronicleError, TransientError
from chronicle.model.chunk import Chunk
from chronicle.worker.ledger import Partition
from chronicle.worker.topics import translated

log = structlog.get_logger("chronicle.follower")

TIMEOUT_S = 10.0
RECORDS_MAX = 10_000
"""Of one read."""
QUEUED_KIB_MAX = 16_384
"""Fetched and not read yet."""
SUFFIX = ".transaction"
_GONE = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION)


@dataclass(frozen=True, slots=True)
class Read:
    """What one read brought."""

    chunks: Sequence[Chunk] = field(default=(), repr=False)
    reached: Mapping[Partition, int] = field(default_factory=dict)
    """The offset up to which each partition's records are in this or an earlier read (excluded)."""


class TransactionLog:
    """A consumer without a group on `<source>.transaction` of some sources. One thread reads; `ends`, `lag` and `sources`
    may be asked from any.

    Nothing is committed. A topic that was deleted and made anew is read from its start.
    """

    def __init__(self, kafka: config.Kafka, sources: Iterable[str]) -> None:
        """Connects to nothing yet."""
        self._sources = {f"{source}{SUFFIX}": source for source in sources}
        options = kafka.client_config()
        self._admin = AdminClient(options)
        self._consumer = Consumer(
            {
                **options,
                "group.id": "chronicle-follower",  # asked for by the library; assign() never joins it
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_uncommitted",  # as the worker reads the rows
                "fetch.wait.max.ms": 500,
                "queued.max.messages.kbytes": QUEUED_KIB_MAX,
                "topic.metadata.refresh.interval.ms": 60_000,
                "error_cb": self._on_error,
            }
        )
        self._lock = threading.Lock()
        self._ids: dict[str, tuple[str, int]] = {}  # topic → its id, number of partitions
        self._next: dict[Partition, int] = {}
        self._highs: dict[Partition, int] = {}
        self._whole: dict[Partition, bool] = {}
        self._from_ms = 0
        self._refused: ChronicleError | None = None
        self._away = False
        self.stale = False
        """The broker says that a topic is gone: `refresh` is due."""

    @property
    def sources(self) -> frozenset[str]:
        """Those whose topic is there."""
        with self._lock:
            return frozenset(self._sources[topic] for topic, _ in self._next)

    def whole(self, topic: str) -> bool:
        """Whether the topic was read from its very first record on."""
        return all(whole for (name, _), whole in self._whole.items() if name == topic)

    # --- where to read

    def seek(self, from_ms: int) -> dict[Partition, int]:
        """Read all topics from the first record of this time on (milliseconds since 1970); where that is.

        Raises:
            TransientError: the broker is away; nothing has changed.
            ConfigError: it refuses our credentials.
        """
        found = self._described()
        starts = self._starts(list(found), found, from_ms)
        self._from_ms = from_ms
        self._assign(found, starts)
        return starts

    def refresh(self) -> dict[Partition, int]:
        """Look for topics that came or went; where the reading of new ones begins. Raises as `seek`."""
        found = self._described()
        self.stale = False
        if found == self._ids:
            return {}
        fresh = [topic for topic, about in found.items() if topic not in self._ids]
        anew = [topic for topic, about in found.items() if topic in self._ids and self._ids[topic] != about]
        offsets = {place: offset for place, offset in self._next.items() if place[0] in found and place[0] not in anew}
        starts = self._starts(fresh, found, self._from_ms) | self._starts(anew, found, 0)
        for topic in anew:
            log.warning("transactions.recreated", topic=topic)
        self._assign(found, offsets | starts)
        return starts

    def _described(self) -> dict[str, tuple[str, int]]:
        """Id and partitions of each topic there is."""
        found: dict[str, tuple[str, int]] = {}
        if not self._sources:  # events alone: the library takes no empty list
            return found
        for name, future in self._admin.describe_topics(
            TopicCollection(list(self._sources)), request_timeout=TIMEOUT_S
        ).items():
            try:
                about = future.result()
            except KafkaException as error:
                if error.args[0].code() not in _GONE:
                    raise translated(error) from None
            else:
                found[name] = (str(about.topic_id), len(about.partitions))
        return found

    def _starts(self, topics: Sequence[str], found: Mapping[str, tuple[str, int]], from_ms: int) -> dict[Partition, int]:
        """The first offset of this time in each partition, else its end."""
        places = [(topic, number) for topic in topics for number in range(found[topic][1])]
        since = self._offsets(places, OffsetSpec.for_timestamp(max(0, from_ms)))
        ends = self._offsets(places, OffsetSpec.latest())  # type: ignore[no-untyped-call]
        offsets = {place: ends[place] if offset < 0 else offset for place, offset in since.items()}
        self._whole.update((place, offset == 0) for place, offset in offsets.items())
        return offsets

    def _offsets(self, places: Sequence[Partition], which: Any) -> dict[Partition, int]:
        """Asked on a connection of its own: on the consumer's the answer would wait behind fetches that wait for records."""
        asked = {TopicPartition(*place): which for place in places}
        if not asked:
            return {}
        try:
            return self._listed(asked)
        except KafkaException as error:
            if "LEADER" not in error.args[0].name():
                raise translated(error) from None
        # as `topics.Broker.ends`: after a restart of the broker the library asks with a leader epoch that is over
        try:
            self._admin.list_topics(timeout=TIMEOUT_S)
            return self._listed(asked)
        except KafkaException as error:
            raise translated(error) from None

    def _listed(self, asked: dict[TopicPartition, Any]) -> dict[Partition, int]:
        futures = self._admin.list_offsets(asked, request_timeout=TIMEOUT_S)
        return {(tp.topic, tp.partition): int(future.result().offset) for tp, future in futures.items()}

    def _assign(self, found: dict[str, tuple[str, int]], offsets: dict[Partition, int]) -> None:
        try:
            self._consumer.assign([TopicPartition(*place, offset) for place, offset in offsets.items()])
        except KafkaException as error:
            raise translated(error) from None
        with self._lock:
            self._ids, self._next = found, offsets
        log.info("transactions.following", topics=len(found), from_ms=self._from_ms)

    # --- reading

    def read(self, timeout_s: float) -> Read:
        """What has been fetched, at most `RECORDS_MAX` records; waits up to `timeout_s` for the first.

        Raises:
            TransientError: the broker is away, or answers with an error that may pass.
            ConfigError: it refuses our credentials.
        """
        if self._refused is not None:
            raise self._refused
        if self._away:
            self._probe()
        try:
            first = self._consumer.poll(timeout_s)
            messages = [] if first is None else [first, *self._consumer.consume(RECORDS_MAX - 1, timeout=0)]
            highs = {place: self._high(place) for place in self._next}
        except KafkaException as error:
            raise translated(error) from None
        reached: dict[Partition, int] = {}
        taken: dict[Partition, list[Message]] = {}
        for message in messages:
            place = (message.topic() or "", message.partition() or 0)
            problem = message.error()
            if problem is None:
                taken.setdefault(place, []).append(message)
                reached[place] = (message.offset() or 0) + 1
            elif problem.code() == KafkaError._PARTITION_EOF:
                reached[place] = message.offset() or 0
            elif problem.code() in _GONE:
                self.stale = True
            else:
                log.warning("transactions.unread", error=problem.name())
                self._away = True  # the next read asks whether it is
        with self._lock:
            self._next.update((place, offset) for place, offset in reached.items() if place in self._next)
            self._highs = highs
        return Read([_chunk(*place, found) for place, found in taken.items()], reached)

    def _high(self, place: Partition) -> int:
        """Where the log ended at the last fetch. Asked by the thread that reads: the library lets any other wait for seconds,
        until it happens to come between two polls."""
        return int(self._consumer.get_watermark_offsets(TopicPartition(*place), cached=True)[1])

    def _probe(self) -> None:
        """Records come again by themselves once the broker is back, but a quiet topic would not tell."""
        try:
            self._admin.describe_cluster(request_timeout=2.0).result()
        except KafkaException as error:
            raise translated(error) from None
        self._away = False

    def _on_error(self, error: KafkaError) -> None:
        problem = translated(KafkaException(error))
        if not isinstance(problem, TransientError):
            self._refused = problem
        elif error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._away = True

    # --- asked from other threads

    def ends(self, sources: Iterable[str]) -> dict[Partition, int]:
        """Where the topics of these sources end now. Raises TransientError."""
        wanted = {f"{source}{SUFFIX}" for source in sources}
        with self._lock:
            places = [place for place in self._next if place[0] in wanted]
        return self._offsets(places, OffsetSpec.latest())  # type: ignore[no-untyped-call]

    def lag(self) -> dict[Partition, int]:
        """Records not read yet, as far as the last fetch knows."""
        with self._lock:
            return {place: max(0, self._highs.get(place, offset) - offset) for place, offset in self._next.items()}

    def close(self) -> None:
        """Leave the broker; nothing may be called afterwards."""
        self._consumer.close()


def _chunk(topic: str, partition: int, messages: Sequence[Message]) -> Chunk:
    records: Sequence[Any] = messages  # the library's annotations allow texts, which only deserializers give
    return Chunk(
        topic,
        partition,
        [message.offset() for message in records],
        [message.timestamp()[1] for message in records],
        [None] * len(records),  # no key says anything about a context, and reading them costs a third
        [message.value() for message in records],
        [tuple(message.headers() or ()) for message in records],
    )
