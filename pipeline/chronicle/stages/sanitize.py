"""Sanitize: what a value under a secret-looking name becomes in a context, and the key of tokens that no ring has a key for."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

from chronicle.policy.names import looks_secret

FILTERED = "[FILTERED]"
_TOKEN_PURPOSE = b"chronicle.token.1"


def token_key(identity_key: bytes) -> bytes:
    """The key of the token domain `default` where the policy names none, derived from the deployment's identity key."""
    return hmac.digest(identity_key, _TOKEN_PURPOSE, hashlib.sha256)


def sanitized_context(value: Mapping[str, Any]) -> dict[str, Any]:
    """A context without the values under secret-looking names, at any depth."""
    return {name: FILTERED if looks_secret(name) and one is not None else inner(one) for name, one in value.items()}


def inner(value: Any) -> Any:
    """As `sanitized_context`, of any JSON value."""
    if isinstance(value, dict):
        return sanitized_context(value)
    return [inner(one) for one in value] if isinstance(value, list) else value
