"""The circuit breaker: a transport that is away is left alone for a while, then asked by one."""

from __future__ import annotations

import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Breaker:
    """Closed, it lets everybody through, after a failure with a short pause. After `failures` of them in a row it opens:
    nobody is let through for `reset_s`, twice as long after each further failure up to `reset_max_s`, or for as long as the
    other side asks; then one is, and what that one meets decides."""

    def __init__(
        self, *, failures: int, reset_s: float, reset_max_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = failures
        self._reset_s = reset_s
        self._reset_max_s = reset_max_s
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._until = 0.0
        self.opened = 0
        """How often it opened."""

    @property
    def open(self) -> bool:
        """Whether it keeps callers off, or waits for what the one it let through meets."""
        return self._failures >= self._limit

    @property
    def failing(self) -> bool:
        """Whether the last attempt failed."""
        return self._failures > 0

    def wait_s(self) -> float:
        """Seconds until the caller may try; 0.0: now, and then it says how that went by `succeeded` or `failed`."""
        if not self._failures:
            return 0.0
        with self._lock:
            now = self._clock()
            if now < self._until:
                return self._until - now
            if self._failures:
                self._until = now + self._pause()  # the others wait for what this one meets
            return 0.0

    def succeeded(self) -> None:
        """The transport answers: closed."""
        if self._failures:
            with self._lock:
                self._failures, self._until = 0, 0.0

    def failed(self, retry_after: float | None = None) -> None:
        """The transport is away; `retry_after`: it asks for this many seconds."""
        with self._lock:
            self._failures += 1
            self.opened += self._failures == self._limit
            pause = self._pause() if retry_after is None else min(max(retry_after, 0.0), self._reset_max_s * 10)
            self._until = self._clock() + pause

    def _pause(self) -> float:
        beyond = self._failures - self._limit
        if beyond < 0:
            return min(self._reset_s, 0.05 * 2.0 ** min(self._failures, 10))
        return min(self._reset_max_s, self._reset_s * 2.0 ** min(beyond, 20))
