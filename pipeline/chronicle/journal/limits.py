"""The rate limit: a bucket that fills at a rate and holds a burst."""

from __future__ import annotations

import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Bucket:
    """`rate` tokens per second, `burst` at most."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = max(burst, 1.0)
        self._clock = clock
        self._lock = threading.RLock()
        self._tokens = self._burst
        self._at = clock()

    def taken(self) -> bool:
        """Take one token, if there is one."""
        with self._lock:
            self._fill()
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True

    def owed_s(self, count: int) -> float:
        """Take `count` tokens, on credit if need be, and say how long to wait for them."""
        with self._lock:
            self._fill()
            self._tokens -= count
            return max(0.0, -self._tokens / self._rate)

    def _fill(self) -> None:
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
