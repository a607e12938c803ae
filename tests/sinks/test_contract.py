"""One contract for all sinks, on the real services: a sink holds all of a batch or raises, and the same batch is once."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl
import pytest
from pydantic import SecretStr

from chronicle import config
from chronicle.errors import SinkRejected
from chronicle.model.batch import Batch
from chronicle.policy.rules import Route
from chronicle.sinks import Sink
from chronicle.sinks.archive import ArchiveSink
from chronicle.sinks.clickhouse import ClickHouseSink
from chronicle.sinks.clickhouse_client import connect
from chronicle.sinks.kafka import KafkaSink
from chronicle.sinks.memory import MemorySink
from chronicle.sinks.routes import RouteSink
from chronicle.sinks.webhook import WebhookSink
from chronicle.stages.deliveries import Router
from tests.sinks import batches
from tests.sinks.conftest import AUDIT_RECORD_BYTES_MAX
from tests.sinks.endpoint import SECRET, Endpoint
from tests.sinks.reading import records, topics

Said = tuple[bytes, str]
"""Id and tenant of an event."""


@dataclass(frozen=True)
class Subject:
    """A sink under test, what it holds (event id → after image), and a batch of which it refuses one row for good."""

    sink: Sink
    held: Callable[[], dict[bytes, str | None]]
    dead: Callable[[], set[tuple[str, int, int]]] | None = None
    """None: dead letters are other sinks'."""
    contexts: Callable[[], set[str]] | None = None
    """None: so are contexts."""
    events: Callable[[], set[Said]] | None = None
    """None: and events."""
    refused: Batch = field(default_factory=batches.batch)
    """Empty: it refuses no row."""
    refused_row: int = 0


def _memory(_request: pytest.FixtureRequest) -> Subject:
    sink = MemorySink(image_bytes_max=AUDIT_RECORD_BYTES_MAX)
    return Subject(
        sink,
        lambda: {key: row["after"] for key, row in sink.changes.items()},
        lambda: set(sink.dead_letters),
        lambda: {record["transaction_id"] for record in sink.transactions.values() if record["kind"] == "context"},
        lambda: {(event_id, tenant) for _, tenant, _, event_id in sink.events},
        _too_large(),
        2,
    )


def _clickhouse(request: pytest.FixtureRequest) -> Subject:
    settings = request.getfixturevalue("clickhouse")
    client = connect(settings, database=settings.database)
    request.addfinalizer(client.close)
    return Subject(
        ClickHouseSink(settings),
        lambda: {row[0].bytes: row[1] for row in client.query("SELECT event_id, after FROM changes FINAL").result_rows},
        lambda: {
            (row[0], row[1], row[2])
            for row in client.query("SELECT topic, partition, offset FROM dead_letters FINAL").result_rows
        },
        lambda: {
            row[0] for row in client.query("SELECT transaction_id FROM transaction_status WHERE context != ''").result_rows
        },
        lambda: {(row[0].bytes, row[1] or "") for row in client.query("SELECT event_id, tenant FROM events FINAL").result_rows},
        batches.plain("shop", 5, states=["new", "new", "no such state"]),
        2,
    )


def _kafka(request: pytest.FixtureRequest) -> Subject:
    settings = request.getfixturevalue("kafka")

    def latest() -> dict[str, bytes]:
        return {(message.key() or b"").decode(): message.value() or b"" for message in records(settings, settings.audit_topic)}

    def held() -> dict[bytes, str | None]:
        out: dict[bytes, str | None] = {}
        for key, value in latest().items():
            if not key.startswith(("transaction:", "event:")):
                after = json.loads(value)["core"]["unmapped"]["after"]
                out[uuid.UUID(key).bytes] = None if after is None else json.dumps(after, separators=(",", ":"))
        return out

    def dead() -> set[tuple[str, int, int]]:
        found = set()
        for message in records(settings, settings.dead_letter_topic):
            headers = {str(header[0]): header[1] for header in list(message.headers() or []) if isinstance(header[1], bytes)}
            where = [headers[f"chronicle.original.{part}"].decode() for part in ("topic", "partition", "offset")]
            found.add((where[0], int(where[1]), int(where[2])))
        return found

    def contexts() -> set[str]:
        return {key.split(":")[3] for key in latest() if key.startswith("transaction:")}

    def events() -> set[Said]:
        return {_said(json.loads(value)) for key, value in latest().items() if key.startswith("event:")}

    return Subject(KafkaSink(settings), held, dead, contexts, events, _too_large(), 2)


