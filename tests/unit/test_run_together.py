"""The processes of `chronicle run`: each line says whose it is, the worst exit code counts, and none outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from chronicle.cli.together import _copy

PARENT = """
import json, sys
from chronicle.cli.together import run_together
from chronicle.observe import configure_logging
configure_logging("info")
sys.exit(run_together(json.loads(sys.argv[1]), {"CHRONICLE_TOGETHER": "yes"}))
"""
CHILD = """
import os, sys, time
from pathlib import Path
from chronicle.cli.together import tied
tied(int(sys.argv[1]))
Path(sys.argv[2]).write_text(str(os.getpid()))
time.sleep(600)
"""
MIDDLE = """
import os, subprocess, sys
subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid()), sys.argv[2]])
sys.stdin.read()
"""


def together(commands: str) -> subprocess.CompletedProcess[str]:
    """Run these to their end."""
    return subprocess.run([sys.executable, "-c", PARENT, commands], capture_output=True, text=True, timeout=120, check=False)


def test_lines_say_whose_they_are_and_go_where_they_went() -> None:
    """Standard output stays apart from standard error."""
    done = together('{"api": ["--version"], "worker": ["dev", "--help"]}')
    assert done.returncode == 0
    heads = {line.split(" | ")[0] for line in done.stdout.splitlines()}
    assert heads == {"api   ", "worker"}
    assert any(line.startswith("api    | chronicle ") for line in done.stdout.splitlines())
    assert "api    |" not in done.stderr


def test_a_process_whose_lines_nobody_reads_any_more_goes_on() -> None:
    """As behind `| head`: its next line must not break or block it."""
    reading, writing = os.pipe()
    os.close(reading)
    source = subprocess.Popen(
        [sys.executable, "-c", "for n in range(50_000): print(n)"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert source.stdout is not None
    assert source.stderr is not None
    with os.fdopen(writing, "wb", buffering=0) as nobody:
        _copy(source.stdout, nobody, b"api | ")
    told = source.stderr.read()
    source.stderr.close()
    assert (source.wait(), told) == (0, b"")


def test_a_misconfigured_process_ends_all_with_its_code() -> None:
    """Its own words are the reason, under its name."""
    done = together('{"api": ["no-such-command"], "worker": ["dev", "--help"]}')
    assert done.returncode == 2
    assert any(line.startswith("api    | error: ") for line in done.stderr.splitlines())


def gone(pid: int) -> bool:
    """Whether the process has ended (a zombie has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_process_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    """SIGKILL gives the parent no time to tell it."""
    note = tmp_path / "pid"
    middle = subprocess.Popen([sys.executable, "-c", MIDDLE, CHILD, str(note)], stdin=subprocess.PIPE)
    end = time.monotonic() + 60
    while not (note.exists() and note.read_text()):
        assert time.monotonic() < end
        time.sleep(0.02)
    child = int(note.read_text())
    assert not gone(child)
    os.kill(middle.pid, signal.SIGKILL)
    middle.communicate()
    while not gone(child):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_process_whose_parent_is_gone_already_does_not_begin(tmp_path: Path) -> None:
    """Between its start and its first line the parent may have been killed."""
    note = tmp_path / "pid"
    done = subprocess.run([sys.executable, "-c", CHILD, "1", str(note)], check=False, timeout=60)
    assert done.returncode == 1
    assert not note.exists()
