"""Keys of tokens and of encryption: a TOML text with an id, a purpose and a date each. Their bytes are never shown.

```toml
[keys.token-2026]
purpose = "token"            # or "encrypt"
secret = "…"                 # 64 hex digits, or base64, of random bytes
created = 2026-11-01         # the newest key of a purpose is the one created last
```
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from chronicle.errors import ConfigError
from chronicle.policy.fields import Fields, Lines, Problems
from chronicle.policy.reading import KEY_ID, document, refuse

if TYPE_CHECKING:
    from chronicle.policy.file import Policy

SECRET_BYTES_MIN = 32
CIPHER_KEY_BYTES = (32, 48, 64)
"""AES-SIV has two keys in one: of 128, 192 or 256 bits each."""
_DISTINCT_BYTES_MIN = 12
"""32 random bytes have 30 distinct values; with fewer than these it is a placeholder or a word."""
_HEX = re.compile(r"[0-9a-fA-F]+")


class Purpose(StrEnum):
    """What a key may be used for; one key has one purpose."""

    TOKEN = "token"  # noqa: S105  # a purpose, not a token
    ENCRYPT = "encrypt"


@dataclass(frozen=True, slots=True)
class Key:
    """One key. Its `repr` has no secret."""

    id: str
    purpose: Purpose
    created: datetime
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyRing:
    """All keys that a process holds, by id."""

    keys: Mapping[str, Key]

    @classmethod
    def parse(cls, text: str, *, name: str = "the key ring") -> KeyRing:
        """Read the text of a key ring.

        Raises:
            ConfigError: all mistakes in it, each with its line; never a secret, nor a part of one.
        """
        problems = Problems(Lines(text))
        top = Fields(document(text, name), (), problems)
        inner = top.table("keys")
        top.done()
        keys: dict[str, Key] = {}
        for id in inner.given if inner else ():
            if not KEY_ID.fullmatch(id):
                top.wrong("keys", "write ids with letters, digits, _ and - (at most 40)")  # it may be a key: not shown
                continue
            one = inner.table(id) if inner else None
            if one is not None and (key := _key(id, one)) is not None:
                keys[id] = key
        _distinct(keys, top)
        refuse(name, problems)
        return cls(keys)

    def token_key(self, id: str) -> bytes:
        """The secret of a token key.

        Raises:
            ConfigError: there is no such key, or it has another purpose.
        """
        return self._secret(id, Purpose.TOKEN)

    def encryption_key(self, id: str | None = None) -> tuple[str, bytes]:
        """Id and secret of an encryption key; without an id: the newest.

        Raises:
            ConfigError: there is none, or it has another purpose.
        """
        found = id or self.newest(Purpose.ENCRYPT)
        if found is None:
            raise ConfigError("make a key: chronicle policy keys new ID --purpose encrypt (the key ring has none)")
        return found, self._secret(found, Purpose.ENCRYPT)

    def newest(self, purpose: Purpose) -> str | None:
        """Id of the key of this purpose that was created last; None: there is none."""
        mine = [key for key in self.keys.values() if key.purpose is purpose]
        return max(mine, key=lambda key: key.created).id if mine else None

    def _secret(self, id: str, purpose: Purpose) -> bytes:
        key = self.keys.get(id)
        if key is None or key.purpose is not purpose:
            raise ConfigError(f"put the key {id} (purpose {purpose}) into the key ring")
        return key.secret


EMPTY = KeyRing({})


@dataclass(frozen=True, slots=True)
class Lack:
    """A key that a policy needs and a key ring has not."""

    id: str | None
    """None: any key of the purpose would do."""
    purpose: Purpose
    use: str
    """What it is for, for people."""

    def __str__(self) -> str:
        """In words."""
        name = "any key with" if self.id is None else f"key {self.id} with"
        return f"{name} purpose {self.purpose}, for {self.use}"


def lacking(policy: Policy, ring: KeyRing) -> list[Lack]:
    """The keys that the policy needs and the key ring has not."""
    lacks = [
        Lack(id, Purpose.TOKEN, f"token domain {domain}")
        for domain, id in sorted(policy.domains.items())
        if not _has(ring, id, Purpose.TOKEN)
    ]
    if policy.encrypt_key is not None:
        if not _has(ring, policy.encrypt_key, Purpose.ENCRYPT):
            lacks.append(Lack(policy.encrypt_key, Purpose.ENCRYPT, "[encryption]"))
    elif policy.encrypts and ring.newest(Purpose.ENCRYPT) is None:
        lacks.append(Lack(None, Purpose.ENCRYPT, "columns of class encrypt"))
    return lacks


def missing(policy: Policy, ring: KeyRing) -> list[str]:
    """The same in words; empty: nothing is missing."""
    return [str(lack) for lack in lacking(policy, ring)]


def entry(id: str, purpose: Purpose, secret: bytes, created: datetime) -> str:
    """The TOML text of one key, to append to a key ring.

    Raises:
        ConfigError: the id cannot be one.
    """
    if not KEY_ID.fullmatch(id):
        raise ConfigError("write a key's id with letters, digits, _ and - (at most 40)")
    at = created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f'[keys.{id}]\npurpose = "{purpose}"\nsecret = "{secret.hex()}"\ncreated = {at}\n'


def _has(ring: KeyRing, id: str, purpose: Purpose) -> bool:
    return id in ring.keys and ring.keys[id].purpose is purpose


def _key(id: str, fields: Fields) -> Key | None:
    purpose = fields.word("purpose", Purpose)
    created = _moment(fields.take("created"))
    secret = _bytes(fields.take("secret"))
    fields.done()
    if purpose is None and "purpose" not in fields:
        fields.wrong("", "purpose is missing: token or encrypt")
    if created is None:
        fields.wrong("created", "write a date, as in created = 2026-11-01")
    if secret is None or len(secret) < SECRET_BYTES_MIN or len(set(secret)) < _DISTINCT_BYTES_MIN:
        fields.wrong("secret", f"write at least {SECRET_BYTES_MIN} random bytes, in hex or base64")
    elif purpose is Purpose.ENCRYPT and len(secret) not in CIPHER_KEY_BYTES:
        fields.wrong("secret", "write 32, 48 or 64 random bytes for a key that encrypts")
    return Key(id, purpose, created, secret) if purpose and created and secret else None


def _bytes(given: Any) -> bytes | None:
    if not isinstance(given, str):
        return None
    text = given.strip()
    try:
        if _HEX.fullmatch(text):  # also where it is too short: base64 of so many bytes is never hex by chance
            return bytes.fromhex(text)
        padded = text.rstrip("=").translate(str.maketrans("-_", "+/"))
        return base64.b64decode(padded + "=" * (-len(padded) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def _moment(given: Any) -> datetime | None:
    if isinstance(given, datetime):
        return given if given.tzinfo else given.replace(tzinfo=UTC)
    return datetime(given.year, given.month, given.day, tzinfo=UTC) if isinstance(given, date) else None


def _distinct(keys: Mapping[str, Key], top: Fields) -> None:
    """One secret for one purpose under one id; and of two keys of a purpose, one is the newer."""
    secrets: dict[bytes, str] = {}
    moments: dict[tuple[Purpose, datetime], str] = {}
    for key in keys.values():
        if (other := secrets.setdefault(key.secret, key.id)) != key.id:
            top.wrong("keys", f"{other} and {key.id} have the same secret: make one of them anew")
        if (other := moments.setdefault((key.purpose, key.created), key.id)) != key.id:
            top.wrong("keys", f"{other} and {key.id} have the same purpose and time: say in `created` which is newer")
