"""Encrypted cells: the same change gives the same bytes, they open only where they stand, and images hold nothing else."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from chronicle.errors import ChronicleError, ConfigError
from chronicle.stages import ciphers
from chronicle.stages.ciphers import Cipher, Group, Image, Sentinel, is_sealed, opened, sealed
from chronicle.trail.decrypt import Stored, opened_change
from chronicle.trail.tables import TableName

SECRET = bytes(range(100, 132))
SENTINEL = Sentinel("0123456789abcdef" * 2)
CIPHER = Cipher("k-1", SECRET)
TABLE = "shop.public.customers"
EVENT = uuid.UUID(int=7).bytes
PLACE: dict[str, Any] = {"table": TABLE, "column": "email", "image": "after", "event_id": EVENT}


class Ring:
    """Keys by id, as `policy.keyring.KeyRing` gives them."""

    def __init__(self, **keys: bytes) -> None:
        self.keys = {name.replace("_", "-"): key for name, key in keys.items()}

    def encryption_key(self, id: str | None = None) -> tuple[str, bytes]:
        """As the ring's."""
        if id is None or id not in self.keys:
            raise ConfigError(f"put the key {id} (purpose encrypt) into the key ring")
        return id, self.keys[id]


RING = Ring(k_1=SECRET)


def _encrypted(*texts: str | None, cipher: Cipher = CIPHER, image: Image = "after") -> list[str | None]:
    ids = pl.Series([EVENT] * len(texts), dtype=pl.Binary)
    series = pl.Series(texts, dtype=pl.String)
    return cipher.encrypted(series, ids, table=TABLE, column="email", image=image).to_list()


def _opened(text: str, ring: Ring = RING, **other: Any) -> str:
    return opened(text, ring, **{**PLACE, **other})


CHARACTERS = st.characters(exclude_categories=["Cs"])


@given(st.text(CHARACTERS, max_size=70))
def test_what_was_encrypted_opens_again(text: str) -> None:
    """Of any length, with zeros and the padding's own character at the end; equal input gives equal bytes."""
    for one in (text, text + "\0", text + "\x80", "\0" * 16):
        first, again, nothing = _encrypted(one, one, None)
        assert first is not None
        assert first == again
        assert nothing is None
        assert first.startswith("e1.k-1.")
        assert is_sealed(first)
        assert json.loads(f'"{first}"') == first, "it needs no escapes in JSON"
        assert _opened(first) == one


@given(st.text(CHARACTERS, min_size=6, max_size=70))
def test_a_ciphertext_does_not_hold_its_text(text: str) -> None:
    """Nor does its length tell a short one's."""
    (first,) = _encrypted(text)
    assert first is not None
    assert text not in first.removeprefix("e1.k-1.")
    assert len({len(one or "") for one in _encrypted("true", "false", "", "x" * 15)}) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"table": "shop.public.orders"},
        {"column": "name"},
        {"image": "before"},
        {"event_id": uuid.UUID(int=8).bytes},
        {"table": "shop.public", "column": "customersemail"},
    ],
)
def test_a_ciphertext_opens_only_where_it_was_written(other: dict[str, Any]) -> None:
    """Moved to another table, column, image or change it is refused; the message holds neither text nor key."""
    (text,) = _encrypted("bob@example.org")
    assert text is not None
    with pytest.raises(ChronicleError, match="was changed, moved") as caught:
        _opened(text, **other)
    assert "bob" not in str(caught.value)
    assert SECRET.hex() not in str(caught.value)


@given(st.integers(0, 60), st.sampled_from("ABZaz09-_"))
def test_a_changed_ciphertext_is_refused(at: int, character: str) -> None:
    """Whichever character of it is another one."""
    (text,) = _encrypted("bob@example.org, and somewhat more")
    assert text is not None
    at += len("e1.k-1.")
    assume(at < len(text) - 1 and text[at] != character)
    with pytest.raises(ChronicleError):
        _opened(text[:at] + character + text[at + 1 :])


def test_keys_are_told_apart() -> None:
    """A key that is not in the ring is named; another key under that id is noticed; other texts are no ciphertexts."""
    (text,) = _encrypted("bob@example.org")
    assert text is not None
    with pytest.raises(ConfigError, match="put the key k-1"):
        _opened(text, Ring(k_2=SECRET))
    with pytest.raises(ChronicleError, match="check the key k-1"):
        _opened(text, Ring(k_1=SECRET[::-1]))
    for other in ("bob@example.org", "e1.k-1.", "e1..AAAA", "e1.k-1.*", "e1.k-1.AAAA", ""):
        with pytest.raises(ChronicleError, match="holds no ciphertext"):
            _opened(other)
    assert _encrypted("bob", cipher=Cipher("k-1", SECRET[::-1])) != _encrypted("bob")
    assert _encrypted("bob", image="before") != _encrypted("bob")


def test_keys_that_cannot_be_used_are_refused() -> None:
    """By id, never by content."""
    with pytest.raises(ConfigError, match="letters, digits"):
        Cipher('k"', SECRET)
    with pytest.raises(ConfigError, match="short anew"):
        Cipher("short", b"too short")
    with pytest.raises(ValueError, match="32 hex"):
        Sentinel("guessable")
    assert SECRET.hex() not in repr(CIPHER)


# Images -------------------------------------------------------------------------------------------------------------


def _image(**values: object) -> str:
    return json.dumps(values, separators=(",", ":"), ensure_ascii=False)


