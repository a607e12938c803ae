"""What a worker process did, for its summary."""

from __future__ import annotations

import re
import resource
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chronicle.engine import Outcome


@dataclass(slots=True)
class Totals:
    """What this process did, for the summary of `--until-drained`."""

    began: float = field(default_factory=time.monotonic)
    rows: int = 0
    batches: int = 0
    changes: Counter[str] = field(default_factory=Counter)
    dead_letters: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    transactions: int = 0
    events: int = 0
    stages_s: dict[str, float] = field(default_factory=dict)

    def add(self, outcome: Outcome) -> None:
        """Count one batch."""
        batch = outcome.batch
        self.rows += outcome.rows
        self.batches += 1
        self.transactions += len(batch.transactions)
        self.events += len(batch.events)
        for operation, count in batch.changes["operation"].value_counts().rows():
            self.changes[operation] += count
        self.dead_letters.update(letter.reason.value for letter in batch.dead_letters)
        for (_, rule), count in batch.left_out.items():
            self.left_out[rule] += count
        for stage, seconds in outcome.stages_s.items():
            self.stages_s[stage] = self.stages_s.get(stage, 0.0) + seconds

    def summary(self) -> dict[str, Any]:
        """For people and pipes."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "records": self.rows,
            "changes": dict(sorted(self.changes.items())),
            "transactions": self.transactions,
            "events": self.events,
            "dead_letters": dict(sorted(self.dead_letters.items())),
            "left_out": dict(sorted(self.left_out.items())),
            "batches": self.batches,
            "seconds": round(time.monotonic() - self.began, 3),
            "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 3),
            "memory_peak_mib": _memory_peak_kib() // 1024,
            "stage_seconds": {stage: round(seconds, 3) for stage, seconds in self.stages_s.items()},
        }


def _memory_peak_kib() -> int:
    """Of this program: `ru_maxrss` is inherited over exec and would show the parent's."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) if found else 0
