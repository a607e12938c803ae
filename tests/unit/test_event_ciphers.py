"""Payloads that hide themselves: fields that the policy encrypts, and payloads that the application sealed."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronicle.errors import ChronicleError, ConfigError
from chronicle.events.catalogue import Catalogue
from chronicle.events.event import Event, encoded
from chronicle.events.sealed import SEALED, is_sealed, is_sealed_text
from chronicle.journal.encryption import Encryption
from chronicle.model.chunk import Chunk
from chronicle.policy.file import parse
from chronicle.policy.keyring import KeyRing
from chronicle.stages.ciphers import is_sealed as is_ciphertext
from chronicle.stages.events import EventRules
from chronicle.stages.path import Path
from chronicle.stages.table_plan import compiled
from chronicle.trail.decrypt import StoredEvent, opened_event

RING = KeyRing.parse(
    '[keys.e-1]\npurpose = "encrypt"\nsecret = "' + bytes(range(32)).hex() + '"\ncreated = 2026-01-01\n'
    '[keys.e-2]\npurpose = "encrypt"\nsecret = "' + bytes(range(32, 64)).hex() + '"\ncreated = 2026-02-01\n'
)
POLICY = '[[events]]\nmatch = "**"\ncolumns = { "payload.*" = "encrypt", "payload.plain" = "clear" }\n'
ID = "5f0c0f6e-7f0e-4a53-9b7c-3a5e2f1d9c10"
JSON = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: st.lists(inner | st.none(), max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


def rows(*events: dict[str, Any], policy: str = POLICY, strict: bool = False) -> list[dict[str, Any]]:
    found = compiled(parse(policy), RING, b"k" * 32, nonce="0" * 32)
    path = Path([], b"k" * 32, found, events=EventRules(strict=strict))
    values = [json.dumps({"source": "shop", "type": "order.placed", "id": ID, **event}).encode() for event in events]
    count = len(values)
    batch = path.run([Chunk("chronicle.events", 0, range(count), [1] * count, [b"k"] * count, values, [()] * count)], {}, 1)
    assert not batch.dead_letters, [letter.detail for letter in batch.dead_letters]
    return batch.events.rows(named=True)


def stored(row: dict[str, Any], **others: Any) -> StoredEvent:
    names = {name: row[name] for name in ("source", "type", "tenant")}
    return StoredEvent(payload=json.loads(row["payload"]), **{"event_id": UUID(bytes=row["event_id"]), **names, **others})


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1, max_size=6), JSON | st.none(), max_size=4))
def test_an_encrypted_field_opens_to_what_was_sent(payload: dict[str, Any]) -> None:
    """Whatever it holds; null stays null, and secret-looking names are hidden for good all the same."""
    (row,) = rows({"payload": payload})
    shown = json.loads(row["payload"])
    hidden = [name for name, value in shown.items() if is_ciphertext(value)]
    for name, value in payload.items():
        if value is not None and name != "plain" and shown[name] != "[FILTERED]":
            assert name in hidden
    if hidden:
        found = opened_event(stored(row), RING)
        assert found.row is not None
        assert {name: found.row[name] for name in hidden} == {name: payload[name] for name in hidden}
        assert not found.failed


def test_the_same_event_gives_the_same_ciphertext_and_no_clear_text_stays() -> None:
    """Redelivered, it replaces itself; also one that has no id of its own."""
    payload = {"iban": "DE89370400440532013000", "plain": 1}
    first, again, other = rows({"payload": payload}, {"payload": payload}, {"payload": payload, "id": ID[:-1] + "1"})
    assert first["payload"] == again["payload"] != other["payload"]
    assert "DE89" not in first["payload"]
    assert json.loads(first["payload"])["plain"] == 1
    (bare,) = rows({"payload": payload, "id": ""})
    assert opened_event(stored(bare), RING, "payload.iban").columns == ("iban",)


@pytest.mark.parametrize("moved", [{"source": "other"}, {"type": "order.lost"}, {"event_id": UUID(int=1)}])
def test_a_ciphertext_that_was_moved_does_not_open(moved: dict[str, Any]) -> None:
    """To another application, type or event; nor to another field."""
    (row,) = rows({"payload": {"a": "x", "b": "y"}})
    assert set(opened_event(stored(row, **moved), RING).failed) == {"a", "b"}
    payload = json.loads(row["payload"])
    swapped = {**row, "payload": json.dumps({"a": payload["b"], "b": payload["a"]})}
    assert set(opened_event(stored(swapped), RING).failed) == {"a", "b"}
    with pytest.raises(ChronicleError, match="field c of the event holds nothing"):
        opened_event(stored(row), RING, "c")


def test_a_policy_that_encrypts_events_alone_needs_a_key() -> None:
    """As one that encrypts columns."""
    with pytest.raises(ConfigError, match="purpose encrypt"):
        compiled(parse(POLICY), KeyRing({}), b"k" * 32, nonce="0" * 32)


def sealed(type_: str = "auth.login") -> dict[str, Any]:
    """An event of a known type as the journal seals it."""
    event = Event(id=ID, type=type_, source="shop", time="2026-02-01T00:00:00Z", payload={"method": "password", "n": 1})
    found: dict[str, Any] = json.loads(encoded(Encryption.of(RING).sealed(event)))
    return found


@pytest.mark.parametrize("strict", [False, True])
def test_a_sealed_payload_fits_any_type_and_passes_the_policy_as_it_is(strict: bool) -> None:
    """It is a ciphertext; no mark, no refusal, nothing filtered in it."""
    event = sealed()
    (row,) = rows(event, policy="", strict=strict)
    assert json.loads(row["payload"]) == event["payload"]
    assert row["violations"] == []
    assert Catalogue.shipped().problems(Event(type="auth.login", payload=event["payload"])) == ()


def test_a_rule_that_names_the_seal_is_obeyed() -> None:
    """A pattern does not mean it."""
    named, meant = (f'[[events]]\nmatch = "**"\ncolumns = {{ "payload.{name}" = "drop" }}\n' for name in (SEALED, "*"))
    event = sealed()
    assert rows(event, policy=named)[0]["payload"] == "{}"
    assert json.loads(rows(event, policy=meant)[0]["payload"]) == event["payload"]


@pytest.mark.parametrize(
    "change",
    [
        {"ciphertext": "hunter2"}, {"ciphertext": "my name is Ann and I live here"}, {"nonce": "short"}, {"alg": "none"},
        {"key": "a key with blanks"}, {"more": "hunter2"}, {"ciphertext": {"a": 1}},
    ],
)  # fmt: skip
def test_what_only_looks_sealed_is_hidden(change: dict[str, Any]) -> None:
    """Clear text has no place to stand in; it is a field that nobody has classified."""
    event = sealed("order.placed")
    event["payload"][SEALED] |= change
    assert not is_sealed(event["payload"])
    assert not is_sealed_text(json.dumps(event["payload"], separators=(",", ":")))
    (row,) = rows(event, policy="")
    assert list(json.loads(row["payload"]).values()) == ["[FILTERED]"]


def test_a_sealed_field_beside_others_is_no_sealed_payload() -> None:
    """All of a payload is sealed, or nothing."""
    event = sealed()
    event["payload"]["other"] = 1
    (row,) = rows(event, policy="")
    assert "[FILTERED]" in json.loads(row["payload"]).values()
    assert row["violations"]
