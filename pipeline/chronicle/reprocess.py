"""Recorded raw changes of one table once more through the engine, under the policy in force now; the latest processing wins.

Outside of the consumer group, beside running workers: a change keeps its event id, its commit time and its position, so a
row in ClickHouse and a record of the audit topic replace themselves, and a mirror keeps what stands later in the log. What
the policy leaves out now had an audit record before: that is taken back by a record without a value under the same key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from clickhouse_connect.driver.client import Client
from confluent_kafka import KafkaError, KafkaException, Producer

from chronicle import config
from chronicle.codec.audit import entity_partitions, uuid_text
from chronicle.engine import Outcome
from chronicle.errors import TransientError
from chronicle.model.batch import Batch
from chronicle.model.chunk import Chunk
from chronicle.policy.routing import about_table
from chronicle.policy.rules import Route
from chronicle.raw_records import Span
from chronicle.sinks.clickhouse_errors import translated
from chronicle.sinks.engines import literal, quoted

FLUSH_S = 40.0


class Processes(Protocol):
    """The engine (`engine.Engine`)."""

    def process(self, chunks: Sequence[Chunk]) -> Outcome:
        """A batch into every sink."""


@dataclass(slots=True)
class Done:
    """What was processed again."""

    records: int = 0
    changes: Counter[str] = field(default_factory=Counter)
    """Told whole, by operation."""
    stubs: Counter[str] = field(default_factory=Counter)
    """Left out by the policy, by its rule."""
    dead_letters: Counter[str] = field(default_factory=Counter)
    """By reason."""
    left_out: Counter[str] = field(default_factory=Counter)
    attribution: Counter[str] = field(default_factory=Counter)
    """Changes by what says who did them."""

    def add(self, outcome: Outcome) -> None:
        """Count one batch."""
        batch = outcome.batch
        self.records += outcome.rows
        for operation, stub, attribution in batch.changes.select("operation", "stub", "attribution").iter_rows():
            if stub:
                self.stubs[stub] += 1
            else:
                self.changes[operation] += 1
                self.attribution[attribution] += 1
        self.dead_letters.update(letter.reason.value for letter in batch.dead_letters)
        for (_, rule), count in batch.left_out.items():
            self.left_out[rule] += count

    def as_json(self) -> dict[str, Any]:
        """For a pipe."""
        counted = ("changes", "stubs", "dead_letters", "left_out", "attribution")
        return {"records": self.records, **{name: dict(sorted(getattr(self, name).items())) for name in counted}}


def run(
    engine: Processes,
    batches: Iterable[list[Chunk]],
    *,
    spans: Sequence[Span],
    need_from: Callable[[int], None],
    progress: Callable[[int], None] = lambda _records: None,
) -> Done:
    """Process the batches one after the other; returns when the sinks hold the last one.

    Args:
        spans: what the batches are read from.
        need_from: told from which time on (milliseconds since 1970) contexts are needed, before each batch.
        progress: told after each batch how many records are done.

    Raises:
        StopWorker, ConfigError: as the engine. What was done stays; running it again repeats it.
    """
    done = Done()
    oldest: dict[int, int] = {}
    ends = {span.partition: span.end for span in spans}
    for chunks in batches:
        for chunk in chunks:
            oldest[chunk.partition] = min(chunk.timestamps_ms)
        need_from(min(oldest.values()))
        done.add(engine.process(chunks))
        for chunk in chunks:
            if chunk.offsets[-1] + 1 >= ends.get(chunk.partition, 0):
                del oldest[chunk.partition]
        progress(done.records)
    return done


class Retracting:
    """A sink that takes the audit records back of changes that the policy leaves out now: no value under the same key.

    The compacted topic then forgets what it said of them. Repeating it changes nothing.
    """

    name = "retractions"

    def __init__(self, kafka: config.Kafka) -> None:
        """Connects at the first stub."""
        self._kafka = kafka
        self._producer: Producer | None = None
        self.sent = 0

    def write(self, batch: Batch) -> None:
        """As `Sink.write`. Raises TransientError: the broker did not confirm all of them."""
        stubs = batch.changes.filter(batch.changes["stub"] != "")
        if not len(stubs):
            return
        keys = uuid_text(stubs["event_id"]).to_list()
        partitions = entity_partitions(stubs["entity"], self._kafka.audit_partitions)
        failures: list[KafkaError] = []

        def delivered(error: KafkaError | None, _message: object) -> None:
            if error is not None:
                failures.append(error)

        producer = self._connected()
        try:
            for key, partition in zip(keys, partitions, strict=True):
                while True:
                    try:
                        producer.produce(self._kafka.audit_topic, None, key.encode(), partition, on_delivery=delivered)
                        break
                    except BufferError:
                        producer.poll(1.0)
        except KafkaException as error:
            failures.append(error.args[0])
        left = producer.flush(FLUSH_S)
        if failures or left:
            self._producer = None  # an idempotent producer may be of no use after an error
            why = failures[0].name() if failures else "no answer"
            raise TransientError(f"the broker does not take records of {self._kafka.audit_topic} ({why})")
        self.sent += len(keys)

    def close(self) -> None:
        """Nothing is under way between two calls of `write`."""
        self._producer = None

    def _connected(self) -> Producer:
        if self._producer is None:
            more = {"enable.idempotence": True, "message.timeout.ms": 30_000}
            self._producer = Producer({**self._kafka.client_config(), **more})
        return self._producer


class Nowhere:
    """A sink for a rehearsal: nothing is written."""

    name = "nowhere"

    def write(self, batch: Batch) -> None:
        """Forget it."""

    def close(self) -> None:
        """Nothing to give back."""


@dataclass(frozen=True, slots=True)
class Behind:
    """Rows of `changes` of a topic that are still as another policy wrote them."""

    within: int
    """Among the records that were processed again: dead letters now. Their rows of before stand until they are deleted."""
    outside: int
    """Of other times: reprocess from an earlier time, as far as the raw topic goes back."""
    oldest: datetime | None
    """When the oldest of those was received."""
    statement: str
    """Deletes those within."""


def behind(client: Client, clickhouse: config.ClickHouse, topic: str, spans: Sequence[Span], policy: str) -> Behind:
    """What the policy of this hash has not written again.

    Raises:
        TransientError, ConfigError: as ClickHouse says.
    """
    place = f"{quoted(clickhouse.database)}.changes"
    ranges = [f"(partition = {one.partition} AND offset >= {one.start} AND offset < {one.end})" for one in spans]
    inside = f"({' OR '.join(ranges)})" if ranges else "0"
    where = f"topic = {literal(topic)} AND policy != {literal(policy)}"
    query = (
        f"SELECT countIf({inside}), countIf(NOT {inside}), minIf(received_at, NOT {inside})"  # noqa: S608
        f" FROM {place} FINAL WHERE {where}"
    )
    with translated("changes"):
        [(within, outside, oldest)] = client.query(query, settings={"readonly": 2}).result_rows
    on_cluster = f" ON CLUSTER {quoted(clickhouse.cluster)}" if clickhouse.cluster else ""
    statement = f"ALTER TABLE {place}{on_cluster} DELETE WHERE {where} AND {inside}"
    return Behind(int(within), int(outside), _utc(oldest) if outside else None, statement)


@dataclass(frozen=True, slots=True)
class Delivered:
    """A route whose topic has changes of the table as an earlier policy let them through."""

    route: str
    topic: str
    until: datetime | None
    """When the topic has deleted what it holds now; None: it keeps everything."""


def delivered(
    routes: Iterable[Route], parts: tuple[str, str, str], retention_s: Mapping[str, float], now: datetime
) -> tuple[Delivered, ...]:
    """The routes that may have taken changes of this table. `retention_s`: by topic, of those that forget by age."""
    return tuple(
        Delivered(route.name, route.to, clear_until(retention_s, route.to, now))
        for route in routes
        if about_table(route, *parts)
    )


def clear_until(retention_s: Mapping[str, float], topic: str, now: datetime) -> datetime | None:
    """When a topic has deleted what it holds now (a segment's length later at most); None: it keeps everything."""
    kept = retention_s.get(topic)
    try:
        return None if kept is None else now + timedelta(seconds=kept)
    except OverflowError:
        return None


def _utc(at: datetime) -> datetime:
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
