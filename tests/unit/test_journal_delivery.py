"""From the queue to the transport: each event has one disposition, whatever the transport does, and a spill drops nothing."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from chronicle.errors import ConfigError
from chronicle.journal import Event, Journal, PublishDropped, PublishRefused, PublishTimeout
from chronicle.journal.breaker import Breaker
from chronicle.journal.outgoing import Outgoing
from chronicle.journal.spill import Spill
from chronicle.journal.transports import Transport, TransportAway
from chronicle.journal.transports.memory import Memory
from chronicle.journal.transports.tee import Tee


class Switched:
    """A transport that is away, slow or picky as told; what it took is in `taken`, in order."""

    name = "switched"
    durable = True

    def __init__(self, *, away: bool = False) -> None:
        self.away = away
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.calls = 0
        self.taken: list[Event] = []
        self.judge: Callable[[Event], str | None] = lambda event: None
        self.behave: Callable[[Sequence[Outgoing]], None] = lambda batch: None
        self.closed = False

    def send(self, batch: Sequence[Outgoing]) -> Sequence[str | None]:
        self.calls += 1
        self.entered.release()
        self.gate.wait(60)
        self.behave(batch)
        if self.away:
            raise TransportAway("switched off")
        results = [self.judge(out.event) for out in batch]
        self.taken += [out.event for out, problem in zip(batch, results, strict=True) if problem is None]
        return results

    def close(self) -> None:
        self.closed = True

    @property
    def numbers(self) -> list[int]:
        return [(event.payload or {})["n"] for event in self.taken]


def journal_to(transport: Transport, **settings: object) -> Journal:
    """Quick to try again, telling errors to nobody."""
    given = {"breaker_reset_s": 0.01, "breaker_reset_max_s": 0.05, "on_error": lambda *_: None, **settings}
    return Journal(source="test", transport=transport, **given)  # type: ignore[arg-type]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.002)


def balanced(journal: Journal) -> bool:
    """Each accepted event has one disposition."""
    counts = journal.counts
    return counts["accepted"] == counts["confirmed"] + counts["refused"] + counts["dropped"]


def test_publishing_does_not_wait() -> None:
    """The transport hangs; `publish` returns, the receipt says queued, and a timeout is told."""
    transport = Switched()
    transport.gate.clear()
    journal = journal_to(transport)
    receipts = [journal.publish("a.b", payload={"n": n}) for n in range(100)]
    assert {receipt.disposition for receipt in receipts} == {"queued"}
    with pytest.raises(PublishTimeout) as late:
        journal.publish("a.b", payload={"n": 100}, timeout=0.01)
    assert late.value.receipt.disposition == "queued"
    with pytest.raises(PublishTimeout):
        asyncio.run(journal.apublish("a.b", payload={"n": 101}, timeout=0.01))
    assert journal.flush(0.01) is False
    transport.gate.set()
    assert late.value.receipt.wait(30).disposition == "confirmed"
    journal.close()
    assert transport.numbers == list(range(102))
    assert transport.closed
    assert balanced(journal)


def test_an_absent_transport_is_waited_for_in_order() -> None:
    """Without a spill events wait in memory; nothing is lost or reordered when it is back."""
    transport = Switched(away=True)
    journal = journal_to(transport)
    for n in range(50):
        journal.publish("a.b", payload={"n": n})
    until(lambda: transport.calls >= 3)
    transport.away = False
    assert journal.flush(30)
    assert transport.numbers == list(range(50))
    assert (journal.counts["confirmed"], journal.counts["dropped"]) == (50, 0)
    journal.close()


def test_a_full_queue_drops_the_newest_and_counts_it() -> None:
    """Without a spill; who waits gets an error, who does not can read the receipt; on_error hears of each."""
    transport = Switched()
    transport.gate.clear()
    told: list[tuple[Exception, Event | None]] = []
    journal = journal_to(transport, queue_events=10, batch_events=10, on_error=lambda *one: told.append(one))
    journal.publish("a.b", payload={"n": -1})
    transport.entered.acquire()
    receipts = [journal.publish("a.b", payload={"n": n}) for n in range(15)]
    assert [receipt.disposition for receipt in receipts] == ["queued"] * 10 + ["dropped"] * 5
    with pytest.raises(PublishDropped):
        journal.publish("a.b", payload={"n": 99}, timeout=0.01)
    assert [type(error) for error, event in told if event is not None] == [PublishDropped] * 6
    transport.gate.set()
    journal.close()
    assert transport.numbers == list(range(-1, 10))
    assert (journal.counts["accepted"], journal.counts["confirmed"], journal.counts["dropped"]) == (11, 11, 6)


def test_who_hears_of_an_error_may_publish() -> None:
    """Into the same journal, also while its queue is full: nothing runs in circles or stands still."""
    transport = Switched()
    transport.gate.clear()
    heard: list[Exception] = []

    def report(error: Exception, event: Event | None) -> None:
        heard.append(error)
        journal.publish("log.error", payload={"n": -1})

    journal = journal_to(transport, queue_events=3, batch_events=1, on_error=report)
    journal.publish("a.b", payload={"n": 0})
    transport.entered.acquire()
    for n in range(1, 10):
        journal.publish("a.b", payload={"n": n})
    transport.behave = lambda batch: 1 / 0 if (batch[0].event.payload or {})["n"] == 2 else None  # type: ignore[assignment]
    transport.gate.set()
    journal.close()
    assert [type(error) for error in heard] == [PublishDropped] * 6 + [PublishRefused]
    assert journal.counts["dropped"] == 12
    assert journal.counts["accepted"] == journal.counts["confirmed"] + journal.counts["refused"]


def test_who_waits_waits_for_room_too() -> None:
    """`publish_sync` on a full queue drops nothing: it waits, in a thread and in a coroutine."""
    transport = Switched()
    transport.gate.clear()
    journal = journal_to(transport, queue_events=2, batch_events=1)
    threads = [threading.Thread(target=journal.publish_sync, args=("a.b",), kwargs={"payload": {"n": n}}) for n in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: journal.queued == 3)

    async def more() -> None:
        waiting = [asyncio.create_task(journal.apublish_sync("a.b", payload={"n": n})) for n in range(8, 12)]
        await asyncio.sleep(0)
        transport.gate.set()
        await asyncio.gather(*waiting)

    asyncio.run(more())
    for thread in threads:
        thread.join(30)
    assert sorted(transport.numbers) == list(range(12))
    journal.close()
    assert journal.counts["dropped"] == 0


def test_high_priority_goes_first() -> None:
    """Before others in the queue, low after them; within one priority in order."""
    transport = Switched()
    transport.gate.clear()
    journal = journal_to(transport, batch_events=3)
    journal.publish("a.b", payload={"n": 0})
    transport.entered.acquire()
    for n, priority in enumerate(("low", "normal", "high", "low", "normal", "high"), start=1):
        journal.publish("a.b", payload={"n": n}, priority=priority)  # type: ignore[arg-type]
    transport.gate.set()
    journal.close()
    assert transport.numbers == [0, 3, 6, 2, 5, 1, 4]


def test_keys_keep_their_order_with_several_workers() -> None:
    """Each key is one worker's; all of them work."""
    transport = Switched()
    journal = journal_to(transport, workers=4, batch_events=7)
    for n in range(400):
        journal.publish("a.b", partition_key=f"k{n % 10}", payload={"n": n})
    journal.close()
    for key in range(10):
        assert [n for n in transport.numbers if n % 10 == key] == list(range(key, 400, 10))


