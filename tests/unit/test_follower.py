"""What the follower keeps of transactions, in memory and on disk; the reading itself is tested on the real broker."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronicle.worker.context_store import ContextStore, Known

MESSAGE, TABLE = 4, 3


def one(number: int, source: str = "shop") -> tuple[str, int, str]:
    return (source, 0, str(number))


def said(known: Known) -> tuple[int, int, str | None]:
    return (known.rank, known.at, known.context)


def test_of_several_contexts_the_best_is_kept() -> None:
    """The better rung; of one rung the later; also when the first is on disk already."""
    store = ContextStore(memory_max=1)
    store.context(one(1), TABLE, 9, "table", 0)
    store.context(one(2), TABLE, 10, "first", 0)
    store.context(one(1), MESSAGE, 5, "message", 0)
    store.context(one(2), TABLE, 11, "second", 0)
    store.context(one(1), TABLE, 12, "late table", 0)
    found = store.get([one(1), one(2)])
    assert said(found[one(1)]) == (MESSAGE, 5, "message")
    assert said(found[one(2)]) == (TABLE, 11, "second")


def test_an_end_is_an_answer_and_a_doubtful_one_leaves_it_open() -> None:
    """Without its BEGIN an END proves nothing; with a context nothing is open."""
    store = ContextStore()
    store.end(one(1), 0, doubtful=False)
    store.end(one(2), 0, doubtful=True)
    store.context(one(3), MESSAGE, 1, "x", 0)
    store.end(one(4), 0, doubtful=True)
    store.end(one(4), 0, doubtful=False)
    found = store.get([one(n) for n in range(1, 6)])
    assert [(known.answers, known.is_open) for known in found.values()] == [
        (True, False),
        (True, True),
        (True, False),
        (True, False),
    ]
    assert one(5) not in found


@given(
    st.lists(st.tuples(st.integers(0, 12), st.sampled_from(["message", "table", "end", "doubtful"])), max_size=80),
    st.integers(1, 6),
)
def test_what_is_on_disk_is_known_as_what_is_in_memory(events: list[tuple[int, str]], memory_max: int) -> None:
    """Whatever is moved when, the answers are those of a store that moves nothing."""
    small, large = ContextStore(memory_max), ContextStore()
    for at, (number, kind) in enumerate(events):
        for store in (small, large):
            if kind in ("end", "doubtful"):
                store.end(one(number), at, doubtful=kind == "doubtful")
            else:
                store.context(one(number), MESSAGE if kind == "message" else TABLE, at, f"{kind} {at}", at)
    asked = [one(number) for number in range(13)]
    found, expected = small.get(asked), large.get(asked)
    assert {name: (*said(known), known.is_open) for name, known in found.items()} == {
        name: (*said(known), known.is_open) for name, known in expected.items()
    }
    assert small.in_memory <= memory_max
    small.close()


def test_memory_and_disk_are_bounded_and_the_oldest_ended_go_first() -> None:
    """What was forgotten is said: it must not be waited for."""
    store = ContextStore(memory_max=10, disk_max=20)
    store.context(one(0), MESSAGE, 0, "open, and older than all", 0)
    for number in range(1, 100):
        store.context(one(number), MESSAGE, number, f"context {number}", number)
        store.end(one(number), number, doubtful=False)
    assert store.in_memory <= 10
    assert store.on_disk <= 20
    assert store.forgotten == 100 - store.in_memory - store.on_disk
    found = store.get([one(number) for number in range(100)])
    assert one(0) in found
    assert sorted(int(name[2]) for name in found)[1] > store.forgotten_ms > 0
    store.close()


def test_what_nobody_needs_any_more_is_forgotten_but_not_what_is_open() -> None:
    """An outage is longer than any age."""
    store = ContextStore(memory_max=4)
    for number in range(12):
        store.context(one(number), MESSAGE, number, "x", number)
        if number % 3:
            store.end(one(number), number, doubtful=False)
    store.forget_before(8)
    kept = sorted(int(name[2]) for name in store.get([one(number) for number in range(12)]))
    assert kept == [0, 3, 6, 8, 9, 10, 11]
    store.close()


def test_sources_and_epochs_do_not_share_transactions() -> None:
    """Transaction ids repeat in other databases."""
    store = ContextStore(memory_max=1)
    for name in (one(1), one(1, "hiring"), ("shop", 1, "1")):
        store.context(name, MESSAGE, 1, str(name), 0)
    for name in (one(1), one(1, "hiring"), ("shop", 1, "1")):
        assert store.get([name])[name].context == str(name)
    store.close()


@pytest.mark.parametrize("count", [1, 25_000])
def test_any_number_may_be_asked_for(count: int) -> None:
    """SQLite's limits on parameters are not ours."""
    store = ContextStore(memory_max=count // 2 + 1)
    for number in range(count):
        store.end(one(number), 0, doubtful=False)
    assert len(store.get([one(number) for number in range(count)])) == count
    store.close()
