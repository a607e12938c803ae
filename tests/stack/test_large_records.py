"""Records that are too large, on the real broker and ClickHouse: one disposition each, whatever is in them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs miss what it documents
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from chronicle import dead_letters
from chronicle.dev.stack import Stack
from chronicle.setup import run as run_setup
from tests.stack.debezium_records import Table
from tests.stack.test_worker import Deployment

pytestmark = pytest.mark.stack


@pytest.fixture
def deployment(stack: Stack, unique: str, tmp_path: Path) -> Iterator[Deployment]:
    made = Deployment(stack, unique, tmp_path)
    yield made
    made.close()


def test_a_record_that_is_too_large_becomes_one_dead_letter_and_is_in_no_sink(deployment: Deployment) -> None:
    """10 MB whether valid or garbage; 7 MB that grow sixfold as JSON; their neighbours go through, as large as may be."""
    table, topic = deployment.table, deployment.table.topic
    garbage = [
        (table.key(n), (head + b"\xff" * 10_000_000)) for n, head in ((11, b"\0\x7f\xff\xff\0"), (12, b"\x07"), (13, b"{"))
    ]
    bad = {
        1: (table.key(1), deployment.change("c", 1, note="x" * 10_000_000)),
        3: garbage[0],
        5: garbage[1],
        7: garbage[2],
        9: (table.key(9), deployment.change("c", 9, note="\x01" * 7_000_000)),
    }
    largest = {4: "x" * 8_300_000, 6: "\x01" * 5_400_000}  # just below 8 MiB as it is, and below 31 MiB as JSON
    notes = {n: largest.get(n, "x") for n in range(0, 12, 2)}
    good = {n: (table.key(n), deployment.change("c", n, note=note)) for n, note in notes.items()}
    records = [record for _, record in sorted((bad | good | {11: good[10]}).items())]
    deployment.send(records, 0)
    summary = deployment.drain()
    assert (summary["records"], summary["dead_letters"]) == (12, {"too_large": 5})
    assert deployment.letters() == [(topic, 0, offset, "too_large") for offset in bad]
    stages = deployment.rows(f"SELECT offset, stage FROM {deployment.name}.dead_letters FINAL ORDER BY offset")
    assert stages == [(offset, "validate" if offset == 9 else "decode") for offset in bad]
    lengths = deployment.rows(
        f"SELECT JSONExtractInt(key, 'id') AS id, length(JSONExtractString(after, 'note')) FROM {deployment.name}.changes"
        " FINAL ORDER BY id"
    )
    assert lengths == [(n, len(note)) for n, note in notes.items()]
    assert deployment.rows(f"SELECT id FROM {deployment.mirror()} ORDER BY id") == [(n,) for n in notes]
    audit = deployment.broker.read(deployment.settings.kafka.audit_topic)
    assert {json.loads(value or b"")["core"]["unmapped"]["key"]["id"] for _, value, _ in audit} == set(notes)
    letters = deployment.broker.read(deployment.settings.kafka.dead_letter_topic)
    assert [(key, value) for key, value, _ in letters] == list(bad.values())


def test_the_limit_of_a_record_is_a_setting(deployment: Deployment) -> None:
    """What an operator lowers is refused at the lower size, and taken in under the former by a replay."""
    deployment.send([(deployment.table.key(n), deployment.change("c", n, note="x" * n * 1000)) for n in (1, 3)], 0)
    assert deployment.drain(record_bytes_max="2000")["dead_letters"] == {"too_large": 1}
    assert deployment.ids() == [1]
    assert dead_letters.replay(deployment.settings.kafka, dead_letters.Selection(reason="too_large")).sent == 1
    assert deployment.drain()["dead_letters"] == {}
    assert deployment.ids() == [1, 3]


def test_an_audit_topic_that_takes_less_than_it_should_stops_the_worker(deployment: Deployment) -> None:
    """ClickHouse holds the row already: it never becomes a dead letter too, and after `chronicle setup` it is in both."""
    audit_topic = deployment.settings.kafka.audit_topic
    lower = ConfigEntry("max.message.bytes", "20000", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, audit_topic, incremental_configs=[lower])
    deployment.broker.admin.incremental_alter_configs([resource])[resource].result(30)
    deployment.create(10)
    deployment.send([(deployment.table.key(10), deployment.change("c", 10, note=os.urandom(20_000).hex()))], 0)
    worker = deployment.start()
    assert worker.wait() == 1
    assert "run `chronicle setup`" in worker.log_text()
    assert deployment.letters() == []
    assert deployment.broker.committed(deployment.name, deployment.table.topic, 1)[0] <= 0
    run_setup(deployment.settings)
    assert deployment.drain()["dead_letters"] == {}
    assert deployment.ids() == list(range(11))
    assert len({key for key, _, _ in deployment.broker.read(audit_topic)}) == 11


def test_a_context_that_is_longer_than_the_trail_keeps_is_cut_and_says_so(deployment: Deployment) -> None:
    """A reason of 7 MB that would grow sixfold as JSON: its first 1,023 characters, and the mark; its neighbours are whole."""
    topic = f"{deployment.name}.transaction"
    deployment.broker.create(topic, 1, max_message_bytes="12000000")
    records = [context_row(deployment, n, reason) for n, reason in enumerate(("short", "\x01" * 7_000_000, "short"))]
    deployment.send(records, 0, topic)
    assert deployment.drain()["dead_letters"] == {}
    audit = deployment.broker.read(deployment.settings.kafka.audit_topic)
    said = {(key or b"").rpartition(b":")[2]: json.loads(value or b"{}") for key, value, _ in audit}
    reasons = {key: record["core"]["unmapped"]["context"]["reason"] for key, record in said.items()}
    assert reasons == {b"0": "short", b"1": "\x01" * 1_023 + "…", b"2": "short"}


def context_row(deployment: Deployment, number: int, reason: str) -> tuple[bytes, bytes]:
    """A row of the context table as Connect routes it into the transaction topic."""
    columns: list[dict[str, Any]] = [
        {"name": "id", "type": "long"}, {"name": "actor", "type": "string"}, {"name": "reason", "type": "string"},
        {"name": "context", "type": ["null", "string"], "default": None},
    ]  # fmt: skip
    table = Table(deployment.stack.registry_url, deployment.name, "chronicle_context", columns)
    deployment.lsn += 10
    return table.key(number), table.value("c", number, deployment.lsn, actor="ann", reason=reason, context=None)