def test_a_refused_event_hurts_no_other() -> None:
    """It is counted, told and kept beside; its neighbours are confirmed."""
    transport = Switched()
    transport.judge = lambda event: "payload: no" if (event.payload or {})["n"] == 3 else None
    told: list[Event | None] = []
    journal = journal_to(transport, on_error=lambda _, event: told.append(event))
    for n in range(3):
        journal.publish("a.b", payload={"n": n})
    with pytest.raises(PublishRefused, match="payload: no"):
        journal.publish_sync("a.b", payload={"n": 3})
    journal.publish("a.b", payload={"n": 4})
    journal.close()
    assert transport.numbers == [0, 1, 2, 4]
    assert [(event.payload or {})["n"] for event in told if event] == [3]
    assert journal.counts["refused"] == 1
    assert balanced(journal)


def test_with_a_spill_what_is_refused_is_kept(tmp_path: Path) -> None:
    """For people to look at."""
    transport = Switched()
    transport.judge = lambda event: "no"
    journal = journal_to(transport, spill=str(tmp_path))
    journal.publish("a.b", payload={"n": 1})
    journal.close()
    refused = Spill(tmp_path / "0" / "refused")
    (record,) = [record for _, records in refused.read() for record in records]
    assert (Outgoing.read(record).event.payload or {})["n"] == 1
    refused.close()


def test_a_bug_in_a_transport_costs_only_what_causes_it() -> None:
    """An unexpected error is not repeated for ever: the batch is halved until the events that cause it are alone."""
    transport = Switched()

    def behave(batch: Sequence[Outgoing]) -> None:
        if any((out.event.payload or {})["n"] % 7 == 3 for out in batch):
            raise KeyError("x")

    transport.behave = behave
    journal = journal_to(transport)
    for n in range(30):
        journal.publish("a.b", payload={"n": n})
    journal.close()
    assert sorted(transport.numbers) == [n for n in range(30) if n % 7 != 3]
    assert journal.counts["refused"] == 4
    assert balanced(journal)


