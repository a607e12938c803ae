"""Measures a process from outside: CPU over all its threads by the scheduler's own account, and resident memory."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from pathlib import Path
from statistics import median

_PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024


class CpuMeter:
    """CPU seconds of one process. Call `seconds` often: a thread that ended keeps its last seen account."""

    def __init__(self, pid: int) -> None:
        self.tasks = Path(f"/proc/{pid}/task")
        self.seen: dict[str, int] = {}

    def seconds(self) -> float:
        """Since the process began, over all threads, those that ended included."""
        try:
            threads = list(self.tasks.iterdir())
        except (FileNotFoundError, ProcessLookupError):
            threads = []
        for thread in threads:
            try:
                self.seen[thread.name] = int((thread / "schedstat").read_text().split()[0])
            except (FileNotFoundError, ProcessLookupError, IndexError):
                continue
        return sum(self.seen.values()) / 1e9


def resident_mib(pid: int) -> float:
    """Resident memory now; 0 when the process is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_KIB / 1024
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return 0.0


def percentile(values: Iterable[float], share: float) -> float:
    """The value below which this share of the values lies; NaN of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def drift(samples: list[float]) -> tuple[float, float]:
    """Medians of the second and of the last quarter of a series: equal when nothing grows."""
    quarter = max(1, len(samples) // 4)
    return median(samples[quarter : 2 * quarter] or samples), median(samples[-quarter:])


def machine() -> dict[str, str | int | float]:
    """What the figures were taken on."""
    models = (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name"))
    memory = next((int(line.split()[1]) // 1024 for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return {
        "cpu": next(models, platform.machine()),
        "cores": os.cpu_count() or 0,
        "memory_mib": memory,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_1m": round(os.getloadavg()[0], 2),
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except FileNotFoundError:
        return []
