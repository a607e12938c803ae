"""Patterns on dotted names, as one regular expression that Python and ClickHouse (RE2) read alike. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

_DOT = "\x1f"
"""Patterns are printable (`api.access.Limits`), so only a star stands for it."""


def expression(patterns: Sequence[str]) -> str:
    """One expression for all patterns: `*` stands for one word or a part of one, `**` for any number of words.

    Whoever uses it anchors it (`fullmatch`, `anchored`). Empty for no patterns.
    """
    return "|".join(_expression(pattern) for pattern in patterns)


def anchored(text: str) -> str:
    """An expression as ClickHouse's `match` wants it: of the whole text, line breaks included."""
    return f"(?s)^(?:{text})$"


def one_word(name: str) -> str:
    """A name as one word of a dotted text, whatever dots are in it: no pattern has a text for what stands for them."""
    return name.replace(".", _DOT)


def in_sql(column: str) -> str:
    """`one_word` as ClickHouse's expression."""
    return f"replaceAll({column}, '.', char({ord(_DOT)}))"


def _expression(pattern: str) -> str:
    words = []
    for word in pattern.split("."):
        if word == "**":
            words.append(".*")
        else:
            words.append("".join("[^.]*" if part == "*" else _escaped(part) for part in re.split(r"(\*)", word)))
    return r"\.".join(words)


def _escaped(text: str) -> str:
    """Only what means something gets a backslash: RE2 refuses one before a letter that needs none."""
    return re.sub(r"([\\.+*?()|\[\]{}^$])", r"\\\1", text)
