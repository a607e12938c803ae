"""The journal among hostile neighbours: signals, hanging transports, exceptions from everywhere, directories of others."""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import logging
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from chronicle.errors import ConfigError
from chronicle.journal import Event, EventRefused, Journal, PublishDropped, PublishError, PublishTimeout, Receipt, tagged
from chronicle.journal import spill as spill_module
from chronicle.journal.outgoing import Outgoing
from chronicle.journal.spill import Spill
from chronicle.journal.transports import TransportAway
from chronicle.journal.transports.http import Http
from chronicle.journal.transports.kafka import Kafka
from chronicle.journal.transports.memory import Memory


class Gated:
    """A transport that takes nothing, and answers nothing, before its gate is open."""

    name = "gated"
    durable = True

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.taken: list[Event] = []
        self.away = False
        self.closed = False

    def send(self, batch: Sequence[Outgoing]) -> Sequence[str | None]:
        self.entered.set()
        self.gate.wait(60)
        if self.away:
            raise TransportAway("switched off")
        self.taken += [out.event for out in batch]
        return [None] * len(batch)

    def close(self) -> None:
        self.closed = True

    @property
    def numbers(self) -> list[int]:
        return [(event.payload or {})["n"] for event in self.taken]


@pytest.fixture
def gated() -> Iterator[Gated]:
    """Open at the end, so that no thread is left waiting."""
    transport = Gated()
    yield transport
    transport.gate.set()


def journal_to(transport: Any, **settings: Any) -> Journal:
    given = {"breaker_reset_s": 0.01, "breaker_reset_max_s": 0.05, "on_error": lambda *_: None, **settings}
    return Journal(source="test", transport=transport, **given)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.002)


def balanced(journal: Journal) -> bool:
    counts = journal.counts
    return counts["accepted"] == counts["confirmed"] + counts["refused"] + counts["dropped"]


# A transport that never answers


