"""The engine: every record has one disposition, refused rows leave alone, the world's faults are waited out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl
import pytest

from chronicle.engine import Engine, Failed, Flood
from chronicle.errors import Interrupted, SinkRejected, StopWorker, TransientError
from chronicle.model.batch import Batch, MirrorColumn, TableRows
from chronicle.model.chunk import Chunk
from chronicle.model.columns import CHANGES, TRANSACTIONS
from chronicle.model.dead_letters import DECLARED, DeadLetter, Reason, Stage
from chronicle.model.event_columns import EVENTS

TOPIC = "shop.public.t"


def frame(specs: Any, rows: Sequence[tuple[str, int, int]]) -> pl.DataFrame:
    given: dict[str, list[Any]] = {
        "topic": [r[0] for r in rows],
        "partition": [r[1] for r in rows],
        "offset": [r[2] for r in rows],
    }
    return pl.DataFrame([pl.Series(s.name, given.get(s.name, [None] * len(rows)), s.dtype) for s in specs])


class ByFirstByte:
    """A path that reads a record's fate from its value: `c`hange, `m`ark, `e`vent, none is a tombstone, else a dead letter."""

    forgets = False

    def schema_ids(self, chunks: Sequence[Chunk]) -> frozenset[int]:
        return frozenset({7})

    def run(self, chunks: Sequence[Chunk], schemas: Mapping[int, str | None], now_us: int) -> Batch:
        assert set(schemas) == {7}
        rows = [
            (chunk.topic, chunk.partition, offset, value)
            for chunk in chunks
            for offset, value in zip(chunk.offsets, chunk.values, strict=True)
        ]
        changes = [row[:3] for row in rows if row[3] == b"c"]
        marks = [row[:3] for row in rows if row[3] == b"m"]
        events = [row[:3] for row in rows if row[3] == b"e"]
        letters = tuple(
            DeadLetter(topic, partition, offset, 1, None, value, (), Stage.DECODE, Reason.WRONG_FRAME, "x")
            for topic, partition, offset, value in rows
            if value not in (b"c", b"m", b"e", None)
        )
        left_out = {(TOPIC, "tombstone"): sum(row[3] is None for row in rows) - self.forgets}
        typed = pl.DataFrame(
            {"id": [row[2] for row in changes], "_row": pl.Series(range(len(changes)), dtype=pl.UInt32)},
            schema_overrides={"id": pl.Int64},
        )
        table = TableRows("shop", "public", "t", (MirrorColumn("id", "Int64", key=True),), typed)
        tables = (table,) if changes else ()
        marked, said = frame(TRANSACTIONS, marks), frame(EVENTS, events)
        return Batch(frame(CHANGES, changes), tables, marked, letters, left_out, events=said)


@dataclass
class Registry:
    failures: int = 0

    def resolve(self, ids: Iterable[int]) -> dict[int, str | None]:
        if self.failures:
            self.failures -= 1
            raise TransientError("away")
        return dict.fromkeys(ids, "{}")


@dataclass
class Watch:
    stopping: threading.Event = field(default_factory=threading.Event)
    events: list[str] = field(default_factory=list)
    stop_at_retry: bool = False

    def retrying(self, name: str, error: BaseException) -> None:
        self.events.append(f"retrying {name}")
        if self.stop_at_retry:
            self.stopping.set()

    def recovered(self, name: str) -> None:
        if self.events and self.events[-1] == f"retrying {name}":
            self.events.append(f"recovered {name}")


@dataclass
class Sink:
    """Holds offsets; refuses batches that hold an offset of `bad`."""

    name: str = "one"
    bad: frozenset[int] = frozenset()
    failures: int = 0
    changes: set[int] = field(default_factory=set)
    mirrored: set[int] = field(default_factory=set)
    marks: set[int] = field(default_factory=set)
    said: set[int] = field(default_factory=set)
    letters: dict[int, DeadLetter] = field(default_factory=dict)
    writes: int = 0

    def write(self, batch: Batch) -> None:
        self.writes += 1
        if self.failures:
            self.failures -= 1
            raise TransientError("busy")
        offsets, marks, said = (set(one["offset"]) for one in (batch.changes, batch.transactions, batch.events))
        if self.bad & (offsets | marks | said):
            raise SinkRejected("column id")
        for rows in batch.tables:
            assert [batch.changes["offset"][row] for row in rows.frame["_row"]] == rows.frame["id"].to_list()
            self.mirrored |= set(rows.frame["id"])
        self.changes |= offsets
        self.marks |= marks
        self.said |= said
        self.letters |= {letter.offset: letter for letter in batch.dead_letters}

    def close(self) -> None:
        """Nothing to give back."""


def chunk(values: Sequence[bytes | None], first: int = 0) -> Chunk:
    count = len(values)
    keys = [f"key{n}".encode() for n in range(first, first + count)]
    return Chunk(TOPIC, 0, range(first, first + count), [5] * count, keys, values, [(("h", b"v"),)] * count)


