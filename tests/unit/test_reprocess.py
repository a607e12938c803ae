"""Recorded changes once more: the latest processing wins, and everything is counted."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from chronicle.engine import Engine, Flood
from chronicle.model.chunk import Chunk, SourceSpec
from chronicle.policy.file import ALL_CLEAR, Policy, parse
from chronicle.raw_records import Span
from chronicle.reprocess import Delivered, Done, clear_until, delivered, run
from chronicle.sinks.memory import MemorySink
from chronicle.stages.path import Path
from chronicle.testing import IDENTITY_KEY, Record, chunks, rules
from tests.unit.envelopes import Table

TABLE = Table([("id", "long"), ("email", ["null", "string"])], name="people")
TOPIC = TABLE.topic
STRICT = parse('[[tables]]\nmatch = "**"\nwhere = "id < 3"\ncolumns = { id = "clear", email = "redact" }\n')


class Calm:
    """Nothing is away."""

    def __init__(self) -> None:
        self.stopping = threading.Event()

    def resolve(self, ids: object) -> dict[int, str | None]:
        return dict(TABLE.schemas)

    def retrying(self, name: str, error: BaseException) -> None:
        raise AssertionError(name) from error

    def recovered(self, name: str) -> None:
        """Nothing was away."""


def again(policy: Policy, store: MemorySink, batches: Sequence[list[Chunk]], now_us: int) -> tuple[Done, list[int], list[int]]:
    path = Path([SourceSpec("shop", "postgresql", full_identity=None)], IDENTITY_KEY, rules(policy))
    engine = Engine(path, Calm(), [store], watch=Calm(), flood=Flood(0.5, 100), now_us=lambda: now_us)
    ends: dict[int, int] = {}
    for chunk in (one for batch in batches for one in batch):
        ends[chunk.partition] = chunk.offsets[-1] + 1
    times: list[int] = []
    told: list[int] = []
    spans = [Span(number, 0, end) for number, end in ends.items()]
    return run(engine, batches, spans=spans, need_from=times.append, progress=told.append), times, told


def record(id_: int, offset: int, at_ms: int, partition: int = 0) -> Record:
    made = TABLE.change("c", after={"id": id_, "email": f"p{id_}@example.org"}, lsn=100 + id_)
    return Record(TOPIC, made.value, made.key, (), partition, offset, at_ms)


def test_the_latest_processing_replaces_the_earlier_one() -> None:
    """Under the same event ids; what the policy leaves out is a stub without images."""
    batches = [chunks([record(1, 0, 10), record(2, 1, 11)]), chunks([record(3, 2, 12)])]
    store = MemorySink()
    first, _, _ = again(ALL_CLEAR, store, batches, 1_000)
    before = set(store.changes)
    second, _, told = again(STRICT, store, batches, 2_000)
    assert (dict(first.changes), dict(first.stubs)) == ({"create": 3}, {})
    assert (dict(second.changes), dict(second.stubs), second.records) == ({"create": 2}, {"filtered": 1}, 3)
    assert set(store.changes) == before, "the same changes"
    assert told == [2, 3]
    emails = sorted(json.loads(one["after"])["email"] for one in store.changes.values() if one["after"])
    assert emails == ["[FILTERED]", "[FILTERED]"]
    assert {one["policy"] for one in store.changes.values()} == {STRICT.hash}


def test_contexts_are_needed_from_the_oldest_record_of_a_partition_that_is_not_done() -> None:
    """Partitions differ in age; one that is done needs none any more."""
    batches = [
        chunks([record(1, 0, 50), record(2, 0, 10, 1)]),
        chunks([record(3, 1, 60), record(4, 1, 20, 1)]),
        chunks([record(5, 2, 70)]),
    ]
    _, times, _ = again(ALL_CLEAR, MemorySink(), batches, 1_000)
    assert times == [10, 20, 70]


def test_dead_letters_are_counted_and_their_neighbours_go_through() -> None:
    """As in the worker."""
    bad = Record(TOPIC, b"\0\0", b"\0\0", (), 0, 1, 11)
    done, _, _ = again(ALL_CLEAR, MemorySink(), [chunks([record(1, 0, 10), bad])], 1_000)
    assert (done.records, dict(done.changes), sum(done.dead_letters.values())) == (2, {"create": 1}, 1)
    assert done.as_json()["records"] == 2


def test_a_topic_keeps_clear_text_for_its_retention_or_for_ever() -> None:
    """None is for ever."""
    now = datetime(2026, 11, 23, tzinfo=UTC)
    assert clear_until({TOPIC: 60.0}, TOPIC, now) == now + timedelta(minutes=1)
    assert clear_until({}, TOPIC, now) is None
    assert clear_until({TOPIC: 1e18}, TOPIC, now) is None


def test_the_routes_that_may_hold_a_tables_changes_are_named_with_the_end_of_their_topics() -> None:
    """By any operation; a topic without retention by age keeps everything."""
    text = '[[tables]]\nmatch = "**"\n'
    for name, match in (("a", "#.delete"), ("b", "shop.public.people.update"), ("c", "shop.public.orders.#")):
        text += f'[[routes]]\nname = "{name}"\nmatch = ["{match}"]\nto = "topic-{name}"\n'
    now = datetime(2026, 11, 23, tzinfo=UTC)
    found = delivered(parse(text).routes, ("shop", "public", "people"), {"topic-a": 3600.0, "topic-c": 1.0}, now)
    assert found == (Delivered("a", "topic-a", now + timedelta(hours=1)), Delivered("b", "topic-b", None))