def _too_large() -> Batch:
    """Incompressible, so that no compression makes it fit."""
    noise = "".join(uuid.UUID(bytes=batches.digest(i)).hex for i in range(AUDIT_RECORD_BYTES_MAX // 16))
    changes = [batches.change("shop", at, key=at) for at in range(5)]
    changes[2]["after"] = json.dumps({"id": 2, "name": noise}, separators=(",", ":"))
    return batches.batch(changes)


def _routes(request: pytest.FixtureRequest) -> Subject:
    settings: config.Kafka = request.getfixturevalue("kafka")
    topic = f"{settings.audit_topic}.routed"
    made = topics(settings, [topic], 2, max_message_bytes=str(AUDIT_RECORD_BYTES_MAX))
    made.__enter__()
    request.addfinalizer(lambda: made.__exit__(None, None, None))
    sink = RouteSink(settings, Router([Route("all", ("#",), topic)]))

    def told() -> list[Any]:
        return [json.loads(message.value() or b"") for message in records(settings, topic)]

    return Subject(
        sink, lambda: _afters(one for one in told() if "after" in one["core"]["unmapped"]),
        events=lambda: {_said(one) for one in told() if _is_event(one)},
        refused=_too_large(), refused_row=2,
    )  # fmt: skip


def _is_event(record: Any) -> bool:
    return bool(record["core"]["unmapped"].get("kind") == "event")


def _said(record: Any) -> Said:
    return uuid.UUID(record["core"]["metadata"]["uid"]).bytes, record["core"]["unmapped"]["tenant"] or ""


def _webhook(request: pytest.FixtureRequest) -> Subject:
    endpoint = Endpoint()
    request.addfinalizer(endpoint.close)
    endpoint.answer = lambda posted: (422, {}) if b"no such state" in posted.body else (204, {})
    webhook = config.Webhook(url=endpoint.url, secret=SecretStr(SECRET), allow_private=True, records_max=2)
    poison = [batches.change("shop", at, key=at) for at in range(5)]
    poison[2]["after"] = '{"id":2,"name":"no such state"}'
    return Subject(
        WebhookSink(webhook, pause=lambda _seconds: False),
        lambda: _afters(one for one in endpoint.records if not _is_event(one)),
        events=lambda: {_said(one) for one in endpoint.records if _is_event(one)},
        refused=batches.batch(poison),
        refused_row=2,
    )


def _archive(request: pytest.FixtureRequest) -> Subject:
    place = request.getfixturevalue("tmp_path")

    def held() -> dict[bytes, str | None]:
        if not any(place.glob("source=*")):
            return {}
        rows = pl.scan_parquet(f"{place}/source=*/**/*.parquet").sort("processed_at").unique("event_id", keep="last")
        return {uuid.UUID(event).bytes: after for event, after in rows.select("event_id", "after").collect().iter_rows()}

    def events() -> set[Said]:
        found = pl.read_parquet(f"{place}/events/**/*.parquet", columns=["event_id", "tenant"])
        return {(uuid.UUID(event).bytes, tenant or "") for event, tenant in found.iter_rows()}

    return Subject(ArchiveSink(config.Archive(url=str(place))), held, events=events)


def _afters(found: Iterable[Any]) -> dict[bytes, str | None]:
    """Of audit records, the latest of each change."""
    out: dict[bytes, str | None] = {}
    for record in found:
        after = record["core"]["unmapped"]["after"]
        text = None if after is None else json.dumps(after, separators=(",", ":"))
        out[uuid.UUID(record["core"]["metadata"]["uid"]).bytes] = text
    return out


REFUSING = [
    _memory,
    pytest.param(_clickhouse, marks=pytest.mark.stack),
    pytest.param(_kafka, marks=pytest.mark.stack),
    pytest.param(_routes, marks=pytest.mark.stack),
    _webhook,
]
ALL = [*REFUSING, _archive]


@pytest.fixture(params=ALL)
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """Each sink in turn."""
    made: Subject = request.param(request)
    yield made
    made.sink.close()


@pytest.fixture(params=REFUSING)
def refusing(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """Each sink that may refuse a row."""
    made: Subject = request.param(request)
    yield made
    made.sink.close()


def _expected(batch: Batch) -> dict[bytes, str | None]:
    return dict(batch.changes.select("event_id", "after").iter_rows())


def test_a_written_batch_is_held_whole(subject: Subject) -> None:
    """What write returned for can be read: changes, dead letters and contexts."""
    plain = batches.plain("shop", 30)
    batch = Batch(
        plain.changes,
        plain.tables,
        batches.transactions([batches.transaction_record("shop", "501", 1, "begin"), batches.context("shop", "501", 2)]),
        (batches.dead_letter("shop", 77), batches.dead_letter("shop", 78, key=None, value=None, schema_id=None)),
        events=batches.events_frame([batches.event("shop", at) for at in range(3)]),
    )
    subject.sink.write(batch)
    assert subject.held() == _expected(plain)
    if subject.dead is not None:
        assert subject.dead() == {("shop.public.customers", 0, 77), ("shop.public.customers", 0, 78)}
    if subject.contexts is not None:
        assert subject.contexts() == {"501"}
    if subject.events is not None:
        assert subject.events() == {(event, "") for event in batch.events["event_id"]}


def test_the_same_batch_twice_is_once_by_event_id(subject: Subject) -> None:
    """Redelivery is harmless."""
    batch = batches.plain("shop", 20)
    subject.sink.write(batch)
    subject.sink.write(batch)
    assert subject.held() == _expected(batch)


def test_parts_of_a_batch_make_the_whole(subject: Subject) -> None:
    """A batch may come in halves, overlapping ones included."""
    batch = batches.plain("shop", 20)
    subject.sink.write(batch.select(10, 20))
    subject.sink.write(batch.select(0, 15))
    assert subject.held() == _expected(batch)


def test_the_latest_processing_of_a_change_wins(subject: Subject) -> None:
    """Reprocessing under another policy replaces what was there."""
    first = batches.batch([batches.change("shop", 1)])
    again = batches.batch([batches.change("shop", 1, after='{"id":1}', processed_at=batches.START.replace(year=2027))])
    subject.sink.write(first)
    subject.sink.write(again)
    assert subject.held() == _expected(again)


def test_events_alone_are_held_once_by_id(subject: Subject) -> None:
    """Redelivered in halves, beside no change at all."""
    frame = batches.events_frame([batches.event("shop", at) for at in range(20)])
    for part in (frame, frame.slice(5, 10), frame.slice(0, 1)):
        subject.sink.write(replace(batches.batch(), events=part))
    assert subject.held() == {}
    if subject.events is not None:
        assert subject.events() == {(event, "") for event in frame["event_id"]}


def test_an_event_of_another_tenant_with_the_same_id_replaces_nothing(subject: Subject) -> None:
    """Applications choose ids: of one source and type each tenant's event stays, in one batch or in several. None is a
    tenant of its own, and an empty text is none."""
    tenants = ("acme", "blue", None, "a:b", "a%3Ab", "acme")
    one = [batches.event("shop", 1, tenant=tenant) for tenant in tenants[:3]]
    subject.sink.write(replace(batches.batch(), events=batches.events_frame(one)))
    for tenant in tenants[3:]:
        later = batches.event("shop", 1, tenant=tenant, processed_at=batches.START.replace(year=2027))
        subject.sink.write(replace(batches.batch(), events=batches.events_frame([later])))
    if subject.events is not None:
        assert subject.events() == {(one[0]["event_id"], tenant or "") for tenant in tenants}


def test_an_empty_batch_is_nothing(subject: Subject) -> None:
    """Everything of a batch may have been left out by rule."""
    subject.sink.write(batches.batch())
    assert subject.held() == {}


def test_a_refused_row_is_isolated_by_halving_and_its_neighbours_go_through(refusing: Subject) -> None:
    """The engine's bisection ends at the row; the sink then holds the others and not it."""
    batch = refusing.refused
    alone: list[int] = []

    def halve(lo: int, hi: int) -> None:
        try:
            refusing.sink.write(batch.select(lo, hi))
        except SinkRejected:
            if hi - lo == 1:
                alone.append(lo)
                return
            middle = (lo + hi) // 2
            halve(lo, middle)
            halve(middle, hi)

    halve(0, len(batch.changes))
    assert alone == [refusing.refused_row]
    refused = batch.changes["event_id"][refusing.refused_row]
    assert refusing.held() == {key: after for key, after in _expected(batch).items() if key != refused}


def test_a_refusal_names_no_value(refusing: Subject) -> None:
    """Error texts leave the process as log lines."""
    row = refusing.refused_row
    with pytest.raises(SinkRejected) as refusal:
        refusing.sink.write(refusing.refused.select(row, row + 1))
    assert "no such state" not in str(refusal.value)
    assert refusal.value.__suppress_context__ or refusal.value.__context__ is None
