"""One lane of the queue: events of the keys that fall into it, high priority first, for one sending thread."""

from __future__ import annotations

import threading
import time
from collections import deque

from chronicle.journal.receipt import JournalClosed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chronicle.journal.outgoing import Outgoing

_RANK = {"high": 0, "normal": 1, "low": 2}


class Lane:
    """Bounded by count and by bytes. The thread that takes a batch has it `flying` until it says that it landed.

    Args:
        events_max, bytes_max: what may be queued.
        linger_s: how long a batch that is not full waits for more; not when somebody waits for an event in it.
    """

    def __init__(self, *, events_max: int, bytes_max: int, linger_s: float) -> None:
        self._events_max = events_max
        self._bytes_max = bytes_max
        self._linger_s = linger_s
        self._lock = threading.RLock()  # a signal's handler may publish wherever the thread is
        self._filled = threading.Condition(self._lock)
        self._emptied = threading.Condition(self._lock)
        self._waiting: tuple[deque[Outgoing], ...] = (deque(), deque(), deque())
        self._count = 0
        self._bytes = 0
        self._urgent = False
        self._closed = False
        self._batch_events = events_max
        self._flying: list[Outgoing] = []
        self._flying_kept = False
        self._flying_lost = False

    @property
    def count(self) -> int:
        """Events that are queued or flying."""
        return self._count + len(self._flying)

    def put(self, out: Outgoing, *, urgent: bool = False) -> bool:
        """Queue it, unless the lane is full (False). `urgent`: somebody waits for it."""
        size = len(out.text)
        with self._lock:
            if self._closed:
                raise JournalClosed("the journal is closed: it takes no events any more")
            if self._full(out):
                return False
            first = not self._count
            self._waiting[_RANK[out.event.priority]].append(out)
            self._count += 1
            self._bytes += size
            self._urgent = self._urgent or urgent
            if first or urgent or self._count == self._batch_events:
                self._filled.notify()
            return True

    def wait_for_room(self, out: Outgoing, deadline: float | None) -> bool:
        """Until it would fit; False when the deadline (of `time.monotonic`) passes first, or the lane is closed."""
        with self._lock:
            while self._full(out) and not self._closed:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._emptied.wait(left)
            return not self._closed

    def take(self, events_max: int, bytes_max: int) -> list[Outgoing]:
        """The next batch, which is flying then; waits for one. Empty: the lane is closed and nothing is left."""
        with self._lock:
            self._batch_events = events_max
            lingered = self._linger_s <= 0
            while not self._count or not (lingered or self._urgent or self._closed or self._count >= events_max):
                if self._closed:
                    return []
                if self._count:  # while it lingers, all of it may be moved to the spill
                    lingered = True
                    self._filled.wait(self._linger_s)
                else:
                    self._filled.wait()
            size = 0
            for waiting in self._waiting:
                while waiting and len(self._flying) < events_max:
                    length = len(waiting[0].text)
                    size += length
                    if self._flying and size > bytes_max:
                        break
                    self._flying.append(waiting.popleft())
                    self._bytes -= length
                    self._count -= 1
                if waiting:
                    break
            self._urgent = self._urgent and bool(self._count)
            self._emptied.notify_all()
            return list(self._flying)

    def landed(self) -> None:
        """The batch has been dealt with."""
        with self._lock:
            self._flying_kept = self._flying_lost = False
            self._flying.clear()
            self._emptied.notify_all()

    def keep(self, more: Sequence[Outgoing], keeping: Callable[[Sequence[Outgoing]], None]) -> None:
        """Move everything that is here to the spill by one call of `keeping`, in order: what is flying (unless it was moved
        before), what is queued, and `more`. If that raises, all stays as it is."""
        with self._lock:
            flying = [] if self._flying_kept else self._flying
            queues = [list(waiting) for waiting in self._waiting]
            keeping([*flying, *(out for queue in queues for out in queue), *more])
            self._flying_kept = self._flying_kept or bool(self._flying)
            self._taken_out(queues)

    def keep_flying(self, keeping: Callable[[Sequence[Outgoing]], None]) -> None:
        """Move what is left of the flying batch to the spill, unless it was moved before."""
        with self._lock:
            if not self._flying_kept:
                keeping(self._flying)
                self._flying.clear()

    def taken_back(self) -> list[Outgoing]:
        """What is left of the flying batch, which is nobody's then, also if it arrives after all (`lost`); nothing, if it was
        moved to the spill."""
        with self._lock:
            left = [] if self._flying_kept else self._flying
            self._flying = []
            self._flying_lost = self._flying_lost or bool(left)
            self._emptied.notify_all()
            return left

    @property
    def lost(self) -> bool:
        """Whether the flying batch was given up: somebody has said what became of it."""
        return self._flying_lost

    def arrived(self, outs: Sequence[Outgoing]) -> bool:
        """These of the flying batch are dealt with. True: they had been moved to the spill meanwhile."""
        ids = {out.event.id for out in outs}
        with self._lock:
            self._flying = [out for out in self._flying if out.event.id not in ids]
            return self._flying_kept

    def wait_for_kept(self, timeout: float) -> bool:
        """Until no batch is flying that is in the spill too; False when it takes longer."""
        with self._lock:
            return self._emptied.wait_for(lambda: not self._flying_kept, timeout)

    def wait_until_empty(self, deadline: float | None) -> bool:
        """Until nothing is queued or flying; False when the deadline passes first."""
        with self._lock:
            self._urgent = True
            self._filled.notify()
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            return self._emptied.wait_for(lambda: not self._count and not self._flying, left)

    def close(self) -> None:
        """Nothing comes any more; what is here may still be taken."""
        with self._lock:
            self._closed = True
            self._filled.notify_all()
            self._emptied.notify_all()

    def abandoned(self) -> list[Outgoing]:
        """Everything that is queued, which is taken out."""
        with self._lock:
            queues = [list(waiting) for waiting in self._waiting]
            self._taken_out(queues)
            return [out for queue in queues for out in queue]

    def _full(self, out: Outgoing) -> bool:
        return bool(self._count) and (self._count >= self._events_max or self._bytes + len(out.text) > self._bytes_max)

    def _taken_out(self, queues: Sequence[Sequence[Outgoing]]) -> None:
        """What stood in the queues; what an interruption of this very thread has queued since then stays, behind it."""
        for waiting, known in zip(self._waiting, queues, strict=True):
            for out in known:
                waiting.popleft()
                size = len(out.text)
                self._bytes -= size
                self._count -= 1
        self._urgent = self._urgent and bool(self._count)
        self._emptied.notify_all()
