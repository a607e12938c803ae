"""Encrypted payloads: nothing of them leaves, nothing of another event opens, a key that is not there says so."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronicle.errors import ConfigError
from chronicle.events.event import Event, EventRefused, decoded, encoded
from chronicle.events.sealed import SEALED
from chronicle.journal.encryption import Encryption, PayloadSealed, is_sealed, opened, payload_opened, ring_of
from chronicle.journal.protection import Protection
from chronicle.policy.keyring import KeyRing, Purpose, entry

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
PAYLOADS = st.dictionaries(st.text(), JSON, max_size=5)


def ring(*ids: str, fill: int = 0) -> KeyRing:
    texts = [
        entry(
            id_,
            Purpose.ENCRYPT,
            bytes((fill + number * 64 + at) % 256 for at in range(64)),
            datetime(2026, 1, number + 1, tzinfo=UTC),
        )
        for number, id_ in enumerate(ids)
    ]
    return KeyRing.parse("\n".join(texts))


RING = ring("old-2025", "new-2026")


def event(payload: dict[str, Any] | None, **fields: Any) -> Event:
    given = {"id": "6f1d6c1e-3a3e-4c6a-8c3c-00000000000a", "type": "report.read", "time": "2026-02-01T12:00:00Z", "source": "s"}
    return Event(payload=payload, **{**given, **fields})


@given(PAYLOADS)
def test_what_was_sealed_opens_as_it_was(payload: dict[str, Any]) -> None:
    """Through the wire, with the key that the payload names."""
    sealed = Encryption.of(RING).sealed(event(payload))
    assert is_sealed(sealed.payload)
    assert opened(decoded(encoded(sealed)), RING).payload == payload


@given(st.binary(min_size=12, max_size=40), PAYLOADS)
def test_nothing_of_a_sealed_payload_leaves(value: bytes, payload: dict[str, Any]) -> None:
    """Neither as text nor as base64 nor as hex: what leaves is the same envelope whatever the payload is."""
    text = value.hex()
    sent = encoded(Protection(secrets=False, encryption=Encryption.of(RING))(event({**payload, text: [text]})))
    assert text.encode() not in sent
    assert base64.b64encode(text.encode())[:12] not in sent
    envelope = json.loads(sent)["payload"][SEALED]
    assert envelope.keys() == {"alg", "key", "nonce", "ciphertext"}
    assert (envelope["alg"], envelope["key"]) == ("A256GCM", "new-2026")


def test_equal_payloads_are_sealed_differently() -> None:
    """A nonce of its own each time."""
    encryption = Encryption.of(RING)
    sealed = [encryption.sealed(event({"a": 1})) for _ in range(100)]
    envelopes = [one.payload[SEALED] for one in sealed if one.payload is not None]
    assert len({one["nonce"] for one in envelopes}) == len({one["ciphertext"] for one in envelopes}) == 100


@pytest.mark.parametrize("change", [{"id": "6f1d6c1e-3a3e-4c6a-8c3c-00000000000b"}, {"type": "report.written"}])
def test_a_payload_does_not_open_in_another_event(change: dict[str, str]) -> None:
    """It is bound to the event's id and type."""
    sealed = Encryption.of(RING).sealed(event({"a": "clear text"}))
    moved = msgspec.structs.replace(sealed, **change)
    with pytest.raises(PayloadSealed) as refused:
        opened(moved, RING)
    assert "clear text" not in str(refused.value)


def test_an_id_in_another_spelling_is_the_same_id() -> None:
    """As the store may give it back: upper case, or without hyphens."""
    sealed = Encryption.of(RING).sealed(event({"a": 1}))
    assert sealed.payload is not None
    for id_ in (sealed.id.upper(), sealed.id.replace("-", "")):
        assert payload_opened(sealed.payload, id=id_, type=sealed.type, ring=RING) == {"a": 1}


@given(st.data())
def test_a_changed_envelope_does_not_open(data: st.DataObject) -> None:
    """Any byte of nonce or ciphertext, another key's id, another algorithm, a field more or less."""
    sealed = Encryption.of(RING).sealed(event({"a": "clear text"}))
    assert sealed.payload is not None
    envelope: dict[str, Any] = dict(sealed.payload[SEALED])
    name = data.draw(st.sampled_from(["nonce", "ciphertext", "key", "alg", "more", "less"]))
    if name in ("nonce", "ciphertext"):
        raw = bytearray(base64.b64decode(envelope[name]))
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
        envelope[name] = base64.b64encode(raw).decode()
    elif name == "more":
        envelope["x"] = 1
    elif name == "less":
        del envelope["nonce"]
    else:
        envelope[name] = {"key": "old-2025", "alg": "none"}[name]
    with pytest.raises(PayloadSealed):
        payload_opened({SEALED: envelope}, id=sealed.id, type=sealed.type, ring=RING)


