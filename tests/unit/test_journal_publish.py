"""What `publish` makes of what is said: whole events, routed, sampled, protected, heard."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from chronicle.errors import ConfigError
from chronicle.events.types.auth import AuthLogin
from chronicle.journal import Event, EventRefused, Journal, JournalClosed, Route, actor_uri, commit_hash
from chronicle.journal.outgoing import key_of
from chronicle.journal.transports.memory import Memory


def made(what: Any = "a.b", *, settings: Mapping[str, Any] | None = None, **said: Any) -> Event:
    with Journal(source="test", transport="memory://", **(settings or {})) as journal:
        out = journal.prepared(what, **said)
    assert out is not None
    return out.event


def test_an_event_is_completed() -> None:
    """Id, time, source and type are there; ids sort by time and differ."""
    before = datetime.now(UTC)
    events = [made("", resource=("order", 7), action="placed") for _ in range(50)]
    assert {event.type for event in events} == {"order.placed"}
    assert all(before <= datetime.fromisoformat(event.time) <= datetime.now(UTC) for event in events)
    ids = [event.id for event in events]
    assert len(set(ids)) == 50
    assert [one[:8] for one in ids] == sorted(one[:8] for one in ids)
    assert all(re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", one) for one in ids)
    assert {event.source for event in events} == {"test"}


def test_a_payload_of_the_catalogue_knows_its_type() -> None:
    """`publish(AuthLogin(…))` needs no name."""
    event = made(AuthLogin(method="passkey"), actor="ann", outcome="success")
    assert (event.type, event.resource_type, event.action) == ("auth.login", "auth", "login")
    assert event.payload == {"method": "passkey"}
    assert made("auth.login", payload=AuthLogin(method="passkey")).payload == {"method": "passkey"}


@pytest.mark.parametrize(
    "said",
    [
        {"outcome": "hunter2"},
        {"priority": "hunter2"},
        {"payload": ["hunter2"]},
        {"payload": {"x": object()}},
        {"payload": {"x": "\ud800"}},
        {"tags": {"x": b"\xff" * 300_000}},
        {"description": 7},
        {"time": "hunter2"},
        {"time": datetime(2026, 2, 1)},
        {"id": "hunter2"},
        {"resource": ("a", "b", "hunter2")},
        {"topic": "hunter2/../x"},
        {"traceparent": "hunter2"},
    ],
)
def test_what_is_no_event_is_refused_at_once(said: dict[str, Any]) -> None:
    """The caller is told, it is counted, nothing is sent, and no value is repeated."""
    memory = Memory()
    journal = Journal(source="test", transport=memory)
    with pytest.raises(EventRefused) as refusal:
        journal.publish("a.b", **said)
    assert "hunter2" not in str(refusal.value)
    journal.close()
    assert (journal.counts["invalid"], journal.counts["accepted"], memory.sent) == (1, 0, [])


def test_a_field_that_there_is_not_is_a_mistake() -> None:
    """It is no tag by accident."""
    with pytest.raises(TypeError, match="ressource"):
        made("a.b", ressource=("order", 7))


def test_a_time_with_a_zone_is_taken() -> None:
    """As text and as an object."""
    assert made("a.b", time=datetime(2026, 2, 1, tzinfo=UTC)).time.startswith("2026-02-01T00:00:00")
    assert made("a.b", time="2026-02-01T12:00:00Z").time.startswith("2026-02-01T12:00:00")


def test_strict_mode_refuses_what_the_catalogue_does_not_know() -> None:
    """Unknown types and fields; what it knows goes through."""
    strict = {"strict": True}
    assert made(AuthLogin(method="passkey"), settings=strict).type == "auth.login"
    with pytest.raises(EventRefused):
        made("no.such.type", settings=strict)
    with pytest.raises(EventRefused):
        made("auth.login", payload={"method": "passkey", "shoe_size": 46}, settings=strict)


def test_routes_say_topic_priority_and_key() -> None:
    """For each property the first pattern that says it; what the event says itself stays."""
    routes: dict[str, Route | dict[str, str]] = {
        "security.permission.*": {"priority": "high"},
        "security.**": Route(topic="chronicle.events.security", priority="low", key="actor"),
    }
    with Journal(source="test", transport="memory://", routes=routes) as journal:
        denied = journal.prepared("security.permission.denied", actor="ann")
        other = journal.prepared("security.login", actor="ann", priority="high", partition_key="k", topic="elsewhere")
        plain = journal.prepared("order.placed", actor="ann", resource=("order", 7))
    assert denied is not None
    assert other is not None
    assert plain is not None
    assert (denied.topic, denied.event.priority, denied.key) == ("chronicle.events.security", "high", b"ann")
    assert (other.topic, other.event.priority, other.key) == ("elsewhere", "high", b"k")
    assert (plain.topic, plain.event.priority, plain.key) == (None, "normal", b"order:7")


def test_routes_and_samples_are_texts_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same as the argument says."""
    monkeypatch.setenv("CHRONICLE_JOURNAL_ROUTES", "security.** topic=t.s priority=high key=actor; order.* key=resource")
    monkeypatch.setenv("CHRONICLE_JOURNAL_SAMPLE", "log.debug=0")
    monkeypatch.setenv("CHRONICLE_JOURNAL_TRANSPORT", "memory://")
    with Journal(source="test") as journal:
        out = journal.prepared("security.login", actor="ann")
        assert journal.prepared("log.debug") is None
    assert out is not None
    assert (out.topic, out.event.priority, out.event.partition_key) == ("t.s", "high", "ann")


