"""What may not leave the process does not: by name, by path, by shape; and whatever fails, fails closed."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from enum import Enum
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronicle.errors import ConfigError
from chronicle.events.event import Actor, Event, EventRefused, encoded
from chronicle.journal.patterns import matches
from chronicle.journal.protection import DEFAULT, DROP, FILTERED, Protection

SECRET = "Zq7XvKp92LmW"
"""Stands for a value that must not be seen: nothing else in these events contains it."""

SECRET_NAMES = (
    *("password", "Password", "USER_PASSWORD", "userPassword", "x-api-key", "apiKey", "api_key", "accessToken"),
    *("Authorization", "proxy-authorization", "Cookie", "set-cookie", "sessionId", "csrf_token", "jwt", "pin", "ssn_hmac"),
)
NAMES = st.sampled_from(SECRET_NAMES)
PLAIN = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=20)
INNER = st.recursive(
    PLAIN | st.just(SECRET),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
HARMLESS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False)
    | st.text("xyz é:={[\"'.-", max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("xyz_-", max_size=8), inner, max_size=3),
    max_leaves=6,
)


def event(**fields: Any) -> Event:
    given = {"id": "6f1d6c1e-3a3e-4c6a-8c3c-000000000001", "type": "t.e", "time": "2026-02-01T12:00:00Z", "source": "shop"}
    return Event(**{**given, **fields})


def wrapped(value: Any, way: list[str | None]) -> dict[str, Any]:
    """The value below names (text) and lists (None)."""
    for step in way:
        value = [value, 1] if step is None else {step: value, "beside": "b"}
    return {"top": value}


@given(
    NAMES,
    INNER,
    st.lists(st.none() | st.text("abcdefgh", min_size=1, max_size=4), max_size=5),
    st.sampled_from(["payload", "tags"]),
)
def test_what_stands_under_a_secret_name_never_leaves(name: str, value: Any, way: list[str | None], field: str) -> None:
    """At any depth, whatever the value is: a text, a list, an object, with the secret anywhere in it."""
    sent = encoded(DEFAULT(event(**{field: wrapped({name: [value, SECRET]}, way)})))
    assert SECRET.encode() not in sent
    assert FILTERED.encode() in sent


QUOTED = (
    "{name}={secret}",
    "{name}: {secret}",
    '"{name}": "{secret} {secret}"',
    "'{name}':'{secret} {secret}'",
    '{{"{name}": {{"a": "{secret}"}}}}',
    '{{"{name}": ["{secret}", {{"b": "{secret}"}}]}}',
    '{{\\"{name}\\": \\"{secret} x {secret}\\"}}',
    "{name} = ({secret}, {secret})",
    "note: {name}={secret}",
)


@given(NAMES, st.sampled_from(QUOTED), st.text(max_size=30), st.text(max_size=30))
def test_an_assignment_to_a_secret_name_never_leaves(name: str, form: str, before: str, after: str) -> None:
    """`name=value` and its relatives inside of any text: description, payload, tags, reason, an actor's name."""
    text = f"{before} {form.format(name=name, secret=SECRET)} {after}"
    given = event(
        description=text, reason=text, actor=Actor(text, name=text), payload={"a": [text], text: 1}, tags={"t": {"u": text}}
    )
    assert SECRET.encode() not in encoded(DEFAULT(given))


@given(NAMES, st.sampled_from(["value", "v", "content"]))
def test_json_inside_of_a_text_is_read_by_its_names(name: str, held: str) -> None:
    """A text that is a JSON document, also within another one: `{"name": "password", "value": …}` is understood there."""
    document = json.dumps({"list": [{"name": name, held: SECRET}], name: [{"a": SECRET}], "note": "kept"})
    for text in (document, json.dumps({"inner": document}), json.dumps([json.dumps([document])])):
        shown = DEFAULT(event(payload={"body": text}))
        assert SECRET.encode() not in encoded(shown)
        assert shown.payload is not None
        assert "kept" in shown.payload["body"]


@pytest.mark.parametrize(
    "text",
    [
        f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n-----END RSA PRIVATE KEY-----",
        f"-----BEGIN PRIVATE KEY-----\n{SECRET} and the end is missing",
        f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIx{SECRET}.{SECRET}",
        f"bearer {SECRET}{SECRET}",
        f"see postgres://app:{SECRET}@db.internal/shop for more",
        f"AKIA{'A' * 16} ghp_{SECRET * 4} sk_live_{SECRET}",
        f"Authorization: Basic {SECRET}",
        f"api key: {SECRET}",
    ],
)
def test_a_secret_by_its_shape_never_leaves(text: str) -> None:
    """Keys, tokens, credentials in URLs, without a name beside them."""
    sent = encoded(DEFAULT(event(description=text, payload={"x": {text: [text]}}, resource_id=text, partition_key=text)))
    assert SECRET.encode() not in sent
    assert b"AKIAAAAA" not in sent


