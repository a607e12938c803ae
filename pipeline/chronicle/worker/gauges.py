"""What Prometheus asks a worker process for when it scrapes, the stream worker and a role's alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from chronicle.engine import Engine
from chronicle.observe import Gauges
from chronicle.worker.ledger import Ledger, Partition
from chronicle.worker.status import Status


def wire(gauges: Gauges, status: Status, engine: Engine, ledger: Ledger, ends: Callable[[], Mapping[Partition, int]]) -> None:
    """Let the gauges look at this process: declared retries, failed attempts, readiness, lag.

    `ends`: where the logs ended when they were last asked; a partition that it does not have has no lag to show yet.
    """

    def lag() -> list[tuple[str, int, int]]:
        known = ends()
        return [
            (*one.partition, max(0, known[one.partition] - one.unacknowledged_from))
            for one in ledger.standings()
            if one.partition in known
        ]

    gauges.retries = status.retries
    gauges.attempts = lambda: engine.retries
    gauges.ready = lambda: status.not_ready() is None
    gauges.lag = lag