@pytest.mark.parametrize(
    "settings",
    [
        {"routes": {"a": {}}},
        {"routes": {"a": {"colour": "red"}}},
        {"routes": "a priority=soon"},
        {"routes": "a key=shoe"},
        {"sample": {"a": 1.5}},
        {"sample": "a=often"},
        {"transport": "carrier-pigeon://"},
        {"transport": "http://user:hunter2@host"},
        {"transport": "http://"},
        {"transport": ""},
        {"workers": 0},
        {"rate_limit": -1.0},
        {"no_such_setting": 1},
        {"metrics": "abacus"},
    ],
)
def test_a_wrong_setting_is_told_at_the_start(settings: dict[str, Any]) -> None:
    """As what it is, without a secret in it."""
    with pytest.raises(ConfigError) as refusal:
        Journal(**{"source": "test", "transport": "memory://", **settings})
    assert "hunter2" not in str(refusal.value)


def test_the_key_falls_back() -> None:
    """Partition key, resource, actor, event."""
    base = Event(id="00000000-0000-0000-0000-000000000001", type="a.b")
    assert key_of(base) == base.id.encode()
    assert key_of(msgspec.structs.replace(base, actor="ann", resource_type="order")) == b"ann"
    assert key_of(msgspec.structs.replace(base, actor="ann", resource_type="order", resource_id="7")) == b"order:7"
    assert key_of(msgspec.structs.replace(base, partition_key="k", actor="ann")) == b"k"


def test_events_of_one_request_are_sampled_together() -> None:
    """The share is about right, everything is counted, and a request is whole or absent."""
    memory = Memory()
    journal = Journal(source="test", transport=memory, sample={"http.**": 0.3, "log.debug": 0})
    for n in range(500):
        for type in ("http.request.received", "http.response.sent"):
            journal.publish(type, request_id=f"r-{n}")
        assert journal.publish("log.debug").disposition == "sampled"
    journal.publish("order.placed")
    journal.close()
    requests = [out.event.request_id for out in memory.sent if out.event.type.startswith("http.")]
    assert all(requests.count(one) == 2 for one in set(requests))
    assert 100 < len(set(requests)) < 200
    assert journal.counts["sampled"] == 500 + 2 * (500 - len(set(requests)))
    assert journal.counts["accepted"] == journal.counts["confirmed"] == len(requests) + 1


