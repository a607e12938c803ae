"""Payloads under AES-256-GCM before they leave the process: sealed under a key with an id, opened by who holds that key.

A sealed payload is

    {"$encrypted": {"alg": "A256GCM", "key": "<id of the key>", "nonce": "<base64>", "ciphertext": "<base64, tag at its end>"}}

with the event's id and type as associated data: a payload that is moved to another event does not open. The rest of the event
(type, actor, resource, description, tags …) is not encrypted. Keys come from a key ring, as `chronicle policy keys new ID
--purpose encrypt` writes it; the cipher's key is derived from the ring's secret (HKDF-SHA256), so that the secret serves both
this and the encrypted columns of the change stream.
"""

from __future__ import annotations

import base64
import binascii
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from chronicle.errors import ChronicleError, ConfigError
from chronicle.events.event import EVENT_BYTES_MAX, Event, EventRefused
from chronicle.events.sealed import ALGORITHM, SEALED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chronicle.policy.keyring import KeyRing

_NONCE_BYTES = 12
_DERIVED = b"chronicle.journal.payload " + ALGORITHM.encode()
_PLAIN_BYTES_MAX = EVENT_BYTES_MAX * 3 // 4
"""Base64 makes four bytes of three: a larger payload could not be sent sealed."""


class PayloadSealed(ChronicleError):
    """The reader: this payload does not open. The message says why, never what is in it."""


class _Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    alg: str
    key: str
    nonce: str
    ciphertext: str


@dataclass(frozen=True, slots=True)
class Encryption:
    """One key that payloads are sealed with, and of which types of events.

    Args:
        key_id: what the ring calls the key; stands in every sealed payload.
        key: 32 bytes. Not shown by `repr`.
        types: patterns of event types (`security.*`, `**`); payloads of others stay as they are.
    """

    key_id: str
    key: bytes = field(repr=False)
    types: tuple[str, ...] = ("**",)

    @classmethod
    def of(cls, ring: KeyRing, key_id: str | None = None, *, types: tuple[str, ...] = ("**",)) -> Encryption:
        """With this key of a ring; without an id: the newest one that encrypts.

        Raises:
            ConfigError: the ring has no such key, or `cryptography` is not installed.
        """
        _cipher()  # a process that cannot encrypt says so when it starts, not at its first event
        found, secret = ring.encryption_key(key_id)
        return cls(found, _derived(secret), types)

    def sealed(self, event: Event) -> Event:
        """The event with its payload sealed; as it is where it has none. Its id and type are final.

        Raises:
            EventRefused: the payload is none that JSON has, or too large once sealed. Nothing is ever left in clear.
        """
        if event.payload is None:
            return event
        try:
            plain = msgspec.json.encode(event.payload, order="deterministic")
        except (TypeError, ValueError, OverflowError, RecursionError):
            raise EventRefused("payload", "holds only what JSON has") from None
        if len(plain) > _PLAIN_BYTES_MAX:
            raise EventRefused("payload", f"at most {_PLAIN_BYTES_MAX} bytes as JSON when it is encrypted")
        nonce = os.urandom(_NONCE_BYTES)
        hidden = _cipher()(self.key).encrypt(nonce, plain, _associated(event.id, event.type))
        envelope = {
            "alg": ALGORITHM,
            "key": self.key_id,
            "nonce": base64.b64encode(nonce).decode(),
            "ciphertext": base64.b64encode(hidden).decode(),
        }
        return msgspec.structs.replace(event, payload={SEALED: envelope})


def is_sealed(payload: Mapping[str, Any] | None) -> bool:
    """Whether it has the form of a sealed payload."""
    return payload is not None and len(payload) == 1 and SEALED in payload


def opened(event: Event, ring: KeyRing) -> Event:
    """The event with its payload in clear; as it is where it was not sealed. Raises as `payload_opened`."""
    if not is_sealed(event.payload):
        return event
    return msgspec.structs.replace(event, payload=payload_opened(event.payload or {}, id=event.id, type=event.type, ring=ring))


def payload_opened(payload: Mapping[str, Any], *, id: str, type: str, ring: KeyRing) -> dict[str, Any]:
    """The clear payload of the event with this id and type.

    Raises:
        ConfigError: the ring lacks the key (its id is named), or `cryptography` is not installed.
        PayloadSealed: it is no sealed payload, was changed, or belongs to another event.
    """
    try:
        envelope = msgspec.convert(payload.get(SEALED), _Envelope)
        nonce = base64.b64decode(envelope.nonce, validate=True)
        hidden = base64.b64decode(envelope.ciphertext, validate=True)
    except (msgspec.ValidationError, binascii.Error, ValueError):
        raise PayloadSealed("this is no sealed payload: a field is absent or malformed") from None
    if not is_sealed(payload) or envelope.alg != ALGORITHM or len(nonce) != _NONCE_BYTES:
        raise PayloadSealed(f"this is no payload sealed by {ALGORITHM}")
    _, secret = ring.encryption_key(envelope.key)
    from cryptography.exceptions import InvalidTag

    try:
        plain = _cipher()(_derived(secret)).decrypt(nonce, hidden, _associated(id, type))
        found: dict[str, Any] = msgspec.json.decode(plain, type=dict[str, Any])
    except (InvalidTag, msgspec.DecodeError, ValueError):
        raise PayloadSealed("it was changed, sealed for another event, or under another key of the same id") from None
    return found


def ring_of(*, text: str | None = None, file: Path | None = None) -> KeyRing:
    """The key ring in a text, or else in a file.

    Raises:
        ConfigError: neither is given, the file cannot be read, or its keys are wrong. Never a part of a key.
    """
    from chronicle.policy.keyring import KeyRing

    if text:
        return KeyRing.parse(text, name="the journal's key ring")
    if file is None:
        raise ConfigError("give the journal a key ring to encrypt with: a file, or its text")
    try:
        return KeyRing.parse(file.read_text(encoding="utf-8"), name=str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"make {file} readable: the journal's key ring ({type(error).__name__})") from None


def _associated(id: str, type: str) -> bytes:
    try:
        same = str(UUID(id))
    except ValueError:
        raise EventRefused("id", "is no UUID") from None
    return f"{same}\0{type}".encode()


def _derived(secret: bytes) -> bytes:
    _cipher()
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), length=32, salt=None, info=_DERIVED).derive(secret)


def _cipher() -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        raise ConfigError("install cryptography: payloads are to be encrypted") from None
    return AESGCM
