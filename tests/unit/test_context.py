"""Contexts: who did a transaction, out of messages and rows, and nothing else."""

from __future__ import annotations

import base64
import json

from chronicle.model.batch import Batch
from chronicle.model.chunk import SourceSpec
from chronicle.model.dead_letters import Reason
from chronicle.testing import Record, run
from tests.unit.envelopes import Table

NULLABLE = ["null", "string"]
SECRET = "correct horse battery"
SHOP = SourceSpec("shop", "postgresql", full_identity=None)


def process(*records: Record) -> Batch:
    return run(records, sources=[SHOP])


def message(content: bytes, prefix: str = "chronicle", tx_id: int | None = 7, ts_us: int = 1000) -> Record:
    source = {
        "connector": "postgresql",
        "name": "shop",
        "ts_ms": 1,
        "ts_us": ts_us,
        "snapshot": "false",
        "db": "d",
        "sequence": '["1","2"]',
        "schema": "",
        "table": "",
        "txId": tx_id,
        "lsn": 2,
    }
    envelope = {
        "op": "m",
        "ts_ms": 2,
        "source": source,
        "message": {"prefix": prefix, "content": base64.b64encode(content).decode()},
    }
    return Record("shop.transaction", json.dumps(envelope).encode())


def test_contexts_are_read_sanitized_or_refused() -> None:
    """A JSON object of our prefix in a transaction is a context; other messages are none; garbage is a dead letter."""
    batch = process(
        message(b'{"reason":"r","actor":{"name":"ada","password":"' + SECRET.encode() + b'"}}'),
        message(b"{}", prefix="audit"),
        message(b"{}", tx_id=None),
        message(b"now", prefix="chronicle-heartbeat", tx_id=None),
        message(b"[1]"),
        message(b"\xff\xfe"),
        message(b"{" + b'"a":{' * 5000),
    )
    assert batch.rows() == 7
    assert batch.transactions.select("transaction_id", "kind", "context", "rung").rows() == [
        ("7", "context", '{"actor":{"name":"ada"},"reason":"r","tags":{"actor":{"password":"[FILTERED]"}}}', "message")
    ]
    assert batch.left_out == {("shop.transaction", "message"): 2, ("shop.transaction", "heartbeat"): 1}
    assert [letter.reason for letter in batch.dead_letters] == [Reason.NOT_DECODABLE] * 3


def test_a_time_that_cannot_be_written_is_one_dead_letter() -> None:
    """On messages, markers and rows of the context table: the audit record and every query show it as a date."""
    table = Table([("id", "long"), ("context", NULLABLE)], name="chronicle_context", schema_id=600)
    row = {"id": 5, "context": '{"reason":"r"}'}
    marker = {"status": "BEGIN", "id": "7:1", "event_count": None, "data_collections": None, "ts_ms": 2**63 // 1000 * 2}
    records = [
        message(b"{}", ts_us=10**18),
        Record("shop.transaction", json.dumps(marker).encode()),
        table.change("c", after=row, ts_us=None, ts_ms=2**62),
    ]
    batch = run(records, schemas=table.schemas, sources=[SHOP])
    assert (len(batch.transactions), len(batch.dead_letters)) == (0, 3)


def test_a_context_row_that_was_not_routed_is_a_context_all_the_same() -> None:
    """Recognised by its table, wherever it arrives; its clean-up later says nothing."""
    table = Table(
        [("id", "long"), ("actor", NULLABLE), ("context", NULLABLE), ("token", NULLABLE)],
        name="chronicle_context",
        schema_id=600,
    )
    row = {"id": 5, "actor": "ada", "context": '{"reason":"r"}', "token": SECRET}
    batch = run([table.change("c", after=row), table.change("d", before=row, lsn=200)], schemas=table.schemas, sources=[SHOP])
    assert len(batch.changes) == 0
    assert batch.transactions.select("kind", "context", "rung", "transaction_id").rows() == [
        ("context", '{"actor":{"id":"ada"},"reason":"r","tags":{"token":"[FILTERED]"}}', "table", "7")
    ]
    assert batch.left_out == {(table.topic, "message"): 1}