def test_a_transport_that_hangs_holds_nobody_up(gated: Gated) -> None:
    """`close` returns; what the transport has is counted as dropped, and who waits for it hears that."""
    journal = journal_to(gated, linger_ms=0.0)
    heard: list[BaseException] = []

    def wait() -> None:
        try:
            journal.publish_sync("a.b", payload={"n": 1})
        except PublishDropped as error:
            heard.append(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    assert gated.entered.wait(30)
    journal.publish("a.b", payload={"n": 2})
    begun = time.monotonic()
    journal.close(0.1)
    assert time.monotonic() - begun < 10
    waiter.join(30)
    assert len(heard) == 1
    assert journal.counts["dropped"] == 2
    assert balanced(journal)
    gated.gate.set()
    until(lambda: len(gated.taken) == 1)
    assert balanced(journal), "what was given up is not counted again when it arrives after all"


def test_a_transport_that_hangs_leaves_all_in_the_spill(gated: Gated, tmp_path: Path) -> None:
    """What it has and what waits for it is sent by the next journal, in order."""
    journal = journal_to(gated, linger_ms=0.0, spill=str(tmp_path))
    for n in range(20):
        journal.publish("a.b", payload={"n": n})
    assert gated.entered.wait(30)
    journal.close(0.1)
    assert journal.counts["dropped"] == 0
    memory = Memory()
    with journal_to(memory, spill=str(tmp_path)) as again:
        again.recover(30)
    assert [(out.event.payload or {})["n"] for out in memory.sent] == list(range(20))


def test_a_subscriber_that_hangs_costs_no_event(gated: Gated) -> None:
    """`close` leaves time to send what is queued, and a `flush` after it returns."""
    stuck = threading.Event()
    journal = journal_to(gated, linger_ms=0.0)
    journal.subscribe("**", lambda event: stuck.wait(60))
    for n in range(5):
        journal.publish("a.b", payload={"n": n})
    opener = threading.Timer(0.6, gated.gate.set)  # after the half that subscribers have
    opener.start()
    journal.close(1.0)
    opener.join()
    assert (journal.counts["confirmed"], journal.counts["unheard"]) == (5, 4)
    stuck.set()
    assert journal.flush(30)


# Code of others that raises what it must not


def test_a_transport_that_cannot_be_closed_lets_go_of_the_spill(tmp_path: Path) -> None:
    """Its error is told; the directory is free."""
    told: list[Exception] = []

    class Sticky(Memory):
        def close(self) -> None:
            raise RuntimeError("no")

    journal = journal_to(Sticky(), spill=str(tmp_path), on_error=lambda error, _: told.append(error))
    journal.close()
    assert [type(error) for error in told] == [RuntimeError]
    Spill(tmp_path / "0").close()


@pytest.mark.parametrize("spilled", [False, True])
def test_an_exit_in_a_thread_ends_no_lane(tmp_path: Path, spilled: bool) -> None:
    """`on_error` that calls `sys.exit`, in the thread that sends: the journal goes on."""
    refusing = True

    class Picky(Memory):
        def send(self, batch: Sequence[Outgoing]) -> Sequence[str | None]:
            if refusing:
                return ["no"] * len(batch)
            return super().send(batch)

    memory = Picky()
    journal = journal_to(memory, on_error=lambda *_: sys.exit(1), spill=str(tmp_path) if spilled else None)
    for _ in range(3):
        receipt = journal.publish("a.b")
        until(lambda receipt=receipt: receipt.disposition == "refused")  # type: ignore[misc]
    refusing = False
    assert journal.publish_sync("a.b").disposition == "confirmed"
    journal.close()
    assert balanced(journal)


def test_who_hears_of_an_error_may_call_the_journal() -> None:
    """`flush`, `recover`, `publish_sync` and `close` in a thread that sends: they do not wait for themselves."""
    found: list[object] = []
    done = threading.Event()
    refusing = True

    class Picky(Memory):
        def send(self, batch: Sequence[Outgoing]) -> Sequence[str | None]:
            return ["no"] * len(batch) if refusing else super().send(batch)

    def hear(error: Exception, event: Event | None) -> None:
        nonlocal refusing
        refusing = False
        if done.is_set():
            return
        found.append(journal.flush())
        try:
            journal.publish_sync("c.d")
        except PublishTimeout as timeout:
            found.append(timeout.receipt.disposition)
        journal.close(1.0)
        done.set()

    journal = journal_to(Picky(), on_error=hear)
    journal.publish("a.b")
    assert done.wait(30)
    assert found == [False, "queued"]


def test_what_a_hook_publishes_is_not_handed_to_hooks() -> None:
    """A hook that publishes is called once for each event of the application."""
    memory = Memory()
    with journal_to(memory) as journal:
        called: list[str] = []

        def hook(event: Event) -> None:
            called.append(event.type)
            journal.publish("hook.called")

        journal.on_enqueue(hook)
        journal.publish("a.b")
        journal.publish("a.c")
        assert journal.flush(30)
    assert called == ["a.b", "a.c"]
    assert sorted(out.event.type for out in memory.sent) == ["a.b", "a.c", "hook.called", "hook.called"]


class Raising:
    """An object of an application that cannot be read."""

    __slots__ = ("secret",)

    @property
    def __dataclass_fields__(self) -> object:
        raise LookupError("hunter2")


@pytest.mark.parametrize("value", [Raising(), object(), {"deep": {1, (2,)}, "x": [Raising()]}, {object(): 1}])
def test_an_object_that_cannot_be_read_is_refused_without_its_value(value: object) -> None:
    """Whatever it raises."""
    with journal_to(Memory()) as journal:
        with pytest.raises(EventRefused) as refused:
            journal.publish("a.b", payload={"x": value})
        assert "hunter2" not in str(refused.value)
        assert journal.counts["invalid"] == 1


def test_payloads_without_end_are_refused_soon() -> None:
    """Cycles, a hundred thousand levels, ten megabytes."""
    cycle: dict[str, Any] = {}
    cycle["again"] = cycle
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    with journal_to(Memory()) as journal:
        for payload in (cycle, {"x": deep}, {"x": "password: " + "x " * 5_000_000}, {"x": ["{" * 100] * 100_000}):
            with pytest.raises(EventRefused):
                journal.publish("a.b", payload=payload)
        assert journal.counts["invalid"] == 4


# Threads that cannot begin


def test_without_a_thread_events_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system has no more threads: publishing goes on, and the next event tries again."""
    memory = Memory()
    journal = journal_to(memory, workers=2)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", _no_thread)
        journal.subscribe("**", lambda event: None)
        receipt = journal.publish("a.b")
        assert (receipt.disposition, journal.queued) == ("queued", 1)
    journal.publish("a.b")
    assert journal.flush(30)
    journal.close()
    assert journal.counts["confirmed"] == 2


def _no_thread(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


# Signals

IN_A_HANDLER = """
import os, signal, sys
from chronicle.journal import Journal
from chronicle.journal.transports import TransportAway
from chronicle.journal.transports.memory import Memory
class Away(Memory):
    away = True
    def send(self, batch):
        if self.away:
            raise TransportAway("away")
        return super().send(batch)
away = Away()
journal = Journal(source="test", transport=away, spill=sys.argv[1], queue_events=4, workers=2, on_error=lambda *_: None,
    breaker_reset_s=0.01, breaker_reset_max_s=0.02)
published = handled = 0
def handle(*_):
    global handled
    journal.publish("signal.handled", payload={"n": handled}, resource=("r", handled))
    handled += 1
    journal.counts
    if handled < 300:
        signal.setitimer(signal.ITIMER_REAL, 0.0003 + handled % 7 / 10_000)
signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.001)
while handled < 300:
    journal.publish("a.b", payload={"n": published}, resource=("s", published))
    published += 1
    if published == 500:
        away.away = False
