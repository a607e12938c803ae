"""Events on the real stack: the three wire forms from their topics to the table, the audit topic and the unified trail."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from chronicle.codec.events import read
from chronicle.dev.stack import Stack
from chronicle.setup import EVENT_PARTITIONS, SUBJECTS, schema_text
from tests.sinks.reading import records
from tests.stack.debezium_records import framed, register
from tests.stack.test_worker import Deployment
from tests.stack.worker_process import until

pytestmark = pytest.mark.stack

ROOT = Path(__file__).parents[2]
COMMITTED_US = 1_790_000_000_000_000
BEFORE, AFTER = "2026-09-21T14:13:10.000000Z", "2026-09-21T14:14:10.000000+00:00"
REQUEST = "req-7"
PAYLOAD = {"method": "passkey", "password": "hunter2"}


def event(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "id": str(uuid.UUID(int=number)), "type": "security.login", "source": "shop", "time": BEFORE, "tags": {},
        "actor": {"id": "ann", "type": "user", "name": None}, "outcome": "success", "request_id": REQUEST, "payload": PAYLOAD,
        "priority": "normal", **fields,
    }  # fmt: skip


class Site(Deployment):
    """A deployment whose applications say things."""

    def say(self, *values: bytes, topic: str = "") -> None:
        self.send([(b"user:1", value) for value in values], topic=f"{self.name}-events{topic}")

    def as_avro(self, said: dict[str, Any]) -> bytes:
        schema = json.loads(schema_text("events/event.avsc"))
        id_ = register(self.stack.registry_url, f"{self.name}-events-value", schema)
        return framed(id_, schema, {**said, "payload": json.dumps(said["payload"])})

    def as_string(self, said: dict[str, Any]) -> bytes:
        """As Connect's outbox router writes it with the Avro converter."""
        id_ = register(self.stack.registry_url, f"{self.name}-outbox-value", "string")  # type: ignore[arg-type]
        return framed(id_, "string", json.dumps(said))  # type: ignore[arg-type]

    def context(self, transaction: int) -> None:
        """What the application said of a transaction of the source."""
        content = base64.b64encode(json.dumps({"actor": "ann", "request_id": REQUEST}).encode()).decode()
        place = {"ts_ms": COMMITTED_US // 1000, "txId": transaction, "lsn": transaction}
        source = {"connector": "postgresql", "name": self.name, **place}
        value = {"op": "m", "source": source, "message": {"prefix": "chronicle", "content": content}}
        self.broker.produce(f"{self.name}.transaction", [json.dumps(value).encode()])

    def audited(self) -> dict[str, Any]:
        """By key, the records of events on the audit topic."""
        kafka = self.settings.kafka
        found = {(one.key() or b"").decode(): one.value() for one in records(kafka, kafka.audit_topic)}
        return {key: json.loads(value or b"") for key, value in found.items() if key.startswith("event:")}


@pytest.fixture
def site(stack: Stack, unique: str, tmp_path: Path) -> Iterator[Site]:
    """Its own topics, databases and group."""
    made = Site(stack, unique, tmp_path)
    yield made
    made.close()


def test_what_applications_say_stands_between_the_changes_of_its_request(site: Site) -> None:
    """Login (JSON), the order's row, the order (Avro string of an outbox), and an Avro event: one request, in time's order."""
    site.broker.create(f"{site.name}.transaction")
    site.context(site.lsn + 10)
    site.create(1)
    late = {"time": AFTER, "type": "order.placed", "resource_type": "order", "resource_id": "0", "payload": {"total": 12.5}}
    site.say(json.dumps(event(1)).encode(), site.as_string(event(2, **late)))
    site.broker.create(f"{site.name}-events.web")
    site.say(site.as_avro(event(3, time=AFTER.replace("14:14:10", "14:14:11"), payload={})), topic=".web")
    worker = site.start()
    trail = (
        f"SELECT kind, type, actor_id, attribution FROM {site.name}.audit_trail WHERE request_id = '{REQUEST}' ORDER BY time"
    )
    until(lambda: len(site.rows(trail)) == 4, "all of the request is on the trail")
    assert site.rows(trail) == [
        ("event", "security.login", "ann", "event"),
        ("change", f"{site.name}.public.t.create", "ann", "message"),
        ("event", "order.placed", "ann", "event"),
        ("event", "security.login", "ann", "event"),
    ]
    until(lambda: len(site.audited()) == 3, "the audit topic has them")
    schema = json.loads((ROOT / "schemas" / "audit-record.schema.json").read_text(encoding="utf-8"))
    for key, record in site.audited().items():
        jsonschema.validate(record, schema)
        assert key == f"event:shop::{record['core']['unmapped']['type']}:{record['core']['metadata']['uid']}"
        assert "hunter2" not in json.dumps(record)
    worker.term()
    assert worker.wait() == 0


def test_an_event_that_comes_twice_is_one_and_what_is_none_is_a_letter(site: Site) -> None:
    """At least once on the way, once in effect; the letter has its reason, and a later worker brings nothing twice."""
    good = json.dumps(event(1)).encode()
    site.say(good, b'{"source":"shop"}', good, site.as_avro(event(1)))
    assert site.drain()["events"] == 3
    rows = site.rows(f"SELECT event_id, type, JSONExtractString(payload, 'password') FROM {site.name}.events FINAL")
    assert rows == [(uuid.UUID(int=1), "security.login", "[FILTERED]")]
    assert site.letters() == [(f"{site.name}-events", 0, 1, "not_an_event")]
    assert len(site.audited()) == 1
    assert site.drain()["records"] == 0


def test_strict_mode_refuses_what_has_no_schema(site: Site) -> None:
    """The operator's wish, not a fault of the worker: it goes on."""
    known = event(2, type="http.route.not_found", payload={"nobody_knows": 1})
    site.say(json.dumps(event(1, type="nobody.knows")).encode(), json.dumps(known).encode())
    summary = site.drain(CHRONICLE_EVENTS__MODE="strict")
    assert (summary["events"], summary["dead_letters"]) == (0, {"contract_broken": 2})
    assert site.letters() == [(f"{site.name}-events", 0, at, "contract_broken") for at in (0, 1)]


def test_setup_makes_the_topic_of_events_and_registers_their_schema(site: Site) -> None:
    """Four partitions, kept for a week at first; the subject is what producers resolve against."""
    topic = site.settings.kafka.events_topic
    assert len(site.broker.admin.list_topics(timeout=10).topics[topic].partitions) == EVENT_PARTITIONS
    assert SUBJECTS["chronicle.event"] == "events/event.avsc"
    assert not read([json.dumps(event(1)).encode()]).refused
