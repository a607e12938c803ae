"""The event: what is accepted, what is refused, in which words, and its one form."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from chronicle.events.event import (
    DEPTH_MAX,
    DESCRIPTION_LENGTH_MAX,
    EVENT_BYTES_MAX,
    FIELDS,
    LENGTHS,
    OUTCOMES,
    PRIORITIES,
    TAGS_MAX,
    TEXT_LENGTH_MAX,
    Actor,
    Event,
    EventRefused,
    checked,
    completed,
    converted,
    decoded,
    encoded,
    instant,
)

EVENTS = Path(__file__).parents[2] / "schemas" / "events"
ID, TIME = "5f0c0f6e-7f0e-4a53-9b7c-3a5e2f1d9c10", "2026-02-01T12:00:00.000000Z"
HTTP = json.loads((EVENTS / "event.schema.json").read_text(encoding="utf-8"))

texts = st.text(st.characters(codec="utf-8"), max_size=40)
numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
words = st.from_regex(r"\A[A-Za-z0-9_-]{1,8}(\.[A-Za-z0-9_-]{1,8}){0,2}\Z")
moments = st.datetimes(
    datetime(1900, 1, 2),
    datetime(2299, 12, 30),
    timezones=st.just(UTC) | st.builds(timezone, st.integers(-1439, 1439).map(lambda minutes: timedelta(minutes=minutes))),
)
optional = {
    "id": st.uuids().map(str) | st.uuids().map(lambda one: str(one).upper()),
    "time": moments.map(datetime.isoformat),
    "actor": st.none() | texts | st.builds(Actor, id=texts, type=st.none() | texts).map(msgspec.to_builtins),
    **dict.fromkeys(("action", "resource_type", "resource_id", "description", "reason", "ip"), st.none() | texts),
    "outcome": st.sampled_from([None, *OUTCOMES]),
    "payload": st.none() | st.dictionaries(texts, values, max_size=4),
    "tags": st.dictionaries(texts, values, max_size=4),
    "traceparent": st.none() | st.just("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    "priority": st.sampled_from(PRIORITIES),
}
events = st.fixed_dictionaries({"type": words, "source": texts.filter(bool)}, optional=optional)


def taken(text: bytes) -> bytes:
    return encoded(completed(decoded(text), id=ID, time=TIME))


def refusal(value: object) -> EventRefused:
    with pytest.raises(EventRefused) as found:
        taken(value if isinstance(value, bytes) else json.dumps(value).encode())
    return found.value


@given(events)
def test_an_event_that_was_written_is_read_and_written_the_same(said: dict[str, Any]) -> None:
    """One form: a second pass changes no byte, and nothing that was said is lost."""
    first = taken(json.dumps(said).encode())
    assert taken(first) == encoded(decoded(first)) == first
    unsaid = {"tags": {}, "priority": "normal"}
    kept = {name: value for name, value in said.items() if value is not None and value != unsaid.get(name, ...)}
    made = {"id": said.get("id", ID).lower(), "time": instant(said.get("time", TIME))}
    assert json.loads(first) == {**kept, **made}


@given(events)
def test_what_is_accepted_is_what_the_published_schema_says(said: dict[str, Any]) -> None:
    """A client that follows the JSON Schema is never refused for its form."""
    taken(json.dumps(said).encode())
    jsonschema.validate(said, HTTP)


wild = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=9), inner, max_size=6)
    ),
    max_leaves=20,
)
CANARY = "Zq7canaryXw"
marked = st.sampled_from(
    [CANARY, 7707070707070770, [CANARY], {CANARY: CANARY}, CANARY * 2000, -7.70770707070707e300, {"id": 7707070707}]
)


@given(st.dictionaries(st.sampled_from(FIELDS) | st.just(CANARY), marked | wild, max_size=8))
@example({"tags": {"a": {"b": float("nan")}}, "type": CANARY, "source": "s"})
def test_no_refusal_repeats_a_word_of_what_was_sent(value: dict[str, Any]) -> None:
    """Neither a value nor an unknown name: refusals are logged and answered."""
    try:
        taken(json.dumps(value).encode())
    except EventRefused as error:
        assert CANARY not in str(error) and "70707" not in str(error)
        assert error.field in ("", *FIELDS)
    else:
        assert len(taken(json.dumps(value).encode())) <= EVENT_BYTES_MAX


@given(st.binary(max_size=200) | wild.map(lambda one: json.dumps(one).encode()))
@example(b"")
@example(b"null")
@example(b'{"a":' * 100_000)
@example(b'{"payload":' + b'{"a":' * 5_000 + b"1" + b"}" * 5_001)
@example(b'{"tags":{"a":1e999}}')
@example(b'\xef\xbb\xbf{"type":"a"}')
def test_whatever_comes_is_an_event_or_refused(text: bytes) -> None:
    """No other error leaves: this is where the network begins."""
    try:
        assert len(taken(text)) <= EVENT_BYTES_MAX
    except EventRefused as error:
        assert len(str(error)) < 300


@given(st.builds(dict, type=words, source=texts, **dict.fromkeys(("payload", "tags"), wild)))
def test_whatever_a_program_passes_is_an_event_or_refused(said: dict[str, Any]) -> None:
    """Lone surrogates, NaN, numbers without end: an application's objects are not JSON yet."""
    try:
        whole = encoded(completed(Event(**said), id=ID, time=TIME))
    except EventRefused:
        return
    assert taken(whole) == whole
    assert json.loads(whole).get("payload") == said["payload"]


