"""`chronicle run --embedded` as a process of its own, for tests: started, asked over HTTP, told to stop, killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

COMMAND = str(Path(sys.executable).with_name("chronicle"))
START_S = 120.0
STOP_S = 60.0


def environment(**settings: str) -> dict[str, str]:
    """This process' own without Chronicle's settings, and these."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CHRONICLE_")}
    return {**clean, **settings}


class Embedded:
    """One process with its store in `home / "data"`, or with `server` in a ClickHouse that the settings name. Ends with the
    `with` block, by SIGTERM."""

    def __init__(
        self, home: Path, *options: str, port: int = 0, command: str = COMMAND, server: bool = False, **settings: str
    ) -> None:
        self.home, self.data = home, home / "data"
        where = [] if server else ["--embedded", "--dir", str(self.data)]
        words = [command, "run", *where, "--port", str(port), *options]
        self.process = subprocess.Popen(words, cwd=home, env=environment(**settings), stderr=subprocess.PIPE, text=True)
        self.said: list[str] = []
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()
        self.url = self._listening()
        self.http = httpx.Client(base_url=self.url, timeout=60)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)

    def _listening(self) -> str:
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            for line in list(self.said):
                if found := re.match(r"listening on (http://\S+),", line):
                    return found[1]
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        self.kill()
        raise AssertionError(f"it does not listen: {''.join(self.said)}")

    def post(self, *events: dict[str, Any], **headers: str) -> Any:
        """Hand in one event, or several as an array; the answer, which must be 202."""
        answer = self.http.post("/events", json=events[0] if len(events) == 1 else list(events), headers=headers)
        assert answer.status_code == 202, answer.text
        return answer.json()

    def get(self, path: str, status: int = 200, **parameters: Any) -> Any:
        """A GET's answer."""
        answer = self.http.get(path, params=parameters)
        assert answer.status_code == status, answer.text
        return answer.json()

    def event_ids(self) -> list[str]:
        """Of all events that applications handed in, by pages."""
        found: list[str] = []
        more: dict[str, Any] = {}
        while True:
            page = self.get("/events", page_size=1000, **more)
            found += [event["event_id"] for event in page["events"] if event["source"] != "chronicle"]
            if not page["next_cursor"]:
                return found
            more = {"cursor": page["next_cursor"]}

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(STOP_S)
        self._reading.join(STOP_S)
        return code

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait(STOP_S)
        self._reading.join(STOP_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.http.close()
        if self.process.poll() is None:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.kill()
