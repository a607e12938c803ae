"""Nothing is lost, doubled or reordered, whatever is killed or away: every test here ends with the checker.

One deployment and one workload serve all tests of this module, in order: each adds to what the next one checks, so the
largest comes last.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from random import Random

import pytest

from chronicle.dev.stack import Stack
from tests.faults.bad_records import REFUSED_ID, plant
from tests.faults.checker import check
from tests.faults.plants import PLANTS
from tests.faults.processes import WorkerProcess, until
from tests.faults.world import World

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]
SEED = int(os.environ.get("CHRONICLE_TEST_SEED", "20260101"))
AWAY_S = 60.0
COPY_ROWS = 15_000
SIGKILLED = -9


@pytest.fixture(scope="module")
def world(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The deployment of this module."""
    made = World(stack, f"k{os.getpid():x}", tmp_path_factory.mktemp("world"), SEED)
    try:
        made.create(seeded=30)
        yield made
    finally:
        made.close()


@pytest.fixture(autouse=True)
def no_worker_is_left(world: World) -> Iterator[None]:
    """A failed test's workers do not disturb the next one."""
    yield
    world.end_workers()


class Writing:
    """Writes to both databases in a thread until the block ends; an error in it fails the test."""

    def __init__(self, world: World, every_s: float = 1.0) -> None:
        self.world, self.every_s, self.stopped = world, every_s, threading.Event()
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            while not self.stopped.wait(self.every_s):
                self.world.write(3)
        except BaseException as error:  # noqa: BLE001  shown by the test
            self.error = error

    def __enter__(self) -> Writing:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.thread.join(60)
        if self.error is not None:
            raise self.error


def test_a_quiet_run_is_exact_and_bad_records_are_dead_letters(world: World) -> None:
    """Without a fault: truth, ClickHouse, mirrors and audit topic are one; each planted bad record is one dead letter."""
    world.write(100)
    quiet = world.settle()
    assert quiet.counts["contexts"] and quiet.counts["counted"], "nothing was compared"
    postgres, mariadb = world.sources  # MariaDB's TRUNCATE and ALTER TABLE send a BEGIN and no END
    assert world.statuses() <= {(postgres, "complete"), (mariadb, "complete"), (mariadb, "open")}
    lines = f"{world.sources[0]}.public.lines"
    world.refuse(lines, f"order_id != {REFUSED_ID}")
    letters = plant(world.stack.kafka, world.raw.last_created(lines), world.raw)
    world.plant(letters)
    world.write(20)
    report = world.settle()
    assert report.counts["dead_letters"] == len(world.planted) >= len(letters)


def test_every_fault_planted_into_the_real_outcome_is_found(world: World) -> None:
    """The checker that passed the quiet run finds each planted fault in the same data."""
    tables, truth, said, observation = world.last_observed({"accounts", "lines"})
    assert check(tables, truth, observation, world.planted, contexts=said).ok
    for fault in PLANTS:
        report = check(tables, truth, fault.apply(observation), world.planted, contexts=said)
        assert fault.laws <= set(report.laws()), f"{fault.name}\n{report.text()}"


@pytest.mark.parametrize(
    ("name", "in_clickhouse", "in_audit_topic"),
    [("before_sinks", False, False), ("between_sinks", True, False), ("before_ack", True, True)],
)
def test_a_worker_killed_between_two_steps_loses_nothing(
    world: World, name: str, in_clickhouse: bool, in_audit_topic: bool
) -> None:
    """SIGKILL before the inserts, between ClickHouse and audit topic, and after both before the acknowledgement."""
    world.write(40)
    world.await_captured()
    before = world.held()
    worker = world.worker(FAILPOINT=name)
    assert worker.wait(60) == SIGKILLED, worker.tail("did not reach the failpoint")
    after = world.held()
    assert (after[0] > before[0], after[1] > before[1]) == (in_clickhouse, in_audit_topic), "killed at another point"
    world.settle()


