"""Every offset of the tables' raw topics has exactly one disposition, and the dead letters are exactly the planted ones.

The transaction topics' offsets: `transaction_check`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from tests.faults.observation import DeadLetter, Observation
from tests.faults.report import Difference, Report

Coordinates = tuple[str, int, int]


def check_dispositions(observation: Observation, planted: Iterable[DeadLetter], report: Report) -> None:
    """Each raw change is one change of the trail (a redelivery shares it), each bad record one dead letter, the rest nothing.

    The raw records were decoded without the product: `signature` says which of them are the same change.
    """
    sunk: Counter[Coordinates] = Counter((change.topic, change.partition, change.offset) for change in observation.changes)
    dead: Counter[Coordinates] = Counter((item.topic, item.partition, item.offset) for item in observation.dead_letters)
    groups: dict[tuple[Any, ...], list[Coordinates]] = defaultdict(list)
    for record in observation.raw:
        at = (record.topic, record.partition, record.offset)
        if record.kind == "change":
            groups[(record.topic, *record.signature)].append(at)
        elif record.kind == "unknown":
            report.add(Difference("disposition", record.topic, at, None, "a record", "of a topic that belongs to no table"))
        elif sunk[at]:
            report.add(Difference("disposition", record.topic, at, record.kind, "sunk as a change"))
        if record.kind != "bad" and dead[at]:
            report.add(Difference("disposition", record.topic, at, record.kind, "dead letter"))
    for coordinates in groups.values():
        times = sum(sunk[at] for at in coordinates)
        if times != 1:
            report.add(
                Difference(
                    "disposition",
                    coordinates[0][0],
                    coordinates[0],
                    "one change",
                    f"{times} changes",
                    f"{len(coordinates)} deliveries",
                )
            )
    if observation.raw:
        known = {(record.topic, record.partition, record.offset) for record in observation.raw}
        for at in sunk.keys() - known:
            report.add(Difference("disposition", at[0], at, None, "a change of an offset that is not in the topic"))
    _check_dead_letters(observation.dead_letters, planted, report)


def _check_dead_letters(found: Iterable[DeadLetter], planted: Iterable[DeadLetter], report: Report) -> None:
    left, right = Counter(planted), Counter(found)
    for item in left - right:
        report.add(
            Difference("dead_letter", item.topic, (item.partition, item.offset), item.reason, None, "planted, not found")
        )
    for item in right - left:
        report.add(
            Difference("dead_letter", item.topic, (item.partition, item.offset), None, item.reason, "found, not planted")
        )
