"""Worker processes of a test: started, asked by HTTP, killed, stopped."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

from chronicle.config import Settings

_NEVER = threading.Event()


def until(condition: Callable[[], bool], deadline_s: float, what: str, every_s: float = 0.1) -> None:
    """Wait until the condition holds; AssertionError when it does not within the deadline."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline_s:.0f} s: {what}")
        _NEVER.wait(every_s)


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(settings: Settings) -> dict[str, str]:
    """The settings that a test changes, as variables for a process of its own."""
    values = {
        "POLICY_FILE": str(settings.policy_file),
        "KAFKA__BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
        **{f"KAFKA__{field.upper()}": value for field, value in settings.kafka if field.endswith("_topic")},
        "REGISTRY__URL": settings.registry.url,
        "CLICKHOUSE__URL": settings.clickhouse.url,
        "CLICKHOUSE__DATABASE": settings.clickhouse.database,
        "CLICKHOUSE__MIRROR_DATABASE": settings.clickhouse.mirror_database,
        "CONNECT__URL": settings.connect.url,
        "CONNECT__DIRECTORY": str(settings.connect.directory),
        "WORKER__GROUP": settings.worker.group,
        "WORKER__DISCOVERY_INTERVAL_S": str(settings.worker.discovery_interval_s),
        "IDENTITY_KEY_FILE": str(settings.identity_key_file),
        "KEY_RING_FILE": str(settings.key_ring_file),
        "PROCESSORS": json.dumps(settings.processors),
    }
    return {f"CHRONICLE_{key}": value for key, value in values.items()}


class WorkerProcess:
    """One `chronicle worker`. Its log is a file, shown in the error when it ends otherwise than it should; what it prints on
    standard output is another (`output`)."""

    def __init__(self, directory: Path, settings: Mapping[str, str], name: str, *options: str) -> None:
        self.port = free_port()
        self.log = directory / f"{name}.log"
        self.printed = directory / f"{name}.out"
        command = [str(Path(sys.executable).with_name("chronicle")), "worker", *options]
        variables = {**os.environ, **settings, "CHRONICLE_WORKER__HTTP_PORT": str(self.port)}
        with self.log.open("ab") as log, self.printed.open("ab") as printed:
            self.process = subprocess.Popen(
                command, env=variables, cwd=directory, stdout=printed, stderr=log, start_new_session=True
            )

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self.process.poll() is None

    def ask(self, path: str) -> httpx.Response | None:
        """A GET to the worker, None while it does not listen."""
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=5)
        except httpx.TransportError:
            return None

    def ready(self) -> bool:
        """Whether `/readyz` says yes."""
        reply = self.ask("/readyz")
        return reply is not None and reply.status_code == 200

    def unready(self) -> bool:
        """Whether `/readyz` answers, and says no."""
        reply = self.ask("/readyz")
        return reply is not None and reply.status_code == 503

    def waits_for(self, service: str) -> bool:
        """Whether `/readyz` answers 503 and says that it waits for this service."""
        reply = self.ask("/readyz")
        return reply is not None and reply.status_code == 503 and reply.text.startswith(f"waiting for {service} (")

    def waited_s(self, service: str) -> float:
        """How long it has waited for the service by now, by `/metrics`; 0: it does not wait for it."""
        reply = self.ask("/metrics")
        found = re.search(
            rf'^chronicle_retrying_seconds{{service="{service}"}} (\S+)$', reply.text if reply else "", re.MULTILINE
        )
        return float(found[1]) if found else 0.0

    def events(self, name: str) -> list[dict[str, Any]]:
        """Lines of its log with this event."""
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.startswith("{")]
        return [event for event in map(json.loads, lines) if event.get("event") == name]

    def wait_ready(self, deadline_s: float = 60) -> None:
        """Until it has partitions and no declared retry; it must not end meanwhile."""
        until(lambda: self.ready() or not self.running, deadline_s, f"worker ready, see {self.log}")
        assert self.running, self.tail("ended before it was ready")

    def output(self) -> str:
        """What it printed on standard output until now."""
        return self.printed.read_text()

    def kill(self) -> None:
        """SIGKILL, as a machine that loses power."""
        if self.running:
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def stop(self, deadline_s: float = 60) -> int:
        """SIGTERM; the exit code."""
        if self.running:
            self.process.terminate()
        return self.wait(deadline_s)

    def wait(self, deadline_s: float) -> int:
        """Until it ends by itself; the exit code (negative: the signal)."""
        try:
            return self.process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(self.tail(f"still running after {deadline_s:.0f} s")) from None

    def tail(self, what: str) -> str:
        """An error text with the end of the log."""
        lines = self.log.read_text(errors="replace").splitlines()[-30:]
        return f"worker {what}; its log ends:\n" + "\n".join(lines)