def engine(
    *sinks: Sink, watch: Watch | None = None, registry: Registry | None = None, flood: Flood | None = None, **options: Any
) -> Engine:
    return Engine(
        options.pop("path", ByFirstByte()), registry or Registry(), sinks or (Sink(),),
        watch=watch or Watch(), flood=flood or Flood(0.5, 100), **options,
    )  # fmt: skip


def test_every_record_has_one_disposition() -> None:
    """Changes, transaction marks, dead letters and what is left out add up, in every sink."""
    one, two = Sink("one"), Sink("two")
    outcome = engine(one, two).process([chunk([b"c", b"c", None, b"m", b"bad", b"c"])])
    assert (outcome.rows, outcome.batch.rows()) == (6, 6)
    for sink in (one, two):
        assert (sink.changes, sink.marks, set(sink.letters)) == ({0, 1, 5}, {3}, {4})


def test_a_path_that_forgets_a_record_is_a_bug() -> None:
    """Nothing reaches a sink when the count does not close."""
    path, sink = ByFirstByte(), Sink()
    path.forgets = True
    with pytest.raises(AssertionError, match="bug"):
        engine(sink, path=path).process([chunk([b"c", None])])
    assert sink.writes == 0


@pytest.mark.parametrize("bad", [{0}, {6}, {2, 3}, {0, 3, 6}])
def test_refused_rows_leave_alone(bad: set[int]) -> None:
    """Rows that a sink refuses become dead letters with their own bytes; every other row is in every sink, mirrors too."""
    one, two = Sink("one", bad=frozenset(bad)), Sink("two")
    values = [b"c"] * 7
    outcome = engine(one, two).process([chunk(values[:4]), chunk(values[4:], 4)])
    for sink in (one, two):
        assert sink.changes == sink.mirrored == set(range(7)) - bad
        assert set(sink.letters) == bad
    letter = one.letters[min(bad)]
    assert (letter.stage, letter.reason, letter.key) == (Stage.SINK, Reason.VALUE_REFUSED, f"key{min(bad)}".encode())
    assert (letter.value, letter.headers, letter.timestamp_ms) == (b"c", (("h", b"v"),), 5)
    assert outcome.batch.rows() == outcome.rows == 7


def test_a_refused_transaction_mark_becomes_a_dead_letter() -> None:
    """Marks are narrowed down as changes are, and the decoder's dead letters of the same batch are kept."""
    sink = Sink(bad=frozenset({1}))
    outcome = engine(sink).process([chunk([b"m", b"m", b"c", b"bad"])])
    assert (sink.marks, sink.changes, set(sink.letters)) == ({0}, {2}, {1, 3})
    assert outcome.batch.rows() == 4


def test_a_refused_event_becomes_a_dead_letter() -> None:
    """Events are narrowed down as changes are, and every part of the batch is in the sink once."""
    sink = Sink(bad=frozenset({1, 4}))
    outcome = engine(sink).process([chunk([b"e", b"e", b"c", b"m", b"c", b"e", b"bad"])])
    assert (sink.said, sink.changes, sink.marks, set(sink.letters)) == ({0, 5}, {2}, {3}, {1, 4, 6})
    assert outcome.batch.events["offset"].to_list() == [0, 5]
    assert outcome.batch.rows() == outcome.rows == 7


def test_an_event_that_a_step_added_and_a_sink_refuses_is_its_records_dead_letter() -> None:
    """It has the place of the record that it was made of: those bytes make it again, and the worker goes on."""

    class Summing:
        name = "summing"

        def __call__(self, batch: Batch) -> tuple[Batch, list[Failed]]:
            places = batch.transactions.select("topic", "partition", "offset").rows()
            return replace(batch, events=pl.concat([batch.events, frame(EVENTS, places)])), []

    class RefusesEvents(Sink):
        def write(self, batch: Batch) -> None:
            if 1 in batch.events["offset"]:
                raise SinkRejected("column payload")
            super().write(batch)

    one, two = RefusesEvents("one"), Sink("two")
    engine(one, two, steps=[Summing()]).process([chunk([b"c", b"m", b"m", b"e"])])
    for sink in (one, two):
        assert (sink.changes, sink.marks, sink.said, set(sink.letters)) == ({0}, {1, 2}, {2, 3}, {1})
    assert (one.letters[1].value, one.letters[1].stage) == (b"m", Stage.SINK)


def test_a_row_that_an_earlier_sink_holds_is_never_a_dead_letter() -> None:
    """It would have two dispositions: the worker stops unacknowledged and says what to do; its neighbours are held."""
    one, two = Sink("one"), Sink("two", bad=frozenset({1}))
    with pytest.raises(StopWorker, match=r"chronicle setup.*two refuses 1 rows that one holds"):
        engine(one, two).process([chunk([b"c", b"c", b"c"])])
    assert one.changes == {0, 1, 2}
    assert two.changes == {0, 2}
    assert one.letters == two.letters == {}


