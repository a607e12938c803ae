"""Laws of the key ring: one purpose for each key, the newest is known, and no secret is ever shown."""

from __future__ import annotations

import base64
import pickle
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronicle.errors import ConfigError
from chronicle.policy.file import parse
from chronicle.policy.keyring import EMPTY, KeyRing, Purpose, entry, missing

FIRST = bytes(range(32))
SECOND = bytes(range(100, 164))


def one(id: str, purpose: str, secret: str, created: str = "2026-11-01") -> str:
    return f'[keys.{id}]\npurpose = "{purpose}"\nsecret = "{secret}"\ncreated = {created}\n'


RING = (
    one("t1", "token", FIRST.hex()) + one("e1", "encrypt", SECOND.hex()) + one("e2", "encrypt", FIRST[::-1].hex(), "2026-12-01")
)


def test_a_key_serves_its_purpose_and_no_other() -> None:
    """By its id; an encryption key also as the newest."""
    ring = KeyRing.parse(RING)
    assert ring.token_key("t1") == FIRST
    assert ring.encryption_key("e1") == ("e1", SECOND)
    assert ring.encryption_key() == ("e2", FIRST[::-1])
    for ask in (lambda: ring.token_key("e1"), lambda: ring.encryption_key("t1"), lambda: ring.token_key("nosuch")):
        with pytest.raises(ConfigError, match="into the key ring"):
            ask()
    with pytest.raises(ConfigError, match="keys new ID --purpose encrypt"):
        EMPTY.encryption_key()


def test_a_secret_is_read_in_hex_and_in_base64() -> None:
    """Standard and URL-safe, with and without padding; dates and times."""
    odd = bytes([251, 255, *range(38)])
    for text in (
        odd.hex(),
        odd.hex().upper(),
        base64.b64encode(odd).decode(),
        base64.urlsafe_b64encode(odd).decode().rstrip("="),
    ):
        assert KeyRing.parse(one("k", "token", text, "2026-11-01T12:00:00+02:00")).token_key("k") == odd


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (one("k", "token", "00" * 32), "at least 32 random bytes"),
        (one("k", "token", "abc"), "at least 32 random bytes"),
        (one("k", "token", FIRST.hex()[:-2]), "at least 32 random bytes"),
        (one("k", "encrypt", bytes(range(33)).hex()), "32, 48 or 64 random bytes"),
        (one("k", "sign", FIRST.hex()), "line 2, keys.k.purpose: choose from token, encrypt"),
        (one("k", "token", FIRST.hex(), '"now"'), "line 4, keys.k.created: write a date"),
        (one(FIRST.hex(), "token", FIRST.hex()), "write ids with letters"),
        ('[keys.k]\nsecret = "x"\n', "purpose is missing"),
        ("[key.k]\n", "no such option"),
        (one("k", "token", FIRST.hex()) + "comment = 'x'", "no such option"),
        (one("a", "token", FIRST.hex()) + one("b", "encrypt", FIRST.hex()), "a and b have the same secret"),
        (one("a", "token", FIRST.hex()) + one("b", "token", SECOND.hex()), "say in `created` which is newer"),
        (f"x = {FIRST.hex()}", "not readable as TOML"),
        (f'[keys.k]\nsecret = "{FIRST.hex()}', "not readable as TOML"),
    ],
)
def test_a_mistake_in_a_key_ring_is_named_and_shows_no_secret(text: str, told: str) -> None:
    """Nor the half of one, nor in what the error came from."""
    with pytest.raises(ConfigError, match=told) as caught:
        KeyRing.parse(text)
    assert FIRST.hex()[:12] not in str(caught.value)
    assert SECOND.hex()[:12] not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@given(st.binary(min_size=1, max_size=40), st.sampled_from(["hex", "base64", "raw", "cut"]))
def test_no_wrong_secret_is_shown(data: bytes, form: str) -> None:
    """However it is written."""
    marked = "Zq" + {"hex": data.hex(), "base64": base64.b64encode(data).decode(), "raw": "geheim" * 9, "cut": "x"}[form]
    for text in (one("k", "token", marked), one("k", marked, marked), one("k", "token", "x", f'"{marked}"')):
        try:
            KeyRing.parse(text)
        except ConfigError as error:
            assert marked not in str(error)


def test_the_repr_of_a_ring_and_of_its_keys_shows_no_secret() -> None:
    """Loggers and debuggers print it; a copy is still whole."""
    ring = KeyRing.parse(RING)
    for shown in (repr(ring), str(ring), repr(ring.keys["t1"]), f"{ring}"):
        assert repr(FIRST)[2:-1] not in shown
        assert "secret" not in shown
        assert FIRST.hex() not in shown
    assert pickle.loads(pickle.dumps(ring)) == ring  # noqa: S301 (its own)


def test_a_made_entry_can_be_read_and_refuses_what_is_no_id() -> None:
    """`keys new` writes it."""
    at = datetime(2026, 11, 1, 12, 30, tzinfo=UTC)
    ring = KeyRing.parse(entry("k-1", Purpose.ENCRYPT, SECOND, at))
    assert ring.encryption_key() == ("k-1", SECOND)
    assert ring.keys["k-1"].created == at
    for id in ("", "a b", "a.b", 'x"', "x" * 41):
        with pytest.raises(ConfigError, match="letters, digits"):
            entry(id, Purpose.TOKEN, FIRST, at)


def test_what_a_policy_needs_and_the_ring_lacks_is_told() -> None:
    """Domains, the named encryption key, or any for class encrypt; the default domain needs none."""
    tables = '[[tables]]\nmatch = "**"\ncolumns = { a = "encrypt", b = "token" }\n'
    ring = KeyRing.parse(RING)
    assert missing(parse(tables), ring) == []
    assert missing(parse(tables), EMPTY) == ["any key with purpose encrypt, for columns of class encrypt"]
    assert missing(parse('[[tables]]\nmatch = "**"\ncolumns = { b = "token" }'), EMPTY) == []
    domains = '[domains.a]\nkey = "t1"\n[domains.b]\nkey = "e1"\n[domains.c]\nkey = "none"\n[encryption]\nkey = "e9"\n'
    assert missing(parse(domains + tables), ring) == [
        "key e1 with purpose token, for token domain b",
        "key none with purpose token, for token domain c",
        "key e9 with purpose encrypt, for [encryption]",
    ]