def test_a_worker_killed_in_a_rebalance_loses_nothing(world: World) -> None:
    """The worker that has the partitions dies while a second one joins; the second goes on."""
    with Writing(world):
        first = world.worker(FAILPOINT="rebalance")
        first.wait_ready()
        second = world.worker()
        assert first.wait(90) == SIGKILLED, first.tail("did not reach the failpoint")
        until(second.ready, 90, "the second worker has the partitions")
    world.await_queryable(world.await_captured())
    assert second.stop() == 0, second.tail("did not stop")
    world.settle()


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_killed_at_random_moments_lose_nothing(world: World, workers: int) -> None:
    """Ten SIGKILLs at seeded moments while both databases are written to."""
    random = Random(SEED + workers)
    running: list[WorkerProcess] = []
    with Writing(world):
        for _ in range(10):
            while len(running) < workers:
                running.append(world.worker())
            victim = running.pop(random.randrange(len(running)))
            victim.wait_ready(90)
            with pytest.raises(AssertionError, match="still running"):  # it must not end by itself
                victim.wait(random.uniform(0.0, 1.5))
            victim.kill()
    for worker in running:
        assert worker.stop() == 0, worker.tail("did not stop")
    world.settle()


def stay_away(world: World, worker: WorkerProcess, service: str, until_s: float) -> None:
    """The worker says in `/readyz`, metrics and log that it waits for the service, and does not end before the time."""
    until(lambda: worker.waits_for(service), 50, f"/readyz says that it waits for {service}, see {worker.log}")
    assert [event for event in worker.events("retry.declared") if event["service"] == service]
    with pytest.raises(AssertionError, match="still running"):
        worker.wait(max(0.0, until_s - time.monotonic()))
    assert worker.waits_for(service) and worker.waited_s(service) > 0


def back_again(world: World, worker: WorkerProcess, service: str) -> None:
    """The worker goes on by itself; Connect's tasks, which are not ours, may have given up on the registry."""
    until(worker.ready, 120, f"ready again after {service} is back, see {worker.log}")
    assert [event for event in worker.events("retry.recovered") if event["service"] == service]
    world.restart_failed_tasks()


def test_services_that_are_away_for_a_minute_each_are_waited_for(world: World) -> None:
    """ClickHouse, registry and broker are killed for a minute, one after another, under traffic: nothing is lost."""
    world.keep_columns()
    world.await_captured()
    worker = world.worker()
    worker.wait_ready()
    with Writing(world, every_s=2.0):
        for part, service in (("clickhouse", "clickhouse"), ("registry", "registry"), ("kafka", "broker")):
            end = time.monotonic() + AWAY_S
            world.stack.kill(part)
            try:
                if part == "registry":  # one that knows all schemas already would not miss it
                    assert worker.stop() == 0, worker.tail("did not stop")
                    worker = world.worker()
                stay_away(world, worker, service, end)
            finally:
                world.revive(part)
            back_again(world, worker, service)
    world.await_queryable(world.await_captured())
    assert worker.stop() == 0, worker.tail("did not stop")
    world.settle()


def test_connect_killed_in_the_middle_of_a_copy_loses_nothing(world: World) -> None:
    """Debezium is killed while it sends the rows of one COPY, and of one large insert; a worker reads meanwhile."""
    worker = world.worker()
    worker.wait_ready()
    world.await_captured()
    before = len(world.raw.signatures)
    with world.postgres.connection.transaction():
        world.postgres.copy_bulk(world.postgres.connection, COPY_ROWS)
    with world.mariadb.transaction() as connection:
        world.mariadb.write_bulk(connection, COPY_ROWS // 4)

    def begun() -> bool:
        world.raw.refresh(world.tables())
        return len(world.raw.signatures) > before

    until(begun, 60, "the first rows of the COPY", every_s=0.02)
    world.stack.kill("connect")
    try:
        begun()
        arrived = len(world.raw.signatures) - before
    finally:
        world.revive("connect")
    assert arrived < COPY_ROWS, "Connect was quicker than the kill: raise COPY_ROWS"
    world.await_queryable(world.await_captured())
    assert worker.stop() == 0, worker.tail("did not stop")
    world.settle(world.excuse(world.tables().by_topic))
