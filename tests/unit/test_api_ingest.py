"""`POST /events`: what is taken, what is refused and how, and that nothing is told as accepted which is not held."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import time
import tracemalloc
import zlib
from typing import Any
from uuid import UUID

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from chronicle.api import bodies
from chronicle.api.bodies import JSON, NDJSON, cut, inflated
from chronicle.api.limits import Sizes
from chronicle.api.problems import Problem
from chronicle.events.catalogue import Catalogue
from tests.unit.api_double import Service, bearer

LOGIN = {"type": "security.login", "source": "shop", "actor": "ann"}
LINES = {"content-type": "application/x-ndjson"}


def test_one_event_is_accepted_when_it_is_held() -> None:
    """The answer has its id and how it is held; what is held is complete."""
    service = Service()
    answer = service.post(LOGIN)
    assert answer.status_code == 202
    assert answer.json() == {"status": "accepted", "id": answer.json()["id"], "durability": "confirmed"}
    [event] = service.publisher.events
    assert event == LOGIN | {"id": answer.json()["id"], "time": "2026-11-23T08:00:00.123456Z"}
    assert UUID(event["id"]).version == 4
    assert service.publisher.records[0][0] == b"ann"


def test_a_spilled_event_says_so() -> None:
    """Whoever hands in may want to know that the broker has not seen it yet."""
    service = Service()
    service.publisher.durability = "spilled"
    assert service.post(LOGIN).json()["durability"] == "spilled"


def test_nothing_is_accepted_that_is_not_held() -> None:
    """Neither broker nor spill: 503 with a time to wait, for one and for a batch."""
    service = Service()
    service.publisher.away = True
    for body in (LOGIN, [LOGIN, LOGIN]):
        answer = service.post(body)
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "7"
        assert "status" not in answer.json()


@pytest.mark.parametrize("as_lines", [False, True])
def test_a_batch_has_a_result_for_each_event(as_lines: bool) -> None:
    """In order; those that are refused keep none of the others back."""
    service = Service()
    bodies: list[Any] = [LOGIN, {"type": "x"}, {"type": "security.logout", "source": "shop"}, 7, {"secret": "value"}]
    if as_lines:
        answer = service.post(b"\n".join(map(msgspec.json.encode, bodies)) + b"\n\n", headers=LINES)
    else:
        answer = service.post(bodies)
    found = answer.json()
    assert answer.status_code == 202
    assert (found["status"], found["durability"]) == ("partial", "confirmed")
    assert [one["status"] for one in found["results"]] == ["accepted", "refused", "accepted", "refused", "refused"]
    assert found["results"][1]["error"] == {"source": "is missing: the application's name"}
    assert "value" not in answer.text
    assert [event["type"] for event in service.publisher.events] == ["security.login", "security.logout"]
    assert [event["id"] for event in service.publisher.events] == [found["results"][0]["id"], found["results"][2]["id"]]


def test_a_batch_of_which_all_is_refused_is_refused() -> None:
    """422, with the same results; nothing is published."""
    service = Service()
    answer = service.post([{"type": "x"}, {}])
    assert answer.status_code == 422
    assert [one["status"] for one in answer.json()["results"]] == ["refused", "refused"]
    assert service.publisher.records == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{", 422),
        (b"[", 400),
        (b"[]", 422),
        (b"null", 422),
        (b"\xff\xfe", 422),
        (b"[" * 50_000, 400),
        (b'{"type":"a","source":"s","payload":' + b'{"a":' * 9_000 + b"1" + b"}" * 9_001, 422),
        (b'{"type":"a","source":"s","payload":{"n":NaN}}', 422),
        (b'{"type":"a","source":"s","outcome":"maybe"}', 422),
        (b'{"type":"a","source":"s","type":"b","source":7}', 422),
    ],
)
def test_what_is_no_event_is_refused(body: bytes, status: int) -> None:
    """Never with an error of the service's own."""
    service = Service()
    answer = service.post(body)
    assert answer.status_code == status
    assert answer.json()["error"]
    assert service.publisher.records == []


def test_an_event_may_be_compressed() -> None:
    """gzip (also of several members) and zstd (also of several frames)."""
    service = Service()
    text = msgspec.json.encode([LOGIN, LOGIN])
    half = len(text) // 2
    bodies = {
        "gzip": gzip.compress(text[:half]) + gzip.compress(text[half:]),
        "zstd": zstandard.compress(text[:half]) + zstandard.compress(text[half:]),
        "identity": text,
    }
    for encoding, body in bodies.items():
        assert service.post(body, headers={"content-encoding": encoding}).status_code == 202, encoding
    assert len(service.publisher.records) == 6


def test_a_bomb_does_not_explode() -> None:
    """A few bytes that inflate to more than the limit are refused, and so is a frame that asks for a huge window."""
    service = Service()
    gigabyte = zlib.compressobj(9, wbits=31)
    bomb = gigabyte.compress(b" " * 50_000_000) + gigabyte.flush()
    assert service.post(bomb, headers={"content-encoding": "gzip"}).status_code == 413
    assert service.post(zstandard.compress(b" " * 50_000_000), headers={"content-encoding": "zstd"}).status_code == 413
    wide = zstandard.ZstdCompressor(compression_params=zstandard.ZstdCompressionParameters(window_log=27))
    made = wide.compressobj()
    huge = made.compress(b"[]") + made.flush()
    assert service.post(huge, headers={"content-encoding": "zstd"}).status_code in (400, 413, 422)
    assert service.publisher.records == []


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
@pytest.mark.parametrize("body", [b"", b"{}", b"\x1f\x8b", b"\x28\xb5\x2f\xfd", gzip.compress(b"{}")[:-5], b"\0" * 100])
def test_what_is_not_compressed_as_it_says_is_refused(encoding: str, body: bytes) -> None:
    """Also a cut one: the rest of it may have been an event."""
    answer = Service().post(body, headers={"content-encoding": encoding})
    assert answer.status_code in (400, 422), answer.text


def test_limits_are_told_by_their_status() -> None:
    """Body, events in a batch, media type, encoding."""
    service = Service(sizes=Sizes(2_000, 4_000, 3))
    assert service.post(b" " * 2_001).status_code == 413
    assert service.post([LOGIN] * 4).status_code == 413
    assert service.post([LOGIN] * 3).status_code == 202
    assert service.post(LOGIN, headers={"content-type": "text/plain"}).status_code == 415
    assert service.post(LOGIN, headers={"content-encoding": "br"}).status_code == 415
    assert service.post(LOGIN, headers={"content-length": "-1"}).status_code == 400
    assert service.post(LOGIN, headers={"content-length": "999999"}).status_code == 413


def test_a_body_without_a_length_is_cut_off_at_the_limit() -> None:
    """Chunked: the length is known only when it was read."""
    service = Service(sizes=Sizes(2_000, 4_000, 3))

    async def parts() -> Any:
        for _ in range(100):
            yield b" " * 100

    [answer] = service.ask(("POST", "/events", {"content": parts(), "headers": {"content-type": "application/json"}}))
    assert answer.status_code == 413


def test_the_same_idempotency_key_makes_the_same_ids() -> None:
    """Of one key; another caller's are others; an id that is said stays."""
    service = Service()
    one, two = service.store.key(1, "ingest"), service.store.key(2, "ingest")
    parts = service.parts()
    said = {"id": "0B7C0C2E-6F6D-4D0E-9D6E-2F1F3B0D9A11", **LOGIN}

    def ids(key: str, name: str) -> list[str]:
        headers = {"idempotency-key": name, **bearer(key)}
        answer = service.post([LOGIN, LOGIN, said], headers=headers, parts=parts)
        return [one["id"] for one in answer.json()["results"]]

    first = ids(one, "a")
    assert first == ids(one, "a")
    assert len({*first, *ids(one, "b"), *ids(two, "a")}) == 7
    assert first[2] == "0b7c0c2e-6f6d-4d0e-9d6e-2f1f3b0d9a11"
    assert UUID(first[0]).version == 8
    assert {event["time"] for event in service.publisher.events} == {"2026-11-23T08:00:00.123456Z"}


