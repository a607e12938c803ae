"""Fetched records become chunks: nothing is lost on the way, and no chunk is larger than it may be."""

from __future__ import annotations

from itertools import chain
from typing import Any

from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from chronicle.worker.transport import cut

BYTES = st.one_of(st.none(), st.binary(max_size=40))


def fetched(pairs: list[tuple[bytes | None, bytes | None]]) -> list[Any]:
    """Records as aiokafka reads them from a fetched batch."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, 7, 0, 0, 1 << 20)
    for offset, (key, value) in enumerate(pairs):
        builder.append(offset, timestamp=1000 + offset, key=key, value=value, headers=[("n", b"%d" % offset)])
    return list(DefaultRecordBatch(bytes(builder.build())))


@given(st.lists(st.tuples(BYTES, BYTES), min_size=1, max_size=40), st.integers(1, 200))
def test_chunks_hold_every_record_in_order_and_stay_within_the_limit(
    pairs: list[tuple[bytes | None, bytes | None]], bytes_max: int
) -> None:
    """Only a record that is larger than the limit by itself makes a larger chunk, and is alone in it."""
    found = list(cut(("t", 3), fetched(pairs), bytes_max))
    chunks = [chunk for chunk, _ in found]
    assert list(chain.from_iterable(zip(one.keys, one.values, strict=True) for one in chunks)) == pairs
    assert list(chain.from_iterable(one.offsets for one in chunks)) == list(range(len(pairs)))
    assert list(chain.from_iterable(one.timestamps_ms for one in chunks)) == [1000 + at for at in range(len(pairs))]
    assert list(chain.from_iterable(one.headers for one in chunks)) == [(("n", b"%d" % at),) for at in range(len(pairs))]
    for chunk, size in found:
        assert (chunk.topic, chunk.partition) == ("t", 3)
        assert size == sum(len(one or b"") for one in chain(chunk.keys, chunk.values))
        assert size <= bytes_max or len(chunk) == 1
