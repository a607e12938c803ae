"""Who in the process hears of events: subscribers, and the history of the last ones."""

from __future__ import annotations

import threading
import time
from collections import deque

from chronicle.journal.patterns import matches
from chronicle.journal.threads import started

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from chronicle.events.event import Event
    from chronicle.journal.counting import Counting

    Handler = Callable[[Event], object]


class Subscribers:
    """Handlers by pattern, called one after the other in a thread of their own, in the order of the events.

    At most `events_max` events wait for them; those beyond are counted as `unheard`. Events that a handler publishes are not
    handed to handlers, so that none can keep itself busy. What a handler raises goes to `on_error`.
    """

    def __init__(self, counting: Counting, *, events_max: int) -> None:
        self._counting = counting
        self._events_max = events_max
        self._handlers: list[tuple[str, Handler]] = []
        self._thread: threading.Thread | None = None
        self._closed = False
        self._renew()

    def add(self, pattern: str, handler: Handler) -> Callable[[], None]:
        """From now on; the function returned ends it."""
        entry = (pattern, handler)
        with self._changed:
            self._handlers = [*self._handlers, entry]

        def remove() -> None:
            with self._changed:
                self._handlers = [one for one in self._handlers if one is not entry]

        return remove

    def hear(self, event: Event) -> None:
        """Hand it to those who wait for its type."""
        if not self._handlers or threading.current_thread() is self._thread:
            return
        handlers = [handler for pattern, handler in self._handlers if matches(pattern, event.type)]
        if not handlers:
            return
        with self._changed:
            if self._closed or len(self._waiting) >= self._events_max:
                self._counting.add("unheard")
                return
            self._waiting.append((event, handlers))
            self._pending += 1
            if self._thread is None:
                self._thread = started(self._counting, "subscribers", self._work)
            self._changed.notify_all()

    def flush(self, deadline: float | None) -> bool:
        """Until the handlers have had everything; False: not in time."""
        if threading.current_thread() is self._thread:
            return True
        with self._changed:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            return self._changed.wait_for(lambda: not self._pending, left)

    def close(self, deadline: float | None) -> None:
        """Let handlers have what waits for them, then end."""
        self.flush(deadline)
        with self._changed:
            self._closed = True
            self._counting.add("unheard", len(self._waiting))
            self._pending -= len(self._waiting)
            self._waiting.clear()
            self._changed.notify_all()

    def forked(self, counting: Counting) -> None:
        """In a forked child: the same handlers, none of the parent's events."""
        self._counting = counting
        self._thread = None
        self._renew()

    def _renew(self) -> None:
        self._changed = threading.Condition(threading.RLock())
        self._waiting: deque[tuple[Event, list[Handler]]] = deque()
        self._pending = 0

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                event, handlers = self._waiting.popleft()
            for handler in handlers:
                try:
                    handler(event)
                except BaseException as error:  # noqa: BLE001 (others' code: not even a SystemExit ends this thread)
                    self._counting.tell(error, event)
            with self._changed:
                self._pending -= 1
                self._changed.notify_all()


class History:
    """The last events, at most so many and so many bytes of JSON."""

    def __init__(self, *, events_max: int, bytes_max: int) -> None:
        self._events_max = events_max
        self._bytes_max = bytes_max
        self.forked()

    def add(self, event: Event, size: int) -> None:
        """Remember one, forget the oldest where there is no room."""
        if not self._events_max:
            return
        with self._lock:
            self._events.append((event, size))
            self._bytes += size
            while self._events and (len(self._events) > self._events_max or self._bytes > self._bytes_max):
                _, gone = self._events.popleft()
                self._bytes -= gone

    def read(self, pattern: str, limit: int | None) -> list[Event]:
        """The oldest first; with a limit the last so many."""
        with self._lock:
            found = [event for event, _ in self._events if matches(pattern, event.type)]
        return found if limit is None else found[max(0, len(found) - limit) :]

    def forked(self) -> None:
        """In a forked child: begin with nothing."""
        self._lock = threading.RLock()
        self._events: deque[tuple[Event, int]] = deque()
        self._bytes = 0
