"""Asking the registry for schemas of events: what is written often is asked for, nonsense costs little and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from chronicle.model.chunk import Chunk
from chronicle.model.dead_letters import Reason
from chronicle.stages.asking import ASKED_MAX, FORGIVEN_US, UNKNOWN_MAX, Asking
from chronicle.stages.path import Path
from chronicle.testing import rules

NOW = 1_770_000_000_000_000


def framed(*ids: int) -> Chunk:
    values: Sequence[bytes] = [b"\0" + id_.to_bytes(4, "big") + b"\x02x" for id_ in ids]
    count = len(ids)
    return Chunk("chronicle.events", 0, range(count), [1] * count, [b"k"] * count, values, [()] * count)


def test_ids_of_values_are_asked_for_once_known_ones_never() -> None:
    """Keys are any bytes, and so are values without the frame."""
    other = Chunk("chronicle.events", 0, [0], [1], [b"\0\0\0\0\1k"], [b"{}"], [()])
    assert Asking().ids([framed(7, 8, 7), other], {8: ""}) == {7}


def test_a_batch_asks_for_the_ids_of_most_records() -> None:
    """However many ids it writes."""
    ids = [*range(1, ASKED_MAX + 500), 9_999, 9_999]
    found = Asking().ids([framed(*ids)], {})
    assert len(found) == ASKED_MAX
    assert 9_999 in found


def test_after_enough_unknown_ids_no_other_is_asked_for_until_time_has_passed() -> None:
    """One a minute then; all of them when all is forgiven."""
    asking, at = Asking(), NOW
    first = asking.ids([framed(*range(1, 40))], {})
    asking.answered(dict.fromkeys(first), at)
    assert asking.ids([framed(50)], {}) == frozenset()
    at += FORGIVEN_US
    asking.answered({}, at)
    assert asking.ids([framed(50, 51, 51)], {}) == {51}
    asking.answered({51: None}, at)
    assert asking.ids([framed(52)], {}) == frozenset()
    asking.answered({}, at + UNKNOWN_MAX * FORGIVEN_US)
    assert len(asking.ids([framed(*range(1, 40))], {})) == 39


def test_known_ids_and_those_of_changes_cost_nothing() -> None:
    """Only what was asked for, and was unknown, counts."""
    asking = Asking()
    for _ in range(100):
        assert asking.ids([framed(1)], {}) == {1}
        asking.answered({1: "a schema", **dict.fromkeys(range(100, 200))}, NOW)


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 30 * FORGIVEN_US)), max_size=30))
def test_unknown_ids_are_waited_for_in_few_batches(batches: list[tuple[int, int]]) -> None:
    """Between two moments at which all was forgiven, no more than `UNKNOWN_MAX` batches and one a minute."""
    asking, at, waits, elapsed = Asking(), NOW, 0, 0
    for number, (ids, passed) in enumerate(batches):
        asked = asking.ids([framed(*range(1 + 1000 * number, 1 + 1000 * number + ids))], {})
        at, elapsed = at + passed, elapsed + passed
        asking.answered(dict.fromkeys(asked), at)
        waits += bool(asked)
    assert waits <= UNKNOWN_MAX + elapsed // FORGIVEN_US + 1


def test_what_was_not_asked_for_is_a_letter_that_says_so() -> None:
    """It can be sent back when the flood is over."""
    path = Path([], b"k" * 32, rules())
    for ids in (range(1, 100), [500]):
        chunk = framed(*ids)
        batch = path.run([chunk], dict.fromkeys(path.schema_ids([chunk])), NOW)
        assert {letter.reason for letter in batch.dead_letters} == {Reason.UNKNOWN_SCHEMA}
    (letter,) = batch.dead_letters
    assert "not asked for" in letter.detail
