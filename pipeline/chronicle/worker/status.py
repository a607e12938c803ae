"""What the process says about itself: assigned, retrying, draining, failed. Read by `/readyz`, metrics and watchdog."""

from __future__ import annotations

import threading
import time

import structlog

log = structlog.get_logger("chronicle.worker")


class Status:
    """One per process; every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._retries: dict[str, tuple[float, int]] = {}  # name → (since, attempts)
        self._assigned = False
        self._partitions = 0
        self._progress = time.monotonic()
        self._beat = time.monotonic()
        self._failure: BaseException | None = None
        self.stopping = threading.Event()
        """Set once: no new batch is started and every declared retry ends."""
        self.failed = threading.Event()

    def assigned(self, partitions: int) -> None:
        """The group gave this process its partitions (possibly none: a standby) and they were sought."""
        with self._lock:
            self._assigned, self._partitions = True, partitions
            self._progress = time.monotonic()

    def unassigned(self) -> None:
        """A rebalance began."""
        with self._lock:
            self._assigned = False

    def progress(self) -> None:
        """A batch was acknowledged."""
        self._progress = time.monotonic()

    def beat(self) -> None:
        """The event loop turns."""
        self._beat = time.monotonic()

    def retrying(self, name: str, error: BaseException) -> None:
        """A declared retry: a service is away, the same call will be repeated. `name` is a short fixed word."""
        with self._lock:
            since, attempts = self._retries.get(name, (time.monotonic(), 0))
            self._retries[name] = (since, attempts + 1)
        # the first attempts and then every tenth: an outage of hours does not fill a disk
        if attempts < 3 or attempts % 10 == 0:
            log.warning("retry.declared", service=name, attempt=attempts + 1, error=type(error).__name__, reason=str(error))

    def recovered(self, name: str) -> None:
        """The retried call succeeded; called after every success, so it must be cheap."""
        if name not in self._retries:
            return
        with self._lock:
            since, attempts = self._retries.pop(name)
            self._progress = time.monotonic()
        log.info("retry.recovered", service=name, attempts=attempts, away_s=round(time.monotonic() - since, 1))

    def fail(self, error: BaseException) -> None:
        """The first failure that ends the process; nothing is acknowledged after it."""
        with self._lock:
            if self._failure is None:
                self._failure = error
        self.stopping.set()
        self.failed.set()

    @property
    def failure(self) -> BaseException | None:
        return self._failure

    @property
    def partitions(self) -> int:
        return self._partitions

    def retries(self) -> dict[str, float]:
        """Declared retries: name → seconds since the first failure."""
        with self._lock:
            now = time.monotonic()
            return {name: now - since for name, (since, _) in self._retries.items()}

    def idle_s(self) -> float:
        """Seconds since the last progress."""
        return time.monotonic() - self._progress

    def not_ready(self) -> str | None:
        """Why `/readyz` answers 503, or None when it answers 200."""
        if self._failure is not None:
            return "failed: " + type(self._failure).__name__
        if self.stopping.is_set():
            return "stopping"
        retries = self.retries()
        if retries:
            return "waiting for " + ", ".join(f"{name} ({seconds:.0f} s)" for name, seconds in sorted(retries.items()))
        return None if self._assigned else "no partitions assigned yet"

    def not_alive(self) -> str | None:
        """Why `/healthz` answers 503, or None: the event loop turns."""
        still = time.monotonic() - self._beat
        return f"event loop has not turned for {still:.0f} s" if still > 30 else None
