"""Events kept in memory, for tests and for trying things: nothing leaves the process."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chronicle.journal.outgoing import Outgoing
    from chronicle.journal.settings import Settings


class Memory:
    """`sent` has the last `events_max` that were sent, the oldest first."""

    name = "memory"
    durable = False

    def __init__(self, events_max: int = 100_000) -> None:
        self._lock = threading.Lock()
        self._sent: deque[Outgoing] = deque(maxlen=events_max)

    @property
    def sent(self) -> list[Outgoing]:
        """What is here, the oldest first."""
        with self._lock:
            return list(self._sent)

    def send(self, batch: Sequence[Outgoing]) -> Sequence[str | None]:
        """Keep them."""
        with self._lock:
            self._sent.extend(batch)
        return [None] * len(batch)

    def close(self) -> None:
        """What is here stays to be looked at."""

    def forked(self) -> None:
        """The child begins with nothing."""
        self._lock = threading.Lock()
        self._sent = deque(maxlen=self._sent.maxlen)


def opened(url: str, settings: Settings) -> Memory:  # noqa: ARG001 (a scheme's function)
    """`memory://`."""
    return Memory()
