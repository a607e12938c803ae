"""Several processes under a parent (of a role; the service and its workers): started again when they die, stopped together."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

log = structlog.get_logger("chronicle.supervisor")

EXIT_MISCONFIGURED = 2
BACKOFF_FIRST_S, BACKOFF_MAX_S = 1.0, 60.0
HEALTHY_S = 60.0
"""A process that lived this long died of something new: its backoff begins again."""
STOP_S = 45.0
"""How long a process may take to finish its batch; then it is killed, and the batch comes again."""
_LOOK_S = 0.1


@dataclass(slots=True)
class _Child:
    number: int
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    not_before: float = 0.0
    backoff_s: float = 0.0
    ended: int | None = None
    """Exit code of a process that is not started again."""


class Supervisor:
    """Keeps `count` processes running: `command(number)` is what to execute for each, from 0 on.

    A process that ends with 0 has done its work. One that ends with 2 is misconfigured, as all of them then are: all stop.
    Any other end is followed by a new start, after a pause that doubles from one second to a minute.
    """

    def __init__(
        self,
        count: int,
        command: Callable[[int], Sequence[str]],
        start: Callable[[int, Sequence[str]], subprocess.Popen[bytes]] = lambda _number, command: subprocess.Popen(
            list(command)
        ),
    ) -> None:
        """`start` executes a command as the process of this number; default: with this one's input and output."""
        self._children = [_Child(number) for number in range(count)]
        self._command = command
        self._start = start
        self._stopping = threading.Event()

    def run(self) -> int:
        """Until told to stop (0), until all have done their work (0), or until one is misconfigured (2). Main thread only."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._asked_to_stop)
        while not self._stopping.is_set() and any(child.ended is None for child in self._children):
            for child in self._children:
                self._look_after(child)
            self._stopping.wait(_LOOK_S)
        self._stop()
        return EXIT_MISCONFIGURED if any(child.ended == EXIT_MISCONFIGURED for child in self._children) else 0

    def pids(self) -> list[int]:
        """Of the processes that run."""
        return [child.process.pid for child in self._children if child.process is not None]

    def _asked_to_stop(self, number: int, _frame: object) -> None:
        self._stopping.set()
        log.info("supervisor.stopping", signal=signal.Signals(number).name)

    def _look_after(self, child: _Child) -> None:
        if child.ended is not None:
            return
        if child.process is None:
            if time.monotonic() >= child.not_before:
                child.process = self._start(child.number, self._command(child.number))
                child.started = time.monotonic()
                log.info("instance.started", instance=child.number, pid=child.process.pid)
            return
        code = child.process.poll()
        if code is None:
            return
        child.process = None
        if code in (0, EXIT_MISCONFIGURED):
            child.ended = code
            log.info("instance.ended", instance=child.number, code=code)
            if code:
                self._stopping.set()
            return
        lived = time.monotonic() - child.started
        child.backoff_s = (
            BACKOFF_FIRST_S if lived > HEALTHY_S else min(max(child.backoff_s * 2, BACKOFF_FIRST_S), BACKOFF_MAX_S)
        )
        child.not_before = time.monotonic() + child.backoff_s
        log.warning("instance.died", instance=child.number, code=code, lived_s=round(lived, 1), again_in_s=child.backoff_s)

    def _stop(self) -> None:
        """All of them, each with time to finish its batch."""
        running = [child.process for child in self._children if child.process is not None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + STOP_S
        for process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("instance.killed", pid=process.pid)
                process.kill()
                process.wait()
