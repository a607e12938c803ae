"""`chronicle run` on the real stack: service and worker under one parent, each started again when it dies, none left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from chronicle.dev.stack import Stack
from tests.acceptance.embedded_process import COMMAND, environment
from tests.stack.test_worker import Deployment

pytestmark = pytest.mark.stack
DEADLINE_S = 120.0


class Running:
    """One `chronicle run`."""

    def __init__(self, deployment: Deployment, home: Path) -> None:
        self.process = subprocess.Popen(
            [COMMAND, "run", "--port", "0"],
            cwd=home,
            env=environment(
                CHRONICLE_CONFIG=str(deployment.settings_file), CHRONICLE_POLICY_FILE=os.environ["CHRONICLE_POLICY_FILE"]
            ),
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))

    def until(self, what: Callable[[], Any], told: str) -> Any:
        """What `what` gives once it is true."""
        end = time.monotonic() + DEADLINE_S
        while True:
            if found := what():
                return found
            assert time.monotonic() < end, f"{told}: " + "\n".join(self.lines[-30:])
            assert self.process.poll() is None, f"it ended ({told}): " + "\n".join(self.lines[-30:])
            time.sleep(0.05)

    def events(self, name: str, prefix: str = "") -> list[dict[str, Any]]:
        """Log lines of this event: the parent's own, or those of the process `prefix`."""
        head = f"{prefix:6} | " if prefix else ""
        found = [json.loads(line[len(head) :]) for line in list(self.lines) if re.match(re.escape(head) + r"\{", line)]
        return [one for one in found if one["event"] == name]

    def url(self, after: int = 0) -> str:
        """Where the service listens; after so many earlier starts."""
        listening = self.until(lambda: self.events("api.listening", "api")[after:], "the service listens")
        return f"http://127.0.0.1:{listening[0]['port']}"

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(DEADLINE_S)
        self._reading.join(DEADLINE_S)
        return code


@pytest.fixture
def running(stack: Stack, unique: str, tmp_path: Path) -> Iterator[Running]:
    """Service and worker of a deployment of its own."""
    deployment = Deployment(stack, unique, tmp_path / "deployment")
    made = Running(deployment, tmp_path)
    yield made
    if made.process.poll() is None:
        made.process.kill()
        made.process.wait(DEADLINE_S)
    deployment.close()


def handed_in(running: Running, url: str, type_: str) -> str:
    """The id of an event that was accepted."""

    def accepted() -> str | None:
        try:
            answer = httpx.post(f"{url}/events", json={"type": type_, "source": "shop", "actor": "ann"}, timeout=30)
        except httpx.TransportError:
            return None
        return str(answer.json()["id"]) if answer.status_code == 202 else None

    return str(running.until(accepted, "accepted"))


def readable(running: Running, url: str, type_: str) -> list[str]:
    """Ids of this type, once there are any."""

    def found() -> list[str]:
        answer = httpx.get(f"{url}/events", params={"type": type_}, timeout=30)
        return [one["event_id"] for one in answer.json()["events"]] if answer.status_code == 200 else []

    return list(running.until(found, f"{type_} is readable"))


def test_an_event_goes_through_both_and_each_comes_back_when_it_is_killed(running: Running) -> None:
    """POST, GET; the worker is killed, POST, GET; the service is killed, POST, GET; SIGTERM: 0, and nobody is left."""
    url = running.url()
    first = handed_in(running, url, "order.first")
    assert readable(running, url, "order.first") == [first]

    pids = {one["instance"]: one["pid"] for one in running.events("instance.started")}
    os.kill(pids[1], signal.SIGKILL)
    running.until(lambda: len(running.events("instance.started")) == 3, "a new worker")
    second = handed_in(running, url, "order.second")
    assert readable(running, url, "order.second") == [second]

    os.kill(pids[0], signal.SIGKILL)
    url = running.url(after=1)
    third = handed_in(running, url, "order.third")
    assert readable(running, url, "order.third") == [third]

    assert [one["code"] for one in running.events("instance.died")] == [-9, -9]
    started = [one["pid"] for one in running.events("instance.started")]
    assert running.stop() == 0
    assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]


def test_nobody_is_left_when_the_parent_is_killed(running: Running) -> None:
    """They end as by SIGTERM: what was accepted is through or comes again."""
    running.url()
    started = [one["pid"] for one in running.events("instance.started")]
    assert len(started) == 2
    running.process.kill()
    running.process.wait(DEADLINE_S)
    end = time.monotonic() + DEADLINE_S
    while [pid for pid in started if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < end
        time.sleep(0.05)
