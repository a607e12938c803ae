"""Compares what was written (truth) with what came out: loss, phantoms, doubles, order, final rows, contexts, dispositions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.faults import canonical
from tests.faults.audit_check import check_audit
from tests.faults.catalog import Table, Tables
from tests.faults.context_check import check_contexts
from tests.faults.counter_check import check_counters
from tests.faults.disposition_check import check_dispositions
from tests.faults.expectation import EntityName, Expected, expected, snapshot_rows
from tests.faults.final_check import check_final_rows
from tests.faults.observation import Change, DeadLetter, Observation, TruthContext, TruthRow
from tests.faults.report import Difference, Report, show
from tests.faults.transaction_check import check_transactions

OPERATIONS_WITH_OLD = ("update", "delete")


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a fault may honestly leave behind."""

    doubled_keyless: frozenset[str] = frozenset()
    """Raw topics of tables without a key that may hold a change twice: a COPY was cut by a killed Connect."""
    resnapshot: bool = False
    """A snapshot was cut: a row may have been observed more than once."""


@dataclass(slots=True)
class _Observed:
    """A change with its images parsed."""

    change: Change
    key: tuple[Any, ...]
    before: canonical.Row | None
    after: canonical.Row | None
    previous_key: tuple[Any, ...] | None


@dataclass(slots=True)
class _Sorted:
    """All changes of the trail by what they are compared with."""

    entities: dict[EntityName, list[_Observed]] = field(default_factory=lambda: defaultdict(list))
    snapshots: dict[str, list[_Observed]] = field(default_factory=lambda: defaultdict(list))


def check(
    tables: Tables,
    truth: Sequence[TruthRow],
    observation: Observation,
    planted: Sequence[DeadLetter] = (),
    allowance: Allowance | None = None,
    contexts: Sequence[TruthContext] = (),
) -> Report:
    """Every law over one run. The report is empty of differences when each holds; it never raises for a difference.

    `contexts`: what was said in the truth's transactions; none: nothing was, and the trail must know of none.
    """
    allowance = allowance or Allowance()
    report = Report()
    sorted_changes = _sort(tables, observation.changes, report)
    wanted: dict[EntityName, list[Expected]] = defaultdict(list)
    for item in expected(tables, truth):
        wanted[(item.topic, item.key if item.operation != "truncate" else ())].append(item)
    _check_identity(observation, report)
    pairs: list[tuple[Expected, _Observed]] = []
    for name in sorted(wanted.keys() | sorted_changes.entities.keys(), key=repr):
        table = tables.by_topic[name[0]]
        pairs += _check_entity(table, name, wanted.get(name, []), sorted_changes.entities.get(name, []), allowance, report)
    names = _check_transactions(tables, pairs, report)
    _check_snapshots(tables, truth, sorted_changes.snapshots, allowance, report)
    check_final_rows(tables, truth, observation, report)
    check_audit(tables, observation, report)
    check_dispositions(observation, planted, report)
    check_transactions(observation, report)
    check_contexts(tables, contexts, names, observation, report)
    check_counters(observation, planted, report)
    report.counts.update(
        truth=len(truth),
        changes=len(observation.changes),
        audit=len(observation.audit),
        raw=len(observation.raw),
        marks=len(observation.marks),
        transactions=len(observation.transactions),
        dead_letters=len(observation.dead_letters),
        snapshot=sum(map(len, sorted_changes.snapshots.values())),
        duplicates_clickhouse=observation.changes_raw_rows - len(observation.changes),
        duplicates_audit=len(observation.audit) - len({record.event_id for record in observation.audit}),
    )
    return report


def _sort(tables: Tables, changes: Iterable[Change], report: Report) -> _Sorted:
    """Parse every change's images and put it where it is compared; what cannot be parsed is a difference."""
    result = _Sorted()
    for change in changes:
        table = tables.of(change.source, change.schema, change.table)
        if table is None:
            report.add(
                Difference(
                    "phantom", f"{change.source}.{change.schema}.{change.table}", None, None, show(change), "no such table"
                )
            )
            continue
        try:
            observed = _parse(table, change, report)
        except (ValueError, KeyError, TypeError, ArithmeticError) as error:
            report.add(
                Difference(
                    "image", table.topic, change.key, None, show(change), f"not readable: {type(error).__name__} {error}"
                )
            )
            continue
        if change.operation == "snapshot":
            result.snapshots[table.topic].append(observed)
        else:
            result.entities[(table.topic, observed.key if change.operation != "truncate" else ())].append(observed)
    for items in result.entities.values():
        items.sort(key=lambda item: (item.change.position, item.change.partition, item.change.offset))
    return result


def _parse(table: Table, change: Change, report: Report) -> _Observed:
    def image(text: str | None, kind: str) -> canonical.Row | None:
        if text is None:
            return None
        values = canonical.parse(text)
        if list(values) != sorted(values):
            report.add(Difference("image", table.topic, change.key, "columns in sorted order", kind, "not canonical"))
        return canonical.row(table, values, exact=True)

    def key(text: str | None) -> tuple[Any, ...] | None:
        if not text:
            return None
        values = canonical.parse(text)
        return canonical.key_of(table, canonical.row(table, values)) if set(values) == set(table.key) else ("?", text)

    return _Observed(
        change, key(change.key) or (), image(change.before, "before"), image(change.after, "after"), key(change.previous_key)
    )


def _check_identity(observation: Observation, report: Report) -> None:
    """An event id is there once; one key has one entity and one entity one key."""
    for event_id, count in Counter(change.event_id for change in observation.changes).items():
        if count > 1:
            rows = [change for change in observation.changes if change.event_id == event_id]
            report.add(
                Difference("doubled", rows[0].topic, rows[0].key, "once", f"{count} times", f"event id {event_id} after FINAL")
            )
    entities: dict[tuple[str, str], set[str]] = defaultdict(set)
    keys: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for change in observation.changes:
        name = (f"{change.source}.{change.schema}.{change.table}", change.key)
        entities[name].add(change.entity)
        keys[change.entity].add(name)
    for (topic, text), found in entities.items():
        if len(found) > 1:
            report.add(Difference("identity", topic, text, "one entity", f"{len(found)} entities"))
    for entity, names in keys.items():
        if len(names) > 1:
            report.add(Difference("identity", sorted(names)[0][0], None, "one key", f"{len(names)} keys", f"entity {entity}"))


def _freeze(values: Mapping[str, Any] | None, without: frozenset[str]) -> Any:
    if values is None:
        return None
    return tuple(sorted((name, value) for name, value in values.items() if name not in without))


def _signature(item: Expected | _Observed, table: Table, without: frozenset[str]) -> tuple[Any, ...]:
    """What two equal changes have in common; columns the database did not send do not count."""
    if isinstance(item, Expected):
        operation, known, tx = item.operation, item.before_known, item.tx
    else:
        operation, known, tx = item.change.operation, item.change.before_known, item.change.transaction_id or ""
    return (
        operation,
        _freeze(item.before, without),
        _freeze(item.after, without),
        known if operation in OPERATIONS_WITH_OLD else None,
        item.previous_key,
        tx if table.exact_transactions and operation != "truncate" else None,
    )


def _check_entity(
    table: Table, name: EntityName, wanted: list[Expected], found: list[_Observed], allowance: Allowance, report: Report
) -> list[tuple[Expected, _Observed]]:
    """One row's history (without a key: one table's): the same changes, once each, in the same order."""
    without = frozenset(column for item in found for column in item.change.unavailable)
    left = [_signature(item, table, without) for item in wanted]
    right = [_signature(item, table, without) for item in found]
    positions = [item.change.position for item in found]
    if table.key and name[1] and len(set(positions)) != len(positions):
        report.add(Difference("order", table.topic, name[1], "a position of its own for each change", "equal positions"))
    if left == right:
        pairs = list(zip(wanted, found, strict=True))
        for want, have in pairs:
            _check_details(table, want, have, report)
        return pairs if name[1] else []
    missing, extra = Counter(left) - Counter(right), Counter(right) - Counter(left)
    if not missing and not extra:
        if name[1]:  # without a key there is no row whose order could be told
            report.add(
                Difference("order", table.topic, name[1], _outline(wanted), _outline(found), "same changes, other order")
            )
        return []
    lost = _take(wanted, left, missing)
    more = _take(found, right, extra)
    for want in list(lost):
        twin = next((have for have in more if have.change.operation == want.operation), None)
        if twin is not None and table.key:
            lost.remove(want)
            more.remove(twin)
            report.add(Difference("value", table.topic, name[1], show(want), show(twin.change), _columns(want, twin, without)))
    for want in lost:
        report.add(Difference("lost", table.topic, want.key, show(want), None, f"truth {want.seq}, {want.operation}"))
    for have in more:
        doubled = _signature(have, table, without) in left
        if doubled and not table.key and table.topic in allowance.doubled_keyless:
            report.counts["allowed_doubles"] += 1
            continue
        report.add(Difference("doubled" if doubled else "phantom", table.topic, have.change.key, None, show(have.change)))
    return []


