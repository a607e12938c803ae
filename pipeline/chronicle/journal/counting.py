"""Counts of what became of events, and telling somebody when something went wrong."""

from __future__ import annotations

import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from chronicle.events.event import Event

NAMES = (
    *("accepted", "confirmed", "spilled", "recovered", "sampled", "rate_limited", "refused", "dropped"),
    *("invalid", "damaged", "unheard", "history_reads", "errors"),
    *("in_transaction", "written", "rolled_back", "lost"),
)
"""accepted: queued or spilled. Of these: confirmed by the transport (recovered: after they had been spilled), refused by it,
or dropped; spilled counts what was written to the disk on the way. Not accepted: sampled, rate_limited, invalid (publish
raised). damaged: could not be read from the spill any more. unheard: subscribers were too slow. errors: told to `on_error`.
The last four are the outbox's: see `journal.outbox`."""

TOLD_AGAIN_S = 10.0
THREADS = "chronicle-journal"
"""How the names of all threads of journals begin."""


class Counting:
    """Safe for threads. `on_error`: called with each error and the event it is about, if it is about one; without it, one line
    per kind of error and ten seconds goes to the logger `chronicle.journal`."""

    def __init__(self, on_error: Callable[[Exception, Event | None], object] | None = None) -> None:
        self._on_error = on_error
        self._lock = threading.RLock()  # a signal's handler may publish wherever the thread is
        self._counts = dict.fromkeys(NAMES, 0)
        self._told: dict[str, float] = {}
        self._telling = threading.local()

    def add(self, name: str, count: int = 1) -> None:
        """Count."""
        with self._lock:
            self._counts[name] += count

    def counts(self) -> Mapping[str, int]:
        """All of them, at one moment."""
        with self._lock:
            return dict(self._counts)

    def tell(self, error: BaseException, event: Event | None = None) -> None:
        """Something went wrong. What goes wrong in there is counted only, also when it publishes events."""
        self.add("errors")
        if getattr(self._telling, "now", False):
            return
        self._telling.now = True
        try:
            if self._on_error is not None:
                self._on_error(error if isinstance(error, Exception) else RuntimeError(type(error).__name__), event)
            elif self._due(f"{type(error).__name__}: {error}"):
                import logging

                from chronicle.errors import ChronicleError

                # the text of a foreign error may hold anything
                problem = str(error) if isinstance(error, ChronicleError) else ""
                logging.getLogger("chronicle.journal").warning("journal.trouble %s %s", type(error).__name__, problem)
        except BaseException as problem:
            self.add("errors")  # whoever is told cannot break the journal; but an exit in the application's thread is meant
            if not isinstance(problem, Exception) and not threading.current_thread().name.startswith(THREADS):
                raise
        finally:
            self._telling.now = False

    def _due(self, kind: str) -> bool:
        now = time.monotonic()
        with self._lock:
            if now - self._told.get(kind, -TOLD_AGAIN_S) < TOLD_AGAIN_S:
                return False
            if len(self._told) > 1_000:
                self._told.clear()
            self._told[kind] = now
            return True