def _mark(column: str) -> str:
    return SENTINEL.mark(column)


HOSTILE = 'weird "col"\\ü'


def test_ciphertexts_take_the_places_of_their_marks() -> None:
    """Of several tables and columns in one batch; images without a mark, null images and other text stay as they are."""
    images = pl.Series(
        "after",
        [
            _image(email=_mark("email"), id=1, phone=_mark("phone")),
            _image(id=2, note="~ e1. $1 ${1}"),
            None,
            _image(email=None, id=4, phone=_mark("phone")),
            _image(**{HOSTILE: _mark(HOSTILE), "id": 5}),
            _image(id=6, phone=_mark("phone")),
        ],
    )
    ids = pl.Series([uuid.UUID(int=n).bytes for n in range(6)])
    first = Group(
        TABLE,
        np.array([5, 0, 3]),
        {"email": pl.Series(["c@example.org", "a@example.org", None]), "phone": pl.Series(["6", "1", "4"])},
    )
    second = Group("hiring.hiring.x", np.array([4]), {HOSTILE: pl.Series(['cl"ear'])})
    done = sealed(images, [first, second], ids, image="after", cipher=CIPHER, sentinel=SENTINEL)
    assert done.images.name == "after"
    texts = done.images.to_list()
    assert texts[1:3] == images.to_list()[1:3]
    rows = {n: json.loads(text) for n, text in enumerate(texts) if text is not None}
    assert list(rows[0]) == ["email", "id", "phone"]
    assert rows[3]["email"] is None

    def clear(n: int, column: str, table: str = TABLE) -> str:
        event_id = uuid.UUID(int=n).bytes
        return opened(rows[n][column], RING, table=table, column=column, image="after", event_id=event_id)

    assert (clear(0, "email"), clear(0, "phone"), clear(3, "phone")) == ("a@example.org", "1", "4")
    assert clear(5, "phone") == "6"
    assert clear(4, HOSTILE, "hiring.hiring.x") == 'cl"ear'
    emails = done.ciphertexts[0]["email"].to_list()
    assert emails[1:] == [rows[0]["email"], None], "for the mirror: the image's own bytes"
    assert is_sealed(emails[0]), "the mirror has it although the image leaves an unchanged column out"
    again = sealed(images, [first, second], ids, image="after", cipher=CIPHER, sentinel=SENTINEL)
    assert again.images.to_list() == texts


def test_a_mark_without_its_value_stops_the_batch() -> None:
    """A column that was forgotten, or a null where the image has a value, is a bug that must not be written."""
    images = pl.Series([_image(email=_mark("email"))])
    ids = pl.Series([EVENT])
    for groups in ([], [Group(TABLE, np.array([0]), {"email": pl.Series([None], dtype=pl.String)})]):
        with pytest.raises(ValueError, match="was not given"):
            sealed(images, groups, ids, image="after", cipher=CIPHER, sentinel=SENTINEL)


def test_no_columns_and_no_rows_are_nothing_to_do() -> None:
    """An empty batch, and a batch without encrypted columns."""
    nothing = pl.Series([], dtype=pl.String)
    ids = pl.Series([], dtype=pl.Binary)
    empty = Group(TABLE, np.array([], np.int64), {"email": nothing})
    assert sealed(nothing, [empty], ids, image="after", cipher=CIPHER, sentinel=SENTINEL).images.to_list() == []
    images = pl.Series(["{}", None])
    done = sealed(images, [], pl.Series([EVENT] * 2), image="after", cipher=CIPHER, sentinel=SENTINEL)
    assert done.images.to_list() == ["{}", None]
    assert done.ciphertexts == ()


def test_the_format_stays() -> None:
    """Ciphertexts outlive releases: this one was written when the format was made."""
    (text,) = _encrypted("bob@example.org")
    assert text == "e1.k-1.CjdvGHGjOnvj8LsysO3N8gymsrSykH7RTLbHqAJDJcQ"
    assert ciphers.PREFIX == "e1."


# A stored change ----------------------------------------------------------------------------------------------------


def test_a_stored_change_is_opened_column_by_column() -> None:
    """Each value in its own place; one that cannot be opened stays as it is and is named, its neighbours open."""
    before, after = _encrypted("bob@example.org", image="before"), _encrypted("bob@example.com", image="after")
    change = Stored(
        uuid.UUID(int=7),
        TableName("shop", "public", "customers"),
        "update",
        {"id": 1},
        {"id": 1, "email": before[0], "note": "e1.looks.like"},
        {"id": 1, "email": after[0], "note": None},
    )
    found = opened_change(change, RING)
    assert found.before.row == {"id": 1, "email": "bob@example.org", "note": "e1.looks.like"}
    assert found.after.row == {"id": 1, "email": "bob@example.com", "note": None}
    assert (found.before.columns, found.after.columns) == (("email",), ("email",))
    assert list(found.failed) == ["before.note"]
    assert opened_change(change, RING, "email").failed == {}
    assert "bob" not in repr(found)
    swapped = replace(change, before=change.after, after=change.before)
    assert set(opened_change(swapped, RING, "email").failed) == {"before.email", "after.email"}
    with pytest.raises(ChronicleError, match="column id of the change holds nothing encrypted"):
        opened_change(change, RING, "id")
    deleted = replace(change, after=None)
    assert opened_change(deleted, RING, "email").after.row is None
