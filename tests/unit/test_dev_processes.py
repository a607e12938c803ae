"""How the local stack tells its processes from all others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chronicle.dev import processes
from chronicle.dev.processes import Command, Identity, Owner
from chronicle.errors import StackError

STAT = "4711 (a (very) odd) name) S 1 4711 4711 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 2568192 199 18446744073709551615\n"


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Owner]:
    """A part whose processes are ended after the test."""
    made = Owner("probe", tmp_path, tmp_path / "probe.pid", tmp_path, stop_deadline_s=5.0)
    yield made
    processes.stop(made)


def shell(script: str) -> Command:
    return Command(("/bin/sh", "-c", script), {"PATH": os.environ["PATH"]})


def test_a_stat_line_is_read_whatever_the_programs_name_is() -> None:
    """Parentheses and spaces in the name do not shift the fields."""
    assert processes.parse_stat(STAT) == (Identity(4711, 987654), "S")


def test_a_broken_pid_file_names_no_process(tmp_path: Path) -> None:
    """A missing, empty or cut file is the same as none."""
    file = tmp_path / "x.pid"
    assert processes.read_pid_file(file) is None
    for text in ("", "12", "nonsense\n", "12 (sh) S 1"):
        file.write_text(text)
        assert processes.read_pid_file(file) is None


def test_a_reused_pid_is_not_the_process(tmp_path: Path) -> None:
    """This test's own pid with another start time is somebody else."""
    me, _ = processes.parse_stat(Path("/proc/self/stat").read_text())
    assert processes.is_running(me)
    assert not processes.is_running(Identity(me.pid, me.start_ticks + 1))


def test_a_zombie_whose_threads_live_has_not_ended() -> None:
    """Its first thread is gone, but another one still holds its files and ports."""
    script = "import ctypes, sys, threading; threading.Thread(target=sys.stdin.read).start(); ctypes.CDLL(None).syscall(60, 0)"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE) as process:
        file = Path(f"/proc/{process.pid}/stat")
        assert processes.wait_until(lambda: processes.parse_stat(file.read_text())[1] == "Z", 20.0)
        identity, _ = processes.parse_stat(file.read_text())
        assert processes.is_running(identity)
        assert process.stdin is not None
        process.stdin.close()  # the thread reads to the end
        assert processes.wait_until(lambda: not processes.is_running(identity), 20.0)


def test_stop_never_signals_a_process_that_reused_the_pid(owner: Owner) -> None:
    """A stale pid file that names a living stranger: the stranger lives on, the file goes."""
    with subprocess.Popen(["sleep", "60"]) as stranger:
        line = Path(f"/proc/{stranger.pid}/stat").read_text()
        identity, _ = processes.parse_stat(line)
        owner.pid_file.write_text(line.replace(f" {identity.start_ticks} ", f" {identity.start_ticks - 1} "))
        processes.stop(owner)
        assert stranger.poll() is None
        assert not owner.pid_file.exists()
        stranger.kill()


def test_a_started_process_outlives_its_starter_in_a_session_of_its_own(owner: Owner, tmp_path: Path) -> None:
    """It has no tie to this process: neither parent nor session."""
    identity = processes.start(owner, shell("exec sleep 60"), tmp_path / "log")
    fields = Path(f"/proc/{identity.pid}/stat").read_text().rpartition(")")[2].split()
    assert int(fields[1]) != os.getpid()
    assert int(fields[3]) == identity.pid
    assert processes.read_pid_file(owner.pid_file) == identity


def test_stop_ends_children_too_even_those_that_ignore_sigterm(tmp_path: Path) -> None:
    """What a part started goes with it: in its session, in another session, and deaf to SIGTERM."""
    owner = Owner("probe", tmp_path, tmp_path / "probe.pid", tmp_path, stop_deadline_s=0.5)
    script = "trap '' TERM; setsid sleep 61 & (trap '' TERM; sleep 62) & wait; wait; sleep 63"
    identity = processes.start(owner, shell(script), tmp_path / "log")
    assert processes.wait_until(lambda: len(list(processes.members(owner, identity))) >= 3, 10)
    family = list(processes.members(owner, identity))
    processes.stop(owner)
    assert not any(processes.is_running(one) for one in family)


def test_an_orphan_without_its_pid_file_is_still_found(owner: Owner, tmp_path: Path) -> None:
    """The mark in the environment is enough."""
    identity = processes.start(owner, shell("exec sleep 60"), tmp_path / "log")
    owner.pid_file.unlink()
    processes.stop(owner)
    assert not processes.is_running(identity)


def test_another_stacks_process_is_left_alone(owner: Owner, tmp_path: Path) -> None:
    """The same part of another stack carries another mark."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    other = Owner("probe", elsewhere, elsewhere / "probe.pid", elsewhere)
    identity = processes.start(other, shell("exec sleep 60"), tmp_path / "log")
    processes.stop(owner)
    assert processes.is_running(identity)
    processes.stop(other)
    assert not processes.is_running(identity)


def test_stop_uses_the_signal_of_the_part(tmp_path: Path) -> None:
    """Postgres needs SIGINT to let its clients go."""
    owner = Owner("probe", tmp_path, tmp_path / "probe.pid", tmp_path, signal.SIGUSR1)
    log = tmp_path / "log"
    script = "trap 'echo asked politely; exit' USR1; echo ready; while :; do sleep 0.05; done"
    processes.start(owner, shell(script), log)
    assert processes.wait_until(lambda: "ready" in log.read_text(), 10)
    processes.stop(owner)
    assert "asked politely" in log.read_text()


def test_kill_leaves_the_pid_file_so_that_the_death_shows(owner: Owner, tmp_path: Path) -> None:
    """A part that was killed has died; one that was stopped has not."""
    identity = processes.start(owner, shell("exec sleep 60"), tmp_path / "log")
    processes.kill(owner)
    assert not processes.is_running(identity)
    assert processes.read_pid_file(owner.pid_file) == identity
    with pytest.raises(StackError, match="does not run"):
        processes.kill(owner)


def test_the_end_of_a_log_is_its_last_lines(tmp_path: Path) -> None:
    """Also of a long log, of an empty one, and of none."""
    log = tmp_path / "log"
    assert processes.tail(log) == "(no log)"
    log.write_text("")
    assert processes.tail(log) == "(the log is empty)"
    log.write_text("".join(f"line {number}\n" for number in range(100_000)))
    assert processes.tail(log, 2) == "line 99998\nline 99999"
