"""One process of the local stack: start it detached, find it again, measure it, stop it and everything it started.

A pid alone is no identity, because the kernel reuses it: the pid file holds the process' first line of `/proc/PID/stat`,
written by the process itself before it becomes the program, and is compared by start time.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from chronicle.dev.accounts import Account
from chronicle.errors import StackError

STACK_VARIABLE = "CHRONICLE_STACK"
PART_VARIABLE = "CHRONICLE_STACK_PART"
BIRTH_DEADLINE_S = 10.0
KILL_DEADLINE_S = 10.0
POLL_S = 0.05

# $1 is the pid file. `read` is a builtin, so $$ is this shell, which exec turns into the program: there is no moment
# at which the program runs and the file does not name it.
_SHIM = 'read -r line < /proc/$$/stat && printf "%s\\n" "$line" > "$1.new" && mv "$1.new" "$1" && shift && exec "$@"'


@dataclass(frozen=True)
class Identity:
    """A process, told apart from a later one with the same pid."""

    pid: int
    start_ticks: int
    """Field 22 of /proc/PID/stat: clock ticks between boot and the process' start."""


@dataclass(frozen=True)
class Command:
    """How to run a program."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    account: Account | None = None


@dataclass(frozen=True)
class Owner:
    """What tells a part's processes from all others, and how they are asked to end. Needs nothing that was fetched."""

    part: str
    stack: Path
    """The state directory, absolute."""
    pid_file: Path
    directory: Path
    """The working directory of the part's processes."""
    stop_signal: signal.Signals = signal.SIGTERM
    stop_deadline_s: float = 20.0


def parse_stat(line: str) -> tuple[Identity, str]:
    """A line of /proc/PID/stat as identity and state letter; the name in parentheses may hold spaces and parentheses."""
    head, _, tail = line.rpartition(")")
    fields = tail.split()
    return Identity(int(head.split("(", 1)[0]), int(fields[19])), fields[0]


def _stat(pid: int) -> tuple[Identity, str] | None:
    try:
        return parse_stat(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError, IndexError):
        return None


def read_pid_file(path: Path) -> Identity | None:
    """The process a pid file names, running or not; None when there is no readable file."""
    try:
        return parse_stat(path.read_text(encoding="utf-8"))[0]
    except (OSError, ValueError, IndexError):
        return None


def is_running(identity: Identity) -> bool:
    """Whether exactly this process is there and has not ended. A zombie has, but for one whose threads have not: they still
    hold its files and ports."""
    found = _stat(identity.pid)
    if found is None or found[0] != identity:
        return False
    return found[1] not in "ZX" or (found[1] == "Z" and _threads(identity.pid) > 1)


def _threads(pid: int) -> int:
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return 0


def start(owner: Owner, command: Command, log_file: Path) -> Identity:
    """Start a program in a session of its own, so that it outlives this process; its output goes to the log.

    Raises:
        StackError: it did not come to life; the end of its log says why.
    """
    owner.pid_file.unlink(missing_ok=True)
    environment = {**command.environment, STACK_VARIABLE: str(owner.stack), PART_VARIABLE: owner.part}
    prefix = command.account.prefix() if command.account else []
    with log_file.open("ab") as log:
        subprocess.run(
            ["setsid", "--fork", "/bin/sh", "-c", _SHIM, "sh", str(owner.pid_file), *prefix, *command.argv],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=owner.directory,
            env=environment,
            check=True,
        )
    wait_until(lambda: read_pid_file(owner.pid_file) is not None, BIRTH_DEADLINE_S)
    identity = read_pid_file(owner.pid_file)
    if identity is None:
        raise StackError(f"{owner.part} could not be started; the end of {log_file}:\n{tail(log_file)}")
    return identity


