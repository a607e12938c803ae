"""Assertions about what is on the trail, whose failures list what there is: it is the test's own data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import polars as pl

from chronicle.policy.patterns import TablePattern
from chronicle.testing.running import Outcome

_SHOWN_MAX = 20


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is looked for."""

    table: str | None
    operation: str | None
    actor: str | None
    including: Mapping[str, Any]
    before: Mapping[str, Any]
    extra: Mapping[str, Any]
    labels: frozenset[str]
    changed: frozenset[str]

    def differences(self, row: Mapping[str, Any]) -> list[str]:
        """Why this change is not what is looked for; empty: it is."""
        found = []
        if self.table is not None and not _is_table(self.table, row):
            found.append(f"table is {_name(row)}")
        found += [
            f"{name} is {row[column]!r}, not {value!r}"
            for name, column, value in (("operation", "operation", self.operation), ("actor", "actor_id", self.actor))
            if value is not None and row[column] != value
        ]
        image = "before" if row["operation"] == "delete" else "after"
        for where, wanted in ((image, self.including), ("before", self.before), ("extra", self.extra)):
            found += _unlike(where, wanted, row[where] or {})
        for where, names in (("labels", self.labels), ("changed", self.changed)):
            found += [f"{where} lacks {name!r}" for name in sorted(names - set(row[where] or ()))]
        return found

    def __str__(self) -> str:
        """As it was asked for."""
        parts = [self.operation or "a change", "of", self.table or "any table"]
        parts += ["by", self.actor] if self.actor else []
        for name in ("including", "before", "extra"):
            if value := getattr(self, name):
                parts += [name, repr(dict(value))]
        for name in ("labels", "changed"):
            if names := getattr(self, name):
                parts += [name, ", ".join(sorted(names))]
        return " ".join(parts)


def assert_audited(
    outcome: Outcome,
    *,
    table: str | None = None,
    operation: str | None = None,
    actor: str | None = None,
    including: Mapping[str, Any] | None = None,
    before: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
    labels: Iterable[str] = (),
    changed: Iterable[str] = (),
    times: int | None = None,
) -> None:
    """There is such a change on the trail, told whole (a stub does not count).

    Args:
        table: `source.schema.table` (a pattern, as in the policy), or only the table's name.
        actor: `actor_id`.
        including: columns of the row: of `after`, of a delete of `before`. Decimals, dates and times may be written as such.
        before: columns of the row before.
        extra: what processors added.
        labels: all of these.
        changed: all of these columns.
        times: exactly so often; at least once, unless given.

    Raises:
        AssertionError: with the nearest change, and all there are.
    """
    wanted = _wanted(table, operation, actor, including, before, extra, labels=labels, changed=changed)
    rows = outcome.audited()
    found = [row for row in rows if not wanted.differences(row)]
    if (len(found) == times) if times is not None else found:
        return
    count = f"{len(found)} times, not {times}" if times is not None else "not audited"
    raise AssertionError(f"{count}: {wanted}\n{_nearest(wanted, rows) if not found else ''}{_listed(outcome)}")


def assert_not_audited(
    outcome: Outcome,
    *,
    table: str | None = None,
    operation: str | None = None,
    actor: str | None = None,
    including: Mapping[str, Any] | None = None,
    before: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
    labels: Iterable[str] = (),
    changed: Iterable[str] = (),
) -> None:
    """There is no such change on the trail, or only as a stub; arguments as of `assert_audited`.

    Raises:
        AssertionError: with all there are.
    """
    wanted = _wanted(table, operation, actor, including, before, extra, labels=labels, changed=changed)
    if any(not wanted.differences(row) for row in outcome.audited()):
        raise AssertionError(f"audited: {wanted}\n{_listed(outcome)}")


def assert_alerted(
    outcome: Outcome, *, rule: str, severity: str | None = None, title: str | None = None, times: int | None = None
) -> None:
    """A processor raised such an alert; `title`: a part of it; `times`: exactly so often.

    Raises:
        AssertionError: with all there are.
    """
    found = _alerts(outcome, rule, severity, title)
    if (found == times) if times is not None else found:
        return
    wanted = " ".join(one for one in (rule, severity, title) if one)
    raise AssertionError(f"alerted {found} times{'' if times is None else f', not {times}'}: {wanted}\n{_listed(outcome)}")