def test_a_repeat_has_the_time_of_the_first() -> None:
    """An event without a time is not moved by being sent again."""
    service = Service()
    body, headers = msgspec.json.encode(LOGIN), {"content-type": "application/json", "idempotency-key": "k"}
    request = ("POST", "/events", {"content": body, "headers": headers})

    async def later() -> Any:
        service.clock.seconds += 60
        yield body

    service.ask(request, ("POST", "/events", {"content": later(), "headers": headers}), request)
    assert len({(event["id"], event["time"]) for event in service.publisher.events}) == 1


def test_chronicles_own_events_cannot_be_forged() -> None:
    """What says that the trail was read comes from the service alone."""
    service = Service()
    for event in ({"type": "chronicle.history.read", "source": "shop"}, {"type": "a", "source": "chronicle"}):
        assert service.post(event).status_code == 422
    assert service.post({"resource_type": "chronicle", "action": "x", "source": "shop"}).status_code == 422
    assert service.publisher.records == []


def test_a_key_hands_in_only_what_is_its_own() -> None:
    """Sources and tenants are filled in where there is one, and refused where they are others'."""
    service = Service()
    own = bearer(service.store.key(1, "ingest", sources=["shop"], tenants=["acme"]))
    either = bearer(service.store.key(2, "ingest", tenants=["acme", "blue"], tables=["shop.security.*"]))
    assert service.post({"type": "a"}, headers=own).status_code == 202
    assert service.publisher.events[-1]["source"] == "shop"
    assert service.publisher.events[-1]["tenant"] == "acme"
    assert service.post({"type": "a", "source": "hiring"}, headers=own).json() == {
        "error": {"source": "is not among the sources of this key"}
    }
    assert service.post({"type": "a", "tenant": "blue"}, headers=own).status_code == 422
    assert service.post(LOGIN | {"tenant": "blue"}, headers=either).status_code == 202
    assert service.post(LOGIN, headers=either).json() == {"error": {"tenant": "is not among the tenants of this key"}}
    other_type = {"type": "order.placed", "source": "shop", "tenant": "blue"}
    assert service.post(other_type, headers=either).json() == {"error": {"type": "is not among those of this key"}}


@pytest.mark.parametrize("pattern", ["shop.security.*", "shop.**", "shop.*.*", "**.security.login"])
def test_a_key_of_some_tables_cannot_call_itself_by_a_part_of_them(pattern: str) -> None:
    """The source is the pattern's first word and has no part of the type: `shop.security` is another application. Only what
    begins with `**` is met by any."""
    service = Service()
    key = bearer(service.store.key(1, "ingest", tables=[pattern]))
    assert service.post(LOGIN | {"source": "shop", "type": "security.login"}, headers=key).status_code == 202
    for source, type_ in (("shop.security", "login"), ("shop.evil", "security.login"), ("shop.", "login")):
        answer = service.post(LOGIN | {"source": source, "type": type_}, headers=key)
        assert answer.status_code == (202 if pattern.startswith("**") and type_ == "security.login" else 422), source


def test_a_rate_is_held_per_key() -> None:
    """429 with a time to wait; another key is not slowed down, and time brings more."""
    service = Service(events_per_s=10)
    one, two = bearer(service.store.key(1, "ingest")), bearer(service.store.key(2, "ingest"))
    parts = service.parts()
    request = {"content": msgspec.json.encode([LOGIN] * 20), "headers": {"content-type": "application/json"}}

    def ask(key: dict[str, str], wait_s: float = 0) -> tuple[Any, ...]:
        headers = {**request["headers"], **key}  # type: ignore[dict-item]

        async def body() -> Any:
            service.clock.seconds += wait_s
            yield request["content"]

        return ("POST", "/events", {"content": body(), "headers": headers})

    answers = service.ask(ask(one), ask(one), ask(two), ask(one, 2.0), parts=parts)
    assert [answer.status_code for answer in answers] == [202, 429, 202, 202]
    assert answers[1].headers["retry-after"] == "2"
    assert len(service.publisher.records) == 60


def test_strict_mode_refuses_what_the_catalogue_does_not_know() -> None:
    """Already at the door, with the field's name."""
    service = Service(refuse=Catalogue.shipped().refuse)
    answer = service.post({"type": "nobody.knows.this", "source": "shop"})
    assert answer.status_code == 422
    assert list(answer.json()["error"]) == ["type"]