def _take(items: list[Any], signatures: list[tuple[Any, ...]], which: Counter[tuple[Any, ...]]) -> list[Any]:
    left = Counter(which)
    result = []
    for item, signature in zip(reversed(items), reversed(signatures), strict=True):
        if left[signature] > 0:
            left[signature] -= 1
            result.append(item)
    return result[::-1]


def _outline(items: Sequence[Expected | _Observed]) -> str:
    return " ".join((item.operation if isinstance(item, Expected) else item.change.operation)[0] for item in items)


def _columns(want: Expected, have: _Observed, without: frozenset[str]) -> str:
    """Which part of a change differs: columns of the images, or the field's name."""
    parts = []
    for kind, left, right in (("before", want.before, have.before), ("after", want.after, have.after)):
        if (left is None) != (right is None):
            parts.append(f"{kind} is {'missing' if right is None else 'there'}")
        elif left is not None and right is not None:
            names = sorted(
                name
                for name in left.keys() | right.keys()
                if name not in without and left.get(name, "absent") != right.get(name, "absent")
            )
            parts += [f"{kind}.{name}" for name in names]
    if want.before_known != have.change.before_known:
        parts.append("before_known")
    if want.previous_key != have.previous_key:
        parts.append("previous_key")
    if not parts:
        parts.append(f"transaction {want.tx!r} against {have.change.transaction_id!r}")
    return ", ".join(parts)


def _check_details(table: Table, want: Expected, have: _Observed, report: Report) -> None:
    """What the alignment does not show: the changed columns, and that only untouched columns were not sent."""
    if want.operation == "update" and want.before is not None and want.after is not None:
        names = {name for name in want.after if want.after[name] != want.before.get(name)}
        secret = {name for name, column in table.columns.items() if column.secret}  # compared by their images, which hide them
        difference = (names ^ set(have.change.changed)) - secret
        if difference:
            report.add(Difference("changed", table.topic, want.key, sorted(names), sorted(have.change.changed)))
    wrong = set(have.change.unavailable) - want.unchanged
    if wrong:
        report.add(Difference("unavailable", table.topic, want.key, sorted(want.unchanged), sorted(have.change.unavailable)))


def _check_transactions(
    tables: Tables, pairs: Iterable[tuple[Expected, _Observed]], report: Report
) -> dict[tuple[str, str], str]:
    """Rows written in one transaction carry one id, and rows of two transactions do not share one.

    That is all that can be said where the truth does not know the id: MariaDB draws the GTID at commit, when no trigger can
    write it down any more. Returns the ids of those transactions by source and the truth's name.
    """
    ids: dict[tuple[str, str], set[str]] = defaultdict(set)
    names: dict[tuple[str, str], set[str]] = defaultdict(set)
    for want, have in pairs:
        if tables.by_topic[want.topic].exact_transactions or not want.tx:
            continue
        ids[(have.change.source, want.tx)].add(have.change.transaction_id or "")
        names[(have.change.source, have.change.transaction_id or "")].add(want.tx)
    for (source, tx), found in ids.items():
        if len(found) > 1:
            report.add(Difference("transaction", source, tx, "one id", sorted(found)))
    for (source, identifier), written in names.items():
        if len(written) > 1:
            report.add(Difference("transaction", source, identifier, "one transaction", sorted(written)))
    return {name: min(found) for name, found in ids.items()}


def _check_snapshots(
    tables: Tables, truth: Sequence[TruthRow], found: Mapping[str, list[_Observed]], allowance: Allowance, report: Report
) -> None:
    """The rows that were there before the connector are observed once each (a cut snapshot may observe them again)."""
    for topic, rows in snapshot_rows(tables, truth).items():
        # a column that was added after a row was written is NULL in the snapshot and not in the truth
        wanted = Counter(_freeze(_filled(values), frozenset()) for values in rows)
        seen = Counter(_freeze(_filled(item.after or {}), frozenset()) for item in found.get(topic, []))
        for signature, count in (wanted - seen).items():
            report.add(Difference("lost", topic, None, str(signature)[:300], None, f"{count} snapshot rows"))
        for signature, count in (seen - wanted).items():
            if not (allowance.resnapshot and signature in wanted):
                law = "doubled" if signature in wanted else "phantom"
                report.add(Difference(law, topic, None, None, str(signature)[:300], f"{count} snapshot rows"))


def _filled(values: canonical.Row) -> canonical.Row:
    return {name: value for name, value in values.items() if value is not None}
