"""Encrypted cells: AES-SIV, so that the same change always gives the same bytes, and a ciphertext proves where it belongs.

An encrypted value is `e1.<key id>.<URL-safe base64, unpadded>` of AES-SIV over the value's canonical text, padded to whole
blocks of 16 bytes (so that the length of a short value is not told). Associated data: the table, column and image that it
stands in (of an event: its source, type and field), and the event id; a ciphertext that was moved elsewhere does not open. The
AES key is derived from the ring's secret by BLAKE2b.

The event id follows from the images' rows only after the images were made. So an image first holds a *mark* of the process's
`Sentinel` where the ciphertext will stand, and `sealed` puts the ciphertexts in place.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import polars as pl
import pyarrow as pa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from chronicle.codec.diff import Indexes
from chronicle.errors import ChronicleError, ConfigError
from chronicle.stages.siv import BLOCK, Blocks, Siv

PREFIX = "e1."
Image = Literal["before", "after"]

_PADS = tuple(b"\x80" + bytes(BLOCK - 1 - used) for used in range(BLOCK))
_PERSON = b"chronicle.e1"
_KEY_BYTES_MIN = 16
_NONCE = re.compile(r"[0-9a-f]{32}")
_KEY_ID = re.compile(r"[A-Za-z0-9_.-]+")


class EncryptionKeys(Protocol):
    """What opens ciphertexts: `policy.keyring.KeyRing`."""

    def encryption_key(self, id: str | None = None) -> tuple[str, bytes]:
        """Id and secret of the key with this id, or of the newest.

        Raises:
            ConfigError: there is no such key.
        """


@dataclass(frozen=True, slots=True)
class Sentinel:
    """What stands in an image until its ciphertexts are made. Nobody can write it into a row, because it is random."""

    nonce: str = field(repr=False)
    """128 random bits as 32 hex digits, made by the caller once per process (`secrets.token_hex(16)`)."""

    def __post_init__(self) -> None:
        if not _NONCE.fullmatch(self.nonce):
            raise ValueError("a sentinel is 32 hex digits")

    def mark(self, column: str) -> str:
        """The text that stands for a column's ciphertext: the same in both images and in the mirror."""
        return f"~{self.nonce}{hashlib.blake2b(column.encode(), digest_size=8).hexdigest()}~"


