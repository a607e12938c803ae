"""The supervisor with real processes: started again, stopped together, and ended by one that is misconfigured."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PARENT = """
import sys
from chronicle.worker import supervisor
supervisor.BACKOFF_FIRST_S = 0.2
child = [sys.executable, "-S", "-c", sys.argv[2]]
sys.exit(supervisor.Supervisor(int(sys.argv[1]), lambda number: [*child, str(number), sys.argv[3]]).run())
"""
NOTE = "import os, sys, time; open(sys.argv[2] + '/' + sys.argv[1] + '-' + str(os.getpid()), 'w'); "


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, f"not within 30 s: {what}"
        time.sleep(0.02)


def supervise(count: int, child: str, place: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", PARENT, str(count), NOTE + child, str(place)], stderr=subprocess.DEVNULL)


def started(place: Path, number: int | None = None) -> list[int]:
    """Process ids that were started."""
    return [int(one.name.split("-")[1]) for one in place.iterdir() if number in (None, int(one.name.split("-")[0]))]


def test_a_process_that_dies_is_started_again_and_the_others_go_on(tmp_path: Path) -> None:
    """By whatever it died."""
    parent = supervise(2, "time.sleep(600)", tmp_path)
    until(lambda: len(started(tmp_path)) == 2, "both")
    (victim,), (other,) = started(tmp_path, 0), started(tmp_path, 1)
    os.kill(victim, signal.SIGKILL)
    until(lambda: len(started(tmp_path, 0)) == 2, "a new one")
    assert started(tmp_path, 1) == [other]
    parent.terminate()
    assert parent.wait(30) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in started(tmp_path))


def test_a_misconfigured_process_ends_all(tmp_path: Path) -> None:
    """The others have the same settings."""
    parent = supervise(3, "sys.exit(2) if sys.argv[1] == '1' else time.sleep(600)", tmp_path)
    assert parent.wait(30) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in started(tmp_path))


def test_when_all_have_done_their_work_so_has_the_parent(tmp_path: Path) -> None:
    """And none is started again."""
    parent = supervise(2, "pass", tmp_path)
    assert parent.wait(30) == 0
    assert len(started(tmp_path)) == 2


def test_a_process_that_keeps_dying_is_started_ever_more_rarely(tmp_path: Path) -> None:
    """Doubling pauses: 0.2, 0.4, 0.8 s here."""
    began = time.monotonic()
    parent = supervise(1, "sys.exit(1)", tmp_path)
    until(lambda: len(started(tmp_path)) == 4, "four starts")
    assert time.monotonic() - began > 1.4
    parent.terminate()
    assert parent.wait(30) == 0
