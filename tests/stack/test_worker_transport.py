"""The Faust transport on the real broker: nothing lost, whatever dies; path and sink are doubles (`worker_double`)."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from chronicle.dev.stack import Stack
from tests.stack.worker_process import Broker, Coordinates, WorkerProcess, probe, until

pytestmark = pytest.mark.stack

ROWS = 20_000


class Bench:
    """Two topics of one source, a retry topic, a file that the double writes to, and the workers of one test."""

    def __init__(self, stack: Stack, name: str, directory: Path) -> None:
        self.broker = Broker(stack.kafka)
        self.name, self.retry, self.directory = name, f"{name}-retry", directory
        self.topics = [f"{name}.s.one", f"{name}.s.two"]
        self.file = directory / "sunk.txt"
        self.workers: list[WorkerProcess] = []
        self.broker.create(self.retry)
        for topic in self.topics:
            self.broker.create(topic, 2)

    def produce(self, rows: int = ROWS) -> set[Coordinates]:
        """`rows` records over all four partitions; returns all coordinates there are now."""
        for topic in self.topics:
            for partition in (0, 1):
                self.broker.produce(topic, [b"x" * 100] * (rows // 4), partition)
        return self.expected()

    def expected(self) -> set[Coordinates]:
        return {
            (topic, partition, offset)
            for topic in self.topics
            for partition, end in self.broker.ends(topic, 2).items()
            for offset in range(end)
        }

    def sunk(self) -> Counter[Coordinates]:
        """How often each record was written; a line that a kill cut short does not count."""
        found: Counter[Coordinates] = Counter()
        text = self.file.read_text() if self.file.exists() else ""
        for line in text[: text.rfind("\n") + 1].splitlines():
            fields = line.split(" ")
            if len(fields) == 3:
                found[fields[0], int(fields[1]), int(fields[2])] += 1
        return found

    def start(self, *arguments: str, file: str | None = None, **settings: str) -> WorkerProcess:
        environment = {
            "CHRONICLE_CONFIG": "",
            "CHRONICLE_KAFKA__BOOTSTRAP_SERVERS": self.broker.servers,
            "CHRONICLE_KAFKA__RETRY_TOPIC": self.retry,
            "CHRONICLE_KAFKA__EVENTS_TOPIC": f"{self.name}-events",
            "CHRONICLE_WORKER__GROUP": self.name,
            "CHRONICLE_WORKER__SOURCES": f'["{self.name}"]',
            "CHRONICLE_WORKER__HTTP_PORT": "0",
            "CHRONICLE_WORKER__DISCOVERY_INTERVAL_S": "0.5",
            "CHRONICLE_WORKER__BATCH_ROWS_MAX": "2000",
            "CHRONICLE_WORKER__IN_FLIGHT_ROWS_MAX": "6000",
            **{f"CHRONICLE_WORKER__{name.upper()}": value for name, value in settings.items()},
        }
        target = self.directory / file if file else self.file
        log = self.directory / f"worker{len(self.workers)}.log"
        worker = WorkerProcess(["tests.stack.worker_double", str(target), *arguments], environment, log)
        self.workers.append(worker)
        return worker

    def drain(self, **settings: str) -> WorkerProcess:
        """A worker that ends at the end of all partitions, with exit code 0."""
        worker = self.start("--until-drained", **settings)
        assert worker.wait() == 0, worker.log_text()[-3000:]
        return worker


@pytest.fixture
def bench(stack: Stack, unique: str, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(stack, unique, tmp_path)
    yield made
    for worker in made.workers:
        if worker.process.poll() is None:
            worker.kill()
    names = set(made.broker.admin.list_topics(timeout=10).topics)
    made.broker.delete(*(name for name in names if name.startswith(made.name)))


def test_every_record_is_sunk_once_and_committed_to_the_end(bench: Bench) -> None:
    """Without trouble there are no duplicates, and the group stands at the end of every partition."""
    expected = bench.produce()
    bench.drain()
    assert bench.sunk() == Counter(expected)
    for topic in bench.topics:
        assert bench.broker.committed(bench.name, topic, 2) == bench.broker.ends(topic, 2)


def test_sigterm_drains_and_commits(bench: Bench) -> None:
    """A stop in the middle of a backlog costs no redelivery."""
    expected = bench.produce(4 * ROWS)
    worker = bench.start(batch_rows_max="500", in_flight_rows_max="1000")
    until(lambda: bench.sunk().total() > 1000, "some rows")
    worker.term()
    assert worker.wait() == 0
    assert bench.sunk().total() < len(expected)
    bench.drain()
    assert bench.sunk() == Counter(expected)


@pytest.mark.parametrize("point", ["before_sinks:3", "before_ack:3"])
def test_a_kill_at_a_failpoint_loses_nothing(bench: Bench, point: str) -> None:
    """Every record is sunk, at most one batch of them twice."""
    expected = bench.produce()
    assert bench.start(failpoint=point).wait() == -signal.SIGKILL
    bench.drain()
    assert set(bench.sunk()) == expected


def test_a_kill_in_a_rebalance_loses_nothing(bench: Bench) -> None:
    """The process dies between the end of its batch and its commit; the other worker takes over."""
    expected = bench.produce()
    first = bench.start(failpoint="rebalance", batch_rows_max="200", in_flight_rows_max="400")
    until(lambda: bench.sunk().total() > 400, "some rows")
    second = bench.start("--until-drained")
    assert first.wait() == -signal.SIGKILL
    assert second.wait() == 0
    bench.drain()
    assert set(bench.sunk()) == expected


def test_two_workers_share_the_work_and_survive_each_other(bench: Bench) -> None:
    """One joins, one is killed: every record is sunk."""
    bench.produce(4 * ROWS)
    small = {"batch_rows_max": "200", "in_flight_rows_max": "400"}
    first = bench.start(**small)
    until(lambda: bench.sunk().total() > 400, "some rows")
    second = bench.start(file="second.txt", **small)
    second.until_event("partitions.assigned")
    expected = bench.produce(ROWS)
    until(lambda: (bench.directory / "second.txt").stat().st_size > 0, "rows of the second worker")
    first.kill()
    assert set(bench.sunk()) != expected
    second.term()
    assert second.wait() == 0
    bench.drain()
    bench.file.write_text(bench.file.read_text() + "\n" + (bench.directory / "second.txt").read_text())
    assert set(bench.sunk()) == expected


def test_a_topic_that_appears_later_is_read_from_its_first_record(bench: Bench) -> None:
    """Records written before the worker found the topic are read too, without a restart."""
    bench.produce(400)
    worker = bench.start()
    worker.until_event("partitions.assigned")
    until(lambda: bench.sunk().total() == 400, "the first topics")
    bench.topics.append(f"{bench.name}.s.three")
    bench.broker.create(bench.topics[-1], 2)
    expected = bench.produce(600)
    until(lambda: set(bench.sunk()) == expected, "the new topic", 30)
    worker.term()
    assert worker.wait() == 0


def test_a_gap_stops_the_worker_until_it_is_accepted(bench: Bench) -> None:
    """Retention overtook the group: the exact range is named, nothing is acknowledged, and --accept-gap goes on."""
    bench.produce(400)
    bench.drain()
    bench.produce(400)
    bench.broker.delete_before(bench.topics[0], 1, 150)
    worker = bench.start("--until-drained")
    assert worker.wait() == 1
    assert f"{bench.topics[0]}[1] offsets 100 to 149" in worker.log_text()
    assert "--accept-gap" in worker.log_text()
    bench.drain(accept_gap="true")
    missing = {(bench.topics[0], 1, offset) for offset in range(100, 150)}
    assert set(bench.sunk()) == bench.expected() - missing
    bench.drain()  # accepted once, committed: no alarm any more


def test_a_log_that_ends_before_the_group_stops_the_worker_until_it_is_accepted(bench: Bench) -> None:
    """It is not the log that was read; accepted, it is read from its start."""
    bench.produce(400)
    bench.drain()
    bench.broker.commit(bench.name, bench.topics[0], 0, 500)
    worker = bench.start("--until-drained")
    assert worker.wait() == 1
    assert "recreated" in worker.log_text()
    bench.drain(accept_gap="true")
    assert all(bench.sunk()[bench.topics[0], 0, offset] == 2 for offset in range(100))
    bench.drain()
    assert bench.broker.committed(bench.name, bench.topics[0], 2) == {0: 100, 1: 100}


def test_a_topic_deleted_while_it_is_read_stops_the_worker(bench: Bench) -> None:
    """What was not read of it is lost, so somebody must know; started again, a new topic of that name is read whole."""
    bench.produce(400)
    worker = bench.start()
    until(lambda: bench.sunk().total() == 400, "all rows")
    bench.broker.delete(bench.topics[0])
    assert worker.wait() == 1
    assert f"snapshot of what was in {bench.topics[0]}" in worker.log_text()
    bench.broker.create(bench.topics[0], 2)
    bench.broker.produce(bench.topics[0], [b"again"] * 150, 0)
    bench.drain()
    assert all(bench.sunk()[bench.topics[0], 0, offset] == (2 if offset < 100 else 1) for offset in range(150))


def test_transaction_markers_are_neither_a_gap_nor_lag(bench: Bench) -> None:
    """Offsets of markers hold no record: drained is drained, and the commit passes them."""
    for number in range(3):
        bench.broker.produce(bench.topics[0], [b"x"] * 10, 0, transactional_id=f"{bench.name}-{number}")
    until(lambda: bench.broker.ends(bench.topics[0], 1) == {0: 33}, "three markers")
    bench.drain()
    assert (len(bench.sunk()), bench.sunk().total()) == (30, 30)
    assert bench.broker.committed(bench.name, bench.topics[0], 1) == {0: 33}


def test_nothing_can_be_read_without_setup(bench: Bench) -> None:
    """A missing topic of Chronicle's own is the operator's to make: exit 2, and what to run."""
    bench.retry = f"{bench.name}-absent"
    worker = bench.start()
    assert worker.wait() == 2
    assert "chronicle setup" in worker.log_text()


def test_a_static_member_returns_without_a_rebalance_for_the_others(bench: Bench) -> None:
    """Killed and started again with its instance id, it gets its partitions back; the other worker keeps reading."""
    bench.produce(400)
    first = bench.start(instance_id=f"{bench.name}-a")
    first.until_event("partitions.assigned")
    second = bench.start(instance_id=f"{bench.name}-b", file="second.txt")
    second.until_event("partitions.assigned")
    until(lambda: len(first.events("partitions.assigned")) >= 2, "the rebalance for the second worker")
    until(lambda: len(bench.sunk()) > 0 or (bench.directory / "second.txt").stat().st_size > 0, "rows")
    assigned = len(second.events("partitions.assigned"))
    first.kill()
    again = bench.start(instance_id=f"{bench.name}-a")
    again.until_event("partitions.assigned")
    assert len(second.events("partitions.assigned")) == assigned
    bench.produce(400)
    bench.file.touch()

    def seen() -> set[Coordinates]:
        extra = (bench.directory / "second.txt").read_text()
        return set(bench.sunk()) | {
            (fields[0], int(fields[1]), int(fields[2]))
            for fields in (line.split(" ") for line in extra[: extra.rfind("\n") + 1].splitlines())
        }

    until(lambda: seen() == bench.expected(), "all records by both workers")


def test_probes_and_metrics_are_served(bench: Bench) -> None:
    """/healthz, /readyz and /metrics answer, and say what was done."""
    bench.produce(400)
    port = 28900 + hash(bench.name) % 90
    worker = bench.start(http_port=str(port))
    until(lambda: probe(port, "/readyz")[0] == 200, "ready")
    until(lambda: bench.sunk().total() == 400, "rows")
    until(lambda: "chronicle_records_in_total 400.0" in probe(port, "/metrics")[1], "the counter")
    status, text = probe(port, "/metrics")
    assert (status, probe(port, "/healthz")[0], probe(port, "/other")[0]) == (200, 200, 404)
    assert 'chronicle_rows_total{disposition="sunk",operation="snapshot",source="double",table="s.t"} 400.0' in text
    until(lambda: f'chronicle_lag_records{{partition="0",topic="{bench.topics[0]}"}} 0.0' in probe(port, "/metrics")[1], "lag")
    until(lambda: f'chronicle_seconds_until_loss{{topic="{bench.topics[0]}"}}' in probe(port, "/metrics")[1], "retention")
    worker.term()
    assert worker.wait() == 0
