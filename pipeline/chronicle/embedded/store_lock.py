"""One process at a time has an embedded store open: a lock that ends with its process, however it ends."""

from __future__ import annotations

import fcntl
import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from chronicle.errors import ConfigError

NAME = "chronicle.lock"
_ENGINES = "status"
"""What chDB itself locks."""


@dataclass(slots=True)
class _Held:
    descriptor: int
    process: int
    count: int


_held: dict[Path, _Held] = {}
_guard = threading.Lock()


def acquire(directory: Path) -> None:
    """Lock the store in `directory` (which is there) for this process; each `acquire` wants its `release`.

    Raises:
        ConfigError: another process has it open, or the lock file cannot be written.
    """
    with _guard:
        known = _held.get(directory)
        if known is not None and known.process == os.getpid():
            known.count += 1
            return
        _held[directory] = _Held(_locked(directory), os.getpid(), 1)


def release(directory: Path) -> None:
    """Give back one `acquire`; the last one lets other processes in."""
    with _guard:
        known = _held.get(directory)
        if known is None or known.process != os.getpid():  # a fork's copy is its parent's
            return
        known.count -= 1
        if not known.count:
            os.close(_held.pop(directory).descriptor)


def _forked() -> None:
    """A fork shares its parent's locks, ours and the engine's, and would keep them when its parent is gone."""
    global _guard  # noqa: PLW0603
    _guard = threading.Lock()  # another thread may have held it
    for directory, held in _held.items():
        os.close(held.descriptor)
        _let_go(directory / _ENGINES)
    _held.clear()


def _let_go(file: Path) -> None:
    with suppress(OSError):
        found = file.stat()
        for name in [int(each.name) for each in Path("/dev/fd").iterdir()]:
            with suppress(OSError):  # the listing's own is closed
                if os.path.samestat(os.fstat(name), found):
                    os.close(name)


os.register_at_fork(after_in_child=_forked)


def _locked(directory: Path) -> int:
    try:
        descriptor = os.open(directory / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"make {directory} writable, or name another directory ({type(error).__name__})") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        os.close(descriptor)
        process = f"process {owner}" if owner.isdigit() else "another process"
        raise ConfigError(
            f"stop {process}, or ask it over HTTP: it has the store in {directory} open, and only one process can"
        ) from None
    with suppress(OSError):  # who it is, for people: the disk may be full
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor
