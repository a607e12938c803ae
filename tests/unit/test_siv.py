"""AES-SIV over many cells: the same bytes as the library's, one cell at a time."""

from __future__ import annotations

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from hypothesis import given
from hypothesis import strategies as st

from chronicle.stages.siv import BLOCK, KEY_BYTES, Siv

BLOCKS = st.binary(min_size=BLOCK, max_size=BLOCK)


@given(
    st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES).filter(lambda key: key[:32] != key[32:]),
    st.integers(1, 6).flatmap(
        lambda size: st.lists(
            st.tuples(st.binary(min_size=size * BLOCK, max_size=size * BLOCK), st.binary(max_size=70), BLOCKS), min_size=1
        )
    ),
)
def test_every_cell_is_what_the_library_gives(key: bytes, cells: list[tuple[bytes, bytes, bytes]]) -> None:
    """Whatever key, text, place (of any length, whole blocks or not) and event id."""
    siv, library = Siv(key), AESSIV(key)
    texts, places, ids = zip(*cells, strict=True)
    made = siv.encrypted(
        np.frombuffer(b"".join(texts), np.uint8).reshape(len(cells), -1, BLOCK),
        np.stack([siv.place(place) for place in places]),
        np.frombuffer(b"".join(ids), np.uint8).reshape(-1, BLOCK),
    )
    assert [one.tobytes() for one in made] == [library.encrypt(text, [place, id_]) for text, place, id_ in cells]


def test_the_counter_does_not_carry() -> None:
    """A vector whose last word is all ones: its top bit is cleared, so that the blocks after it need no carry."""
    key, text = bytes(range(KEY_BYTES)), bytes(BLOCK * 3_000)
    siv, library = Siv(key), AESSIV(key)
    blocks = np.frombuffer(text, np.uint8).reshape(1, -1, BLOCK)
    for number in range(64):
        id_ = number.to_bytes(BLOCK, "big")
        made = siv.encrypted(blocks, siv.place(b"place")[np.newaxis], np.frombuffer(id_, np.uint8)[np.newaxis])
        assert made.tobytes() == library.encrypt(text, [b"place", id_])


def test_a_key_of_another_length_is_refused() -> None:
    """AES-128-SIV would be another algorithm."""
    with pytest.raises(ValueError, match="64 bytes"):
        Siv(bytes(32))
