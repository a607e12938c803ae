"""Capacity of one worker on a backlog: CPU per change, changes per second and core, ClickHouse's CPU, resident memory."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from chronicle.dev.stack import Stack
from chronicle.sinks.clickhouse_client import connect
from tests.bench.backlog import Backlog, produce
from tests.bench.envelopes import VARIANTS
from tests.bench.meter import CpuMeter, drift, resident_mib
from tests.bench.plain_faust import RESULT
from tests.bench.site import CONNECTORS, Site
from tests.faults.processes import WorkerProcess

SAMPLE_S = 0.25
DEADLINE_S = 1800.0
_NEVER = threading.Event()


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at the worker while it drains. Times are CPU seconds since each process began."""

    wall_s: float
    changes: int
    worker_s: float
    clickhouse_s: float
    resident_mib: float


@dataclass(frozen=True, slots=True)
class Drained:
    """What a drain cost, from the first changes in ClickHouse to the last: without the start of the process."""

    changes: int
    wall_s: float
    worker_us: float
    """CPU per change, all threads."""
    clickhouse_us: float
    peak_mib: float
    second_quarter_mib: float
    last_quarter_mib: float
    start_s: float
    """CPU before the first change: imports, connections, compiled plans."""

    @property
    def per_core_s(self) -> float:
        """Changes per second of one core's whole time."""
        return 1e6 / self.worker_us


def clickhouse_pid(stack: Stack) -> int:
    """The server's process."""
    pid = next(part.pid for part in stack.status() if part.part == "clickhouse")
    assert pid is not None
    return pid


def fill(site: Site, *, tables: int, changes: int, partitions: int, seed: int, variants: int = VARIANTS) -> Backlog:
    """The backlog, and everything a worker needs to drain it."""
    site.prepare(tables)
    kafka, registry = site.stack.kafka, site.stack.registry_url
    return produce(
        kafka, registry, site.source, tables=tables, changes=changes, partitions=partitions, seed=seed, variants=variants
    )


def drain(site: Site, backlog: Backlog) -> Drained:
    """Let one worker drain the backlog, and watch it.

    Raises:
        RuntimeError: the worker failed, or ClickHouse does not hold every change once.
    """
    server = CpuMeter(clickhouse_pid(site.stack))
    client = connect(site.settings.clickhouse)
    count = f"SELECT count() FROM {site.settings.clickhouse.database}.changes"
    samples: list[Sample] = []
    worker = WorkerProcess(site.directory, site.environment, "worker", "--until-drained", "--json")
    meter = CpuMeter(worker.process.pid)
    end = time.monotonic() + DEADLINE_S
    while worker.running and time.monotonic() < end:
        # CPU first: what is counted afterwards was paid for by then
        look = (time.monotonic(), meter.seconds(), server.seconds(), resident_mib(worker.process.pid))
        samples.append(Sample(look[0], int(client.query(count).result_rows[0][0]), *look[1:]))
        _NEVER.wait(SAMPLE_S)
    if worker.wait(10) != 0:
        raise RuntimeError(worker.tail("failed"))
    found = int(client.query(f"SELECT uniqExact(event_id) FROM {site.settings.clickhouse.database}.changes").result_rows[0][0])
    client.close()
    if found != backlog.changes:
        raise RuntimeError(f"{found} of {backlog.changes} changes in ClickHouse")
    return summed(samples, backlog.changes)


def summed(samples: list[Sample], changes: int) -> Drained:
    """The cost between the first sample with changes and the first with all of them."""
    first = next(sample for sample in samples if sample.changes)
    last = next((sample for sample in samples if sample.changes >= changes), samples[-1])
    done = max(1, last.changes - first.changes)
    memory = [sample.resident_mib for sample in samples if first.wall_s <= sample.wall_s <= last.wall_s]
    second, fourth = drift(memory)
    return Drained(
        changes=changes,
        wall_s=last.wall_s - first.wall_s,
        worker_us=(last.worker_s - first.worker_s) / done * 1e6,
        clickhouse_us=(last.clickhouse_s - first.clickhouse_s) / done * 1e6,
        peak_mib=max(memory),
        second_quarter_mib=second,
        last_quarter_mib=fourth,
        start_s=first.worker_s,
    )


def measure(stack: Stack, name: str, *, tables: int, changes: int, seed: int) -> tuple[Backlog, Drained]:
    """Fill, drain, tidy up. Many tables have one partition each, as small tables do; few have four."""
    with tempfile.TemporaryDirectory(prefix="chronicle-bench-") as directory:
        site = Site(stack, name, Path(directory))
        try:
            backlog = fill(site, tables=tables, changes=changes, partitions=1 if tables > 50 else 4, seed=seed)
            return backlog, drain(site, backlog)
        finally:
            site.close()


def plain_agent(site: Site, backlog: Backlog, rows: int, way: str) -> float:
    """CPU microseconds per event of a plain Faust agent over the first `rows` events of the backlog (see `plain_faust`)."""
    stack = site.stack
    options = [stack.kafka, stack.registry_url, stack.clickhouse_url, site.source, str(rows), way, *backlog.topics]
    command = [sys.executable, "-m", "tests.bench.plain_faust", *options]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
        cwd=site.directory,  # Faust makes a directory for its tables where it is started
        env={**os.environ, "PYTHONPATH": str(CONNECTORS.parent)},
    )
    costs = [line.split()[1] for line in done.stdout.splitlines() if line.startswith(RESULT)]
    if done.returncode != 0 or not costs:
        raise RuntimeError(f"the plain agent failed:\n{done.stderr[-2000:]}")
    return float(costs[0])