@given(HARMLESS)
def test_what_is_no_secret_stays(value: Any) -> None:
    """Nothing is lost that nobody hides: JSON's values come out as they went in."""
    payload = {"value": value, "amount": 12, "method": "card", "at": "2026-02-01T12:00:00Z", "url": "https://shop.test/a?b=c"}
    shown = DEFAULT(event(payload=payload, description="order 7: paid, 12:30, total = 3", tags={"a": 1}))
    assert shown.payload == payload
    assert shown.description == "order 7: paid, 12:30, total = 3"


def test_nothing_under_a_secret_name_stays_nothing() -> None:
    """That there was no token is not a secret."""
    assert DEFAULT(event(payload={"token": None, "password": ""})).payload == {"token": None, "password": FILTERED}


class Colour(Enum):
    RED = SECRET


class Row(msgspec.Struct):
    password: str
    note: str


@dataclasses.dataclass
class Data:
    token: str
    inner: Row


def test_objects_are_looked_into() -> None:
    """Structs, dataclasses, enums, tuples, sets: what the encoder can write is hidden as in a dict."""
    row = Row(SECRET, "n")
    sent = encoded(
        DEFAULT(
            event(payload={"a": (row, [Data(SECRET, row)]), "secret": {SECRET}, "pin": Colour.RED, "when": datetime.now(UTC)})
        )
    )
    assert SECRET.encode() not in sent
    assert msgspec.json.decode(sent)["payload"]["a"][0] == {"password": FILTERED, "note": "n"}


class Opaque:
    def __repr__(self) -> str:
        return SECRET


def test_what_json_has_not_is_refused_without_its_value() -> None:
    """An object that nobody can look into does not go through as its text."""
    with pytest.raises(EventRefused) as refused:
        DEFAULT(event(payload={"x": Opaque()}))
    assert SECRET not in str(refused.value)
    endless: dict[str, Any] = {}
    endless["x"] = [endless]
    with pytest.raises(EventRefused):
        DEFAULT(event(payload=endless))


def test_names_of_ones_own_are_hidden() -> None:
    """Patterns with `*`, whatever the case; and they can be all there is."""
    mine = Protection(secrets=False, names=("diagnosis", "*_note"))
    shown = mine(event(payload={"Diagnosis": "flu", "doctor_NOTE": "x", "password": "kept", "note": "n"}))
    assert shown.payload == {"Diagnosis": FILTERED, "doctor_NOTE": FILTERED, "password": "kept", "note": "n"}


def test_a_path_that_only_looks_secret_is_shown() -> None:
    """`clear` names it; its texts are looked at still."""
    mine = Protection(clear=("payload.token_count", "payload.usage.*"))
    shown = mine(
        event(payload={"token_count": 3, "usage": {"token_limit": "password=x"}, "token": "t", "other": {"token_count": 1}})
    )
    assert shown.payload == {
        "token_count": 3,
        "usage": {"token_limit": f"password={FILTERED}"},
        "token": FILTERED,
        "other": {"token_count": FILTERED},
    }


def test_custom_functions_by_path() -> None:
    """At the path, in the items of lists, over `**`, in the envelope; DROP leaves the field out."""
    mine = Protection(
        custom={
            "payload.cards.number": lambda number: f"…{number[-4:]}",
            "payload.**.email": lambda _: "someone",
            "payload.gone": lambda _: DROP,
            "ip": lambda ip: ip.rpartition(".")[0] + ".0",
            "tags": lambda _: DROP,
        }
    )
    shown = mine(
        event(
            ip="10.1.2.3",
            tags={"a": 1},
            payload={
                "cards": [{"number": "4111111111111111"}],
                "gone": SECRET,
                "a": {"b": [{"email": SECRET}]},
                "email": SECRET,
            },
        )
    )
    assert shown.payload == {"cards": [{"number": "…1111"}], "a": {"b": [{"email": "someone"}]}, "email": "someone"}
    assert (shown.ip, shown.tags) == ("10.1.2.0", {})


