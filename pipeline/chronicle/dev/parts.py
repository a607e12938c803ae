"""What every part of the local stack has in common: a name, a preparation, a command line, a health check."""

from __future__ import annotations

import os
import signal
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from chronicle.dev.ports import Ports
from chronicle.dev.processes import Command, Owner


@dataclass(frozen=True)
class Site:
    """Where one stack lives."""

    directory: Path
    """Absolute; everything that is the stack's own, but for database files whose account cannot get there."""
    ports: Ports

    def log_file(self, part: str) -> Path:
        """Output of a part, over all its starts."""
        return self.directory / "logs" / f"{part}.log"

    def pid_file(self, part: str) -> Path:
        """Names the process of a part, see `processes`."""
        return self.directory / "run" / f"{part}.pid"


class NotHealthyYet(Exception):
    """A part does not answer as it should; the text is what it is being waited for."""


class Part(ABC):
    """One program of the stack. Made for one site; holds no state of its own, so it may be made again any time."""

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    """Parts that must be healthy before this one starts."""
    deadline_s: ClassVar[float] = 180.0
    """From start to healthy, on a busy machine."""
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, site: Site, cache: Path) -> None:
        self.site = site
        self.cache = cache

    def artifacts(self) -> tuple[str, ...]:
        """What `fetch` must provide before `prepare`."""
        return ()

    @property
    def home(self) -> Path:
        """The part's own directory; `reset` deletes it."""
        return self.site.directory / self.name

    @property
    def port(self) -> int:
        """The port a client talks to."""
        return self.site.ports.of(self.name)[0]

    @property
    def working_directory(self) -> Path:
        """Where the part's processes run, and by which orphans are known."""
        return self.home

    @property
    def owner(self) -> Owner:
        """How this part's processes are found and stopped."""
        pid_file = self.site.pid_file(self.name)
        return Owner(self.name, self.site.directory, pid_file, self.working_directory, self.stop_signal)

    @abstractmethod
    def prepare(self) -> None:
        """Make directories and configuration; called before every start, when no process of the part is left.

        Cheap when there is nothing to do.
        """

    @abstractmethod
    def command(self) -> Command:
        """The program to run, once `prepare` has returned."""

    @abstractmethod
    def check(self) -> None:
        """Return when the part does its work.

        Raises:
            NotHealthyYet: it does not, or not yet; takes a few seconds at most to find out.
        """


def base_environment() -> dict[str, str]:
    """What every part sees of the caller's environment: nothing secret, one language, one time zone."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "JAVA_HOME") if name in os.environ}
    kept["PATH"] = f"{kept.get('PATH', '/usr/bin:/bin')}:/usr/sbin:/sbin"
    return {**kept, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def write_if_changed(path: Path, text: str) -> None:
    """Write a generated file, leaving its time alone when nothing changed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
