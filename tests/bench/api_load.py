"""Load on the HTTP service by h2load (Debian's nghttp2-client), which is no part of it: how much at most, how long at half.

The service, the broker and the generator share the machine. What is counted is what the broker has in the end.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
from confluent_kafka import Consumer, TopicPartition

from chronicle.dev.stack import Stack
from chronicle.errors import ConfigError
from tests.bench.meter import CpuMeter, percentile
from tests.bench.site import Site
from tests.stack.test_worker import free_port

SINGLES_PER_S, BATCHED_PER_S = 5_000, 30_000
"""The targets, in events."""
BATCH = 500
CLIENTS = {1: 64, BATCH: 8}
"""Connections by events in a request."""
START_S = 60.0
EVENT = (
    '{"type":"security.login","source":"shop","actor":{"id":"ann","type":"user","name":"Ann"},"outcome":"success",'
    '"request_id":"r-123456","resource_type":"order","resource_id":"4711","payload":{"method":"password"}}'
)


@dataclass(frozen=True, slots=True)
class Load:
    """What one run measured."""

    batch: int
    """Events in a request."""
    wanted_per_s: float | None
    """Events a second that were sent; None: as many as could be."""
    events_per_s: float
    """Answered with 202."""
    p50_ms: float
    p99_ms: float
    max_ms: float
    failed: int
    """Requests that were answered otherwise."""
    cpu_us: float
    """Of the service, all its threads, by event."""


def need_generator() -> None:
    """Raises ConfigError, with how to install it, when h2load is not there."""
    if shutil.which("h2load") is None:
        raise ConfigError(
            "install the load generator: apt-get install nghttp2-client (it brings h2load), or --only other parts"
        )


def measure(
    stack: Stack, name: str, *, seconds: float = 15.0, targets: tuple[float, float] = (SINGLES_PER_S, BATCHED_PER_S)
) -> tuple[Load, ...]:
    """Single events and batches of 500: first as many as possible, then at half of the target for the answer times.

    Raises:
        ConfigError: h2load is not installed, with how to install it.
        RuntimeError: the broker does not have what was answered.
    """
    need_generator()
    with tempfile.TemporaryDirectory(prefix="chronicle-bench-") as folder:
        site = Site(stack, name, Path(folder))
        try:
            site.prepare(1)
            return _measured(site, seconds, targets)
        finally:
            site.close()


def _measured(site: Site, seconds: float, targets: tuple[float, float]) -> tuple[Load, ...]:
    port = free_port()
    log = site.directory / "api.log"
    own = {"CHRONICLE_API__PORT": str(port), "CHRONICLE_API__SPILL_DIRECTORY": str(site.directory / "spill")}
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "chronicle.cli", "api"],
            env={**os.environ, **site.environment, **own},
            stdout=file,
            stderr=file,
        )
    try:
        _until_ready(port, process, log)
        loads, answered = [], 0
        _run(site, port, process.pid, 1, None, 2.0)  # what is loaded and compiled at the first requests
        before = _ends(site)
        for batch, target in zip((1, BATCH), targets, strict=True):
            for wanted in (None, target / 2):
                load, events = _run(site, port, process.pid, batch, wanted, seconds)
                loads.append(load)
                answered += events
        there = _ends(site) - before
        if there < answered:
            raise RuntimeError(f"{answered} events were answered, and the broker has {there}")
        return tuple(loads)
    finally:
        process.terminate()
        process.wait(30)


def _run(site: Site, port: int, pid: int, batch: int, wanted: float | None, seconds: float) -> tuple[Load, int]:
    body, log = site.directory / f"body{batch}", site.directory / "requests.log"
    body.write_text("\n".join([EVENT] * batch))
    log.unlink(missing_ok=True)
    paced = ["-c", str(CLIENTS[batch]), "-D", f"{seconds:.0f}"] if wanted is None else _paced(wanted / batch, seconds)
    kind = "application/json" if batch == 1 else "application/x-ndjson"
    meter = CpuMeter(pid)
    cpu = meter.seconds()
    subprocess.run(
        [
            *("h2load", "--h1", "-t", "1", *paced, "-d", str(body)),
            *("-H", f"content-type: {kind}", "--log-file", str(log), f"http://127.0.0.1:{port}/events"),
        ],
        check=True,
        capture_output=True,
    )
    rows = [line.split("\t") for line in log.read_text().splitlines()]
    good = [int(micros) / 1000 for _, status, micros in rows if status == "202"]
    spent = max(1, int(rows[-1][0]) + int(rows[-1][2]) - int(rows[0][0])) / 1e6 if rows else seconds
    events = len(good) * batch
    return Load(
        batch,
        wanted,
        events / spent,
        percentile(good, 0.5),
        percentile(good, 0.99),
        max(good, default=float("nan")),
        len(rows) - len(good),
        (meter.seconds() - cpu) * 1e6 / max(1, events),
    ), events


def _paced(requests_per_s: float, seconds: float) -> list[str]:
    """A steady rate: clients that take turns, since clients that begin together would send in bursts."""
    clients = max(5, min(100, round(requests_per_s / 2)))
    per_ms = requests_per_s / 1000
    begun, period_ms = (round(per_ms * 4), 4) if per_ms >= 0.5 else (1, round(1 / per_ms))
    return [
        *(
            "-c",
            str(clients),
            "-n",
            str(round(requests_per_s * seconds)),
            "--rps",
            str(max(1, round(requests_per_s / clients))),
        ),
        *("-r", str(max(1, begun)), "--rate-period", f"{period_ms}ms"),
    ]


def _until_ready(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the service ended:\n{log.read_text()[-2000:]}")
        with suppress(httpx.HTTPError):
            if httpx.get(f"http://127.0.0.1:{port}/ready", timeout=5).status_code == 200:
                return
        time.sleep(0.1)
    raise RuntimeError(f"the service was not ready in {START_S:.0f} s:\n{log.read_text()[-2000:]}")


def _ends(site: Site) -> int:
    """Records on the events topic, over all partitions."""
    consumer = Consumer({**site.settings.kafka.client_config(), "group.id": "bench"})
    try:
        topic = site.settings.kafka.events_topic
        partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
        return sum(consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=30)[1] for number in partitions)
    finally:
        consumer.close()


def main() -> None:
    """On the running stack whose directory is the first argument: `python -m tests.bench.api_load DIRECTORY [SECONDS]`."""
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 15.0
    for load in measure(Stack(Path(sys.argv[1])), f"{os.getpid()}_api", seconds=seconds):
        print(load)


if __name__ == "__main__":
    main()
