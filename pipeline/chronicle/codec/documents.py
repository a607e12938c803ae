"""Which JSON documents ClickHouse's JSON type takes. It refuses a whole insert for one document that it does not.

It takes objects only, with each path once (`{"a": {"b": 1}, "a.b": 2}` has one twice), whole numbers of 64 bits, and
characters that UTF-8 has.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import polars as pl

from chronicle.codec.numbers import mapped

_read = msgspec.json.Decoder().decode
_KEY_ENDS = re.compile(r'"\s*:')
_INTEGERS = range(-(2**63), 2**64)
DEPTH_MAX = 200


class _RefusedError(ValueError):
    """The document has something that ClickHouse refuses."""


def storable(text: pl.Expr) -> pl.Expr:
    """Whether ClickHouse's JSON type takes the document; null for null. Looks at each distinct text in Python."""
    return mapped(is_storable, pl.Boolean())(text)


def is_storable(text: str) -> bool:
    """Whether ClickHouse's JSON type takes this document."""
    try:
        document = _read(text)
        if not isinstance(document, dict):
            return False
        keys = _check(document, DEPTH_MAX)
        # msgspec keeps the last of equal keys without a word: as many keys as quotes before a colon, then there are none
        # a dot in a key, or an empty key, can make two paths one
        if keys != len(_KEY_ENDS.findall(text)) or "." in text or '""' in text:
            _check_paths(json.loads(text, object_pairs_hook=_pairs), "", set())
    except (ValueError, RecursionError, ArithmeticError):  # msgspec's errors are ValueErrors
        return False
    return True


def _check(value: Any, depth: int) -> int:
    """The number of keys in a value.

    Raises:
        _RefusedError: too deep, or a number beyond 64 bits.
    """
    if depth == 0:
        raise _RefusedError
    if isinstance(value, dict):
        return sum(_check(one, depth - 1) for one in value.values()) + len(value)
    if isinstance(value, list):
        return sum(_check(one, depth - 1) for one in value)
    if isinstance(value, int) and value not in _INTEGERS:
        raise _RefusedError
    return 0


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise _RefusedError
    return members


def _check_paths(value: Any, path: str, seen: set[str]) -> None:
    """Raise _RefusedError where two values have one path; the objects of an array begin paths of their own."""
    if isinstance(value, dict):
        for key, one in value.items():
            _check_paths(one, f"{path}.{key}" if path else key, seen)
        return
    if path and path in seen:
        raise _RefusedError
    seen.add(path)
    if isinstance(value, list):
        for one in value:
            _check_paths(one, "", set())