def test_over_the_rate_events_are_left_out_and_counted() -> None:
    """A burst goes through; without a spill the rest is nobody's, and a caller who waits is told."""
    journal = Journal(source="test", transport="memory://", rate_limit=0.001, burst=5, on_error=lambda *_: None)
    dispositions = [journal.publish("a.b").disposition for _ in range(8)]
    assert dispositions[5:] == ["rate_limited"] * 3
    with pytest.raises(Exception, match="rate limit"):
        journal.publish_sync("a.b")
    journal.close()
    assert (journal.counts["confirmed"], journal.counts["rate_limited"]) == (5, 4)


def test_protection_comes_before_everything_else() -> None:
    """Neither the transport nor subscribers, hooks or the history see what it took away; what it refuses is not sent."""

    def protect(event: Event) -> Event:
        if event.type == "a.broken":
            raise KeyError("4111")
        if event.type == "a.refused":
            raise EventRefused("payload", "is not allowed out")
        return msgspec.structs.replace(event, payload={"card": "[FILTERED]"})

    memory = Memory()
    seen: list[Event] = []
    journal = Journal(source="test", transport=memory, protect=protect)
    journal.subscribe("**", seen.append)
    journal.on_enqueue(seen.append)
    journal.publish("a.b", payload={"card": "4111"})
    for type in ("a.refused", "a.broken"):
        with pytest.raises(EventRefused) as refusal:
            journal.publish(type, payload={"card": "4111"})
        assert "4111" not in str(refusal.value)
    journal.flush(10)
    seen += journal.history(access="test")
    journal.close()
    assert len(seen) >= 3
    assert "4111" not in repr(seen)
    assert not any(b"4111" in out.text for out in memory.sent)
    assert journal.counts["invalid"] == 2


def test_subscribers_hear_their_events_in_order() -> None:
    """By type or pattern, in a thread of the journal's; one that fails hurts nobody, none hears itself."""
    errors: list[Exception] = []
    heard: list[str] = []
    threads: set[str] = set()
    journal = Journal(source="test", transport="memory://", on_error=lambda error, event: errors.append(error))

    def fails(event: Event) -> None:
        raise ZeroDivisionError

    def echoes(event: Event) -> None:
        threads.add(threading.current_thread().name)
        journal.publish("security.echo")

    journal.subscribe("security.*", fails)
    journal.subscribe("security.*", echoes)
    remove = journal.subscribe("security.login", lambda event: heard.append(str(event.payload)))
    for n in range(100):
        journal.publish("security.login", payload={"n": n})
        journal.publish("order.placed")
    assert journal.flush(30)
    remove()
    journal.publish("security.login", payload={"n": "after"})
    journal.close()
    assert heard == [str({"n": n}) for n in range(100)]
    assert threads == {"chronicle-journal-subscribers"}
    assert len(errors) == 101
    assert journal.counts["confirmed"] == 302


def test_slow_subscribers_are_counted() -> None:
    """Their queue is bounded; events go their way meanwhile."""
    gate = threading.Event()
    journal = Journal(source="test", transport="memory://", queue_events=10)
    journal.subscribe("**", lambda _: gate.wait(30))
    for _ in range(30):
        journal.publish_sync("a.b")
    gate.set()
    journal.close()
    counts = journal.counts
    assert counts["confirmed"] == 30
    assert 19 <= counts["unheard"] <= 20


def test_hooks_see_each_accepted_event() -> None:
    """At once, in the publishing thread; a broken one is told of and breaks nothing."""
    seen: list[str] = []
    errors: list[Exception] = []
    journal = Journal(source="test", transport="memory://", on_error=lambda error, _: errors.append(error))
    journal.on_enqueue(lambda event: 1 / 0)
    remove = journal.on_enqueue(lambda event: seen.append(threading.current_thread().name))
    journal.publish("a.b")
    remove()
    journal.publish("a.b")
    journal.close()
    assert seen == [threading.current_thread().name]
    assert [type(error) for error in errors] == [ZeroDivisionError] * 2


