"""Sealed payloads: what they look like, for those who pass them on. `journal.encryption` makes and opens them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

SEALED = "$encrypted"
"""The one key of a sealed payload."""
ALGORITHM = "A256GCM"
_ALG, _KEY, _NONCE = '"alg": ?"A256GCM"', '"key": ?"[A-Za-z0-9_-]{1,40}"', '"nonce": ?"[A-Za-z0-9+/]{16}"'
_CIPHERTEXT = '"ciphertext": ?"[A-Za-z0-9+/]{22,}={0,2}"'
ENVELOPE_PATTERN = rf"^\{{{_ALG}, ?(?:{_CIPHERTEXT}, ?{_KEY}, ?{_NONCE}|{_KEY}, ?{_NONCE}, ?{_CIPHERTEXT})\}}$"
"""The value under that key as JSON, its fields sorted or in the order in which they are made, with or without a space between
them: 12 bytes of nonce, at least the tag's 16 of ciphertext. Nothing else passes for one: no readable text, no other field.
For `re` and Polars alike."""
_ENVELOPE = re.compile(ENVELOPE_PATTERN)
_PAYLOAD = re.compile(rf'^\{{"{re.escape(SEALED)}": ?(\{{[^{{}}]*\}})\}}$')


def is_sealed(payload: Mapping[str, Any] | None) -> bool:
    """Whether a payload is what `journal.encryption` makes, and nothing beside it."""
    if payload is None or len(payload) != 1 or not isinstance(payload.get(SEALED), Mapping):
        return False
    envelope = payload[SEALED]
    if not all(isinstance(one, str) for one in envelope.values()):
        return False
    text = ",".join(f'"{name}":"{envelope[name]}"' for name in sorted(envelope, key=str))
    return _ENVELOPE.fullmatch(f"{{{text}}}") is not None


def is_sealed_text(payload: str) -> bool:
    """As `is_sealed`, of a payload as JSON."""
    found = _PAYLOAD.fullmatch(payload)
    return found is not None and _ENVELOPE.fullmatch(found[1]) is not None
