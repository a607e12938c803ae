"""The worker's own count against the records that stand between the group's offsets before and after it worked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from tests.faults.observation import DeadLetter, Observation, RawMark, RawRecord
from tests.faults.report import Difference, Report

_OPERATIONS = {"r": "snapshot", "c": "create", "u": "update", "d": "delete", "t": "truncate"}
_SUNK_MARKS = ("begin", "end", "context")


def check_counters(observation: Observation, planted: Iterable[DeadLetter], report: Report) -> None:
    """Each offset that the worker acknowledged was counted once, under its own disposition: an END, too, of which no sink
    keeps the offset. After a rebalance in the middle: at least once."""
    work = observation.work
    if work is None:
        return

    def processed(record: RawRecord | RawMark) -> bool:
        start, end = work.ranges.get((record.topic, record.partition), (0, 0))
        return start <= record.offset < end

    records = [record for record in observation.raw if processed(record)]
    marks = [mark for mark in observation.marks if processed(mark)]
    reasons = {(letter.topic, letter.partition, letter.offset): letter.reason for letter in planted}
    left_out = Counter(mark.kind for mark in marks if mark.kind not in _SUNK_MARKS)
    left_out["tombstone"] += sum(record.kind == "tombstone" for record in records)
    bad = (reasons.get((one.topic, one.partition, one.offset), "?") for one in records if one.kind == "bad")
    wanted: dict[str, Any] = {
        "records": len(records) + len(marks),
        "changes": dict(Counter(_OPERATIONS[str(one.signature[0])] for one in records if one.kind == "change")),
        "transactions": sum(mark.kind in _SUNK_MARKS for mark in marks),
        "dead_letters": dict(Counter(bad)),
        "left_out": {rule: count for rule, count in left_out.items() if count},
    }
    counted = {name: work.counted[name] for name in wanted}
    report.counts["counted"] += len(records) + len(marks)
    if counted != wanted and not (work.assignments > 1 and _covers(counted, wanted)):
        report.add(Difference("counted", "the last worker", None, wanted, counted, "its summary against its offsets"))


def _covers(counted: Any, wanted: Any) -> bool:
    """Whether everything was counted as often as it should be, or more often."""
    if isinstance(wanted, dict):
        return all(_covers(counted.get(name, 0), value) for name, value in wanted.items())
    return bool(counted >= wanted)
