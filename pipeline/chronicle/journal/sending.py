"""From the queue to the transport: lanes with a thread each, the spill for what cannot be sent or queued, and one thread that
sends what was spilled, in order, before anything newer.

Order. Events of one key are in one lane, in the order of `put` (by priority first). What is in the spill goes first: while
something is there, everything newer is appended to it. A lane that is full moves whole to the spill, what is being sent
included, so that a failure cannot put it behind newer events; what arrives after all is not sent again.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections import deque
from contextlib import contextmanager

from chronicle.journal.delivering import Delivery
from chronicle.journal.lane import Lane
from chronicle.journal.receipt import JournalClosed
from chronicle.journal.spill import Spill, SpillFull, SpillLocked
from chronicle.journal.spilling import Spilling, readable
from chronicle.journal.threads import started

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from chronicle.journal.counting import Counting
    from chronicle.journal.outgoing import Outgoing
    from chronicle.journal.settings import Settings
    from chronicle.journal.transports import Transport

CLOSED = "the journal was closed before the transport came back"
RECOVERY_PAUSE_S = 0.5
"""After an error of the spill's disk."""
GRACE_S = 0.2
"""For threads to end, once they are told to."""


class Sender:
    """Threads begin at the first event, that of the spill at once.

    Raises:
        OSError, SpillLocked: the spill directory cannot be used.
    """

    def __init__(self, transport: Transport, settings: Settings, counting: Counting) -> None:
        self._transport = transport
        self._settings = settings
        self._counting = counting
        self._spilling = Spilling(settings.spill, bytes_max=settings.spill_bytes) if settings.spill else None
        self._stop = threading.Event()
        self.delivery = Delivery(transport, settings, counting, self._spilling, self._stop)
        share = max(1, settings.queue_events // settings.workers)
        self._lanes = [
            Lane(events_max=share, bytes_max=settings.queue_bytes // settings.workers, linger_s=settings.linger_ms / 1_000)
            for _ in range(settings.workers)
        ]
        self._threads: list[threading.Thread] = []
        self._recovery: threading.Thread | None = None
        self._starting = threading.Lock()
        self._beginning = threading.Lock()
        self._news = threading.Condition()
        self._adopting = False
        self._here = threading.local()
        self._interrupting: deque[Outgoing] = deque()
        if self._spilling is not None:
            self.adopt()

    @property
    def queued(self) -> int:
        """Events in memory."""
        return sum(lane.count for lane in self._lanes)

    @property
    def spill(self) -> Spill | None:
        """This process's."""
        return self._spilling.own if self._spilling is not None else None

    @property
    def spills(self) -> bool:
        """Whether there is a spill for what the queue does not take."""
        return self._spilling is not None

    @property
    def is_here(self) -> bool:
        """Whether this is one of its threads, which cannot wait for themselves."""
        here = threading.current_thread()
        return here is self._recovery or here in self._threads

    def put(self, out: Outgoing, *, wait: bool = False, deadline: float | None = None) -> bool:
        """Take an event. True: it is accepted; False: there was no room, and its receipt says so.

        Args:
            wait: somebody waits for its confirmation: it is sent soon, and where there is neither room nor a spill, room is
                waited for until the `deadline` (of `time.monotonic`; None: without limit).
        """
        if getattr(self._here, "in_the_spill", False):
            self._interrupting.append(out)
            return True
        self._start()
        lane = self._lane(out)
        while not lane.put(out, urgent=wait):
            if self._spilling is not None:
                return self._overflow(lane, out)
            if not wait or self.is_here or not lane.wait_for_room(out, deadline):
                self.delivery.drop([out], "the queue is full")
                return False
        return True

    def offer(self, out: Outgoing, *, urgent: bool) -> bool:
        """Queue an event, if there is room. `urgent`: somebody waits for it."""
        self._start()
        return self._lane(out).put(out, urgent=urgent)

    def flush(self, deadline: float | None) -> bool:
        """Until nothing is queued or being sent; False: not in time, or asked by a thread that sends."""
        return not self.is_here and all(lane.wait_until_empty(deadline) for lane in self._lanes)

    def adopt(self) -> None:
        """Have what this process's and gone processes' spills hold sent."""
        self._adopting = True
        self._recover()

    def wait_until_recovered(self, deadline: float | None) -> bool:
        """Until the spill is empty; False: not in time."""
        if self.is_here:
            return False
        with self._news:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            return self._news.wait_for(lambda: not self._recovering(), left)

    def close(self, timeout: float) -> None:
        """Send what is queued, and what is spilled if the transport is there; what is left after `timeout` seconds stays in
        the spill, or, without one, is dropped and counted."""
        deadline = time.monotonic() + timeout
        for lane in self._lanes:
            lane.close()
        threads = [thread for thread in self._threads if thread is not threading.current_thread()]
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for lane in self._lanes:
            self._left_over(lane)
        if not self.is_here:
            with self._news:
                left = max(0.0, deadline - time.monotonic())
                self._news.wait_for(lambda: not self._recovering() or self.delivery.breaker.failing, left)
        self._stop.set()
        with self._news:
            self._news.notify_all()
        deadline = max(deadline, time.monotonic() + GRACE_S)
        for thread in (*threads, *([self._recovery] if self._recovery not in (None, threading.current_thread()) else ())):
            thread.join(max(0.0, deadline - time.monotonic()))
        for lane in self._lanes:  # a transport that never answers still has them
            self.delivery.drop(lane.taken_back(), CLOSED)
        try:
            self._transport.close()
        except Exception as error:  # noqa: BLE001 (others' code; the spill is let go of all the same)
            self._counting.tell(error)
        if self._spilling is not None:
            self._spilling.close()

    def forget_parent(self) -> None:
        """In a forked child, of the parent's sender: let go of its files; its locks may be held for ever."""
        if self._spilling is not None:
            self._spilling.close()

    def _lane(self, out: Outgoing) -> Lane:
        return self._lanes[zlib.crc32(out.key) % len(self._lanes)] if len(self._lanes) > 1 else self._lanes[0]

    def _start(self) -> None:
        if len(self._threads) == len(self._lanes) or not self._starting.acquire(blocking=False):
            return  # somebody is at it, perhaps this very thread, which a signal's handler interrupted
        try:
            for number, lane in list(enumerate(self._lanes))[len(self._threads) :]:
                thread = started(self._counting, str(number), self._work, lane)
                if thread is None:
                    return  # the events wait, and the next one tries again
                self._threads.append(thread)
        finally:
            self._starting.release()

    def _work(self, lane: Lane) -> None:
        while batch := lane.take(self._settings.batch_events, self._settings.batch_bytes):
            try:
                self.delivery.pace(len(batch))
                self._deliver(lane, batch)
            except BaseException as error:  # noqa: BLE001 (not even a SystemExit of others' code ends a lane)
                self._counting.tell(error)
                self.delivery.drop(lane.taken_back(), "an error of the journal itself")
            finally:
                lane.landed()
                if self._spilling is not None:
                    self._recover()

    def _deliver(self, lane: Lane, batch: list[Outgoing]) -> None:
        while batch:
            if self._spilling is not None and self._spilling.own.count:
                if self._kept_flying(lane):
                    return
                continue
            if not self.delivery.await_breaker():
                self._drop_flying(lane)
                return
            batch = self.delivery.sent(batch, lane)
            if batch and self._spilling is not None and self._kept_flying(lane):
                return

    def _overflow(self, lane: Lane, out: Outgoing) -> bool:
        try:
            with self._in_the_spill():
                lane.keep([out], self._keep)
        except (SpillFull, SpillLocked, OSError) as error:
            self._counting.tell(error)
            self.delivery.drop([out], "queue and spill are full")
            return False
        self._recover()
        return True

    @contextmanager
    def _in_the_spill(self) -> Iterator[None]:
        """What a signal's handler, or what the garbage collector calls, publishes in this thread meanwhile must wait for no
        lock: it is put into its lane afterwards."""
        self._here.in_the_spill = True
        try:
            yield
        finally:
            self._here.in_the_spill = False
            while self._interrupting:
                try:
                    out = self._interrupting.popleft()
                except IndexError:  # another thread has it
                    break
                try:
                    self.put(out)
                except JournalClosed:
                    self.delivery.drop([out], CLOSED)

    def _drop_flying(self, lane: Lane) -> None:
        """Closed before the transport came back. What is in the spill stays there."""
        self.delivery.drop(lane.taken_back(), CLOSED)

    def _kept_flying(self, lane: Lane) -> bool:
        """Whether what is flying is dealt with; False: the spill does not take it, and it waits in memory."""
        try:
            with self._in_the_spill():
                lane.keep_flying(self._keep)
        except (SpillFull, SpillLocked, OSError) as error:
            self._counting.tell(error)
            self._recover()
            if not self._stop.wait(RECOVERY_PAUSE_S):
                return False
            self._drop_flying(lane)
        return True

    def _keep(self, outs: Sequence[Outgoing]) -> None:
        assert self._spilling is not None  # noqa: S101 (callers have looked)
        self._spilling.own.append([out.spilled() for out in outs])
        self._counting.add("spilled", len(outs))
        for out in outs:
            if out.receipt is not None:
                out.receipt.settle("spilled")

    def _left_over(self, lane: Lane) -> None:
        """At the end: nobody will send what is still here."""
        if not lane.count:
            return
        if self._spilling is not None:
            try:
                with self._in_the_spill():
                    lane.keep([], self._keep)
                return
            except (SpillFull, SpillLocked, OSError) as error:
                self._counting.tell(error)
        self.delivery.drop(lane.abandoned(), CLOSED)

    def _recovering(self) -> bool:
        return self._spilling is not None and (self._adopting or self._spilling.own.count > 0)

    def _recover(self) -> None:
        """Wake the recovering thread, or start it."""
        if not self._recovering() or self._stop.is_set():
            return
        if self._recovery is None and self._beginning.acquire(blocking=False):
            try:
                self._recovery = self._recovery or started(self._counting, "recovery", self._work_off)
            finally:
                self._beginning.release()
        with self._news:
            self._news.notify_all()

    def _work_off(self) -> None:
        assert self._spilling is not None  # noqa: S101 (started only then)
        while not self._stop.is_set():
            try:
                if self._adopting:
                    complete = all(self._drained(spill) for spill in self._spilling.left_by_others(self._counting.tell))
                    self._adopting = not complete
                self._drained(self._spilling.own)
            except BaseException as error:  # noqa: BLE001 (as in a lane)
                if self._stop.is_set():
                    return
                self._counting.tell(error)
                self._stop.wait(RECOVERY_PAUSE_S)
            with self._news:
                self._news.notify_all()
                self._news.wait_for(lambda: self._stop.is_set() or self._recovering())

    def _drained(self, spill: Spill) -> bool:
        damaged = spill.damaged
        for position, records in spill.read(records_max=self._settings.batch_events, bytes_max=self._settings.batch_bytes):
            if not all(self._is_not_sent_too(lane) for lane in self._lanes):
                return False
            batch = self._unsent(records)
            while batch:
                self.delivery.pace(len(batch))
                if not self.delivery.await_breaker():
                    return False
                batch = self.delivery.sent(batch, None)
            with self._in_the_spill():
                spill.forget(position)
            if self._stop.is_set():
                return False
        self._counting.add("damaged", spill.damaged - damaged)
        return True

    def _is_not_sent_too(self, lane: Lane) -> bool:
        """Wait for a batch that was moved to the spill while it was sent: it may have arrived. False: closed meanwhile."""
        while not lane.wait_for_kept(0.2):
            if self._stop.is_set():
                return False
        return True

    def _unsent(self, records: Sequence[bytes]) -> list[Outgoing]:
        batch = readable(records, self._counting)
        here = self.delivery.arrived.intersection(out.event.id for out in batch)
        self.delivery.arrived -= here
        return [out for out in batch if out.event.id not in here]