@dataclass(frozen=True, slots=True)
class Group:
    """The clear texts of one table's encrypted columns in one image."""

    table: str
    """source.schema.table."""
    rows: Indexes
    """The places of these rows among all images, each once."""
    columns: Mapping[str, pl.Series] = field(repr=False)
    """Column → canonical value texts (`codec.types.value_text`), one per row; null where there is no value."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """Images with their ciphertexts, and the ciphertexts by themselves, for mirrors."""

    images: pl.Series
    ciphertexts: tuple[Mapping[str, pl.Series], ...]
    """Of each group, in order: column → ciphertexts, one per row of the group; null where the text was null."""


class _Cells:
    """The clear texts of some columns, one after the other, padded to whole blocks. Each cell has an event id and a place."""

    def __init__(self, columns: Sequence[tuple[bytes, pl.Series]], event_ids: Sequence[bytes]) -> None:
        """`columns`: place and texts; `event_ids`: of all their cells."""
        self.places = [place for place, _ in columns]
        self.place_of = np.repeat(np.arange(len(columns)), [len(texts) for _, texts in columns])
        self.count = len(self.place_of)
        self._event_ids = event_ids
        self._texts = [text for _, texts in columns for text in texts.cast(pl.Binary).to_list()]

    def by_length(self) -> Iterator[tuple[Indexes, Blocks]]:
        """Cells of as many blocks each: their numbers, and their texts (n, blocks, 16). Nulls are left out."""
        sizes = np.fromiter((-1 if text is None else len(text) for text in self._texts), np.int64, self.count)
        blocks = np.where(sizes < 0, 0, sizes // BLOCK + 1)
        for number in np.unique(blocks[blocks > 0]).tolist():
            rows = np.flatnonzero(blocks == number)
            padded = b"".join([(self._texts[row] or b"") + _PADS[sizes[row] % BLOCK] for row in rows.tolist()])
            yield rows, np.frombuffer(padded, np.uint8).reshape(len(rows), number, BLOCK)

    def ids(self, rows: Indexes) -> Blocks:
        """Event ids of these cells."""
        return np.frombuffer(b"".join(self._event_ids), np.uint8).reshape(-1, BLOCK)[rows]


def _binary(rows: Blocks) -> pl.Series:
    """Rows of equal length as a Binary column."""
    offsets = np.arange(0, rows.size + 1, rows.shape[1], dtype=np.int64)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(rows)]
    made = pl.from_arrow(pa.Array.from_buffers(pa.large_binary(), len(rows), buffers))
    assert isinstance(made, pl.Series)  # noqa: S101  # tells the type checker which of the two from_arrow returns
    return made


class Cipher:
    """Encrypts with one key; build it once per key and process."""

    __slots__ = ("_aead", "_head", "_siv", "key_id")

    def __init__(self, key_id: str, key: bytes) -> None:
        """`key`: the ring's secret, of any length from 16 bytes.

        Raises:
            ConfigError: the id cannot stand in a ciphertext, or the key is too short.
        """
        if not _KEY_ID.fullmatch(key_id):
            raise ConfigError("name the encryption key with letters, digits, _ - and . only")
        if len(key) < _KEY_BYTES_MIN:
            raise ConfigError(f"make the encryption key {key_id} anew: it is shorter than {_KEY_BYTES_MIN} bytes")
        self.key_id = key_id
        self._head = f"{PREFIX}{key_id}."
        derived = hashlib.blake2b(key, digest_size=64, person=_PERSON).digest()
        self._siv, self._aead = Siv(derived), AESSIV(derived)

    def encrypted(self, texts: pl.Series, event_ids: pl.Series, *, table: str, column: str, image: str) -> pl.Series:
        """Ciphertexts of a column's texts (String), given the events' ids (Binary, 16 bytes). Null stays null."""
        cells = _Cells([(_place(table, column, image), texts)], event_ids.to_list())
        return self._written(cells).alias(texts.name)

    def all_encrypted(self, groups: Sequence[Group], event_ids: pl.Series, *, image: Image) -> list[dict[str, pl.Series]]:
        """As `encrypted`, of each group's columns: in one step, because a step costs as much for one group as for all.

        `event_ids`: of all images (see `sealed`).
        """
        columns, ids = [], []
        for group in groups:
            of_rows = event_ids.gather(pl.Series(group.rows)).to_list()
            for column, texts in group.columns.items():
                columns.append((_place(group.table, column, image), texts))
                ids += of_rows
        written, at = self._written(_Cells(columns, ids)), 0
        made: list[dict[str, pl.Series]] = []
        for group in groups:
            made.append({})
            for column, texts in group.columns.items():
                made[-1][column] = written.slice(at, len(texts)).alias(texts.name)
                at += len(texts)
        return made

    def _written(self, cells: _Cells) -> pl.Series:
        """The ciphertexts of all cells, as they stand in images."""
        pieces, order = [pl.Series([None], dtype=pl.Binary).new_from_index(0, cells.count)], np.arange(cells.count)
        end = cells.count
        for rows, texts in cells.by_length():
            made = self._siv.encrypted(texts, self._places(cells, rows), cells.ids(rows))
            pieces.append(_binary(made.reshape(len(rows), -1)))
            order[rows] = np.arange(end, end + len(rows))
            end += len(rows)
        raw = pl.concat(pieces).gather(pl.Series(order)).to_frame("c").select(pl.col("c").bin.encode("base64"))
        url_safe = pl.col("c").str.replace_all("+", "-", literal=True).str.replace_all("/", "_", literal=True)
        return raw.select(pl.lit(self._head) + url_safe.str.strip_chars_end("=")).to_series()

    def _places(self, cells: _Cells, rows: Indexes) -> Blocks:
        return np.stack([self._siv.place(place) for place in cells.places])[cells.place_of[rows]]

    def decrypted(self, ciphertext: bytes, *, table: str, column: str, image: str, event_id: bytes) -> str:
        """The clear text.

        Raises:
            InvalidTag: it was not made by this key for this place.
        """
        padded = self._aead.decrypt(ciphertext, [_place(table, column, image), event_id])
        return padded.rstrip(b"\0").removesuffix(b"\x80").decode()


def sealed(
    images: pl.Series, groups: Sequence[Group], event_ids: pl.Series, *, image: Image, cipher: Cipher, sentinel: Sentinel
) -> Sealed:
    """Put ciphertexts where the marks of `sentinel` stand in the images of one kind.

    `images` and `event_ids` (Binary, 16 bytes) have one entry per change, of all tables; a group names the entries of one
    table. An image without a mark (column unchanged, or not sent) is left as it is.

    Raises:
        ValueError: a mark was left, because a group lacks its column or has a null there. Nothing may be written then.
    """
    pieces = [images]
    ciphertexts = cipher.all_encrypted(groups, event_ids, image=image)
    at = np.arange(len(images), dtype=np.int64)
    end = len(images)
    for group, made in zip(groups, ciphertexts, strict=True):
        pieces.append(_placed(images.gather(pl.Series(group.rows)), made, sentinel))
        at[group.rows] = np.arange(end, end + len(group.rows), dtype=np.int64)
        end += len(group.rows)
    done = pl.concat(pieces).gather(pl.Series(at)) if groups else images
    if done.str.contains(sentinel.nonce, literal=True).any():
        raise ValueError("an image has an encrypted column whose value was not given")
    return Sealed(done.alias(images.name), tuple(ciphertexts))


def _placed(images: pl.Series, ciphertexts: Mapping[str, pl.Series], sentinel: Sentinel) -> pl.Series:
    """Each image with its ciphertexts instead of marks; where there is no ciphertext its mark stays, to be noticed."""
    names = {column: f"c{index}" for index, column in enumerate(ciphertexts)}
    frame = pl.DataFrame([images.alias("image"), *(series.alias(names[column]) for column, series in ciphertexts.items())])
    text = pl.col("image")
    for column, name in names.items():
        mark = sentinel.mark(column)
        text = text.str.replace(mark, pl.col(name).fill_null(mark), literal=True)
    return frame.select(text).to_series()


def is_sealed(value: object) -> bool:
    """Whether a value of an image looks like a ciphertext."""
    return isinstance(value, str) and value.startswith(PREFIX) and value.count(".") > 1


def place_of_event(source: str, type_: str, field: str) -> dict[str, str]:
    """Where a field of an event's payload stands: `table`, `column` and `image` of its ciphertext. No change has such a place:
    a table's name has two dots, and its images are `before` and `after`."""
    return {"table": f"events.{source}", "column": f"payload.{field}", "image": f"type {type_}"}


