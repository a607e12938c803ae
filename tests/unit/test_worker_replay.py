"""Dead letters that are sent back get their original coordinates."""

from __future__ import annotations

import pytest

from chronicle.model.chunk import Chunk, Headers, SourceSpec
from chronicle.model.dead_letters import Reason
from chronicle.stages.path import Path
from chronicle.testing import rules
from chronicle.worker.replay import restore

RETRY = "chronicle.retry"


def origin(topic: str, partition: int, offset: int) -> Headers:
    return (
        ("chronicle.dead-letter.reason", b"value_refused"),
        ("chronicle.original.topic", topic.encode()),
        ("chronicle.original.partition", str(partition).encode()),
        ("chronicle.original.offset", str(offset).encode()),
        ("chronicle.original.timestamp", b"1700000000000"),
        ("chronicle.epoch", b"3"),
    )


def chunk(*headers: Headers, topic: str = RETRY) -> Chunk:
    count = len(headers)
    return Chunk(
        topic,
        0,
        range(count),
        [1] * count,
        [f"k{n}".encode() for n in range(count)],
        [f"v{n}".encode() for n in range(count)],
        headers,
    )


def test_other_chunks_pass_untouched() -> None:
    """Only the retry topic is rewritten."""
    given = chunk((("a", b"b"),), topic="shop.public.t")
    assert restore([given], RETRY) == ([given], frozenset())


def test_records_get_their_original_coordinates_and_only_the_original_headers() -> None:
    """Topic, partition, offset and time come from the headers; Chronicle's own headers go."""
    (restored,), coordinates = restore([chunk(origin("shop.a.b", 2, 41))], RETRY)
    assert (restored.topic, restored.partition, list(restored.offsets)) == ("shop.a.b", 2, [41])
    assert list(restored.timestamps_ms) == [1700000000000]
    assert restored.headers == [(("chronicle.epoch", b"3"),)]
    assert coordinates == {("shop.a.b", 2, 41)}


@pytest.mark.parametrize(("name", "text"), [("timestamp", b"9" * 25), ("timestamp", b"-1"), ("offset", b"9" * 25)])
def test_a_foreign_record_in_the_retry_topic_is_one_dead_letter(name: str, text: bytes) -> None:
    """Its headers are whatever somebody wrote; no source has the retry topic, so it is never a change."""
    full = f"chronicle.original.{name}"
    headers = tuple((each, text if each == full else value) for each, value in origin("shop.a.b", 2, 41))
    chunks, _ = restore([chunk(headers)], RETRY)
    batch = Path([SourceSpec("shop", "postgresql")], b"k", rules()).run(chunks, {}, 1)
    assert [letter.reason for letter in batch.dead_letters] == [Reason.UNKNOWN_SOURCE]


def test_records_are_grouped_by_partition_in_offset_order() -> None:
    """A chunk holds one partition, in order, whatever the order of the replay; every record is there."""
    given = chunk(origin("shop.a.b", 0, 9), origin("shop.a.c", 0, 5), origin("shop.a.b", 0, 3), origin("shop.a.b", 0, 9))
    restored, _ = restore([given], RETRY)
    by_topic = {each.topic: each for each in restored}
    assert list(by_topic["shop.a.b"].offsets) == [3, 9, 9]
    assert list(by_topic["shop.a.b"].values) == [b"v2", b"v0", b"v3"]
    assert list(by_topic["shop.a.c"].keys) == [b"k1"]


def test_a_record_without_usable_coordinates_keeps_those_of_the_retry_topic() -> None:
    """Nothing that is sent to the retry topic is lost, whatever its headers say."""
    broken = (("chronicle.original.topic", b"\xff"), ("chronicle.original.partition", b"x"))
    (restored,), coordinates = restore([chunk(broken)], RETRY)
    assert (restored.topic, list(restored.offsets)) == (RETRY, [0])
    assert coordinates == {(RETRY, 0, 0)}