def test_a_row_that_a_step_refuses_is_a_dead_letter_before_any_sink() -> None:
    """With its bytes; what the step adds is on its neighbours."""

    class Labels:
        name = "labels"

        def __call__(self, batch: Batch) -> tuple[Batch, list[Failed]]:
            marked = batch.changes.with_columns(pl.lit("seen").alias("reason"))
            return replace(batch, changes=marked), [Failed(1, Stage.PROCESS, Reason.PROCESSOR_FAILED, "p: ValueError")]

    one, two = Sink("one"), Sink("two")
    outcome = engine(one, two, steps=[Labels()]).process([chunk([b"c", b"c", b"c"])])
    assert outcome.batch.rows() == outcome.rows == 3
    assert outcome.batch.changes["reason"].to_list() == ["seen", "seen"]
    assert one.changes == two.changes == {0, 2}
    assert one.letters[1].reason is Reason.PROCESSOR_FAILED and one.letters[1].key == b"key1"
    assert "labels" in outcome.stages_s


def test_nothing_in_a_topic_that_applications_write_to_stops_the_worker() -> None:
    """And nothing in it hides that the other topics are full of it."""
    said = replace(chunk([b"bad"] * 300), topic="said")
    sink = Sink()
    made = engine(sink, flood=Flood(0.5, 100, "said".__eq__))
    made.process([said])
    assert len(sink.letters) == 300
    with pytest.raises(StopWorker, match=r"too many dead letters \(120 of 120"):
        made.process([replace(chunk([b"c"] * 1000), topic="said"), chunk([b"bad"] * 120)])


def test_a_sink_that_refuses_most_rows_stops_the_worker() -> None:
    """When nearly all is refused, the sink is wrong and not the data."""
    sink = Sink(bad=frozenset(range(1000)))
    with pytest.raises(StopWorker, match="refuses more than"):
        engine(sink, flood=Flood(0.1, 10)).process([chunk([b"c"] * 200)])
    assert sink.letters == {}


def test_a_transient_error_is_repeated_and_declared() -> None:
    """The same batch is written again until it is held; every attempt is declared, the recovery too."""
    watch, sink = Watch(), Sink(failures=2)
    made = engine(sink, watch=watch, registry=Registry(failures=1))
    made.process([chunk([b"c"])])
    assert watch.events == ["retrying registry", "recovered registry", "retrying one", "retrying one", "recovered one"]
    assert made.retries == {"registry": 1, "one": 2}
    assert sink.changes == {0}


def test_a_declared_retry_ends_when_asked_to_stop() -> None:
    """A stop does not wait for a service that is away, and does not claim success."""
    sink = Sink(failures=1000)
    with pytest.raises(Interrupted):
        engine(sink, watch=Watch(stop_at_retry=True)).process([chunk([b"c"])])
    assert sink.changes == set()


def test_a_flood_of_dead_letters_stops_before_any_sink() -> None:
    """The message names the most frequent reason and its topic; nothing is written."""
    sink = Sink()
    with pytest.raises(StopWorker, match=rf"wrong_frame in {TOPIC}"):
        engine(sink).process([chunk([b"bad"] * 60 + [b"c"] * 50)])
    assert sink.writes == 0


def test_an_applications_nonsense_is_no_flood() -> None:
    """No application can stop the changes by sending what is no event."""
    assert Reason.NOT_AN_EVENT in DECLARED


def test_half_of_a_large_batch_may_be_dead_letters() -> None:
    """The share is exceeded only above the limit."""
    sink = Sink()
    engine(sink).process([chunk([b"bad"] * 50 + [b"c"] * 50)])
    assert len(sink.letters) == 50


def test_a_slow_flood_is_seen_over_several_small_batches() -> None:
    """A wrong registry on a quiet system stops the worker too."""
    made = engine(Sink())
    with pytest.raises(StopWorker):
        for at in range(0, 200, 10):
            made.process([chunk([b"bad"] * 10, at)])


def test_records_sent_back_are_not_a_flood() -> None:
    """A replay of dead letters that fail again must not stop the worker."""
    sink = Sink()
    engine(sink).process([chunk([b"bad"] * 200)], frozenset((TOPIC, 0, n) for n in range(200)))
    assert len(sink.letters) == 200


def test_failpoints_are_passed_in_order() -> None:
    """Where tests kill the process: before the sinks, between them, after all of them."""
    passed: list[tuple[str, int, int]] = []
    one, two = Sink("one"), Sink("two")
    note: Callable[[str], None] = lambda name: passed.append((name, one.writes, two.writes))  # noqa: E731
    engine(one, two, failpoint=note).process([chunk([b"c"])])
    assert passed == [("before_sinks", 0, 0), ("between_sinks", 1, 0), ("before_ack", 1, 1)]


def test_a_guard_stops_before_any_sink() -> None:
    """Guards see the batch first."""

    def guard(batch: Batch) -> None:
        raise StopWorker("started over")

    sink = Sink()
    with pytest.raises(StopWorker, match="started over"):
        engine(sink, guards=(guard,)).process([chunk([b"c"])])
    assert sink.writes == 0


def test_an_empty_batch_is_fine() -> None:
    """No records, no trouble."""
    assert engine().process([chunk([])]).rows == 0