def opened(text: str, ring: EncryptionKeys, *, table: str, column: str, image: str, event_id: bytes) -> str:
    """The clear text of a ciphertext that stands in this table (source.schema.table), column, image and change.

    `event_id`: 16 bytes, the UUID's as they are shown.

    Raises:
        ConfigError: the ring has no such key.
        ChronicleError: this is no ciphertext, or it was changed, or made for another place or with another key.
    """
    key_id, _, body = text.removeprefix(PREFIX).rpartition(".")
    raw = _raw(body) if is_sealed(text) else None
    if raw is None or not key_id:
        raise ChronicleError(f"choose an encrypted column: {column} of {image} holds no ciphertext")
    cipher = Cipher(*ring.encryption_key(key_id))
    try:
        return cipher.decrypted(raw, table=table, column=column, image=image, event_id=event_id)
    except (InvalidTag, UnicodeDecodeError):
        raise ChronicleError(
            f"check the key {key_id} and who wrote this: the ciphertext of {column} in {image} was changed, moved from "
            "another place, or made with another key of that id"
        ) from None


def _raw(body: str) -> bytes | None:
    try:
        raw = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if len(raw) > BLOCK else None


def _place(table: str, column: str, image: str) -> bytes:
    """Associated data of a place, without ambiguity: each part with its length before it."""
    parts = (part.encode() for part in (table, column, image))
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
