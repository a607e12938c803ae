"""What the local stack tells about itself: steps while it goes up or down, and the state of each part."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

State = Literal["stopped", "died", "unhealthy", "running"]


@dataclass(frozen=True)
class Progress:
    """One step of `up` or `down`, for whoever shows it."""

    part: str
    step: Literal["fetching", "starting", "waiting", "ready", "running", "failed", "stopping", "stopped"]
    detail: str = ""
    elapsed_s: float = 0.0


Report = Callable[[Progress], None]


def quiet(_progress: Progress) -> None:
    """A report that nobody sees."""


@dataclass(frozen=True)
class PartStatus:
    """What a part does now."""

    part: str
    state: State
    pid: int | None
    port: int
    memory_bytes: int
    uptime_s: float | None
    health: str
    """`ok`, or what is wrong."""


def one_at_a_time(report: Report) -> Report:
    """The same report, safe to call from several threads."""
    guard = threading.Lock()

    def guarded(progress: Progress) -> None:
        with guard:
            report(progress)

    return guarded
