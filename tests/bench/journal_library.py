"""What the journal costs the application that imports it: milliseconds at the start, microseconds an event."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

IMPORT = "from chronicle.journal import Journal, actor, tagged, tag"
FIRST = f"{IMPORT}\nJournal(source='bench', transport='memory://').publish_sync('order.placed')"
LIMIT_MS = 50


@dataclass(frozen=True, slots=True)
class StartCost:
    """Milliseconds above a bare `python -c pass`: medians over runs that alternate."""

    import_ms: float
    import_cpu_ms: float
    first_event_ms: float
    """With what only the first event loads: msgspec, the catalogue, the protection; and its confirmation."""
    bare_ms: float


@dataclass(frozen=True, slots=True)
class EventCost:
    """CPU of the publishing thread and of all threads, by event, protection on, to memory."""

    publish_us: float
    all_threads_us: float


def measure_import(repeats: int = 15) -> StartCost:
    """Each program once in turn, `repeats` times, after one round that fills the caches."""
    programs = {"bare": "pass", "import": IMPORT, "first": FIRST}
    wall: dict[str, list[float]] = {name: [] for name in programs}
    cpu: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(repeats + 1):
        for name, program in programs.items():
            before, began = os.times(), time.perf_counter()
            subprocess.run([sys.executable, "-c", program], check=True)
            took, after = time.perf_counter() - began, os.times()
            if turn:
                wall[name].append(took * 1_000)
                spent = after.children_user + after.children_system - before.children_user - before.children_system
                cpu[name].append(spent * 1_000)
    median = {name: statistics.median(values) for name, values in wall.items()}
    return StartCost(
        import_ms=median["import"] - median["bare"],
        import_cpu_ms=statistics.median(cpu["import"]) - statistics.median(cpu["bare"]),
        first_event_ms=median["first"] - median["bare"],
        bare_ms=median["bare"],
    )


def measure_publish(events: int = 50_000) -> EventCost:
    """Events with an actor, a resource, a request and a small payload."""
    from chronicle.journal import Journal, tagged

    journal = Journal(source="bench", transport="memory://", queue_events=events * 2)
    thread, process = 0.0, 0.0
    for count in (events // 10, events):  # the first round loads and compiles
        began = time.thread_time(), time.process_time()
        with tagged(actor="ann", request_id="r-1"):
            for number in range(count):
                journal.publish("order.placed", resource=("order", number), payload={"total": number, "method": "card"})
        thread = time.thread_time() - began[0]
        journal.flush()
        process = time.process_time() - began[1]
    confirmed = journal.counts["confirmed"]
    journal.close()
    if confirmed != events + events // 10:
        raise RuntimeError(f"{confirmed} events were confirmed")
    return EventCost(thread / events * 1e6, process / events * 1e6)


if __name__ == "__main__":
    print(measure_import())
    print(measure_publish())
