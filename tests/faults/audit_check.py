"""The audit topic against `changes`: the same events, the same facts, each row's order, and the same final rows."""

from __future__ import annotations

import json

from tests.faults import canonical
from tests.faults.catalog import Tables
from tests.faults.final_check import fold
from tests.faults.observation import AuditRecord, Observation
from tests.faults.report import Difference, Report, show

_FIELDS = ("source", "schema", "table", "entity", "operation", "key", "previous_key", "before", "after", "position")


def latest(records: list[AuditRecord]) -> dict[str, AuditRecord]:
    """What a reader holds who upserts by key: the last record of each event."""
    return {record.event_id: record for record in records}


def check_audit(tables: Tables, observation: Observation, report: Report) -> None:
    """No event is in one and not in the other; equal fields; one entity in one partition, in order of position."""
    held = latest(list(observation.audit))
    changes = {change.event_id: change for change in observation.changes}
    for event_id in changes.keys() - held.keys():
        change = changes[event_id]
        report.add(Difference("audit", change.topic, change.key, show(change), None, "not in the audit topic"))
    for event_id in held.keys() - changes.keys():
        record = held[event_id]
        report.add(
            Difference(
                "audit",
                f"{record.source}.{record.schema}.{record.table}",
                record.key,
                None,
                show(record),
                "only in the audit topic",
            )
        )
    for event_id in changes.keys() & held.keys():
        for name in _FIELDS:
            left, right = getattr(changes[event_id], name), getattr(held[event_id], name)
            if (left or None) != (right or None) and not _same_json(left, right):
                report.add(Difference("audit", changes[event_id].topic, changes[event_id].key, left, right, f"field {name}"))
    _check_order(held, report)
    for topic, table in tables.by_topic.items():
        if not table.key:
            continue
        whose = (table.source, table.schema, table.name)
        rows = fold(table, (record for record in held.values() if (record.source, record.schema, record.table) == whose))
        digests = report.digests.setdefault(topic, {})
        digests["audit"] = canonical.digest(canonical.final(values) for values in rows.values())
        if digests["audit"] != digests.get("trail"):
            report.add(
                Difference("audit", topic, None, digests.get("trail"), digests["audit"], "final rows differ from the trail's")
            )


def _same_json(left: object, right: object) -> bool:
    """Whether two texts are one document: the topic's images were parsed once on the way here."""
    try:
        return isinstance(left, str) and isinstance(right, str) and json.loads(left) == json.loads(right)
    except ValueError:
        return False


def _check_order(held: dict[str, AuditRecord], report: Report) -> None:
    """A row's records stand in one partition, in order of position."""
    last: dict[tuple[str, str], AuditRecord] = {}
    for record in sorted(held.values(), key=lambda item: (item.partition, item.offset)):
        where = f"{record.source}.{record.schema}.{record.table}"
        if record.key:
            previous = last.get((record.source, record.entity))
            if previous is not None and previous.partition != record.partition:
                report.add(
                    Difference(
                        "order",
                        record.table,
                        record.key,
                        previous.partition,
                        record.partition,
                        "entity in two audit partitions",
                    )
                )
            if previous is not None and previous.position > record.position:
                report.add(Difference("order", where, record.key, previous.position, record.position, "audit topic"))
            last[(record.source, record.entity)] = record
