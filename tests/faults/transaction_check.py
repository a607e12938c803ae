"""The transaction topics: each of their offsets has exactly one disposition, and what ClickHouse says of each transaction.

A BEGIN is named by its offset in `begins`, a context by its own audit record, what is left out by nothing at all. Of an END
ClickHouse keeps no offset: it is proven by content (its transaction's end, count and tables) and by the worker's own count
(`counter_check`).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence

from tests.faults.contexts import RANKS
from tests.faults.observation import AuditContext, Observation, RawMark, Transaction, TransactionName
from tests.faults.report import Difference, Report, show

Coordinates = tuple[str, int, int]


def latest(contexts: Sequence[AuditContext]) -> list[AuditContext]:
    """What a reader holds who upserts by key."""
    return list({record.key: record for record in contexts}.values())


def normal(text: str) -> str:
    """JSON text without a second way of writing a character; the order of its keys stays, because it is promised."""
    return json.dumps(json.loads(text), separators=(",", ":"), ensure_ascii=False)


def check_transactions(observation: Observation, report: Report) -> None:
    """Every offset of the transaction topics, and every row of `transactions`, against each other."""
    rows: dict[TransactionName, Transaction] = {}
    for row in observation.transactions:
        if row.name in rows:
            report.add(Difference("doubled", row.source, row.transaction_id, "once", "twice", "in transactions after FINAL"))
        rows[row.name] = row
    _check_offsets(observation, report)
    marks: dict[TransactionName, list[RawMark]] = defaultdict(list)
    for mark in observation.marks:
        if mark.transaction_id:
            marks[mark.name].append(mark)
    for name in sorted(marks.keys() | rows.keys()):
        if name not in rows:
            where, what = f"{name[0]}.transaction", [mark.kind for mark in marks[name]]
            report.add(Difference("transaction", where, name[2], what, None, "no row in transactions"))
        elif name not in marks:
            report.add(Difference("transaction", f"{name[0]}.transaction", name[2], None, show(rows[name]), "made up"))
        else:
            _check_row(rows[name], marks[name], report)


def _check_offsets(observation: Observation, report: Report) -> None:
    """One by one: where does this offset stand?"""
    found: Mapping[Coordinates, list[str]] = defaultdict(list)
    topics = {mark.topic for mark in observation.marks}
    for row in observation.transactions:
        for offset in row.begins:
            found[(f"{row.source}.transaction", 0, offset)].append(f"begin of {row.epoch}:{row.transaction_id}")
    for context in latest(observation.contexts):
        place = (context.topic, context.partition, context.offset)
        found[place].append(f"{context.rung} of {context.epoch}:{context.transaction_id}")
    for change in observation.changes:
        if change.topic in topics:
            found[(change.topic, change.partition, change.offset)].append("change")
    for letter in observation.dead_letters:
        if letter.topic in topics:
            found[(letter.topic, letter.partition, letter.offset)].append(f"dead letter {letter.reason}")
    known = set[Coordinates]()
    for mark in observation.marks:
        at = (mark.topic, mark.partition, mark.offset)
        known.add(at)
        whose = f"{mark.epoch}:{mark.transaction_id}"
        wanted = {"begin": [f"begin of {whose}"], "context": [f"{mark.rung} of {whose}"]}.get(mark.kind, [])
        if found.get(at, []) != wanted:
            report.add(Difference("disposition", mark.topic, at, wanted, found.get(at, []), f"a record of kind {mark.kind}"))
    for at in sorted(found.keys() - known):
        report.add(Difference("disposition", at[0], at, None, found[at], "of an offset that is not in the topic"))


def _check_row(row: Transaction, marks: Sequence[RawMark], report: Report) -> None:
    """What a row says is what its records say, a redelivered one included: first BEGIN, last END, highest counts."""
    begins = [mark.at_ms for mark in marks if mark.kind == "begin"]
    ends = [mark for mark in marks if mark.kind == "end"]
    tables: dict[str, int] = {}
    for mark in ends:
        for table, count in mark.tables.items():
            tables[table] = max(count, tables.get(table, 0))
    totals = [sum(mark.tables.values()) for mark in ends]
    wanted = {
        "began_ms": min(begins, default=None),
        "ended_ms": max((mark.at_ms for mark in ends), default=None),
        "event_count": max(totals, default=None),
        "tables": tables,
    }
    said = {name: getattr(row, name) for name in wanted}
    said["tables"] = dict(row.tables)
    if said != wanted:
        law = "end" if wanted["began_ms"] == said["began_ms"] else "begin"
        report.add(Difference(law, f"{row.source}.transaction", row.transaction_id, wanted, said))
    contexts = [mark for mark in marks if mark.kind == "context"]
    best = max(contexts, key=lambda mark: (RANKS[mark.rung], mark.offset), default=None)
    best_said = (best.rung, best.offset, best.text) if best else ("", 0, "")
    row_said = (row.rung, row.context_offset, normal(row.text) if row.text else "")
    if best_said != row_said:
        report.add(Difference("context", f"{row.source}.transaction", row.transaction_id, best_said, row_said, "best context"))
