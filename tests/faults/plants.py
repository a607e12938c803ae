"""Faults planted into a clean observation: what each does, and the law by which the checker must find it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from tests.faults.canonical import parse
from tests.faults.contexts import RANKS
from tests.faults.observation import AuditContext, Change, DeadLetter, MirrorRow, Observation, RawMark, Transaction


@dataclass(frozen=True, slots=True)
class Plant:
    """One fault. `laws`: at least these are broken by it."""

    name: str
    apply: Callable[[Observation], Observation]
    laws: frozenset[str]


def _histories(observation: Observation) -> Iterator[list[Change]]:
    """The changes of each keyed row in order, longest first."""
    rows: dict[str, list[Change]] = {}
    for change in sorted(observation.changes, key=lambda item: item.position):
        if change.key and change.operation != "snapshot":
            rows.setdefault(change.entity, []).append(change)
    yield from sorted(rows.values(), key=lambda items: (-len(items), items[0].entity))


def _without(observation: Observation, *gone: Change) -> Observation:
    """Neither the trail nor the audit topic has these events."""
    ids = {change.event_id for change in gone}
    return replace(
        observation,
        changes=[change for change in observation.changes if change.event_id not in ids],
        audit=[record for record in observation.audit if record.event_id not in ids],
    )


def _with(observation: Observation, old: Change, new: Change) -> Observation:
    """One change replaced, in the trail and in the audit topic."""
    audit = [
        replace(record, before=new.before, after=new.after, position=new.position, operation=new.operation)
        if record.event_id == old.event_id
        else record
        for record in observation.audit
    ]
    return replace(observation, changes=[new if change is old else change for change in observation.changes], audit=audit)


def dropped(observation: Observation) -> Observation:
    """An update in the middle of a row's history is nowhere."""
    history = next(items for items in _histories(observation) if len(items) > 2)
    return _without(observation, history[1])


def doubled(observation: Observation) -> Observation:
    """A change came again under another event id."""
    change = next(_histories(observation))[0]
    twin = replace(change, event_id="00000000-0000-0000-0000-00000000d0b1", offset=change.offset + 1_000_000)
    records = [replace(item, event_id=twin.event_id) for item in observation.audit if item.event_id == change.event_id]
    return replace(observation, changes=[*observation.changes, twin], audit=[*observation.audit, *records])


def doubled_id(observation: Observation) -> Observation:
    """FINAL did not merge a redelivery."""
    change = next(_histories(observation))[0]
    return replace(observation, changes=[*observation.changes, change])


def swapped(observation: Observation) -> Observation:
    """Two changes of one row have each other's positions."""
    one, two = next(items for items in _histories(observation) if len(items) > 1)[:2]
    first, second = replace(one, position=two.position), replace(two, position=one.position)
    return _with(_with(observation, one, first), two, second)


def stale(observation: Observation) -> Observation:
    """A mirror kept a row as it was before its last update."""
    mirrors = {topic: list(rows) for topic, rows in observation.mirrors.items()}
    for items in _histories(observation):
        last = items[-1]
        if last.operation == "update" and last.before_known and last.changed and last.topic in mirrors:
            key, before = parse(last.key), parse(last.before or "{}")
            rows = mirrors[last.topic]
            for index, row in enumerate(rows):
                same = all(str(row.values.get(name)) == str(value) for name, value in key.items())
                values = dict(row.values) | {
                    name: before[name] for name in last.changed if name in row.values and name in before
                }
                if same and values != dict(row.values):
                    rows[index] = MirrorRow(values, row.flags)
                    return replace(observation, mirrors=mirrors)
    raise LookupError("no row whose last change is an update")


def lost_delete(observation: Observation) -> Observation:
    """A delete is nowhere, and its row lives on in the mirror."""
    for items in _histories(observation):
        gone = items[-1]
        if gone.operation == "delete" and gone.before_known and gone.before and gone.topic in observation.mirrors:
            mirrors = {topic: list(rows) for topic, rows in observation.mirrors.items()}
            mirrors[gone.topic].append(MirrorRow(parse(gone.before)))
            return replace(_without(observation, gone), mirrors=mirrors)
    raise LookupError("no row that ends with a delete")


def wrong_value(observation: Observation) -> Observation:
    """One value of one image is another."""
    for items in _histories(observation):
        for change in items:
            if change.operation == "create" and change.after and '"name":"' in change.after:
                image = change.after.replace('"name":"', '"name":"X', 1)
                return _with(observation, change, replace(change, after=image))
    raise LookupError("no image with a name")