@given(st.none() | JSON | st.fixed_dictionaries({"alg": JSON, "key": JSON, "nonce": JSON, "ciphertext": JSON}))
def test_garbage_does_not_open(garbage: Any) -> None:
    """Whatever stands there, it is told as what it is."""
    with pytest.raises((PayloadSealed, ConfigError)):
        payload_opened({SEALED: garbage}, id="6f1d6c1e-3a3e-4c6a-8c3c-00000000000a", type="t", ring=RING)


def test_a_ring_without_the_key_names_it() -> None:
    """The operator learns which key to put in."""
    sealed = Encryption.of(RING).sealed(event({"a": 1}))
    with pytest.raises(ConfigError, match="new-2026"):
        opened(sealed, ring("old-2025"))
    with pytest.raises(ConfigError, match="keys new"):
        Encryption.of(KeyRing.parse(""))
    with pytest.raises(PayloadSealed):
        opened(sealed, ring("x", "new-2026", fill=5))


def test_an_older_key_can_be_named() -> None:
    """And what it sealed opens while it is in the ring."""
    sealed = Encryption.of(RING, "old-2025").sealed(event({"a": 1}))
    assert opened(sealed, ring("old-2025")).payload == {"a": 1}


def test_only_the_types_that_are_named_are_sealed() -> None:
    """Others stay in clear, and so does an event without a payload."""
    protection = Protection(encryption=Encryption.of(RING, types=("report.*", "medical.**")))
    assert is_sealed(protection(event({"a": 1})).payload)
    assert is_sealed(protection(event({"a": 1}, type="medical.file.read")).payload)
    assert protection(event({"a": 1}, type="shop.order")).payload == {"a": 1}
    assert protection(event(None)).payload is None


def test_what_cannot_be_sealed_is_refused() -> None:
    """Never a fall-back to clear: too large, or no JSON."""
    for payload in ({"a": "x" * 200_000}, {"a": object()}):
        with pytest.raises(EventRefused) as refused:
            Encryption.of(RING).sealed(event(payload))
        assert "xxx" not in str(refused.value)


def test_a_payload_that_looks_sealed_is_sealed_all_the_same() -> None:
    """Nobody gets past by imitating the envelope."""
    sealed = Encryption.of(RING).sealed(event({SEALED: {"note": "clear text"}}))
    assert b"clear text" not in encoded(sealed)
    assert opened(sealed, RING).payload == {SEALED: {"note": "clear text"}}


def test_secrets_are_filtered_within_the_sealed_payload() -> None:
    """Who opens it sees no password either."""
    sealed = Protection(encryption=Encryption.of(RING))(event({"password": "Zq7XvKp92LmW", "n": 1}))
    assert opened(sealed, RING).payload == {"password": "[FILTERED]", "n": 1}


def test_no_key_is_shown() -> None:
    """Not by repr, of the encryption or the protection."""
    encryption = Encryption.of(RING)
    shown = repr(Protection(encryption=encryption))
    assert encryption.key.hex() not in shown
    assert repr(encryption.key) not in shown
    assert "new-2026" in shown


def test_a_ring_from_a_file_or_a_text(tmp_path: Path) -> None:
    """The text wins; what is missing or malformed is a mistake of the operator, told without keys."""
    text = entry("one", Purpose.ENCRYPT, bytes(range(64)), datetime(2026, 1, 1, tzinfo=UTC))
    (tmp_path / "keys.toml").write_text(text)
    assert ring_of(file=tmp_path / "keys.toml").keys.keys() == ring_of(text=text, file=tmp_path / "none").keys.keys() == {"one"}
    wrongs: list[dict[str, Any]] = [{"file": tmp_path / "none"}, {}, {"text": text.replace("0001", "zz")}]
    for wrong in wrongs:
        with pytest.raises(ConfigError) as refused:
            ring_of(**wrong)
        assert "0405" not in str(refused.value)
