"""Runs one worker process from its first question to the broker to its last commit, and decides its exit code."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from chronicle import config
from chronicle.engine import Engine
from chronicle.errors import ChronicleError, ConfigError, Interrupted, StopWorker, TransientError
from chronicle.model.chunk import Chunk
from chronicle.observe import Metrics, explain
from chronicle.worker.app import WorkerApp, build_app, consumer_of, follow, stop
from chronicle.worker.batcher import Batcher, Limits
from chronicle.worker.entities import EntityFollower
from chronicle.worker.gauges import wire
from chronicle.worker.ledger import Partition, Standing
from chronicle.worker.replay import restore
from chronicle.worker.status import Status
from chronicle.worker.topics import Broker, wanted
from chronicle.worker.totals import Totals
from chronicle.worker.transport import SETTLE_S, BatchConsumer, Control
from chronicle.worker.watchdog import Watchdog

log = structlog.get_logger("chronicle.worker")

DRAIN_S = 20.0
"""How long a stop waits for what was fetched already."""
STOP_S = 15.0
RETENTION_ASKED_EVERY_S = 600.0
EXIT_FAILED, EXIT_MISCONFIGURED = 1, 2


class ContextReader(Protocol):
    """Who reads contexts beside the group (`worker.follower.Follower`)."""

    def need_from(self, timestamp_ms: int) -> None:
        """The oldest record that is not processed was received then (milliseconds since 1970)."""

    def close(self) -> None:
        """The end."""


@dataclass(frozen=True, slots=True)
class Job:
    """Everything one worker process needs, made by `wiring`."""

    kafka: config.Kafka
    worker: config.Worker
    engine: Engine
    broker: Broker
    status: Status
    metrics: Metrics
    sources: tuple[str, ...]
    """Names: the prefixes of the topics to read."""
    events_topic: str | None
    """Of what applications say, with all topics that begin with it and a dot; None: another worker reads them."""
    needed_topics: tuple[str, ...]
    """Chronicle's own, without which nothing can be processed."""
    failpoint: Callable[[str], None]
    follower: ContextReader
    entities: EntityFollower | None = None
    until_drained: bool = False
    totals: Totals = field(default_factory=Totals)


def run(job: Job) -> int:
    """Work until told to stop (0), until drained (0) or until it cannot go on (1, or 2 for a setting).

    Blocks, in the main thread. The caller ends the process with the returned code by `os._exit`: after a failure threads
    are left as they are, so that nothing more is acknowledged.
    """
    import uvloop

    uvloop.install()  # Faust makes loops of its own in threads
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    return loop.run_until_complete(_Process(job).main())


