"""The processes of `chronicle run`: the service and its workers, their output with their names in front, none left behind."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO

_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG, of Linux' prctl(2)."""
LAST_LINES_S = 2.0
"""How long the last lines of a process that has ended are waited for."""
_writing = threading.Lock()


def run_together(commands: Mapping[str, Sequence[str]], environment: dict[str, str]) -> int:
    """Run `chronicle` with each of these argument lists until told to stop; the exit code, as `Supervisor.run`.

    `environment`: variables that all of them have besides this process' own.
    """
    from chronicle.worker.supervisor import Supervisor

    names = list(commands)
    width = max(map(len, names))
    copying: list[threading.Thread] = []

    def start(number: int, command: Sequence[str]) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            list(command),
            env={**os.environ, **environment, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        head = f"{names[number]:{width}} | ".encode()
        for stream, target in ((process.stdout, sys.stdout), (process.stderr, sys.stderr)):
            if stream is not None:
                copying.append(threading.Thread(target=_copy, args=(stream, target.buffer, head), daemon=True))
                copying[-1].start()
        return process

    own = f"from chronicle.cli.together import tied; tied({os.getpid()}); from chronicle.cli import main; main()"
    code = Supervisor(len(names), lambda number: [sys.executable, "-c", own, *commands[names[number]]], start).run()
    for thread in copying:
        thread.join(LAST_LINES_S)
    return code


def tied(parent: int) -> None:
    """End this process, as by SIGTERM, when its parent ends, however that ends; at once when it is gone already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_DEATH_SIGNAL, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)


def _copy(source: IO[bytes], target: IO[bytes], head: bytes) -> None:
    """Whole lines, so that two processes' lines do not mix. Whoever reads them may go: the processes go on without."""
    with source:
        for line in source:
            with _writing, suppress(OSError):
                target.write(head + line.rstrip(b"\n") + b"\n")
                target.flush()