def assert_not_alerted(outcome: Outcome, *, rule: str, severity: str | None = None, title: str | None = None) -> None:
    """No processor raised such an alert.

    Raises:
        AssertionError: with all there are.
    """
    if _alerts(outcome, rule, severity, title):
        raise AssertionError(f"alerted: {rule}\n{_listed(outcome)}")


def _alerts(outcome: Outcome, rule: str, severity: str | None, title: str | None) -> int:
    found = outcome.alerts.filter(pl.col("rule") == rule)
    if severity is not None:
        found = found.filter(pl.col("severity") == severity)
    return len(found if title is None else found.filter(pl.col("title").str.contains(title, literal=True)))


def _wanted(
    table: str | None,
    operation: str | None,
    actor: str | None,
    *values: Mapping[str, Any] | None,
    labels: Iterable[str],
    changed: Iterable[str],
) -> _Wanted:
    names = [frozenset([one] if isinstance(one, str) else one) for one in (labels, changed)]
    including, before, extra = (one or {} for one in values)
    return _Wanted(table, operation, actor, including, before, extra, *names)


def _is_table(pattern: str, row: Mapping[str, Any]) -> bool:
    if "." not in pattern and "*" not in pattern:
        return bool(row["table"] == pattern)
    return TablePattern.parse(pattern).matches(row["source"], row["schema"], row["table"])


def _unlike(where: str, wanted: Mapping[str, Any], row: Mapping[str, Any]) -> list[str]:
    found = []
    for name, value in wanted.items():
        if name not in row:
            found.append(f"{where} has no {name!r}")
        elif row[name] != _canonical(value):
            found.append(f"{where}.{name} is {row[name]!r}, not {_canonical(value)!r}")
    return found


def _canonical(value: Any) -> Any:
    """As it stands in an image."""
    if isinstance(value, datetime):
        zoned = value.tzinfo is not None
        local = value.astimezone(UTC).replace(tzinfo=None) if zoned else value
        return local.isoformat(timespec="microseconds") + ("Z" if zoned else "")
    if isinstance(value, date):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal | UUID) else value


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['source']}.{row['schema']}.{row['table']}"


def _nearest(wanted: _Wanted, rows: list[dict[str, Any]]) -> str:
    if not rows:
        return ""
    number, reasons = min(enumerate(map(wanted.differences, rows), 1), key=lambda pair: len(pair[1]))
    return f"nearest is [{number}]: {'; '.join(reasons)}\n"


def _listed(outcome: Outcome) -> str:
    rows = outcome.audited()
    lines = [f"on the trail: {len(rows)}"]
    lines += [f"  [{number}] {_line(row)}" for number, row in enumerate(rows[:_SHOWN_MAX], 1)]
    if len(rows) > _SHOWN_MAX:
        lines.append(f"  … {len(rows) - _SHOWN_MAX} more")
    stubs = outcome.changes.filter(pl.col("stub").fill_null("") != "")
    lines += [f"  stub ({row['stub']}): {row['operation']} of {_name(row)} {row['key']}" for row in stubs.iter_rows(named=True)]
    lines += [
        f"  dead letter: {one.topic} offset {one.offset}: {one.stage} {one.reason}: {one.detail}"
        for one in outcome.dead_letters
    ]
    lines += [f"  left out: {count} of {topic}: {rule}" for (topic, rule), count in outcome.left_out.items()]
    lines += [f"  alert ({one['severity']}) {one['rule']}: {one['title']}" for one in outcome.alerts.iter_rows(named=True)]
    return "\n".join(lines)


def _line(row: Mapping[str, Any]) -> str:
    parts = [row["operation"], "of", _name(row), f"by {row['actor_id'] or 'nobody known'}"]
    parts += [f"{name} {row[name]}" for name in ("before", "after") if row[name] is not None]
    parts += [f"{name} {', '.join(row[name])}" for name in ("labels", "changed", "violations") if row[name]]
    return " ".join([*parts, *([f"extra {row['extra']}"] if row["extra"] else [])])