class _Process:
    def __init__(self, job: Job) -> None:
        self.job = job
        self.status = job.status
        self.done = asyncio.Event()
        self.consumer: BatchConsumer | None = None
        self.names: tuple[str, ...] = ()
        self.missing: set[str] = set()
        self.retention: Mapping[str, float] = {}
        self.ends: dict[Partition, int] = {}
        self.tasks: list[asyncio.Task[None]] = []

    async def main(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked_to_stop, number)
        self.tasks.append(loop.create_task(self._beat()))
        if not await self._await_topics():
            return self._exit_code()
        if self.job.entities is not None:
            self.job.entities.start()
        batcher, app, topic = self._build()
        consumer = self.consumer = consumer_of(app)
        self._wire_gauges(consumer)
        Watchdog(
            self.status,
            consumer.ledger,
            self.job.broker.ends,
            _exit_unacknowledged,
            stall_timeout_s=self.job.worker.stall_timeout_s,
        ).start()
        self.tasks += [loop.create_task(work) for work in (self._start(app), self._discover(app, topic), self._measure())]
        await self.done.wait()
        if self.status.failure is None:
            await self._finish(app, batcher, consumer)
        return self._exit_code()

    # --- start

    async def _await_topics(self) -> bool:
        """The topics there are, waiting for a broker that is away; False when told to stop meanwhile."""
        while not self.status.stopping.is_set():
            try:
                names = await asyncio.to_thread(self.job.broker.topics)
            except TransientError as error:
                self.status.retrying("broker", error)
                await self._pause(1.0)
                continue
            except ConfigError as error:
                self.status.fail(error)
                return False
            self.status.recovered("broker")
            missing = [name for name in self.job.needed_topics if name not in names]
            if missing:
                self.status.fail(ConfigError(f"run `chronicle setup` first: there is no topic {', '.join(missing)}"))
                return False
            self.names = self._wanted(names)
            log.info("topics.found", topics=len(self.names), sources=list(self.job.sources))
            return True
        return False

    def _build(self) -> tuple[Batcher, WorkerApp, Any]:
        worker, status = self.job.worker, self.status
        chunk_bytes = max(1, worker.in_flight_bytes_max // 4)
        batcher = Batcher(
            Limits(worker.batch_rows_max, chunk_bytes, worker.flush_interval_ms / 1000),
            process=self._process,
            acknowledge=lambda deliveries: self._consumer().acknowledge(deliveries),
            is_current=lambda delivery: self._consumer().is_current(delivery),
            failed=self._batch_failed,
        )

        async def settle() -> None:
            # a batch in a declared retry may take hours: the next owner of its partitions gets it
            if not await batcher.settle(0.0 if status.retries() else SETTLE_S):
                log.warning("rebalance.batch_abandoned")

        control = Control(
            status=status,
            rows_max=max(worker.in_flight_rows_max, worker.batch_rows_max),
            bytes_max=worker.in_flight_bytes_max,
            chunk_rows_max=worker.batch_rows_max,
            chunk_bytes_max=chunk_bytes,
            accept_gap=worker.accept_gap,
            settle=settle,
            released=batcher.release,
            failpoint=self.job.failpoint,
        )
        app, topic = build_app(self.job.kafka, worker, control, self.names, batcher.add)
        return batcher, app, topic

    def _consumer(self) -> BatchConsumer:
        if self.consumer is None:
            raise AssertionError("a batch before the consumer: a bug")
        return self.consumer

    async def _start(self, app: WorkerApp) -> None:
        try:
            await app.start()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 (told, not swallowed)
            self._failed(error)
            return
        # what lives as long as the process need not be looked at again (fact 43)
        gc.collect()
        gc.freeze()
        gc.set_threshold(500_000, 20, 100)

    # --- a batch (in the batcher's thread)

    def _process(self, chunks: list[Chunk]) -> None:
        restored, sent_back = restore(chunks, self.job.kafka.retry_topic)
        outcome = self.job.engine.process(restored, sent_back)
        self.job.metrics.observe(outcome)
        self.job.totals.add(outcome)
        self.status.progress()
        log.debug("batch.done", rows=outcome.rows, chunks=len(chunks), stages_s=dict(outcome.stages_s))

    def _batch_failed(self, error: BaseException) -> None:
        if isinstance(error, Interrupted):
            log.warning("batch.interrupted", reason=str(error))
            return
        self._failed(error)

    # --- while it runs

    async def _beat(self) -> None:
        while True:
            self.status.beat()
            if self.status.failed.is_set():
                self.done.set()
            app = self.consumer.app if self.consumer is not None else None
            if app is not None and app.crashed and self.status.failure is None and not self.status.stopping.is_set():
                self._failed(app.crash_reason or RuntimeError("Faust crashed"))
            await asyncio.sleep(0.1)

    async def _discover(self, app: WorkerApp, topic: Any) -> None:
        """Topics that appear later are read within the interval, from their first record."""
        asked = -RETENTION_ASKED_EVERY_S
        while True:
            try:
                if time.monotonic() - asked > RETENTION_ASKED_EVERY_S:
                    self.retention = await asyncio.to_thread(self.job.broker.retention_s, self.names)
                    asked = time.monotonic()
                await self._pause(self.job.worker.discovery_interval_s)
                found = self._wanted(await asyncio.to_thread(self.job.broker.topics))
                self.status.recovered("broker")
                self._stop_if_deleted(found)
                if set(found) - set(self.names) and await follow(app, topic, found):
                    self.names = tuple(sorted({*self.names, *found}))
                    asked = -RETENTION_ASKED_EVERY_S
            except TransientError as error:
                self.status.retrying("broker", error)
                await self._pause(1.0)
            except ConfigError as error:
                self._failed(error)
                return

    def _wanted(self, names: Iterable[str]) -> tuple[str, ...]:
        return wanted(names, self.job.sources, self.job.kafka.retry_topic, self.job.events_topic)

    def _stop_if_deleted(self, found: tuple[str, ...]) -> None:
        """A topic that is away twice in a row (once may be a broker that just started) was deleted.

        Going on is not safe: a commit that is being repeated would land in a new topic of the same name, and skip its
        first records.
        """
        missing = set(self.names) - set(found)
        if gone := sorted(missing & self.missing):
            self._failed(
                StopWorker(
                    f"take a new snapshot of what was in {', '.join(gone)}, then start again: "
                    "deleted while it was read, so records that were not read yet are lost"
                )
            )
        self.missing = missing

    async def _measure(self) -> None:
        """Where the logs end: for the lag metric, and for `--until-drained`."""
        consumer = self._consumer()
        while True:
            await self._pause(0.5 if self.job.until_drained else 5.0)
            standings = list(consumer.ledger.standings())
            self._tell_follower(standings)
            epoch = consumer.ledger.epoch
            try:
                self.ends = await asyncio.to_thread(self.job.broker.ends, [standing.partition for standing in standings])
            except ChronicleError as error:
                log.info("lag.unknown", reason=str(error))
                continue
            if not self.job.until_drained or self.status.not_ready() is not None or epoch != consumer.ledger.epoch:
                continue
            behind = [s for s in consumer.ledger.standings() if s.unacknowledged_from < self.ends.get(s.partition, 0)]
            if not behind and (standings or self.status.partitions == 0):
                log.info("worker.drained", partitions=len(standings))
                self.status.stopping.set()
                self.done.set()
                return

    def _tell_follower(self, standings: Sequence[Standing]) -> None:
        """From when on contexts are needed; never while an age is not known, so that none is forgotten too early."""
        behind = [one for one in standings if self.ends.get(one.partition, 0) > one.unacknowledged_from]
        ages = [one.oldest_ms for one in behind]
        if None not in ages and standings:
            self.job.follower.need_from(min([age for age in ages if age is not None], default=time.time_ns() // 1_000_000))

    def _wire_gauges(self, consumer: BatchConsumer) -> None:
        gauges = self.job.metrics.gauges
        wire(gauges, self.status, self.job.engine, consumer.ledger, lambda: self.ends)

        def loss() -> dict[str, float]:
            now = time.time()
            seconds: dict[str, float] = {}
            for standing in consumer.ledger.standings():
                topic = standing.partition[0]
                kept = self.retention.get(topic)
                if kept is None:
                    continue
                behind = self.ends.get(standing.partition, 0) > standing.unacknowledged_from
                if behind and standing.oldest_ms is None:
                    continue  # nothing read of it yet: its age is not known
                age = now - standing.oldest_ms / 1000 if behind and standing.oldest_ms else 0.0
                seconds[topic] = min(seconds.get(topic, kept), kept - age)
            return seconds

        gauges.loss = loss

    # --- end

    def _asked_to_stop(self, number: int) -> None:
        log.info("worker.stopping", signal=signal.Signals(number).name)
        self.status.stopping.set()
        self.done.set()

    def _failed(self, error: BaseException) -> None:
        self.status.fail(error)
        self.done.set()

    async def _finish(self, app: WorkerApp, batcher: Batcher, consumer: BatchConsumer) -> None:
        """Process what was fetched, commit it, leave the group."""
        consumer.closing = True
        if not await batcher.drain(DRAIN_S):
            log.warning("stop.undrained", seconds=DRAIN_S)
        try:
            await asyncio.wait_for(consumer.commit_now(), STOP_S)
        except TimeoutError:
            log.warning("stop.uncommitted", seconds=STOP_S)
        await stop(app, STOP_S)
        batcher.close()
        self.job.engine.close()
        self.job.follower.close()
        if self.job.entities is not None:
            self.job.entities.close()
        log.info("worker.stopped", records=self.job.totals.rows)

    def _exit_code(self) -> int:
        error = self.status.failure
        if error is None:
            return 0
        log.error("worker.failed", **explain(error))
        return EXIT_MISCONFIGURED if isinstance(error, ConfigError) else EXIT_FAILED

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self.done.wait(), seconds)
        except TimeoutError:
            return


def _exit_unacknowledged(_reason: str) -> None:
    """End now, from any thread, with nothing more committed."""
    sys.stderr.flush()
    os._exit(EXIT_FAILED)
