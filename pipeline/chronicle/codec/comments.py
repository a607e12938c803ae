"""Comments on SQL statements that say who did it: `/* chronicle: {json} */` and sqlcommenter's `key='value'` pairs.

The lexical rules are those of MySQL and MariaDB, and the same as in the Connect transform KeepComment, which cuts a
statement down to such comments before it is serialized. A literal or a quoted identifier may contain what looks like a
comment, which is why this lexes instead of searching; every pattern is linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import polars as pl

COMMENT_CHARS_MAX = 8_192
"""A longer comment is no attribution, as in KeepComment."""
_MARK = "chronicle:"
_LEXEME = re.compile(
    r"""
      '(?:[^'\\]++|\\.|'')*+'?          # literals; a text without its closing quote is one to the end
    | "(?:[^"\\]++|\\.|"")*+"?
    | `(?:[^`]++|``)*+`?                # no escapes in an identifier
    | \#(?P<hash>[^\n]*+)
    | --(?=[\x00-\x20]|\Z)(?P<dash>[^\n]*+)   # "5--3" is arithmetic
    | (?P<version>/\*M?!)               # SQL to the server, so lexed as SQL
    | /\*(?P<block>(?:[^*]++|\*(?!/))*+)(?P<close>\*/)?
    | (?P<end>\*/)                      # of a version comment: taken as a pair, in "*/*" the second star opens nothing
    """,
    re.VERBOSE | re.DOTALL,
)
_PAIR = re.compile(r"\s*+([A-Za-z_][A-Za-z0-9_.%-]*+)='((?:[^'\\\x00-\x1f]++|\\[^\x00-\x1f])*+)'\s*+(?:,|\Z)")
_PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


def contexts_of_comments(queries: pl.Series) -> pl.Series:
    """For each statement (or what KeepComment left of it) the context in its comments as canonical JSON; null: none.

    Looks at each distinct text once, in Python. Several comments make one context: pairs first, then what stands after
    `chronicle:`; the later wins. Never raises.
    """
    known: dict[str | None, str | None] = {None: None}
    found = []
    for text in queries.to_list():
        if text not in known:
            known[text] = context_of_statement(text)
        found.append(known[text])
    return pl.Series(queries.name, found, dtype=pl.String)


def context_of_statement(statement: str) -> str | None:
    """The context in one statement's comments, as canonical JSON."""
    if "chronicle:" not in statement and "='" not in statement:
        return None
    pairs: dict[str, Any] = {}
    objects: dict[str, Any] = {}
    for body in _comments(statement):
        if body.startswith(_MARK):
            objects |= _object(body.removeprefix(_MARK))
        else:
            pairs |= _pairs(body)
    trace = _TRACEPARENT.fullmatch(str(pairs.get("traceparent", "")))
    if trace and "request_id" not in pairs:
        pairs["request_id"] = trace[1]
    context = pairs | objects
    try:
        return msgspec.json.encode(context, order="deterministic").decode() if context else None
    except (ValueError, RecursionError, OverflowError):  # nested deeper than can be written again
        return None


def _comments(statement: str) -> Iterator[str]:
    versioned = False
    at = 0
    while found := _LEXEME.search(statement, at):
        at = found.end()
        kind = found.lastgroup
        if kind == "version":
            versioned = True
        elif kind == "end":
            at = at if versioned else found.start() + 1
            versioned = False
        elif kind == "block":
            return  # not closed: comment and SQL cannot be told apart from here on
        elif kind in ("hash", "dash", "close"):
            body = found["block" if kind == "close" else kind].strip()
            if len(body) <= COMMENT_CHARS_MAX:
                yield body


def _object(text: str) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _pairs(body: str) -> dict[str, str]:
    """`key='value',…` and nothing else: "name='x' OR 1=1" is commented-out SQL."""
    found: dict[str, str] = {}
    at = 0
    while at < len(body):
        pair = _PAIR.match(body, at)
        if pair is None:
            return {}
        found[_unescaped(pair[1])] = _unescaped(pair[2])
        at = pair.end()
    return {} if body.endswith(",") else found


def _unescaped(text: str) -> str:
    """sqlcommenter's encoding: percent-encoded UTF-8, quotes behind a backslash."""
    if "\\" in text:
        text = re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)
    if "%" not in text:
        return text
    data = _PERCENT.sub(lambda found: bytes.fromhex(found[1].decode()), text.encode("utf-8", "replace"))
    return data.decode("utf-8", "replace")
