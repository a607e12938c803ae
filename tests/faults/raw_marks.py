"""Reads records of a `<source>.transaction` topic without any of the product's code: BEGIN, END, contexts, and the rest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.faults.contexts import shown
from tests.faults.observation import RawMark

TOPIC = "transaction"
CONTEXT_TABLE = "chronicle_context"
_INTERNAL = frozenset({CONTEXT_TABLE, "chronicle_signal"})
_COUNTED_MESSAGE = "LogicalDecodingMessageId"


def mark(topic: str, offset: int, headers: Any, envelope: Mapping[str, Any] | None) -> RawMark:
    """One record; `envelope`: its decoded value, None for a tombstone. The topic has one partition.

    Raises:
        ValueError: it is none of the records that Debezium writes there.
    """
    source = topic.removesuffix(f".{TOPIC}")
    epoch = int(dict(headers or ()).get("chronicle.epoch") or 0)
    facts: dict[str, Any] = {"topic": topic, "partition": 0, "offset": offset, "source": source, "epoch": epoch}
    if envelope is None:
        return RawMark(kind="tombstone", **facts)
    if "status" in envelope:
        tables = {
            item["data_collection"]: item["event_count"]
            for item in envelope["data_collections"] or ()
            if _COUNTED_MESSAGE not in item["data_collection"] and item["data_collection"].rpartition(".")[2] not in _INTERNAL
        }
        name, at = envelope["id"].partition(":")[0], envelope["ts_ms"]
        return RawMark(kind=envelope["status"].lower(), transaction_id=name, at_ms=at, tables=tables, **facts)
    if envelope["op"] == "m":
        return _message(envelope, facts)
    if envelope["source"]["table"] == CONTEXT_TABLE:
        return _row(envelope, facts)
    raise ValueError(f"{topic} holds a row of {envelope['source']['table']} at {offset}")


def _message(envelope: Mapping[str, Any], facts: dict[str, Any]) -> RawMark:
    prefix, content, transaction = envelope["message"]["prefix"], envelope["message"]["content"], envelope["source"]["txId"]
    if prefix == "chronicle-heartbeat":
        return RawMark(kind="heartbeat", **facts)
    if prefix != "chronicle" or transaction is None:  # another application's, or about no transaction
        return RawMark(kind="message", **facts)
    return RawMark(kind="context", transaction_id=str(transaction), rung="message", text=shown(content), **facts)


def _row(envelope: Mapping[str, Any], facts: dict[str, Any]) -> RawMark:
    if envelope["op"] != "c":  # a snapshot of the table, or old rows that are cleaned away
        return RawMark(kind="message", **facts)
    row, origin = envelope["after"], envelope["source"]
    columns = {name: row[name] for name in ("actor",) if row[name] is not None}
    text = shown(columns | _parsed(row["context"]))
    name = str(origin["txId"]) if "txId" in origin else origin["gtid"]
    return RawMark(kind="context", transaction_id=name, rung="table", text=text, **facts)


def _parsed(text: str) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(text)
    return parsed