def test_history_is_bounded_and_its_readers_are_recorded() -> None:
    """By count and by memory; reading is an event with the reader's name, and not part of what is read."""
    memory = Memory()
    journal = Journal(source="test", transport=memory, history_events=5, history_bytes=2_000)
    for n in range(10):
        journal.publish("a.b", payload={"n": n})
    assert [(event.payload or {})["n"] for event in journal.history(access="ann")] == [5, 6, 7, 8, 9]
    journal.publish("a.large", payload={"x": "y" * 1_700})
    assert [event.type for event in journal.history(access="ann")] == ["a.large"]
    journal.publish("a.b")
    assert [event.type for event in journal.history("a.b", access="bob", limit=1)] == ["a.b"]
    assert journal.history("a.*", access="bob", limit=0) == []
    with pytest.raises(EventRefused):
        journal.history(access="")
    journal.close()
    reads = [out.event for out in memory.sent if out.event.type == "chronicle.history.read"]
    assert [event.actor for event in reads] == ["ann", "ann", "bob", "bob"]
    assert (reads[2].payload or {})["filters"] == ["type", "limit"]
    assert journal.counts["history_reads"] == 4


def test_asyncio_twins_are_the_same_queue() -> None:
    """They wait without holding up the loop, and raise the same."""
    memory = Memory()

    async def work(journal: Journal) -> list[str]:
        receipts = await asyncio.gather(
            journal.apublish("a.b"), journal.apublish("a.b", timeout=30), *(journal.apublish_sync("a.b") for _ in range(50))
        )
        with pytest.raises(EventRefused):
            await journal.apublish_sync("a.b", id="x")
        return [receipt.disposition for receipt in receipts[1:]]

    with Journal(source="test", transport=memory) as journal:
        assert asyncio.run(work(journal)) == ["confirmed"] * 51
    assert len(memory.sent) == 52


def test_a_closed_journal_says_so() -> None:
    """To publishers of both kinds; closing twice is once."""
    journal = Journal(source="test", transport="memory://")
    journal.publish("a.b")
    journal.close()
    journal.close()
    with pytest.raises(JournalClosed):
        journal.publish("a.b")
    with pytest.raises(JournalClosed):
        asyncio.run(journal.apublish_sync("a.b"))
    assert journal.counts["confirmed"] == 1


def test_spans_and_events_know_each_other() -> None:
    """The current span is the event's trace, and the event is a span event, without its payload."""
    provider = TracerProvider()
    tracer = provider.get_tracer("test")
    journal = Journal(source="test", transport="memory://")
    with tracer.start_as_current_span("request") as span:
        receipt = journal.publish("a.b", payload={"card": "4111"})
        event = journal.prepared("a.b")
    journal.close()
    assert event is not None
    context = span.get_span_context()
    assert event.event.traceparent == f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"
    (noted,) = span.events  # type: ignore[attr-defined]
    assert dict(noted.attributes) == {"chronicle.event.id": receipt.id, "chronicle.event.type": "a.b"}
    assert trace.get_current_span().get_span_context().is_valid is False


def test_names_for_actors_and_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    """URIs are one over all applications; the commit is what is said, or what is checked out."""
    assert actor_uri("user", 7, authority="shop.example.com") == "chronicle://shop.example.com/user/7"
    assert actor_uri("user", "a/b c") == "chronicle:///user/a%2Fb%20c"
    with pytest.raises(ValueError, match="id"):
        actor_uri("user", "")
    commit_hash.cache_clear()
    monkeypatch.setenv("CHRONICLE_JOURNAL_COMMIT", "abc")
    assert commit_hash() == "abc"
    commit_hash.cache_clear()