def test_closing_drops_only_what_it_counts() -> None:
    """The transport is away and there is no spill: `close` comes back in time, and says how many are lost."""
    transport = Switched(away=True)
    journal = journal_to(transport, batch_events=5)
    receipts = [journal.publish("a.b", payload={"n": n}) for n in range(20)]
    journal.close(0.05)
    assert journal.counts["dropped"] == 20
    assert {receipt.disposition for receipt in receipts} == {"dropped"}
    assert balanced(journal)


def test_in_production_a_transport_must_keep_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused at the start, by argument and by environment; a durable one is taken."""
    with pytest.raises(ConfigError, match="production"):
        Journal(source="test", transport="memory://", production=True)
    monkeypatch.setenv("CHRONICLE_JOURNAL_PRODUCTION", "1")
    with pytest.raises(ConfigError, match="production"):
        Journal(source="test", transport=Tee(Memory()))
    Journal(source="test", transport=Tee(Memory(), Switched())).close()


def test_with_a_spill_nothing_is_dropped(tmp_path: Path) -> None:
    """The transport is away, the queue is small, then the process ends: the next one sends all of it, in order, first."""
    transport = Switched(away=True)
    journal = journal_to(transport, spill=str(tmp_path), queue_events=5, batch_events=4)
    for n in range(100):
        journal.publish("a.b", payload={"n": n}, topic="chronicle.events.x" if n == 7 else None)
    waited = journal.publish_sync("a.b", payload={"n": 100})
    assert waited.disposition == "spilled"
    journal.close()
    counts = journal.counts
    assert (counts["accepted"], counts["spilled"], counts["dropped"], counts["confirmed"]) == (101, 101, 0, 0)
    topics: list[str | None] = []
    after = Switched()
    after.behave = lambda batch: topics.extend(out.topic for out in batch)
    following = journal_to(after, spill=str(tmp_path))
    following.publish("a.b", payload={"n": 101})
    following.recover(30)
    following.close()
    assert after.numbers == list(range(102))
    assert [n for n, topic in enumerate(topics) if topic] == [7]
    assert following.counts["recovered"] >= 101
    assert following.counts["confirmed"] == 102


def test_the_spill_is_sent_before_anything_newer(tmp_path: Path) -> None:
    """While the transport comes and goes, with several threads publishing, each key keeps its order and nothing is lost."""
    chance = random.Random(7)
    transport = Switched()

    def behave(batch: Sequence[Outgoing]) -> None:
        transport.away = chance.random() < 0.5
        time.sleep(chance.random() * 0.002)

    transport.behave = behave
    journal = journal_to(transport, spill=str(tmp_path), queue_events=20, batch_events=6, workers=3, linger_ms=1)

    def publish(key: int) -> None:
        for n in range(150):
            journal.publish("a.b", partition_key=f"k{key}", payload={"n": n, "key": key})

    threads = [threading.Thread(target=publish, args=(key,)) for key in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert journal.flush(60)
    journal.recover(60)
    journal.close()
    for key in range(4):
        mine = [(event.payload or {})["n"] for event in transport.taken if (event.payload or {})["key"] == key]
        assert mine == list(range(150))
    assert journal.counts["confirmed"] == journal.counts["accepted"] == 600
    assert journal.counts["spilled"] > 0


def test_what_arrives_while_it_is_moved_to_the_spill_is_not_sent_again(tmp_path: Path) -> None:
    """A batch hangs in the transport, the queue overflows, the batch arrives after all: once, and before what came later."""
    transport = Switched()
    transport.gate.clear()
    journal = journal_to(transport, spill=str(tmp_path), queue_events=5, batch_events=5)
    journal.publish("a.b", payload={"n": 0})
    transport.entered.acquire()
    for n in range(1, 20):
        journal.publish("a.b", payload={"n": n})
    assert journal.counts["spilled"] >= 6
    transport.gate.set()
    assert journal.flush(30)
    journal.recover(30)
    journal.close()
    assert transport.numbers == list(range(20))
    assert journal.counts["confirmed"] == 20


def test_a_batch_that_arrives_in_part_is_completed(tmp_path: Path) -> None:
    """What was confirmed is not sent again, with and without a spill."""
    for spill in ("", str(tmp_path)):
        transport = Switched()

        def partly(batch: Sequence[Outgoing], transport: Switched = transport) -> None:
            if len(batch) > 1:
                transport.taken.append(batch[0].event)
                raise TransportAway("half a batch", confirmed=[0])

        transport.behave = partly
        journal = journal_to(transport, spill=spill, batch_events=6)
        for n in range(12):
            journal.publish("a.b", payload={"n": n})
        assert journal.flush(30)
        journal.recover(30) if spill else None
        journal.close()
        assert transport.numbers == list(range(12))
        assert journal.counts["confirmed"] == 12


def test_a_full_spill_is_told(tmp_path: Path) -> None:
    """Only then is an event dropped, and counted; what is kept is sent later."""
    transport = Switched(away=True)
    journal = journal_to(transport, spill=str(tmp_path), spill_bytes=3_000, queue_events=3, batch_events=3)
    for n in range(60):
        journal.publish("a.b", payload={"n": n})
    counts = journal.counts
    assert counts["dropped"] > 0
    transport.away = False
    assert journal.flush(30)
    journal.recover(30)
    journal.close()
    assert transport.numbers == sorted(transport.numbers)
    assert len(transport.numbers) + journal.counts["dropped"] == 60
    assert journal.counts["confirmed"] == len(transport.numbers)


def test_a_rate_limit_with_a_spill_delays(tmp_path: Path) -> None:
    """Nothing is left out: it waits for its turn."""
    transport = Switched()
    journal = journal_to(transport, spill=str(tmp_path), rate_limit=2_000.0, burst=1, queue_events=5, batch_events=5)
    began = time.monotonic()
    for n in range(100):
        journal.publish("a.b", payload={"n": n})
    assert journal.flush(30)
    journal.recover(30)
    assert time.monotonic() - began >= 99 / 2_000
    journal.close()
    assert transport.numbers == list(range(100))
    assert journal.counts["rate_limited"] == 0


def test_two_journals_share_a_spill_directory(tmp_path: Path) -> None:
    """Each has a part of its own, and takes over what nobody has any more."""
    gone = [journal_to(Switched(away=True), spill=str(tmp_path)) for _ in range(3)]
    for number, journal in enumerate(gone):
        journal.publish_sync("a.b", payload={"n": number})
    for journal in gone:
        journal.close()
    transport = Switched()
    following = journal_to(transport, spill=str(tmp_path))
    following.recover(30)
    following.close()
    assert sorted(transport.numbers) == [0, 1, 2]
    assert Counter(path.name for path in tmp_path.iterdir()) == Counter(["0", "1", "2"])


def test_an_open_breaker_leaves_the_transport_alone() -> None:
    """After so many failures, for longer each time, one probe at a time; the other side may ask for longer."""
    now = [0.0]
    breaker = Breaker(failures=3, reset_s=1.0, reset_max_s=4.0, clock=lambda: now[0])
    for _ in range(2):
        breaker.failed()
        assert not breaker.open
        assert 0 < breaker.wait_s() < 1
        now[0] += 1
    breaker.failed()
    waits = []
    for _ in range(4):
        assert breaker.open
        wait = breaker.wait_s()
        waits.append(wait)
        now[0] += wait
        assert breaker.wait_s() == 0
        assert breaker.wait_s() > 0, "one probe at a time"
        breaker.failed()
    assert waits == [1, 2, 4, 4]
    breaker.failed(retry_after=7)
    assert breaker.wait_s() == 7
    now[0] += 7
    assert breaker.wait_s() == 0
    breaker.succeeded()
    assert not breaker.open
    assert breaker.wait_s() == 0


def test_the_breaker_spares_a_transport_that_is_away(tmp_path: Path) -> None:
    """With a spill events go to the disk meanwhile, without one attempt each."""
    transport = Switched(away=True)
    journal = journal_to(transport, spill=str(tmp_path), breaker_failures=1, breaker_reset_s=60.0, breaker_reset_max_s=60.0)
    for n in range(50):
        journal.publish_sync("a.b", payload={"n": n})
    assert transport.calls == 1
    assert journal.breaker_open
    journal.close()
    assert journal.counts["spilled"] == 50


def test_a_tee_gives_every_event_to_all() -> None:
    """One is away: its events wait for it, the other one does not get them twice; one refuses: it is refused."""
    here, away = Switched(), Switched(away=True)
    away.judge = lambda event: "no" if (event.payload or {})["n"] == 5 else None
    journal = journal_to(Tee(here, away), batch_events=4)
    for n in range(10):
        journal.publish("a.b", payload={"n": n})
    until(lambda: away.calls >= 3)
    away.away = False
    assert journal.flush(30)
    journal.close()
    assert here.numbers == list(range(10))
    assert away.numbers == [n for n in range(10) if n != 5]
    assert (journal.counts["confirmed"], journal.counts["refused"]) == (9, 1)
