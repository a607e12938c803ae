"""A pipeline without a fault, in memory: the observation that a truth has to lead to, for testing the checker itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields, replace
from decimal import Decimal
from hashlib import blake2b
from typing import Any
from uuid import UUID

from tests.faults.catalog import Column, Table, Tables
from tests.faults.contexts import RANKS
from tests.faults.expectation import Expected, expected, final_rows
from tests.faults.observation import (
    AuditContext,
    AuditRecord,
    Change,
    DeadLetter,
    MirrorRow,
    Observation,
    RawMark,
    RawRecord,
    Transaction,
    TruthContext,
    TruthRow,
    Work,
)

_ACCOUNT = (Column("id", "int"), Column("name", "text"), Column("balance", "decimal", 2), Column("api_token", "text"))
ACCOUNTS = Table("shop", "public", "accounts", {column.name: column for column in _ACCOUNT}, ("id",))
CODES = Table("shop", "public", "codes", {name: Column(name, "text") for name in ("code", "body")}, ("code",), full=False)
JOURNAL = Table("shop", "public", "journal", {"n": Column("n", "int")}, ())
Values = dict[str, Any]
TABLES = Tables({table.topic: table for table in (ACCOUNTS, CODES, JOURNAL)})


def truth() -> list[TruthRow]:
    """Two seeded rows, then every kind of write."""
    rows: list[TruthRow] = []

    def write(
        table: str, op: str, old: dict[str, Any] | None, new: dict[str, Any] | None, tx: int, observed: bool = False
    ) -> None:
        rows.append(TruthRow(len(rows) + 1, "shop", "public", table, op, old, new, str(tx), observed))

    def account(identifier: int, name: str, balance: str = "1.00") -> dict[str, Any]:
        return {"id": identifier, "name": name, "balance": Decimal(balance), "api_token": "tok-secret"}

    write("accounts", "c", None, account(1, "seeded"), 1, observed=True)
    write("journal", "c", None, {"n": 0}, 1, observed=True)
    write("accounts", "u", account(1, "seeded"), account(1, "Ann"), 2)
    write("accounts", "u", account(1, "Ann"), account(1, "Ann", "12.30"), 3)
    write("accounts", "c", None, account(2, "Bob"), 3)
    write("accounts", "u", account(1, "Ann", "12.30"), account(1, "Anna", "12.30"), 4)
    write("accounts", "d", account(2, "Bob"), None, 5)
    write("accounts", "c", None, account(3, "Eve"), 6)
    write("accounts", "u", account(3, "Eve"), account(33, "Eve"), 7)
    write("codes", "c", None, {"code": "ä", "body": "long"}, 8)
    write("codes", "u", {"code": "ä", "body": "long"}, {"code": "ä", "body": "longer"}, 9)
    write("codes", "d", {"code": "ä", "body": "longer"}, None, 10)
    write("codes", "c", None, {"code": "b", "body": None}, 11)
    write("journal", "c", None, {"n": 1}, 12)
    write("journal", "c", None, {"n": 1}, 12)
    write("accounts", "c", None, account(4, "Zoë"), 13)
    return rows


SAID = ((3, "message"), (4, "table"), (6, "message"), (6, "message"), (6, "table"), (13, "message"), (14, "table"))
"""(transaction, rung) of each context; transaction 14 has nothing else."""


def contexts() -> list[TruthContext]:
    """One from before the snapshot, then some transactions with one context, one with three."""
    early = TruthContext(100, "shop", "1", "message", '{"actor":"early"}', observed=True)
    said = [
        TruthContext(101 + number, "shop", str(tx), rung, f'{{"actor":"ann","request":"{number}"}}')
        for number, (tx, rung) in enumerate(SAID)
    ]
    return [early, *said]


def _text(values: dict[str, Any] | None, order: Sequence[str] | None = None) -> str | None:
    if values is None:
        return None
    return json.dumps({name: values[name] for name in order or sorted(values)}, separators=(",", ":"), ensure_ascii=False)


def _uuid(*parts: object) -> str:
    return str(UUID(bytes=blake2b(repr(parts).encode(), digest_size=16).digest()))


def _change(table: Table, item: Expected, number: int) -> Change:
    def key(values: tuple[Any, ...] | None) -> str | None:
        return _text(dict(zip(table.key, values, strict=True)), table.key) if values else None

    changed: list[str] = []
    if item.operation == "update" and item.before is not None and item.after is not None:
        changed = [name for name in item.after if item.after[name] != item.before[name]]
    return Change(
        event_id=_uuid(number),
        source=table.source,
        schema=table.schema,
        table=table.name,
        entity=_uuid(table.topic, item.key),
        operation=item.operation,
        key=key(item.key) or "",
        previous_key=key(item.previous_key),
        before=_text(item.before),
        after=_text(item.after),
        before_known=item.before_known,
        changed=tuple(changed),
        unavailable=(),
        position=number << 8,
        transaction_id=item.tx,
        topic=table.topic,
        partition=0,
        offset=number,
    )


def _audit(change: Change, offset: int) -> AuditRecord:
    shared = {item.name: getattr(change, item.name) for item in fields(AuditRecord) if item.name not in ("partition", "offset")}
    return AuditRecord(partition=0, offset=offset, **shared)


def observation(rows: Sequence[TruthRow], planted: Sequence[DeadLetter]) -> Observation:
    """What a pipeline without a fault makes of the truth, snapshot rows and one redelivery included."""
    changes: list[Change] = []
    for entry in rows:
        if entry.observed and entry.new is not None:
            table = TABLES.by_topic[f"shop.public.{entry.table}"]
            (seen,) = expected(TABLES, [TruthRow(entry.seq, "shop", "public", entry.table, "c", None, entry.new, "")])
            change = _change(table, seen, len(changes) + 1)
            changes.append(_snapshot(change))
    for item in expected(TABLES, rows):
        changes.append(_change(TABLES.by_topic[item.topic], item, len(changes) + 1))
    audit = [_audit(change, offset) for offset, change in enumerate([*changes, changes[-1]])]
    finals = {topic: list(values.values()) for topic, values in final_rows(TABLES, rows).items()}
    mirrors = {
        topic: [MirrorRow({name: value for name, value in values.items() if name != "api_token"}) for values in items]
        for topic, items in finals.items()
    }
    raw = [RawRecord(c.topic, c.partition, c.offset, "change", (_CODES[c.operation], c.event_id)) for c in changes]
    raw += [RawRecord(letter.topic, letter.partition, letter.offset, "bad") for letter in planted]
    marks = _marks(changes)
    said = [_context_record(mark) for mark in marks if mark.kind == "context"]
    return Observation(
        changes=changes,
        changes_raw_rows=len(changes) + 1,
        audit=audit,
        mirrors=mirrors,
        source_rows=finals,
        dead_letters=list(planted),
        raw=raw,
        marks=marks,
        transactions=_transactions(marks),
        contexts=[*said, said[0]],
        work=_work(raw, marks, planted),
    )


_CODES = {"snapshot": "r", "create": "c", "update": "u", "delete": "d", "truncate": "t"}
_TOPIC = "shop.transaction"


def _snapshot(change: Change) -> Change:
    return replace(change, operation="snapshot", transaction_id=None)


def _marks(changes: Sequence[Change]) -> list[RawMark]:
    """BEGIN, contexts and END of each transaction, what is left out, and the last but one transaction once more."""
    marks: list[RawMark] = []

    def add(kind: str, tx: int = 0, **more: Any) -> None:
        name = str(tx) if tx else ""
        marks.append(RawMark(_TOPIC, 0, len(marks), kind, "shop", 0, name, **more))

    add("heartbeat")
    for tx in (*range(2, 15), 13):
        add("begin", tx, at_ms=1_000 * tx + len(marks))
        for context in contexts():
            if context.tx == str(tx):
                add("context", tx, rung=context.rung, text=context.text)
        tables: dict[str, int] = {}
        for change in changes:
            if change.transaction_id == str(tx):
                tables[f"public.{change.table}"] = tables.get(f"public.{change.table}", 0) + 1
        add("end", tx, at_ms=1_000 * tx + len(marks), tables=tables)
    add("message")
    add("tombstone")
    return marks


def _transactions(marks: Sequence[RawMark]) -> list[Transaction]:
    """What ClickHouse makes of them."""
    rows = []
    for name in sorted({mark.transaction_id for mark in marks} - {""}):
        mine = [mark for mark in marks if mark.transaction_id == name]
        begins, ends = ([mark for mark in mine if mark.kind == kind] for kind in ("begin", "end"))
        said = [mark for mark in mine if mark.kind == "context"]
        best = max(said, key=lambda mark: (RANKS[mark.rung], mark.offset), default=None)
        rows.append(
            Transaction(
                source="shop",
                epoch=0,
                transaction_id=name,
                began_ms=begins[0].at_ms,
                ended_ms=ends[-1].at_ms,
                event_count=sum(ends[0].tables.values()),
                tables=ends[0].tables,
                begins=tuple(mark.offset for mark in begins),
                rung=best.rung if best else "",
                context_offset=best.offset if best else 0,
                text=best.text if best else "",
            )
        )
    return rows


def _context_record(mark: RawMark) -> AuditContext:
    return AuditContext(
        key=f"transaction:shop:0:{mark.transaction_id}:{mark.rung}:{mark.topic}:0:{mark.offset}",
        source=mark.source,
        epoch=mark.epoch,
        transaction_id=mark.transaction_id,
        rung=mark.rung,
        text=mark.text,
        topic=mark.topic,
        partition=mark.partition,
        offset=mark.offset,
    )


def _work(raw: Sequence[RawRecord], marks: Sequence[RawMark], planted: Sequence[DeadLetter]) -> Work:
    """A worker that did all of it in one run."""
    operations = [record.signature[0] for record in raw if record.kind == "change"]
    names = {code: name for name, code in _CODES.items()}
    counted = {
        "records": len(raw) + len(marks),
        "changes": {names[code]: operations.count(code) for code in set(operations)},
        "transactions": len(marks) - 3,
        "dead_letters": {letter.reason: 1 for letter in planted},
        "left_out": {"heartbeat": 1, "message": 1, "tombstone": 1},
        "batches": 1,
    }
    places = {(record.topic, record.partition) for record in raw} | {(_TOPIC, 0)}
    return Work(counted, dict.fromkeys(places, (0, 1_000)))
