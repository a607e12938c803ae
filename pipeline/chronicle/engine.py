"""One batch from raw chunks to its outcome: schemas, the pure path, every sink, nothing half done.

`Engine.process` returns only when every sink holds the batch; the caller may acknowledge then, and only then. What the
world does wrong (`TransientError`) is repeated here without a limit on time, as a *declared* retry. What a record does
wrong becomes a dead letter. Anything else leaves as an exception, and the caller ends without acknowledging.
"""

from __future__ import annotations

import random
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import polars as pl

from chronicle.errors import Interrupted, SinkRejected, StopWorker, TransientError
from chronicle.model.batch import Batch
from chronicle.model.chunk import Chunk
from chronicle.model.dead_letters import DECLARED, DeadLetter, Reason, Stage
from chronicle.sinks import Sink

T = TypeVar("T")
Coordinates = tuple[str, int, int]

RETRY_DELAY_MAX_S = 10.0


class Path(Protocol):
    """The pure path (`stages.path.Path`)."""

    def schema_ids(self, chunks: Sequence[Chunk]) -> frozenset[int]:
        """Ids of the writer schemas of all keys and values."""

    def run(self, chunks: Sequence[Chunk], schemas: Mapping[int, str | None], now_us: int) -> Batch:
        """One disposition for every record."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A row of a batch's changes that a step could not take, and why."""

    row: int
    stage: Stage
    reason: Reason
    detail: str


class Step(Protocol):
    """What is done to a whole batch between the pure path and the sinks: attribution, reference data, processors."""

    name: str

    def __call__(self, batch: Batch) -> tuple[Batch, Sequence[Failed]]:
        """The batch with what this step adds, and the rows that become dead letters. Same rows, same order.

        May be repeated with the same batch. Raises TransientError when what it needs is away, StopWorker to stop.
        """


class Resolver(Protocol):
    """The schema registry (`registry.Registry`)."""

    def resolve(self, ids: Iterable[int]) -> dict[int, str | None]:
        """Schema texts; None: unknown there. Raises TransientError."""


class Watch(Protocol):
    """Who is told of declared retries (`worker.status.Status`)."""

    stopping: threading.Event

    def retrying(self, name: str, error: BaseException) -> None:
        """A call to the service `name` failed and will be repeated."""

    def recovered(self, name: str) -> None:
        """A call to the service `name` succeeded."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a batch that every sink holds."""

    rows: int
    """Input records."""
    batch: Batch
    """As the sinks hold it: without refused rows, with their dead letters."""
    stages_s: Mapping[str, float]
    """Wall-clock seconds by stage: registry, path, and one for each sink."""
    queryable_us: int
    """When the first sink had it: microseconds since 1970."""


@dataclass(frozen=True, slots=True)
class Flood:
    """When dead letters are so many that the cause is ours and not the records'."""

    share_max: float
    rows_min: int
    spares: Callable[[str], bool] = lambda _topic: False
    """Topics that any application writes to: nothing in them stops the worker, whatever it is."""


