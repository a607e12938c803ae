"""Ends a process that is stuck: lag, no progress and no declared retry (fact 19), even when its event loop is blocked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import structlog

from chronicle.errors import ChronicleError
from chronicle.worker.ledger import Ledger, Partition
from chronicle.worker.status import Status

log = structlog.get_logger("chronicle.watchdog")


class Watchdog(threading.Thread):
    """A thread of its own, asking the broker itself where the logs end: a consumer that stopped silently cannot hide."""

    def __init__(
        self,
        status: Status,
        ledger: Ledger,
        ends: Callable[[list[Partition]], Mapping[Partition, int]],
        exit_now: Callable[[str], None],
        *,
        stall_timeout_s: float,
    ) -> None:
        """`exit_now` must end the process without acknowledging anything."""
        super().__init__(name="watchdog", daemon=True)
        self._status = status
        self._ledger = ledger
        self._ends = ends
        self._exit_now = exit_now
        self._timeout_s = stall_timeout_s

    def run(self) -> None:
        """Look four times per timeout, until the process stops."""
        while not self._status.stopping.wait(self._timeout_s / 4):
            reason = self.judge()
            if reason:
                log.error("worker.stalled", reason=reason, idle_s=round(self._status.idle_s()))
                self._exit_now(reason)
                return

    def judge(self) -> str | None:
        """Why the process must end, or None."""
        if self._status.idle_s() < self._timeout_s or self._status.retries():
            return None
        standings = list(self._ledger.standings())
        if not standings:
            # without partitions there is no lag to see, but a group that never settles is a stall too
            return None if self._status.not_ready() is None else "no partitions were assigned"
        try:
            ends = self._ends([standing.partition for standing in standings])
        except ChronicleError:
            return None  # the broker is away: not our stall
        lag = sum(max(0, ends.get(standing.partition, 0) - standing.unacknowledged_from) for standing in standings)
        return f"{lag} records behind and no progress" if lag > 0 else None
