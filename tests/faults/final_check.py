"""The final rows: truth, source database, mirror, and the trail folded to its last images, equal by digest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tests.faults import canonical
from tests.faults.catalog import Column, Table, Tables
from tests.faults.expectation import KeyValues, final_rows
from tests.faults.observation import AuditRecord, Change, Observation, TruthRow
from tests.faults.report import Difference, Report

_YEARS = {"date": (1900, 2299), "timestamp": (1900, 2299), "timestamptz": (1900, 2299)}
"""What ClickHouse's Date32 and DateTime64(6) can hold; what lies outside may be NULL in a mirror, and flagged."""


def check_final_rows(tables: Tables, truth: Sequence[TruthRow], observation: Observation, report: Report) -> None:
    """Each table's last state is one, wherever it is read."""
    finals = final_rows(tables, truth)
    for topic, table in tables.by_topic.items():
        if not table.key:
            continue
        rows = finals[topic]
        source = {canonical.key_of(table, values): values for values in _rows(table, observation.source_rows.get(topic, ()))}
        _compare(table, "source", rows, source, report)
        _check_mirror(table, rows, _moved(table, truth), observation, report)
        folded = fold(table, (change for change in observation.changes if change.topic == topic))
        _compare(table, "trail", rows, folded, report)


def _rows(table: Table, rows: Iterable[Mapping[str, Any]]) -> list[canonical.Row]:
    return [canonical.row(table, values) for values in rows]


def fold(table: Table, changes: Iterable[Change | AuditRecord]) -> dict[KeyValues, canonical.Row]:
    """The rows that remain when changes are applied in order of position."""
    rows: dict[KeyValues, canonical.Row] = {}
    gone: dict[
        KeyValues, canonical.Row
    ] = {}  # a primary-key change is a delete and a create that may not repeat a TOASTed value
    # both halves of a primary-key change are at one position, the delete first
    for change in sorted(changes, key=lambda item: (item.position, item.operation != "delete")):
        if change.operation == "truncate":
            rows.clear()
            continue
        try:
            key = canonical.key_of(table, canonical.row(table, canonical.parse(change.key)))
        except (ValueError, KeyError):
            continue  # named by the law of images
        if change.operation == "delete" or change.after is None:
            gone[key] = rows.pop(key, {})
            continue
        # what the database did not send (unchanged TOAST) is what the row had before
        kept = rows.get(key, {})
        if change.previous_key:
            kept = gone.get(canonical.key_of(table, canonical.row(table, canonical.parse(change.previous_key))), {})
        rows[key] = kept | canonical.row(table, canonical.parse(change.after))
    return rows


def _compare(
    table: Table, side: str, wanted: Mapping[KeyValues, canonical.Row], found: Mapping[KeyValues, canonical.Row], report: Report
) -> None:
    left = {key: canonical.final(values) for key, values in wanted.items()}
    right = {key: canonical.final(values) for key, values in found.items()}
    digests = report.digests.setdefault(table.topic, {})
    wanted_digest, digests[side] = canonical.digest(left.values()), canonical.digest(right.values())
    if side != "mirror":  # a mirror is compared without what its types cannot hold
        digests["truth"] = wanted_digest
    if wanted_digest == digests[side]:
        return
    for key in sorted(left.keys() | right.keys(), key=repr):
        if left.get(key) != right.get(key):
            detail = f"{side}: " + ("missing" if key not in right else "not gone" if key not in left else "stale or wrong")
            report.add(Difference("final", table.topic, key, left.get(key), right.get(key), detail))


def _unholdable(column: Column, value: Any) -> bool:
    """Whether ClickHouse's type for the column cannot hold this (comparable) value. Its JSON holds objects only."""
    if column.kind == "json":
        return not str(value).startswith("{")
    if column.kind == "date":
        return not _YEARS["date"][0] <= int(str(value)[:4]) <= _YEARS["date"][1]
    if column.kind in _YEARS:
        micros_per_year = 31_556_952_000_000
        return not _YEARS[column.kind][0] <= 1970 + value / micros_per_year < _YEARS[column.kind][1] + 1
    return False


def _moved(table: Table, truth: Sequence[TruthRow]) -> set[KeyValues]:
    """Keys that rows came to have by a key change while the database did not send old rows: nobody can know then what an
    unchanged TOASTed column holds, so the mirror may flag it."""
    if table.full:
        return set()
    name = (table.source, table.schema, table.name)
    updates = [entry for entry in truth if (entry.source, entry.schema, entry.table) == name and entry.op == "u"]
    keys = ((canonical.key_of(table, entry.old or {}), canonical.key_of(table, entry.new or {})) for entry in updates)
    return {new for old, new in keys if old != new}


def _check_mirror(
    table: Table,
    wanted: Mapping[KeyValues, canonical.Row],
    moved: set[KeyValues],
    observation: Observation,
    report: Report,
) -> None:
    """The mirror's current rows; a column that is flagged must be NULL for a reason."""
    found: dict[KeyValues, canonical.Row] = {}
    expected = {key: dict(values) for key, values in wanted.items()}
    for mirrored in observation.mirrors.get(table.topic, ()):
        values = canonical.row(table, mirrored.values)
        key = canonical.key_of(table, values)
        if key in found:
            report.add(Difference("doubled", table.topic, key, "once", "twice", "mirror"))
        found[key] = values
        for name in mirrored.flags:
            truth = expected.get(key, {}).get(name)
            if truth is None or not (_unholdable(table.columns[name], truth) or key in moved):
                report.add(Difference("final", table.topic, key, truth, "flagged", f"mirror flags {name} for no reason"))
            expected.get(key, {}).pop(name, None)
    documents = [column.name for column in table.columns.values() if column.kind == "json"]
    for values in (*expected.values(), *found.values()):
        for name in documents:
            if values.get(name) is not None:
                values[name] = canonical.loose_json(values[name])
    _compare(table, "mirror", expected, found, report)
