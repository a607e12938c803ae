"""What a record of an event says of itself: its time, which whoever writes it may choose."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from chronicle.model.chunk import Chunk
from chronicle.model.columns import STORED_MS
from chronicle.sinks import arrow
from chronicle.stages.path import Path
from chronicle.testing import rules

PATH = Path([], b"k" * 32, rules())


@given(st.integers(-(2**63), 2**63 - 1))
def test_no_time_of_a_record_stops_the_path(timestamp_ms: int) -> None:
    """What the store cannot hold is stored as the nearer end, of events and of dead letters alike."""
    values = [json.dumps({"source": "shop", "type": "a.b"}).encode(), b"junk"]
    batch = PATH.run([Chunk("chronicle.events", 0, [0, 1], [timestamp_ms] * 2, [None] * 2, values, [()] * 2)], {}, 1)
    expected = min(max(timestamp_ms, STORED_MS[0]), STORED_MS[1])
    assert batch.events["received_at"].to_physical().to_list() == [expected]
    assert batch.events["time"].to_physical().to_list() == [expected * 1000]
    (letter,) = batch.dead_letters
    assert letter.timestamp_ms == timestamp_ms
    stored = arrow.dead_letters([letter], failed_at_us=1, version="1")["timestamp"].cast("int64").to_pylist()
    assert stored == [expected]