class Engine:
    """Processes batches, one at a time, from one thread."""

    def __init__(
        self,
        path: Path,
        registry: Resolver,
        sinks: Sequence[Sink],
        *,
        watch: Watch,
        flood: Flood,
        guards: Sequence[Callable[[Batch], None]] = (),
        steps: Sequence[Step] = (),
        failpoint: Callable[[str], None] = lambda _name: None,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        """`guards` look at each batch before any step and sink does and may raise StopWorker. `steps` in their order."""
        self._path = path
        self._registry = registry
        self._sinks = tuple(sinks)
        self._watch = watch
        self._flood = flood
        self._guards = tuple(guards)
        self._steps = tuple(steps)
        self._failpoint = failpoint
        self._now_us = now_us
        self._window = (0, 0)  # rows, dead letters since the last judgement, for batches below rows_min
        self.retries: Counter[str] = Counter()
        """Failed attempts by service, since the start."""

    def process(self, chunks: Sequence[Chunk], sent_back: frozenset[Coordinates] = frozenset()) -> Outcome:
        """Take a batch through all stages into all sinks.

        `sent_back` names records that came by the retry topic: they failed before, so they do not count as a flood.

        Raises:
            StopWorker: going on could lose or corrupt; also when asked to stop during a declared retry (`Interrupted`).
            ConfigError: a service refuses our settings.
        """
        stages: dict[str, float] = {}
        total = sum(len(chunk) for chunk in chunks)
        ids = self._path.schema_ids(chunks)
        schemas = self._timed(stages, "registry", lambda: self._patiently("registry", lambda: self._registry.resolve(ids)))
        batch = self._timed(stages, "path", lambda: self._path.run(chunks, schemas, self._now_us()))
        if batch.rows() != total:
            raise AssertionError(f"the path accounts for {batch.rows()} of {total} records: a bug; nothing was acknowledged")
        self._check_flood(batch.dead_letters, chunks, sent_back)
        for guard in self._guards:
            guard(batch)
        for step in self._steps:
            batch = self._timed(stages, step.name, lambda step=step, batch=batch: self._stepped(step, batch, chunks))  # type: ignore[misc]
        self._failpoint("before_sinks")
        queryable = 0
        refused: list[DeadLetter] = []
        for index, sink in enumerate(self._sinks):
            if index == 1:
                self._failpoint("between_sinks")
            batch, dead = self._timed(stages, sink.name, lambda sink=sink, batch=batch: self._write(sink, batch, chunks, total))  # type: ignore[misc]
            if dead and index:  # an earlier sink holds these rows: as dead letters they would be in two places
                raise StopWorker(
                    f"run `chronicle setup`, which puts the topics' limits right: {sink.name} refuses {len(dead)} rows that "
                    f"{self._sinks[0].name} holds already ({dead[0].detail}); nothing was acknowledged"
                )
            refused += dead
            queryable = queryable or self._now_us()
        if refused:
            self._write_refused(batch, refused)
            batch = replace(batch, dead_letters=(*batch.dead_letters, *refused))
        self._failpoint("before_ack")
        return Outcome(total, batch, stages, queryable)

    def close(self) -> None:
        """Close every sink."""
        for sink in self._sinks:
            sink.close()

    def _timed(self, stages: dict[str, float], name: str, call: Callable[[], T]) -> T:
        began = time.perf_counter()
        result = call()
        stages[name] = stages.get(name, 0.0) + time.perf_counter() - began
        return result

    def _patiently(self, name: str, call: Callable[[], T]) -> T:
        """Repeat while the world is at fault; backoff with jitter, no limit on time, ends when asked to stop."""
        delay = 0.1
        while True:
            try:
                result = call()
            except TransientError as error:
                self.retries[name] += 1
                self._watch.retrying(name, error)
                if self._watch.stopping.wait(delay * random.uniform(0.5, 1.0)):  # noqa: S311 (jitter)
                    raise Interrupted(f"stopping while {name} is away; nothing was acknowledged") from None
                delay = min(delay * 2, RETRY_DELAY_MAX_S)
            else:
                self._watch.recovered(name)
                return result

    def _stepped(self, step: Step, batch: Batch, chunks: Sequence[Chunk]) -> Batch:
        batch, failed = self._patiently(step.name, lambda: step(batch))
        if not failed:
            return batch
        places = batch.changes.select("topic", "partition", "offset")
        letters = [_letter(chunks, places.row(one.row), one.stage, one.reason, one.detail) for one in failed]
        return replace(_without(batch, {one.row for one in failed}, set()), dead_letters=(*batch.dead_letters, *letters))

    # --- sinks that refuse rows

    def _write(self, sink: Sink, batch: Batch, chunks: Sequence[Chunk], total: int) -> tuple[Batch, list[DeadLetter]]:
        """Write all; a refusal is narrowed down to the rows that cause it. Returns what the sink holds, and the rest."""
        try:
            self._patiently(sink.name, lambda: sink.write(batch))
        except SinkRejected:
            return self._bisect(sink, batch, chunks, total)
        return batch, []

    def _bisect(self, sink: Sink, batch: Batch, chunks: Sequence[Chunk], total: int) -> tuple[Batch, list[DeadLetter]]:
        if batch.dead_letters:
            self._write_letters(sink, batch, batch.dead_letters)
        refused: list[DeadLetter] = []
        bad_changes = self._narrow(sink, batch.select, len(batch.changes), total)
        bad_marks = self._narrow(sink, lambda lo, hi: _empty(batch, transactions=(lo, hi)), len(batch.transactions), total)
        bad_events = self._narrow(sink, lambda lo, hi: _empty(batch, events=(lo, hi)), len(batch.events), total)
        for frame, bad in ((batch.changes, bad_changes), (batch.transactions, bad_marks), (batch.events, bad_events)):
            for row, error in bad:
                coordinates = frame.select("topic", "partition", "offset").row(row)
                refused.append(_letter(chunks, coordinates, Stage.SINK, Reason(error.reason), f"{sink.name}: {error}"))
        changes, marks, events = ({row for row, _ in bad} for bad in (bad_changes, bad_marks, bad_events))
        return _without(batch, changes, marks, events), refused

    def _narrow(self, sink: Sink, part: Callable[[int, int], Batch], length: int, total: int) -> list[tuple[int, SinkRejected]]:
        """Row numbers that the sink refuses; everything else is written."""
        bad: list[tuple[int, SinkRejected]] = []
        limit = max(self._flood.rows_min, int(total * self._flood.share_max))
        spans = [(0, length)] if length else []
        while spans:
            lo, hi = spans.pop()
            try:
                self._patiently(sink.name, lambda lo=lo, hi=hi: sink.write(part(lo, hi)))  # type: ignore[misc]
            except SinkRejected as error:
                if hi - lo > 1:
                    middle = (lo + hi) // 2
                    spans += [(middle, hi), (lo, middle)]
                    continue
                bad.append((lo, error))
                if len(bad) > limit:
                    raise StopWorker(f"{sink.name} refuses more than {limit} rows of one batch: {error}") from None
        return bad

    def _write_refused(self, batch: Batch, refused: Sequence[DeadLetter]) -> None:
        for sink in self._sinks:
            self._write_letters(sink, batch, refused)

    def _write_letters(self, sink: Sink, batch: Batch, letters: Sequence[DeadLetter]) -> None:
        try:
            self._patiently(sink.name, lambda: sink.write(replace(_empty(batch), dead_letters=tuple(letters))))
        except SinkRejected as error:
            raise StopWorker(f"{sink.name} refuses a dead letter, which must not be lost: {error}") from None

    # --- floods

    def _check_flood(self, letters: Sequence[DeadLetter], chunks: Sequence[Chunk], sent_back: frozenset[Coordinates]) -> None:
        spares = self._flood.spares
        fresh = [
            letter
            for letter in letters
            if letter.reason not in DECLARED
            and (letter.topic, letter.partition, letter.offset) not in sent_back
            and not spares(letter.topic)
        ]
        judged = sum(len(chunk) for chunk in chunks if not spares(chunk.topic))
        rows, dead = judged - sum(not spares(topic) for topic, _, _ in sent_back), len(fresh)
        if rows < self._flood.rows_min:  # small batches are judged together
            rows, dead = self._window[0] + rows, self._window[1] + dead
            self._window = (rows, dead)
        if rows < self._flood.rows_min:
            return
        self._window = (0, 0)
        if dead <= rows * self._flood.share_max or not fresh:
            return
        (topic, reason), count = Counter((letter.topic, letter.reason) for letter in fresh).most_common(1)[0]
        raise StopWorker(
            f"too many dead letters ({dead} of {rows} records); most often {reason.value} in {topic} ({count}): "
            "check the registry's address and the topic's format, or raise worker.dead_letter_share_max"
        )


def _empty(batch: Batch, transactions: tuple[int, int] = (0, 0), events: tuple[int, int] = (0, 0)) -> Batch:
    """Of the batch only these spans."""
    marks, said = (frame.slice(lo, hi - lo) for frame, (lo, hi) in ((batch.transactions, transactions), (batch.events, events)))
    return Batch(batch.changes.clear(), (), marks, events=said)


def _without(batch: Batch, changes: set[int], transactions: set[int], events: Collection[int] = ()) -> Batch:
    """The batch minus refused rows; left-out counts and warnings stay, dead letters too."""
    if events:
        batch = replace(batch, events=batch.events[[row for row in range(len(batch.events)) if row not in events]])
    if not changes and not transactions:
        return batch
    kept = [row for row in range(len(batch.changes)) if row not in changes]
    number = {old: new for new, old in enumerate(kept)}
    tables = []

    def left(frame: pl.DataFrame) -> pl.DataFrame:
        part = frame.filter(~pl.col("_row").is_in(list(changes)))
        return part.with_columns(pl.Series("_row", [number[row] for row in part["_row"].to_list()], pl.UInt32))

    for rows in batch.tables:
        part = left(rows.frame)
        if len(part):
            tables.append(replace(rows, frame=part))
    marks = [row for row in range(len(batch.transactions)) if row not in transactions]
    return replace(
        batch,
        changes=batch.changes[kept],
        tables=tuple(tables),
        transactions=batch.transactions[marks],
        granted={table: left(frame) for table, frame in batch.granted.items()},
        references=tuple(replace(one, frame=left(one.frame)) for one in batch.references),
    )


def _letter(chunks: Sequence[Chunk], coordinates: Coordinates, stage: Stage, reason: Reason, detail: str) -> DeadLetter:
    """The dead letter of a refused row, with its original bytes found by its coordinates."""
    topic, partition, offset = coordinates
    for chunk in chunks:
        if chunk.topic != topic or chunk.partition != partition:
            continue
        index = bisect_left(chunk.offsets, offset)  # in offset order
        if index < len(chunk) and chunk.offsets[index] == offset:
            value = chunk.values[index]
            return DeadLetter(
                topic=topic,
                partition=partition,
                offset=offset,
                timestamp_ms=chunk.timestamps_ms[index],
                key=chunk.keys[index],
                value=value,
                headers=chunk.headers[index],
                stage=stage,
                reason=reason,
                detail=detail,
                schema_id=int.from_bytes(value[1:5], "big") if value is not None and len(value) > 5 and value[0] == 0 else None,
            )
    raise AssertionError("a refused row is not in its batch: a bug; nothing was acknowledged")
