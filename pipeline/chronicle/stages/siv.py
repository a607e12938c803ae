"""AES-SIV (RFC 5297) over many cells at once, in numpy around the library's AES: a call of the library for each cell costs
fourteen times as much.

For what encrypted cells are: texts of whole blocks, with two strings of associated data, of which the first is the same for
many cells and the second is one block. Gives the same bytes as `cryptography`'s AESSIV, which reads them.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

BLOCK = 16
KEY_BYTES = 64
Blocks = npt.NDArray[np.uint8]
"""Blocks of 16 bytes along the last axis."""

_ZERO = bytes(BLOCK)
_COUNTED = np.frombuffer(bytes.fromhex("ffffffffffffffff7fffffff7fffffff"), np.uint8)
"""RFC 5297, section 2.6: two bits of the counter are zero, so that 32 bits of it can be added to without a carry."""
_PLACES_MAX = 65_536


class Siv:
    """One key. Thread-safe."""

    def __init__(self, key: bytes) -> None:
        """`key`: 64 bytes, the first half for the vector, the second for the text."""
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key of AES-256-SIV has {KEY_BYTES} bytes")
        self._mac = Cipher(algorithms.AES(key[: KEY_BYTES // 2]), modes.ECB())  # noqa: S305  (the block cipher in CMAC)
        self._text = Cipher(algorithms.AES(key[KEY_BYTES // 2 :]), modes.ECB())  # noqa: S305  (the block cipher in counter mode)
        subkey = _doubled(self._ecb(self._mac, _ZERO))
        self._whole = np.frombuffer(subkey, np.uint8)
        self._partial = np.frombuffer(_doubled(subkey), np.uint8)
        self._place = lru_cache(_PLACES_MAX)(self._place_of)

    def encrypted(self, texts: Blocks, places: Blocks, seconds: Blocks) -> Blocks:
        """Vector and ciphertext of each text: (n, m + 1, 16).

        `texts`: (n, m, 16), m at least 1. `places`: (n, 16), what `place` gives for the first associated data of each;
        `seconds`: (n, 16), the second.
        """
        mixed = places ^ self._ecb_all(self._mac, seconds ^ self._whole)
        blocks = texts.shape[1]
        state = np.zeros_like(mixed)
        for at in range(blocks - 1):
            state = self._ecb_all(self._mac, state ^ texts[:, at])
        vector = self._ecb_all(self._mac, state ^ texts[:, -1] ^ mixed ^ self._whole)
        counters = np.repeat((vector & _COUNTED)[:, np.newaxis], blocks, axis=1)
        counters.view(">u4")[:, :, 3] += np.arange(blocks, dtype=np.uint32)
        return np.concatenate((vector[:, np.newaxis], texts ^ self._ecb_all(self._text, counters)), axis=1)

    def place(self, data: bytes) -> Blocks:
        """What the first associated data contributes to a vector: computed once."""
        return self._place(data)

    def _place_of(self, data: bytes) -> Blocks:
        start = int.from_bytes(_doubled(self._cmac(_ZERO)), "big") ^ int.from_bytes(self._cmac(data), "big")
        return np.frombuffer(_doubled(start.to_bytes(BLOCK, "big")), np.uint8)

    def _cmac(self, data: bytes) -> bytes:
        """CMAC (RFC 4493) of any bytes."""
        cut = max(0, (len(data) - 1) // BLOCK * BLOCK)
        last, subkey = data[cut:], self._whole
        if len(last) < BLOCK:
            last, subkey = (last + b"\x80").ljust(BLOCK, b"\0"), self._partial
        state = np.zeros(BLOCK, np.uint8)
        for block in np.frombuffer(data[:cut], np.uint8).reshape(-1, BLOCK):
            state = self._ecb_all(self._mac, state ^ block)
        return self._ecb(self._mac, (state ^ np.frombuffer(last, np.uint8) ^ subkey).tobytes())

    @staticmethod
    def _ecb(cipher: Cipher[modes.ECB], data: bytes) -> bytes:
        return cipher.encryptor().update(data)

    def _ecb_all(self, cipher: Cipher[modes.ECB], blocks: Blocks) -> Blocks:
        return np.frombuffer(self._ecb(cipher, blocks.tobytes()), np.uint8).reshape(blocks.shape)


def _doubled(block: bytes) -> bytes:
    """Times two in GF(2^128)."""
    number = int.from_bytes(block, "big") << 1
    if number >> 128:
        number = (number & ((1 << 128) - 1)) ^ 0x87
    return number.to_bytes(BLOCK, "big")