def stop(owner: Owner) -> None:
    """End a part and everything it started: politely first, by SIGKILL after its deadline; fine when nothing runs.

    Raises:
        StackError: something survived SIGKILL, which needs a person (a process in uninterruptible sleep).
    """
    identity = read_pid_file(owner.pid_file)
    family = list(members(owner, identity))
    if identity is not None and is_running(identity):
        send(identity, owner.stop_signal)
        wait_until(lambda: not is_running(identity), owner.stop_deadline_s)
    family.extend(members(owner, identity))
    # Postgres' backends end by themselves when their postmaster is gone: give them the chance before SIGKILL
    if not wait_until(lambda: not any(map(is_running, family)), 2.0):
        for one in family:
            send(one, signal.SIGKILL)
        if not wait_until(lambda: not any(map(is_running, family)), KILL_DEADLINE_S):
            left = ", ".join(str(one.pid) for one in family if is_running(one))
            raise StackError(f"end process {left} by hand: {owner.part} does not react to SIGKILL")
    owner.pid_file.unlink(missing_ok=True)


def kill(owner: Owner) -> None:
    """SIGKILL a part and its children at once; the pid file stays, so that its death is reported.

    Raises:
        StackError: the part does not run.
    """
    identity = read_pid_file(owner.pid_file)
    if identity is None or not is_running(identity):
        raise StackError(f"start {owner.part} before killing it: it does not run")
    send(identity, signal.SIGKILL)
    family = list(members(owner, identity))
    for one in family:
        send(one, signal.SIGKILL)
    wait_until(lambda: not is_running(identity) and not any(map(is_running, family)), KILL_DEADLINE_S)


def send(identity: Identity, signal_number: signal.Signals) -> None:
    """Signal exactly this process, or nothing when it has ended."""
    if is_running(identity):
        with contextlib.suppress(ProcessLookupError):  # it ended between the look and the signal
            os.kill(identity.pid, signal_number)


def members(owner: Owner, root: Identity | None) -> Iterator[Identity]:
    """Every process of a part: the named one, its descendants, and orphans that carry the part's mark.

    Postgres overwrites its environment to show titles, so its orphans are known by their working directory instead.
    """
    mark = {f"{STACK_VARIABLE}={owner.stack}".encode(), f"{PART_VARIABLE}={owner.part}".encode()}
    parents: dict[int, int] = {}
    found: dict[int, Identity] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            line = (entry / "stat").read_text(encoding="utf-8", errors="replace")
            identity, _ = parse_stat(line)
            parents[identity.pid] = int(line.rpartition(")")[2].split()[1])
            found[identity.pid] = identity
        except (OSError, ValueError, IndexError):
            continue
    family = {root.pid} if root is not None and found.get(root.pid) == root else set()
    for pid in found:
        if pid != os.getpid() and _is_marked(pid, mark, owner.directory):
            family.add(pid)
    grown = True
    while grown:
        children = {pid for pid, parent in parents.items() if parent in family and pid not in family}
        family |= children
        grown = bool(children)
    yield from (found[pid] for pid in family)


def _is_marked(pid: int, mark: set[bytes], directory: Path) -> bool:
    entry = Path(f"/proc/{pid}")
    try:
        if mark <= set((entry / "environ").read_bytes().split(b"\0")):
            return True
        return (entry / "comm").read_text(encoding="utf-8").strip() == "postgres" and (entry / "cwd").readlink() == directory
    except OSError:
        return False


def memory_bytes(identities: list[Identity]) -> int:
    """Resident memory of several processes together; pages they share count once (PSS), where the kernel tells."""
    total = 0
    for one in identities:
        for file, key in (("smaps_rollup", "Pss:"), ("status", "VmRSS:")):
            try:
                text = Path(f"/proc/{one.pid}/{file}").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            amounts = [int(line.split()[1]) for line in text.splitlines() if line.startswith(key)]
            if amounts:
                total += amounts[0] * 1024
                break
    return total


def uptime_s(identity: Identity) -> float:
    """Seconds since the process started."""
    since_boot = float(Path("/proc/uptime").read_text(encoding="utf-8").split()[0])
    return max(0.0, since_boot - identity.start_ticks / os.sysconf("SC_CLK_TCK"))


def wait_until(condition: Callable[[], bool], deadline_s: float) -> bool:
    """Ask again until the condition holds or the deadline has passed; says whether it held."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(POLL_S)
    return True


def tail(log_file: Path, lines: int = 20) -> str:
    """The last lines of a log, without reading all of it."""
    try:
        with log_file.open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - lines * 400))
            text = log.read().decode("utf-8", errors="replace")
    except OSError:
        return "(no log)"
    return "\n".join(text.splitlines()[-lines:]) or "(the log is empty)"
