"""Reads what the pipeline made: the trail and the mirrors from ClickHouse, records from the audit topic."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from clickhouse_connect.driver.client import Client
from confluent_kafka import Message

from chronicle.sinks.mirror_names import column_name, current_name
from tests.faults.catalog import Table, Tables
from tests.faults.observation import AuditContext, AuditRecord, Change, DeadLetter, MirrorRow, Transaction
from tests.faults.raw import TopicReader

_CHANGES = """toString(event_id), source, schema, table, toString(entity), operation, key, previous_key, before, after,
    before_known, changed, unavailable, position, transaction_id, topic, partition, offset"""
_FIELDS = tuple(field.name for field in fields(Change))
_RUNGS = {0: "", 1: "table", 2: "message"}
_EXACT = {
    "output_format_json_quote_64bit_integers": 1,
    "output_format_json_quote_decimals": 1,
    "output_format_decimal_trailing_zeros": 1,
    "output_format_json_quote_denormals": 1,
}


def changes(client: Client, database: str) -> list[Change]:
    """`changes` after FINAL."""
    rows = client.query(f"SELECT {_CHANGES} FROM {database}.changes FINAL").result_rows
    return [_change(row) for row in rows]


def _change(row: Sequence[Any]) -> Change:
    known, changed, unavailable, position, *place = row[10:]
    values = (*row[:10], bool(known), tuple(changed), tuple(unavailable), int(position), *place)
    return Change(**dict(zip(_FIELDS, values, strict=True)))


def count(client: Client, statement: str) -> int:
    """One number."""
    return int(client.query(statement).result_rows[0][0])


def dead_letters(client: Client, database: str) -> list[DeadLetter]:
    """`dead_letters` after FINAL."""
    rows = client.query(f"SELECT topic, partition, offset, reason FROM {database}.dead_letters FINAL").result_rows
    return [DeadLetter(topic, int(partition), int(offset), reason) for topic, partition, offset, reason in rows]


def transactions(client: Client, database: str) -> list[Transaction]:
    """`transactions` after FINAL."""
    rows = client.query(
        f"""SELECT source, epoch, transaction_id, toUnixTimestamp64Milli(began_at), toUnixTimestamp64Milli(ended_at),
                event_count, tables, begins, tupleElement(best_context, 'rank'), tupleElement(best_context, 'at'),
                tupleElement(best_context, 'text')
            FROM {database}.transactions FINAL"""
    ).result_rows
    return [
        Transaction(
            source, int(epoch), name, began, ended, total, dict(tables), tuple(sorted(begins)), _RUNGS[int(rank)], int(at), text
        )
        for source, epoch, name, began, ended, total, tables, begins, rank, at, text in rows
    ]


def statuses(client: Client, database: str) -> set[tuple[str, str]]:
    """(source, status) of all transactions, by the view that compares Debezium's counts with what was seen."""
    rows = client.query(f"SELECT DISTINCT source, status FROM {database}.transaction_status").result_rows
    return {(source, status) for source, status in rows}


def mirror(client: Client, database: str, table: Table) -> list[MirrorRow]:
    """A table's `…_current` view; a mirror that was never needed is empty."""
    view = current_name(table.source, table.schema, table.name)
    described = client.query(
        "SELECT name FROM system.columns WHERE database = %(database)s AND table = %(table)s",
        {"database": database, "table": view},
    ).result_rows
    there = {name for (name,) in described}
    if not there:
        return []
    parts = []
    for column in table.columns.values():
        name = column_name(column.name)
        if name in there:
            expression = f"base64Encode(`{name}`)" if column.kind == "bytes" else f"`{name}`"
            parts.append(f"{expression} AS `_value_{column.name}`")
    statement = f"SELECT {', '.join([*parts, '_flags', '_nulls'])} FROM {database}.`{view}`"
    text = client.raw_query(statement, settings=_EXACT, fmt="JSONEachRow")
    return [_mirror_row(json.loads(line)) for line in text.decode().splitlines()]


def _mirror_row(values: Mapping[str, Any]) -> MirrorRow:
    nulls = set(values["_nulls"])
    columns = {name.removeprefix("_value_"): value for name, value in values.items() if name.startswith("_value_")}
    return MirrorRow({name: None if name in nulls else value for name, value in columns.items()}, frozenset(values["_flags"]))


def mirrors(client: Client, database: str, tables: Tables) -> dict[str, list[MirrorRow]]:
    """All mirrors of a workload's tables, by raw topic."""
    return {topic: mirror(client, database, table) for topic, table in tables.by_topic.items() if table.key}


def audit(reader: TopicReader, topic: str) -> tuple[list[AuditRecord], list[AuditContext]]:
    """Change and context records of the audit topic, redeliveries included, as far as not read before."""
    changes_, contexts = list[AuditRecord](), list[AuditContext]()
    for message in reader.read([topic]):
        key, value = message.key(), message.value()
        if key is None or value is None:
            raise AssertionError(f"audit record at {message.partition()}:{message.offset()} without key or value")
        identifier, record = bytes(key).decode(), json.loads(value)
        if identifier.startswith("event:"):
            continue  # what an application said: about no record of a source
        if record["core"]["metadata"]["uid"] != identifier:
            raise AssertionError(f"audit record at {message.partition()}:{message.offset()} has another key than its id")
        if identifier.startswith("transaction:"):
            contexts.append(_context(identifier, record))
        elif not identifier.startswith("access:"):  # who read a dead letter: about no record of a source
            changes_.append(_change_record(identifier, record["core"], message))
    return changes_, contexts


def _context(key: str, record: Mapping[str, Any]) -> AuditContext:
    facts, meta = record["core"]["unmapped"], record["meta"]
    return AuditContext(
        key=key,
        source=facts["source"],
        epoch=int(facts["epoch"]),
        transaction_id=facts["transaction_id"],
        rung=facts["rung"],
        text=json.dumps(facts["context"], separators=(",", ":"), ensure_ascii=False),
        topic=meta["topic"],
        partition=int(meta["partition"]),
        offset=int(meta["offset"]),
    )


def _change_record(identifier: str, core: Mapping[str, Any], message: Message) -> AuditRecord:
    facts = core["unmapped"]
    return AuditRecord(
        event_id=identifier,
        partition=int(message.partition() or 0),
        offset=int(message.offset() or 0),
        source=facts["source"],
        schema=facts["schema"],
        table=facts["table"],
        entity=facts["entity"],
        operation=facts["operation"],
        key=_text(facts["key"]) or "",
        previous_key=_text(facts["previous_key"]),
        before=_text(facts["before"]),
        after=_text(facts["after"]),
        position=int(facts["position"]),
    )


def _text(value: Any) -> str | None:
    return None if value is None else json.dumps(value, separators=(",", ":"), ensure_ascii=False)
