"""Sanitize: what looks like a secret is replaced in every place, before any sink sees it.

In this issue the rule is the name's look (`policy.names`). In `before` and `after` such a column is `[FILTERED]` (NULL
stays NULL), in a mirror it is absent, in a key it becomes a token, so that rows stay distinguishable and joinable.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from chronicle.policy.names import looks_secret

FILTERED = "[FILTERED]"
TOKEN_PREFIX = "t1."  # noqa: S105  # the version of the token's making, not a token
_TOKEN_PURPOSE = b"chronicle.token.1"
_TOKEN_CHARACTERS = 22


def filtered_columns(names: Iterable[str]) -> dict[str, str]:
    """The columns whose values never leave, with the text that stands for them."""
    return {name: FILTERED for name in names if looks_secret(name)}


def token_key(identity_key: bytes) -> bytes:
    """The key of all tokens, derived from the deployment's identity key: never the identity key itself."""
    return hmac.digest(identity_key, _TOKEN_PURPOSE, hashlib.sha256)


def token(key: bytes, text: str) -> str:
    """The stable stand-in of a value: equal values have equal tokens under one key."""
    digest = hmac.digest(key, text.encode(), hashlib.sha256)
    return TOKEN_PREFIX + base64.urlsafe_b64encode(digest).decode()[:_TOKEN_CHARACTERS]


def tokens(key: bytes, texts: pl.Series) -> pl.Series:
    """Tokens of a String column; made once per distinct value. Null stays null."""
    distinct = texts.drop_nulls().unique()
    made = [token(key, text) for text in distinct]
    if not made:
        return texts
    return texts.replace_strict(distinct, pl.Series(made, dtype=pl.String), default=None, return_dtype=pl.String)


def sanitized_context(value: Mapping[str, Any]) -> dict[str, Any]:
    """A context without the values under secret-looking names, at any depth."""
    return {name: FILTERED if looks_secret(name) and one is not None else _inner(one) for name, one in value.items()}


def _inner(value: Any) -> Any:
    if isinstance(value, dict):
        return sanitized_context(value)
    return [_inner(one) for one in value] if isinstance(value, list) else value