@given(st.binary(max_size=300))
def test_any_body_is_answered(body: bytes) -> None:
    """Whatever is sent: 4xx or 202, and nothing of it comes back."""
    service = Service()
    for headers in ({}, LINES, {"content-encoding": "gzip"}, {"content-encoding": "zstd"}):
        answer = service.post(body, headers=headers)
        assert answer.status_code < 500


@given(st.text(min_size=8, max_size=30).filter(lambda text: text.isalnum()))
def test_no_answer_repeats_a_value(value: str) -> None:
    """Errors name fields, never what stood there."""
    service = Service()
    marked = f"zq{value}zq"
    bodies: list[dict[str, Any]] = [
        {**LOGIN, "outcome": marked},
        {**LOGIN, "time": marked},
        {**LOGIN, marked: 1},
        {**LOGIN, "payload": marked},
        {**LOGIN, "actor": {"id": "a", marked: marked}},
        {**LOGIN, "type": f"{marked} "},
        {**LOGIN, "traceparent": marked},
        {**LOGIN, "id": marked},
    ]
    for body in bodies:
        answer = service.post(json.dumps(body).encode())
        assert answer.status_code == 422
        assert marked not in answer.text


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_batch_that_is_cut_in_the_middle_of_its_compression_is_refused_whole(encoding: str) -> None:
    """Wherever it is cut: what comes out before the cut are whole events, but not all of them."""
    service = Service(sizes=Sizes(4_000_000, 8_000_000, 100_000))
    lines = b"".join(
        msgspec.json.encode({**LOGIN, "session": hashlib.sha256(b"%d" % n).hexdigest()}) + b"\n" for n in range(9_000)
    )
    body = gzip.compress(lines) if encoding == "gzip" else zstandard.compress(lines)
    for length in (len(body) - 1, len(body) // 2, len(body) // 7):
        answer = service.post(body[:length], headers={**LINES, "content-encoding": encoding})
        assert answer.status_code == 400, length
    assert service.publisher.records == []
    assert len(service.post(body, headers={**LINES, "content-encoding": encoding}).json()["results"]) == 9_000


def test_many_empty_members_are_not_worked_off() -> None:
    """Each would have what comes after it copied: hundreds of gigabytes for a body of the allowed size."""
    body = gzip.compress(b"") * 400_000
    begun = time.process_time()
    with pytest.raises(Problem) as refused:
        inflated(body, "gzip", Sizes(len(body), 1 << 20, 10))
    assert refused.value.status == 400
    assert time.process_time() - begun < 2


@pytest.mark.parametrize(
    ("kind", "body"),
    [(JSON, b"[" + b"0," * 500_000 + b"0]"), (JSON, b"[" + b"{}," * 500_000 + b"{}]"),
     (NDJSON, b"0\n" * 500_000), (NDJSON, b"\n" * 500_000)],
)  # fmt: skip
def test_a_crowd_of_tiny_elements_takes_no_more_memory_than_its_text(kind: str, body: bytes) -> None:
    """One object for each of them, before they are counted, would be a hundred times as much."""
    sizes = Sizes(1 << 20, 4 << 20, 100)
    tracemalloc.start()
    try:
        with pytest.raises(Problem) as refused:
            cut(body, kind, sizes)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert refused.value.status in (400, 413)
    assert peak < len(body)


def test_a_batch_of_large_events_is_still_one() -> None:
    """Many commas are no crowd."""
    wide = {**LOGIN, "payload": {f"f{n}": n for n in range(200)}}
    service = Service(sizes=Sizes(1 << 20, 1 << 20, 10))
    assert service.post([wide] * 10).status_code == 202
    assert service.post([wide] * 11).status_code == 413
    assert len(service.publisher.records) == 10


def test_a_body_that_never_comes_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even its first part: a connection that says nothing more holds one of the service's places."""
    monkeypatch.setattr(bodies, "BODY_S", 0.05)

    async def never() -> Any:
        await asyncio.Event().wait()

    with pytest.raises(Problem) as refused:
        asyncio.run(asyncio.wait_for(bodies.read(never, b"10", Sizes(100, 100, 1)), 5))
    assert refused.value.status == 408
