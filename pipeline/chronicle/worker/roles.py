"""Runs one worker process of a role: routes' topics through the role's processors to its destinations.

The same engine as the stream worker's, with another path in front and other sinks behind: declared retries, dead letters
of its own, all of a batch or nothing. It never writes `changes`.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import structlog

from chronicle.engine import Engine
from chronicle.errors import ChronicleError, ConfigError, Interrupted, TransientError
from chronicle.observe import Metrics, explain
from chronicle.worker.gauges import wire
from chronicle.worker.ledger import Partition
from chronicle.worker.replay import restore
from chronicle.worker.role_consumer import POLL_S, Fetched, RoleConsumer
from chronicle.worker.status import Status
from chronicle.worker.topics import Broker
from chronicle.worker.totals import Totals
from chronicle.worker.watchdog import Watchdog

log = structlog.get_logger("chronicle.role")

EXIT_FAILED, EXIT_MISCONFIGURED = 1, 2
LONG_S = 2.0
"""A batch that takes longer is in a retry: from then on the group must not wait for us."""
ENDS_EVERY_S = 5.0


class NoSchemas:
    """The `engine.Resolver` of a role: audit records need no registry."""

    def resolve(self, ids: Iterable[int]) -> dict[int, str | None]:
        """Nothing is asked for."""
        return dict.fromkeys(ids)


@dataclass(frozen=True, slots=True)
class RoleJob:
    """Everything one process of a role needs, made by `wiring`."""

    role: str
    topics: tuple[str, ...]
    """To read: the routes', and the way back of the role's dead letters."""
    retry_topic: str
    needed_topics: tuple[str, ...]
    """Those, and what destinations and dead letters need."""
    engine: Engine
    broker: Broker
    consumer: Callable[[], RoleConsumer]
    """Made when the topics are known to be there."""
    status: Status
    metrics: Metrics
    stall_timeout_s: float
    until_drained: bool = False
    parent: int | None = None
    """Process id of the supervisor: the process ends with it."""
    totals: Totals = field(default_factory=Totals)


def run(job: RoleJob) -> int:
    """Work until told to stop (0), until drained (0) or until it cannot go on (1, or 2 for a setting).

    Blocks, in the main thread. The caller ends the process with the returned code by `os._exit`, as with `run.run`.
    """
    return _Process(job).main()


class _Process:
    def __init__(self, job: RoleJob) -> None:
        self.job, self.status = job, job.status
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="batch")
        self.ends: dict[Partition, int] = {}

    def main(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._asked_to_stop)
        try:
            if self._await_topics():
                self._work(self.job.consumer())
        except Interrupted as error:
            log.warning("role.interrupted", reason=str(error))
        except BaseException as error:  # noqa: BLE001 (told, not swallowed)
            self.status.fail(error)
        failure = self.status.failure
        if failure is None:
            log.info("role.stopped", role=self.job.role, records=self.job.totals.rows)
            return 0
        log.error("role.failed", role=self.job.role, **explain(failure))
        return EXIT_MISCONFIGURED if isinstance(failure, ConfigError) else EXIT_FAILED

    def _asked_to_stop(self, number: int, _frame: object) -> None:
        self.status.stopping.set()
        log.info("role.stopping", signal=signal.Signals(number).name)

    def _await_topics(self) -> bool:
        """Wait for a broker that is away; False when told to stop meanwhile. Raises ConfigError."""
        while not self._ended():
            try:
                names = self.job.broker.topics()
            except TransientError as error:
                self.status.retrying("broker", error)
                self.status.beat()
                self.status.stopping.wait(1.0)
                continue
            self.status.recovered("broker")
            if missing := [name for name in self.job.needed_topics if name not in names]:
                raise ConfigError(f"run `chronicle setup` first: there is no topic {', '.join(missing)}")
            return True
        return False

    def _work(self, consumer: RoleConsumer) -> None:
        self._observe(consumer)
        try:
            log.info("role.started", role=self.job.role, topics=list(self.job.topics))
            while (fetched := consumer.fetch(lambda: self._over(consumer))) is not None:
                self._settled(consumer, self.pool.submit(self._process, fetched))
                consumer.acknowledge(fetched)
                self.status.progress()
        finally:
            consumer.close()
        self.job.engine.close()

    def _settled(self, consumer: RoleConsumer, batch: Future[None]) -> None:
        """Wait for a batch without leaving the group; raises what it raised."""
        done, _ = wait([batch], LONG_S)
        while not done:
            consumer.keep_alive()
            done, _ = wait([batch], POLL_S)
        batch.result()

    def _process(self, fetched: Fetched) -> None:
        restored, sent_back = restore(fetched.chunks, self.job.retry_topic)
        outcome = self.job.engine.process(restored, sent_back)
        self.job.metrics.observe(outcome)
        self.job.totals.add(outcome)
        log.debug("batch.done", rows=outcome.rows, stages_s=dict(outcome.stages_s))

    def _over(self, consumer: RoleConsumer) -> bool:
        if self.job.until_drained and consumer.drained():
            log.info("role.drained")
            return True
        return self._ended()

    def _ended(self) -> bool:
        if self.job.parent is not None and os.getppid() != self.job.parent:
            log.warning("supervisor.gone")
            self.status.stopping.set()
        return self.status.stopping.is_set()

    # --- what others see

    def _observe(self, consumer: RoleConsumer) -> None:
        wire(self.job.metrics.gauges, self.status, self.job.engine, consumer.ledger, lambda: self.ends)
        threading.Thread(target=self._measure, args=(consumer,), name="lag", daemon=True).start()
        Watchdog(
            self.status,
            consumer.ledger,
            self.job.broker.ends,
            _exit_unacknowledged,
            stall_timeout_s=self.job.stall_timeout_s,
        ).start()

    def _measure(self, consumer: RoleConsumer) -> None:
        while not self.status.stopping.wait(ENDS_EVERY_S):
            try:
                self.ends = self.job.broker.ends([one.partition for one in consumer.ledger.standings()])
            except ChronicleError as error:
                log.info("lag.unknown", reason=str(error))


def _exit_unacknowledged(_reason: str) -> None:
    """End now, from any thread, with nothing more committed."""
    sys.stderr.flush()
    os._exit(EXIT_FAILED)