BASE: dict[str, Any] = {"type": "a.b", "source": "shop"}


@pytest.mark.parametrize(
    ("said", "field", "problem"),
    [
        ({"source": "s"}, "type", "name it"),
        ({"source": "s", "resource_type": "order"}, "type", "name it"),
        ({"source": "s", "resource_type": "a b", "action": "c"}, "type", "write letters"),
        ({"type": "a..b", "source": "s"}, "type", "write letters"),
        ({"type": ".a", "source": "s"}, "type", "write letters"),
        ({"type": "a\n", "source": "s"}, "type", "write letters"),
        ({"type": "ä", "source": "s"}, "type", "write letters"),
        ({"type": "a" * 201, "source": "s"}, "type", "at most 200"),
        ({"type": "a"}, "source", "is missing"),
        ({**BASE, "id": "5f0c0f6e7f0e4a539b7c3a5e2f1d9c10"}, "id", "no UUID"),
        ({**BASE, "id": "{5f0c0f6e-7f0e-4a53-9b7c-3a5e2f1d9c10}"}, "id", "no UUID"),
        ({**BASE, "id": ID + "\n"}, "id", "no UUID"),
        ({**BASE, "id": None}, "id", "expected str, got null"),
        ({**BASE, "outcome": "maybe"}, "outcome", "choose one of success"),
        ({**BASE, "priority": "urgent"}, "priority", "choose one of low"),
        ({**BASE, "actor": {"type": "user"}}, "actor", "does not fit"),
        ({**BASE, "actor": {"id": "a", "secret": 1}}, "actor", "has a field that there is not"),
        ({**BASE, "actor": 7}, "actor", "expected"),
        ({**BASE, "payload": []}, "payload", "expected"),
        ({**BASE, "tags": None}, "tags", "expected"),
        ({**BASE, "more": 1}, "", "a field that an event does not have"),
        ({**BASE, "tags": dict.fromkeys(map(str, range(TAGS_MAX + 1)))}, "tags", "at most 100"),
        ({**BASE, "description": "x" * (DESCRIPTION_LENGTH_MAX + 1)}, "description", "at most 8192"),
        ({**BASE, "actor": "x" * (TEXT_LENGTH_MAX + 1)}, "actor", "at most 1024"),
        ({**BASE, "traceparent": "00-" + "0" * 32 + "-00f067aa0ba902b7-01"}, "traceparent", "as the W3C does"),
        ({**BASE, "payload": {"n": 2**64}}, "payload", "beyond 64 bits"),
        ({**BASE, "tags": {"n": [-(2**63) - 1]}}, "tags", "beyond 64 bits"),
        ({**BASE, "payload": {"x": "y" * EVENT_BYTES_MAX}}, "", "bytes"),
        ([], "", "expected object, got array"),
        (b'{"type":"a","source":"\\ud800"}', "", "not JSON"),
        (b'{"type":"a","source":"\xff"}', "", "not JSON"),
        (b'{"type":"a"', "", "not JSON"),
        (b'{"type":"a","source":"s","payload":{"x":NaN}}', "", "not JSON"),
    ],
)
def test_a_refusal_names_the_field_and_the_fix(said: object, field: str, problem: str) -> None:
    """One line that can be acted on."""
    found = refusal(said)
    assert found.field == field and problem in found.problem