away.away = False
journal.recover(60)
journal.flush(60)
journal.close(60)
assert not journal.queued and journal.spilled[0] == 0
assert journal.counts["accepted"] == published + handled == journal.counts["confirmed"], dict(journal.counts)
ids = {out.event.id for out in away.sent}
assert len(ids) == published + handled, (len(ids), published, handled)
print("whole")
"""


def test_a_signal_s_handler_may_publish(tmp_path: Path) -> None:
    """Wherever it interrupts the thread that publishes, in the spill's fsync too: no deadlock, and no event is lost."""
    done = subprocess.run(
        [sys.executable, "-c", IN_A_HANDLER, str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout == "whole\n", done.stderr[-2_000:]


class Timeout(BaseException):
    """As Celery raises it, from a signal's handler."""


def test_an_interrupted_append_loses_nothing_that_was_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interrupted one kept nothing, those that shared its fsync hear of it, and what comes later is read."""
    spill = Spill(tmp_path)
    spill.append([b"before"])
    healthy = spill_module._ended_at_the_disk
    entered, go = threading.Event(), threading.Event()
    heard: list[Exception] = []

    def first(fd: int) -> None:
        entered.set()
        go.wait(30)
        healthy(fd)

    def interrupted(fd: int) -> None:
        raise Timeout

    def append(record: bytes) -> None:
        try:
            spill.append([record])
        except (OSError, Timeout) as error:
            heard.append(error)  # type: ignore[arg-type]

    monkeypatch.setattr(spill_module, "_ended_at_the_disk", first)
    threads = [threading.Thread(target=append, args=(b"alone",))]
    threads[0].start()
    assert entered.wait(30)
    monkeypatch.setattr(spill_module, "_ended_at_the_disk", interrupted)
    for n in range(2):  # these two share one write
        threads.append(threading.Thread(target=append, args=(b"interrupted %d" % n,)))
        threads[-1].start()
        until(lambda n=n: len(spill._waiting) == n + 1)  # type: ignore[misc]
    go.set()
    for thread in threads:
        thread.join(30)
    assert sorted(type(error).__name__ for error in heard) == ["InterruptedError", "Timeout"]
    monkeypatch.setattr(spill_module, "_ended_at_the_disk", healthy)
    spill.append([b"after"])
    expected = [b"before", b"alone", b"after"]
    assert [record for _, records in spill.read() for record in records] == expected
    spill.close()
    again = Spill(tmp_path)
    assert [record for _, records in again.read() for record in records] == expected
    again.close()


def test_an_append_within_an_append_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can neither wait for itself nor write in between."""
    spill = Spill(tmp_path)
    healthy = spill_module._ended_at_the_disk
    heard: list[OSError] = []

    def interrupting(fd: int) -> None:
        try:
            spill.append([b"within"])
        except OSError as error:
            heard.append(error)
        healthy(fd)

    monkeypatch.setattr(spill_module, "_ended_at_the_disk", interrupting)
    spill.append([b"outer"])
    assert [error.errno for error in heard] == [errno.EDEADLK]
    assert [record for _, records in spill.read() for record in records] == [b"outer"]
    spill.close()


# The spill's directory


def test_a_part_that_cannot_be_used_holds_nobody_up(tmp_path: Path, gated: Gated) -> None:
    """Another user's, or broken: it is told and passed over, at the start and when parts are taken over."""
    told: list[Exception] = []
    (tmp_path / "1" / "lock").mkdir(parents=True)  # where a file has to be
    gated.gate.set()
    gated.away = True
    with journal_to(gated, spill=str(tmp_path), on_error=lambda error, _: told.append(error)) as journal:
        journal.publish("a.b", payload={"n": 1})
        until(lambda: journal.counts["spilled"] == 1)
        gated.away = False
        journal.recover(30)
        assert (gated.numbers, journal.spilled[0]) == ([1], 0)
    assert any(isinstance(error, IsADirectoryError) for error in told)


def test_a_part_of_another_user_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next free number is taken."""
    (tmp_path / "0").mkdir()
    real = os.open

    def guarded(path: Any, *rest: Any, **more: Any) -> int:
        if str(path).startswith(str(tmp_path / "0")):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, *rest, **more)

    monkeypatch.setattr(os, "open", guarded)
    with journal_to(Memory(), spill=str(tmp_path)):
        assert (tmp_path / "1").is_dir()


def test_a_full_disk_lets_go_of_what_was_delivered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forgetting needs no new room: else a full disk would stay full, and the same events were sent for ever."""
    spill = Spill(tmp_path, segment_bytes=1)
    for n in range(3):
        spill.append([b"%d" % n])
    real = os.open

    def full(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(OSError, match="No space"):
        spill.append([b"3"])
    (first, _), (second, _), _ = spill.read(records_max=1)
    spill.forget(second)
    assert first < second
    assert len(list(tmp_path.glob("*.spill"))) == 1
    monkeypatch.undo()
    spill.append([b"4"])
    assert [record for _, records in spill.read() for record in records] == [b"2", b"4"]
    spill.close()
    again = Spill(tmp_path)
    assert [record for _, records in again.read() for record in records] == [b"2", b"4"]
    again.close()


def test_a_directory_that_was_deleted_keeps_nothing(tmp_path: Path) -> None:
    """What is written into a file that has no name any more is nowhere: nobody is told that it is kept."""
    spill = Spill(tmp_path / "spill")
    spill.append([b"before"])
    shutil.rmtree(tmp_path / "spill")
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            spill.append([b"after"])
    spill.close()


def test_a_journal_that_cannot_begin_closes_its_transport(tmp_path: Path) -> None:
    """A file where the spill's directory has to be."""
    (tmp_path / "spill").write_text("")
    transport = Gated()
    with pytest.raises(OSError, match="spill"):
        journal_to(transport, spill=str(tmp_path / "spill"))
    assert transport.closed


# asyncio


def test_waiting_tasks_leave_the_executor_alone(gated: Gated) -> None:
    """A hundred coroutines wait for room in a full queue; the application's own threads are free, and all get through."""

    async def running() -> None:
        journal = journal_to(gated, queue_events=2, linger_ms=0.0)
        loop = asyncio.get_running_loop()
        loop.set_default_executor(concurrent.futures.ThreadPoolExecutor(2))
        tasks = [asyncio.create_task(journal.apublish_sync("a.b", payload={"n": n})) for n in range(100)]
        await asyncio.sleep(0.05)
        assert await asyncio.wait_for(asyncio.to_thread(lambda: "free"), 30) == "free"
        gated.gate.set()
        receipts = await asyncio.gather(*tasks)
        assert {receipt.disposition for receipt in receipts} == {"confirmed"}
        assert sorted(gated.numbers) == list(range(100))
        journal.close()

    asyncio.run(running())


def test_a_cancelled_task_is_counted(gated: Gated) -> None:
    """Cancelled before there was room: dropped. Cancelled while it waits for the confirmation: the event goes its way."""

    async def running() -> None:
        journal = journal_to(gated, queue_events=1, linger_ms=0.0)
        first = asyncio.create_task(journal.apublish_sync("a.b", payload={"n": 0}))
        await asyncio.to_thread(gated.entered.wait, 30)
        journal.publish("a.b", payload={"n": 1})  # fills the queue
        waiting = asyncio.create_task(journal.apublish_sync("a.b", payload={"n": 2}))
        await asyncio.sleep(0.05)
        for task in (first, waiting):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert journal.counts["dropped"] == 1
        gated.gate.set()
        assert await asyncio.to_thread(journal.flush, 30)
        assert gated.numbers == [0, 1]
        journal.close()

    asyncio.run(running())


def test_a_full_queue_does_not_stop_the_loop(gated: Gated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`apublish` leaves the spill's disk to a thread."""

    async def running() -> None:
        threads: list[int] = []
        healthy = spill_module._ended_at_the_disk

        def noted(fd: int) -> None:
            threads.append(threading.get_ident())
            healthy(fd)

        monkeypatch.setattr(spill_module, "_ended_at_the_disk", noted)
        journal = journal_to(gated, queue_events=2, linger_ms=0.0, spill=str(tmp_path))
        for n in range(20):
            await journal.apublish("a.b", payload={"n": n})
        assert threads
        assert threading.get_ident() not in threads
        gated.gate.set()
        await asyncio.to_thread(journal.recover, 30)
        await asyncio.to_thread(journal.close, 30)
        assert gated.numbers == list(range(20))

    asyncio.run(running())


def test_the_context_of_a_request_ends_with_it() -> None:
    """Even when the block is left by an exception, in a thread that serves the next request."""
    memory = Memory()
    with journal_to(memory) as journal, concurrent.futures.ThreadPoolExecutor(1) as pool:

        def request(number: int) -> None:
            with tagged(request_id=f"r-{number}", user=number):
                journal.publish("a.b")
                raise KeyError(number)

        for number in range(3):
            assert isinstance(pool.submit(request, number).exception(), KeyError)
        pool.submit(journal.publish, "a.c").result()
    *_, last = memory.sent
    assert (last.event.request_id, last.event.tags) == (None, {})


# Across processes, and at the start


def test_errors_reach_another_process() -> None:
    """An error that cannot be unpickled would break the pool that it happened in."""
    for error in (
        EventRefused("type", "name it"),
        EventRefused("", "not JSON"),
        PublishTimeout("not confirmed", Receipt("an id")),
        TransportAway("away"),
    ):
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301 (its own)
        assert (type(copy), str(copy)) == (type(error), str(error))
        assert not isinstance(copy, PublishError) or copy.receipt.id == "an id"
        assert not isinstance(copy, EventRefused) or copy.field == error.field  # type: ignore[union-attr]


def test_a_journal_stays_in_its_process() -> None:
    """It says so, and what to do."""
    with journal_to(Memory()) as journal, pytest.raises(TypeError, match="make a journal in each process"):
        pickle.dumps(journal)


@pytest.mark.parametrize("key", ["secret-key\n", "secret key", "secret-kéy", "secret\r\nX: y"])
def test_a_key_that_cannot_be_sent_is_refused_at_the_start(key: str) -> None:
    """Not at the first event, and without a word of it."""
    with pytest.raises(ConfigError) as refused:
        Http("http://localhost:1", key=key)
    assert "secret" not in str(refused.value)
    with pytest.raises(ConfigError):
        Http("http://localhost:1/a path")


def test_a_wrong_kafka_setting_loses_no_event() -> None:
    """The events wait until it is put right; the message has no value."""
    kafka = Kafka("localhost:1", config={"no.such.setting": "hunter2"})
    with pytest.raises(TransportAway) as away:
        kafka.send([])
    assert "hunter2" not in str(away.value)


@pytest.mark.parametrize(
    "given", [{"workers": "2"}, {"timeout_s": "hunter2"}, {"spill": 7}, {"production": 1}, {"queue_events": True}]
)
def test_an_argument_of_the_wrong_kind_is_refused_at_the_start(given: dict[str, Any]) -> None:
    """Not at the first event; the value is not repeated."""
    with pytest.raises(ConfigError) as refused:
        journal_to(Memory(), **given)
    assert "hunter2" not in str(refused.value)


def test_a_path_is_taken_as_the_spill(tmp_path: Path) -> None:
    """As most applications have it."""
    with journal_to(Memory(), spill=tmp_path / "spill"):
        assert (tmp_path / "spill" / "0").is_dir()


def test_a_mistyped_variable_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """By its name: a spill that nobody has is not noticed before it is needed."""
    monkeypatch.setenv("CHRONICLE_JOURNAL_SPIL", "/hunter2")
    with caplog.at_level(logging.WARNING, "chronicle.journal"):
        Journal(source="test", transport=Memory()).close()
    assert "CHRONICLE_JOURNAL_SPIL" in caplog.text
    assert "hunter2" not in caplog.text


def test_nothing_shows_a_key() -> None:
    """Neither the journal nor its parts, however they are printed."""
    with Journal(source="test", transport="http://localhost:1", key="hunter2", kafka={"sasl.password": "hunter2"}) as journal:
        receipt = journal.publish("a.b", payload={"x": "hunter2"})
        for thing in (journal, journal.settings, journal.transport, receipt, journal.counts):
            assert "hunter2" not in f"{thing!r} {thing}"
        journal.close(0.1)