@pytest.mark.parametrize("error", [ValueError(SECRET), RecursionError(SECRET), KeyError(SECRET)])
def test_a_custom_function_that_fails_hides_the_value(error: Exception) -> None:
    """Fail closed: neither the value nor the error's text is sent."""

    def fails(_: Any) -> Any:
        raise error

    mine = Protection(custom={"payload.x": fails, "description": fails, "actor": fails})
    shown = mine(event(payload={"x": SECRET}, description=SECRET, actor=SECRET))
    assert SECRET.encode() not in encoded(shown)
    assert (shown.payload, shown.description, shown.actor) == ({"x": FILTERED}, FILTERED, FILTERED)


def test_what_a_custom_function_returns_is_looked_at() -> None:
    """A secret that a function brings in does not get past the later steps."""
    mine = Protection(
        custom={"payload.x": lambda _: {"password": SECRET, "t": f"token={SECRET}"}, "payload.y": lambda _: Opaque()}
    )
    shown = mine(event(payload={"x": 1, "y": 2}))
    assert shown.payload == {"x": {"password": FILTERED, "t": f"token={FILTERED}"}, "y": FILTERED}


def test_patterns_hide_in_every_text() -> None:
    """Keys of objects too, and two keys that are hidden alike stay two."""
    mine = Protection(patterns=(r"\b\d{3}-\d{2}-\d{4}\b",))
    shown = mine(event(description="of 123-45-6789", payload={"123-45-6789": 1, "987-65-4321": ["123-45-6789"]}))
    assert (shown.description, shown.payload) == (f"of {FILTERED}", {FILTERED: 1, f"{FILTERED} 2": [FILTERED]})


def test_a_pattern_that_is_none_is_refused_at_once() -> None:
    """A mistake is told when the protection is made, not at the first event."""
    with pytest.raises(ConfigError, match="correct a pattern"):
        Protection(patterns=("(",))


@given(st.text(max_size=200))
def test_a_text_is_hidden_once(text: str) -> None:
    """What was hidden is not changed by hiding again."""
    once = DEFAULT(event(description=text, payload={"x": text}))
    assert DEFAULT(once) == once


PIECES = st.sampled_from(
    [
        *("api", "key", "card", "no", "number", "pass", "word", "pw", "token", "crypt", "ssn", "hmac", "session", "id"),
        *("eyJ", "ghp_", "://", "@", "a", "B", "_", "-", " ", "2", "=", ":", '"', "x" * 30, "Bearer ", "K", "ſ", "\u0130"),
    ]
)
TANGLED = st.lists(PIECES, max_size=8).map("".join)


@given(TANGLED, TANGLED, st.dictionaries(TANGLED, TANGLED | st.dictionaries(TANGLED, TANGLED, max_size=2), max_size=3))
def test_a_quick_look_misses_nothing(one: str, other: str, payload: dict[str, Any]) -> None:
    """Most events are passed on after a look for parts of secret names: with a closer one they would be the same."""
    given = event(description=one, actor=other, payload=payload, tags={one: other}, session=other)
    assert DEFAULT(given) == DEFAULT._hidden(given)


def test_identity_is_left_alone() -> None:
    """Id, type, time, source, trace and priority are what they were."""
    given = event(id=str(UUID(int=7)), traceparent=f"00-{'a' * 32}-{'b' * 16}-01", priority="high", outcome="failure")
    assert DEFAULT(given) == given


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("security.*", "security.login", True),
        ("security.*", "security.login.failed", False),
        ("security.**", "security.login.failed", True),
        ("security.**", "security", True),
        ("**", "a", True),
        ("**.login", "a.b.login", True),
        ("**.login", "login", True),
        ("work_*.created", "work_item.created", True),
        ("work_*.created", "work_item.x.created", False),
        ("a.*.c", "a..c", False),
        ("a.b", "a.bc", False),
    ],
)
def test_patterns_of_dotted_names(pattern: str, name: str, *, expected: bool) -> None:
    """`*` is one word or characters within one, `**` any number of words."""
    assert matches(pattern, name) is expected


@pytest.mark.parametrize(
    "text", ["a:", "password=", 'password="', "a\\", 'password=\\"', "[{", "://", "eyJaaaaaaa.aaaaaaa", "a-"]
)
def test_hostile_texts_cost_no_more_than_their_length(text: str) -> None:
    """Doubling the text at most triples the work: nothing is searched from every place to the end."""
    import time

    def cost(times: int) -> float:
        given = event(description=text * times)
        begun = time.process_time()
        DEFAULT(given)
        return time.process_time() - begun

    cost(1_000)
    small = min(cost(10_000) for _ in range(3))
    assert min(cost(40_000) for _ in range(3)) < 0.05 + 8 * small
