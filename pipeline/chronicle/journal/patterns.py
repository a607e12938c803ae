"""Patterns of dotted names, of events' types and of paths in payloads: `*` stands for one word, `**` for any number."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache


def matches(pattern: str, name: str | Sequence[str]) -> bool:
    """Whether the name is one of those the pattern stands for; within a word `*` stands for any characters (`work_*.created`).

    A name given as its words may have dots in them; they then match as a word's other characters do.
    """
    parts = name.split(".") if isinstance(name, str) else name
    return _compiled(pattern).fullmatch("\0".join(part.replace("\0", "\ufffd") for part in parts) + "\0") is not None


@lru_cache(maxsize=4_096)
def _compiled(pattern: str) -> re.Pattern[str]:
    texts = []
    for word in pattern.split("."):
        if word == "**":
            texts.append("(?:[^\0]*\0)*")
        elif word == "*":
            texts.append("[^\0]+\0")
        else:
            texts.append("[^\0]*".join(map(re.escape, word.split("*"))) + "\0")
    return re.compile("".join(texts), re.DOTALL)