@pytest.mark.parametrize(
    "name", [one for one in LENGTHS if one not in ("id", "type", "time", "outcome", "priority", "traceparent")]
)
def test_a_text_has_its_length_and_no_more(name: str) -> None:
    """Characters, whatever they take as UTF-8; a NUL is a character."""
    fits = "\0" + "😀" * (LENGTHS[name] - 1)
    assert json.loads(taken(json.dumps({**BASE, name: fits}).encode()))[name] == fits
    assert refusal({**BASE, name: fits + "x"}).field == name


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("2026-02-01T12:00:00Z", "2026-02-01T12:00:00.000000Z"),
        ("2026-02-01T12:00:00.1Z", "2026-02-01T12:00:00.100000Z"),
        ("2026-02-01T12:00:00.123456Z", "2026-02-01T12:00:00.123456Z"),
        ("2026-02-01T12:00:00.123456999Z", "2026-02-01T12:00:00.123456Z"),
        ("2026-02-01T12:00:00+05:30", "2026-02-01T06:30:00.000000Z"),
        ("2026-02-01T00:00:00-00:00", "2026-02-01T00:00:00.000000Z"),
        ("1900-01-01T00:00:00Z", "1900-01-01T00:00:00.000000Z"),
        ("2299-12-31T23:59:59.999999999Z", "2299-12-31T23:59:59.999999Z"),
        ("2300-01-01T00:30:00+01:00", "2299-12-31T23:30:00.000000Z"),
        ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00.000000Z"),
        *(
            (text, None)
            for text in (
                *("1900-01-01T00:30:00+01:00", "2299-12-31T23:30:00-01:00", "1899-12-31T23:59:59Z", "2300-01-01T00:00:00Z"),
                *("0000-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-02-29T00:00:00Z"),
                *("2016-12-31T23:59:60Z", "2026-02-01T24:00:00Z", "2026-02-01T12:00:00", "2026-02-01 12:00:00Z", "2026-02-01"),
                *("2026-02-01T12:00Z", "2026-02-01t12:00:00z", "2026-02-01T12:00:00+0100", "2026-02-01T12:00:00+24:00"),
                *("2026-02-01T12:00:00,5Z", "2026-02-01T12:00:00.Z", "2026-02-01T12:00:00.1234567890Z", "٢٠٢٦-02-01T12:00:00Z"),
                *("2026-02-01T12:00:00Z\n", " 2026-02-01T12:00:00Z", "1767225600", "", "now", "2026-02-01T12:00:00+01:60"),
            )
        ),
    ],
)
def test_a_time_is_one_instant_that_clickhouse_can_hold(text: str, canonical: str | None) -> None:
    """In UTC with six digits; what is out of range, ambiguous or no day there is is refused, not bent."""
    assert instant(text) == canonical


@given(moments)
def test_times_sort_as_their_texts_do(at: datetime) -> None:
    """The instant is kept to the microsecond, whatever the offset."""
    text = instant(at.isoformat())
    assert text is not None and len(text) == 27
    assert datetime.fromisoformat(text) == at
    assert instant(text) == text


def test_what_is_left_out_is_filled_in() -> None:
    """Only what is left out: id, time, source and the type."""
    said = Event(resource_type="order", action="placed")
    whole = completed(said, id=ID, time="2026-02-01T13:00:00+01:00", source="shop")
    assert (whole.id, whole.type, whole.time, whole.source) == (ID, "order.placed", TIME, "shop")
    assert completed(whole, id=ID[::-1], time="2027-01-01T00:00:00Z", source="other") == whole


@pytest.mark.parametrize(
    "said",
    [
        *({"id": 7}, {"time": datetime(2026, 1, 1)}, {"source": b"shop"}, {"reason": 1}, {"tenant": ["a"]}),
        *({"payload": [1]}, {"payload": "text"}, {"tags": None}, {"tags": []}, {"actor": Actor(id=7)}, {"outcome": "maybe"}),  # type: ignore[arg-type]
        *({"priority": None}, {"priority": "urgent"}, {"outcome": 1}, {"type": 5}),
    ],
)
def test_a_program_cannot_make_an_event_that_no_reader_reads(said: dict[str, Any]) -> None:
    """A Struct that is made in Python is not checked by a decoder."""
    event = Event(**{**BASE, "id": ID, "time": TIME, **said})
    for look in (checked, lambda one: completed(one, id=ID, time=TIME)):
        with pytest.raises(EventRefused) as found:
            look(event)
        assert found.value.field in said


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 2**64, -(2**63) - 1])
@pytest.mark.parametrize("place", ["payload", "tags"])
def test_a_number_that_json_does_not_keep_is_refused(number: float, place: str) -> None:
    """Silently made null or rounded, it would be another event."""
    for value in (number, [number], {"a": (number,)}, [{"b": {number}}]):
        with pytest.raises(EventRefused) as found:
            encoded(Event(**{**BASE, place: {"x": value}}))
        assert found.value.field == place


@pytest.mark.parametrize("number", [2**64 - 1, -(2**63), 0.1, 5e-324, -0.0, 1e308])
def test_a_number_that_json_keeps_is_kept(number: float) -> None:
    """The limits themselves are in."""
    assert json.loads(encoded(Event(**BASE, payload={"x": number, "y": None, "z": "1" * 40})))["payload"]["x"] == number