def phantom(observation: Observation) -> Observation:
    """A change that nobody made."""
    first = (items[0] for items in _histories(observation))
    change = next(
        item for item in first if item.operation == "create" and item.key.startswith('{"id":') and item.key[6].isdigit()
    )
    made_up = replace(
        change,
        event_id="00000000-0000-0000-0000-0000000000ff",
        entity="00000000-0000-0000-0000-0000000000fe",
        key=change.key.replace(":", ":9", 1),
        after=(change.after or "").replace('"id":', '"id":9'),
        offset=change.offset + 2_000_000,
    )
    return replace(observation, changes=[*observation.changes, made_up])


def missing_in_audit(observation: Observation) -> Observation:
    """The audit topic lost one event."""
    gone = observation.audit[len(observation.audit) // 2].event_id
    return replace(observation, audit=[record for record in observation.audit if record.event_id != gone])


def reordered_audit(observation: Observation) -> Observation:
    """Two records of one row stand in the audit topic in the wrong order."""
    one, two = next(items for items in _histories(observation) if len(items) > 1)[:2]
    at = {record.event_id: record for record in observation.audit}
    first, second = at[one.event_id], at[two.event_id]
    moved = {one.event_id: second.offset, two.event_id: first.offset}
    audit = [replace(record, offset=moved.get(record.event_id, record.offset)) for record in observation.audit]
    return replace(observation, audit=audit)


def invented_transaction(observation: Observation) -> Observation:
    """A change says it was made in another transaction."""
    change = next(items for items in _histories(observation) if len(items) > 1)[0]
    other = replace(change, transaction_id="4000000000")
    return replace(observation, changes=[other if item is change else item for item in observation.changes])


def unplanned_dead_letter(observation: Observation) -> Observation:
    """A good record became a dead letter as well."""
    change = observation.changes[0]
    letter = DeadLetter(change.topic, change.partition, change.offset, "not_decodable")
    return replace(observation, dead_letters=[*observation.dead_letters, letter])


def forgotten_dead_letter(observation: Observation) -> Observation:
    """A bad record is nowhere."""
    return replace(observation, dead_letters=list(observation.dead_letters)[1:])


def forgotten_offset(observation: Observation) -> Observation:
    """A raw record has no disposition: its change names another offset."""
    change = observation.changes[0]
    moved = replace(change, offset=change.offset + 3_000_000)
    return replace(observation, changes=[moved if item is change else item for item in observation.changes])


def _said_once(observation: Observation) -> tuple[Transaction, AuditContext]:
    """A transaction with one context, and the context's record."""
    for row in observation.transactions:
        records = {record.key: record for record in observation.contexts if record.name == row.name}
        if len(records) == 1 and row.rung:
            return row, next(iter(records.values()))
    raise LookupError("no transaction with one context")


def _with_row(observation: Observation, old: Transaction, new: Transaction) -> Observation:
    return replace(observation, transactions=[new if row is old else row for row in observation.transactions])


def _silent(row: Transaction) -> Transaction:
    return replace(row, rung="", context_offset=0, text="")


def lost_context(observation: Observation) -> Observation:
    """A context is neither in the audit topic nor with its transaction."""
    row, gone = _said_once(observation)
    contexts = [record for record in observation.contexts if record.key != gone.key]
    return replace(_with_row(observation, row, _silent(row)), contexts=contexts)


def context_never_captured(observation: Observation) -> Observation:
    """The same, and the raw topic never had it: only the truth knows."""
    _, gone = _said_once(observation)
    marks = [mark for mark in observation.marks if (mark.topic, mark.offset) != (gone.topic, gone.offset)]
    return replace(lost_context(observation), marks=marks)


def _moved_context(observation: Observation) -> tuple[Observation, AuditContext, Transaction]:
    row, record = _said_once(observation)
    other = next(item for item in observation.transactions if not item.rung and item.event_count)
    moved = replace(other, rung=row.rung, context_offset=row.context_offset, text=row.text)
    contexts = [
        replace(item, transaction_id=other.transaction_id) if item.key == record.key else item for item in observation.contexts
    ]
    seen = _with_row(_with_row(observation, other, moved), row, _silent(row))
    return replace(seen, contexts=contexts), record, other


def context_on_wrong_transaction(observation: Observation) -> Observation:
    """A context is said of another transaction, in the audit topic and in ClickHouse."""
    return _moved_context(observation)[0]


def context_captured_on_wrong_transaction(observation: Observation) -> Observation:
    """The same, and the raw topic says so too: only the truth knows."""
    seen, record, other = _moved_context(observation)

    def moved(mark: RawMark) -> RawMark:
        its = (mark.topic, mark.offset) == (record.topic, record.offset)
        return replace(mark, transaction_id=other.transaction_id) if its else mark

    return replace(seen, marks=[moved(mark) for mark in seen.marks])


def made_up_context(observation: Observation) -> Observation:
    """A context that nobody said, of a transaction without one."""
    _, record = _said_once(observation)
    other = next(item for item in observation.transactions if not item.rung and item.event_count)
    invented = replace(
        record, key=f"{record.key}0", transaction_id=other.transaction_id, text='{"actor":"eve"}', offset=record.offset + 10**9
    )
    return replace(observation, contexts=[*observation.contexts, invented])


def worse_context(observation: Observation) -> Observation:
    """Of several contexts of a transaction not the best is its best."""
    for row in observation.transactions:
        said = [record for record in observation.contexts if record.name == row.name]
        worst = min(said, key=lambda record: (RANKS[record.rung], record.offset), default=None)
        if worst is not None and worst.text != row.text:
            return _with_row(observation, row, replace(row, rung=worst.rung, context_offset=worst.offset, text=worst.text))
    raise LookupError("no transaction with two contexts")


def lost_end(observation: Observation) -> Observation:
    """An END was read, and is nowhere."""
    row = next(row for row in observation.transactions if row.ended_ms is not None)
    return _with_row(observation, row, replace(row, ended_ms=None, event_count=None, tables={}))


def miscounted_end(observation: Observation) -> Observation:
    """An END's count is another."""
    row = next(row for row in observation.transactions if row.event_count)
    return _with_row(observation, row, replace(row, event_count=(row.event_count or 0) + 1))


def lost_begin(observation: Observation) -> Observation:
    """A BEGIN has no disposition: its transaction does not name it."""
    row = next(row for row in observation.transactions if row.begins)
    return _with_row(observation, row, replace(row, begins=row.begins[1:]))


def lost_transaction(observation: Observation) -> Observation:
    """All of a transaction's records were read, and it is not in ClickHouse."""
    gone = next(row for row in observation.transactions if row.begins and row.ended_ms is not None)
    return replace(observation, transactions=[row for row in observation.transactions if row is not gone])


def dead_heartbeat(observation: Observation) -> Observation:
    """A record that a rule leaves out became a dead letter as well."""
    mark = next(mark for mark in observation.marks if mark.kind == "heartbeat")
    letter = DeadLetter(mark.topic, mark.partition, mark.offset, "bad_envelope")
    return replace(observation, dead_letters=[*observation.dead_letters, letter])


PLANTS = (
    Plant("a dropped row", dropped, frozenset({"lost", "disposition"})),
    Plant("a doubled row", doubled, frozenset({"doubled", "disposition"})),
    Plant("an event id twice after FINAL", doubled_id, frozenset({"doubled"})),
    Plant("two swapped rows", swapped, frozenset({"order"})),
    Plant("a stale row", stale, frozenset({"final"})),
    Plant("a lost delete", lost_delete, frozenset({"lost", "final", "disposition"})),
    Plant("a wrong value", wrong_value, frozenset({"value"})),
    Plant("a phantom", phantom, frozenset({"phantom", "audit", "disposition"})),
    Plant("an event that the audit topic lost", missing_in_audit, frozenset({"audit"})),
    Plant("two swapped audit records", reordered_audit, frozenset({"order"})),
    Plant("an unplanned dead letter", unplanned_dead_letter, frozenset({"dead_letter", "disposition"})),
    Plant("a bad record that is no dead letter", forgotten_dead_letter, frozenset({"dead_letter"})),
    Plant("an offset without a disposition", forgotten_offset, frozenset({"disposition"})),
    Plant("a change in another transaction", invented_transaction, frozenset({"value"})),
    Plant("a lost context", lost_context, frozenset({"context", "disposition"})),
    Plant("a context that was never captured", context_never_captured, frozenset({"context"})),
    Plant("a context on the wrong transaction", context_on_wrong_transaction, frozenset({"context", "disposition"})),
    Plant("a context captured on the wrong transaction", context_captured_on_wrong_transaction, frozenset({"context"})),
    Plant("a made-up context", made_up_context, frozenset({"context", "disposition"})),
    Plant("a worse context that won", worse_context, frozenset({"context"})),
    Plant("a lost END", lost_end, frozenset({"end"})),
    Plant("an END with another count", miscounted_end, frozenset({"end"})),
    Plant("a lost BEGIN", lost_begin, frozenset({"disposition"})),
    Plant("a lost transaction", lost_transaction, frozenset({"transaction", "disposition"})),
    Plant("a heartbeat that is a dead letter", dead_heartbeat, frozenset({"dead_letter", "disposition"})),
)
