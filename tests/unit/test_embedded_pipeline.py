"""Events within one process: each future is done when its records are held, whoever hands in, whatever breaks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from chronicle.embedded.pipeline import Bounds, Overloaded, Pipeline, Stopped
from chronicle.model.chunk import Chunk


class Store:
    """Keeps chunks; may be told to wait or to break."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.open = threading.Event()
        self.open.set()
        self.error: BaseException | None = None
        self.entered = threading.Event()

    def __call__(self, chunk: Chunk) -> None:
        self.entered.set()
        self.open.wait(30)
        if self.error is not None:
            raise self.error
        self.chunks.append(chunk)

    def records(self) -> list[tuple[int, bytes | None]]:
        return [pair for chunk in self.chunks for pair in zip(chunk.offsets, chunk.values, strict=True)]


def made(store: Callable[[Chunk], None], **more: object) -> tuple[Pipeline, threading.Event, list[BaseException]]:
    stopping, failures = threading.Event(), list[BaseException]()
    pipeline = Pipeline(store, "chronicle.events", 7, stopping=stopping, failed=failures.append, **more)  # type: ignore[arg-type]
    pipeline.start()
    return pipeline, stopping, failures


def test_every_record_is_held_once_before_its_future_is_done() -> None:
    """Many threads, many sizes; offsets go on without a gap from where the store's ended."""
    store = Store()
    pipeline, _, failures = made(store)

    def hand_in(number: int) -> bool:
        values = [f"{number}-{at}".encode() for at in range(number % 5 + 1)]
        pipeline.hand_in([(b"k", value) for value in values]).result(30)
        held = {value for _, value in store.records()}
        return set(values) <= held

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(hand_in, range(200)))
    pipeline.close()
    assert not failures
    assert [offset for offset, _ in store.records()] == list(range(7, 7 + 600))
    assert len({value for _, value in store.records()}) == 600


def test_what_comes_while_a_batch_is_processed_is_one_batch() -> None:
    """A slow store makes batches larger, not queues longer."""
    store = Store()
    store.open.clear()
    pipeline, _, _ = made(store)
    first = pipeline.hand_in([(b"k", b"first")])
    assert store.entered.wait(30)
    later = [pipeline.hand_in([(b"k", str(number).encode())]) for number in range(50)]
    store.open.set()
    first.result(30)
    for future in later:
        future.result(30)
    pipeline.close()
    assert [len(chunk) for chunk in store.chunks] == [1, 50]


def test_more_than_may_wait_is_refused_and_room_comes_back() -> None:
    """By number and by size; a single batch that is larger than all bounds is still taken when nothing waits."""
    for bounds in (Bounds(waiting_records_max=3), Bounds(waiting_bytes_max=30)):
        store = Store()
        store.open.clear()
        pipeline, _, _ = made(store, bounds=bounds)
        taken = pipeline.hand_in([(b"k", b"x" * 50)] * 5)
        with pytest.raises(Overloaded):
            pipeline.hand_in([(b"k", b"y")])
        store.open.set()
        taken.result(30)
        pipeline.hand_in([(b"k", b"y")]).result(30)
        assert pipeline.waiting == 0
        pipeline.close()


def test_an_undecidable_failure_confirms_nothing_and_ends_it() -> None:
    """Neither the batch nor what waits behind it; nothing is taken after it."""
    store = Store()
    store.open.clear()
    store.error = AssertionError("a bug")
    pipeline, _, failures = made(store)
    futures = [pipeline.hand_in([(b"k", b"1")])]
    assert store.entered.wait(30)
    futures.append(pipeline.hand_in([(b"k", b"2")]))
    store.open.set()
    for future in futures:
        with pytest.raises(Stopped):
            future.result(30)
    with pytest.raises(Stopped):
        pipeline.hand_in([(b"k", b"3")])
    assert failures == [store.error]
    pipeline.close()


def test_closing_finishes_what_was_handed_in_and_takes_nothing_more() -> None:
    """SIGTERM loses nothing."""
    store = Store()
    store.open.clear()
    pipeline, stopping, _ = made(store)
    futures: list[Future[None]] = [pipeline.hand_in([(b"k", str(number).encode())]) for number in range(3)]
    closer = threading.Thread(target=pipeline.close)
    closer.start()
    end = time.monotonic() + 30
    while not pipeline.ended:
        assert time.monotonic() < end
    with pytest.raises(Stopped):
        pipeline.hand_in([(b"k", b"late")])
    assert not stopping.is_set()
    store.open.set()
    closer.join(60)
    assert all(future.done() and future.exception() is None for future in futures)
    assert len(store.records()) == 3


def test_a_caller_that_goes_away_breaks_nothing() -> None:
    """An HTTP client that hangs up cancels its own waiting, not the record."""
    store = Store()
    store.open.clear()
    pipeline, _, failures = made(store)
    assert not pipeline.hand_in([(b"k", b"gone")]).cancel()
    store.open.set()
    pipeline.hand_in([(b"k", b"next")]).result(30)
    pipeline.close()
    assert not failures
    assert {value for _, value in store.records()} == {b"gone", b"next"}