def test_levels_have_an_end() -> None:
    """At most sixteen, whether objects or lists; many shallow ones are none too many."""

    def nested(levels: int) -> dict[str, Any]:
        value: Any = 1
        for at in range(levels - 1):
            value = [value] if at % 2 else {"a": value}
        return {"a": value}

    encoded(Event(**BASE, payload=nested(DEPTH_MAX)))
    encoded(Event(**BASE, payload={"wide": [[{}] for _ in range(500)]}))
    for place in ("payload", "tags"):
        with pytest.raises(EventRefused, match=f"{place}: at most 16 levels"):
            encoded(Event(**{**BASE, place: nested(DEPTH_MAX + 1)}))
    itself: dict[str, Any] = {}
    itself["me"] = itself
    with pytest.raises(EventRefused):
        encoded(Event(**BASE, payload=itself))


def test_a_name_that_stands_twice_counts_once() -> None:
    """The last one, in the event and inside it: nothing behind sees two values of one name."""
    text = taken(b'{"type":"a","type":"b","source":"s","payload":{"x":1,"x":2},"tags":{"y":1,"y":2}}')
    assert text.count(b'"x"') == text.count(b'"y"') == text.count(b'"type"') == 1
    assert decoded(text).payload == {"x": 2} and decoded(text).type == "b"


@given(wild)
def test_a_value_that_is_read_already_is_taken_as_its_text_is(value: object) -> None:
    """`converted` and `decoded` accept the same, and refuse for the same reason."""
    try:
        text = json.dumps(value, allow_nan=False).encode()
    except ValueError:
        assume(False)
    assume(not isinstance(value, dict) or all(isinstance(key, str) for key in value))
    try:
        one: object = decoded(text)
    except EventRefused as error:
        one = error.field
    try:
        two: object = converted(json.loads(text))
    except EventRefused as error:
        two = error.field
    if one != "" or isinstance(two, Event):  # a lone surrogate is refused as text, and when it is written
        assert one == two or (one == "" and isinstance(two, Event))


def test_the_published_schema_is_valid_and_its_examples_are_events() -> None:
    """What the documentation shows can be sent."""
    jsonschema.Draft202012Validator.check_schema(HTTP)
    for said in HTTP["examples"]:
        jsonschema.validate(said, HTTP)
        taken(json.dumps(said).encode())


@pytest.mark.parametrize(
    "said",
    [
        *({}, {"source": "s"}, {**BASE, "type": "a b"}, {**BASE, "type": ""}, {**BASE, "id": "x"}, {**BASE, "more": 1}),
        *(
            {**BASE, "time": "2026-02-30T00:00:00Z"},
            {**BASE, "time": "2100-02-29T00:00:00Z"},
            {**BASE, "time": "1899-01-01T00:00:00Z"},
        ),
        *({**BASE, "time": "2026-02-01T00:00:60Z"}, {**BASE, "outcome": "x"}, {**BASE, "priority": None}, {**BASE, "tags": []}),
        *(
            {**BASE, "actor": {"type": "x"}},
            {**BASE, "reason": "x" * 1025},
            {**BASE, "source": None},
            {**BASE, "traceparent": "00"},
        ),
        *({"source": "s", "resource_type": "", "action": "x"}, {**BASE, "payload": []}, {**BASE, "actor": {"id": "a", "b": 1}}),
    ],
)
def test_what_the_published_schema_refuses_is_refused(said: dict[str, Any]) -> None:
    """And the other way round: it promises nothing that is not taken."""
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(said, HTTP)
    refusal(said)


def test_the_published_schema_and_the_avro_schema_have_the_events_fields() -> None:
    """Three descriptions of one thing."""
    avro = json.loads((EVENTS / "event.avsc").read_text(encoding="utf-8"))
    assert [one["name"] for one in avro["fields"]] == list(FIELDS) == list(HTTP["properties"])


def test_importing_the_event_brings_nothing_but_msgspec() -> None:
    """Applications import it: no type family, no reader of schemas, no asyncio, nothing of the worker's."""
    code = (
        "import sys, msgspec; before = set(sys.modules); import chronicle.events.event, chronicle.events.catalogue; "
        "print(*sorted(set(sys.modules) - before))"
    )
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    ours = {one for one in loaded if one.startswith("chronicle")}
    assert ours <= {
        *("chronicle", "chronicle.errors", "chronicle.events", "chronicle.events.event", "chronicle.events.catalogue"),
        *("chronicle.events.shapes", "chronicle.events.types", "chronicle.events.payload", "chronicle.events.sealed"),
    }
    assert not loaded & {
        "asyncio",
        "polars",
        "fastavro",
        "ssl",
        "http.client",
        "email",
        "concurrent.futures",
        "msgspec.inspect",
    }
