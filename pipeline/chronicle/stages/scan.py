"""Personal data inside free text: e-mail addresses, cards, IBANs, phone numbers and IP addresses become [EMAIL], [CARD], …

Also inside JSON text, in string values at any depth (and JSON within them) and card numbers among numbers; keys stay, and
the text stays valid JSON. Works on distinct values, and only on those in which a vectorised look finds a reason to.

Found through: zero-width characters and soft hyphens between the characters, decimal digits of any script, full-width
characters, JSON's escapes. Not found: spelled-out values (`bob at example dot org`), percent-encoding, HTML entities,
base64, digits one by one (`4 1 1 1 …`), a card number or IBAN inside a longer run of letters and digits, phone numbers
without + or 00, a leading 0 or American grouping, object keys.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping

import msgspec
import numpy as np
import polars as pl

from chronicle.codec.diff import Indexes
from chronicle.errors import ConfigError
from chronicle.policy.treatments import SCANS
from chronicle.stages.distinct import over_distinct, over_rows
from chronicle.stages.findings import FINDERS, Span
from chronicle.stages.sanitize import FILTERED

ROUNDS_MAX = 6
"""A replaced hit can bring another one into being beside it; a text made to do so more often is hidden whole."""
DEPTH_MAX = 4
"""JSON within a string of JSON within …; deeper, it is searched as plain text."""

_DIGITS = r"(?s)[0-9](?:.{0,6}[0-9]){6}"
_SIGNS: Mapping[str, tuple[str, ...]] = {
    "email": ("@",),
    "card": (_DIGITS,),
    "iban": ("[0-9]{2}(?:[ -]?[0-9A-Za-z]){11}",),
    "phone": (_DIGITS,),
    "ip": (r"[0-9]\.[0-9]{1,3}\.[0-9]", ":[0-9A-Fa-f]{0,4}:"),
}
"""What an ASCII text has at least where there is a hit, each with a rare character that is looked for first: cheap."""
_EXACT: Mapping[str, str] = {
    "email": r"@[\w\[]",
    "card": r"[0-9](?:.{0,2}[0-9]){12}",
    "iban": "[A-Za-z]{2}[0-9]{2}(?:[ -]?[0-9A-Za-z]){11}",
    "phone": r"[0-9](?:[ ().\-/\\]{0,6}[0-9]){6}",
    "ip": r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]|[0-9A-Fa-f:]:[0-9A-Fa-f]{0,4}:|::[0-9A-Fa-f]",
}
"""The same, closer: only for texts with such a sign."""
_ESCAPED = "\\u"
"""In JSON text any character may hide behind this."""
_WIDE = r"(?s)\d.*\d.*\d.*\d|[:：@＠﹫]"
"""For all kinds, in a text with other than ASCII characters."""
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"|-?[0-9][0-9.eE+-]*+', re.DOTALL)
_COLON = re.compile(r"\s*+:")
_MEANT = re.compile(r'\s*+[{["]')
_document = msgspec.json.Decoder().decode


def _folds() -> dict[int, str | None]:
    """Characters that only look different: digits of all scripts, full-width ASCII, dashes, spaces; None: invisible."""
    folds: dict[int, str | None] = {}
    for code in range(0x80, 0x1FC00):
        character = chr(code)
        category = unicodedata.category(character)
        if category == "Nd":
            folds[code] = str(unicodedata.decimal(character))
        elif category == "Cf" or character in "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0":
            folds[code] = None
        elif category == "Pd":
            folds[code] = "-"
        elif category == "Zs":
            folds[code] = " "
    folds.update({code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)})
    folds.update({0xFE6B: "@", 0xFE52: ".", 0x3002: ".", 0xFF61: ".", 0x2024: "."})
    folds.update(dict.fromkeys([*range(0xFE00, 0xFE10), *range(0xE0000, 0xE1000)]))  # variation selectors, tags
    return folds


_FOLDS = _folds()


class Finder:
    """Searches texts for some kinds of personal data."""

    __slots__ = ("_exact", "_finders", "_signs")

    def __init__(self, kinds: Iterable[str]) -> None:
        """`kinds`: of `policy.treatments.SCANS`.

        Raises:
            ConfigError: an unknown kind.
        """
        wanted = set(kinds)
        if unknown := sorted(wanted - set(SCANS)):
            raise ConfigError(f"correct scan: choose from {', '.join(SCANS)}, there is no {unknown[0]!r}")
        self._finders = [(finder, f"[{kind.upper()}]") for kind, finder in FINDERS.items() if kind in wanted]
        self._signs = [_ESCAPED, *dict.fromkeys(sign for kind in sorted(wanted) for sign in _SIGNS[kind])]
        self._exact = "(?s)" + "|".join([r"\\u", *(_EXACT[kind] for kind in sorted(wanted))])

    def texts(self, texts: pl.Series) -> pl.Series:
        """A String column without what was searched for; texts that are JSON documents stay such. Null stays null."""
        return self._searched(texts, self.text)

    def documents(self, texts: pl.Series) -> pl.Series:
        """As `texts`, of a column of JSON documents."""
        return self._searched(texts, self.document)

    def text(self, text: str) -> str:
        """One text without what was searched for."""
        return self._text(text, 0)

    def document(self, text: str) -> str:
        """One JSON document without what was searched for in its strings and numbers."""
        return self._document(text, 0)

    def _searched(self, texts: pl.Series, search: Callable[[str], str]) -> pl.Series:
        rows = self._suspects(texts)

        def change(values: pl.Series) -> pl.Series:
            return pl.Series(values.name, [search(value) for value in values.to_list()], dtype=pl.String)

        return over_rows(texts, rows, lambda found: over_distinct(found, change))

    def _suspects(self, texts: pl.Series) -> Indexes:
        """The rows to look at one by one."""
        text = pl.col("t")
        signs = [text.str.contains(sign, literal=sign in ("@", _ESCAPED)) for sign in self._signs]
        wide = (text.str.len_bytes() > text.str.len_chars()).alias("wide")
        signed, wider = texts.alias("t").to_frame().select(pl.any_horizontal(signs).alias("signed"), wide).get_columns()
        narrow = _rows(signed & ~wider) if wider.any() else _rows(signed)
        narrow = _containing(texts, narrow, self._exact)
        return np.concatenate([narrow, _containing(texts, _rows(wider), _WIDE)]) if wider.any() else narrow

    def _text(self, text: str, depth: int) -> str:
        if depth < DEPTH_MAX and _MEANT.match(text) and _valid(text):
            return self._document(text, depth)
        return self._plain(text)

    def _document(self, text: str, depth: int) -> str:
        pieces: list[str] = []
        end = 0
        for token in _TOKEN.finditer(text):
            given = token.group()
            if given[0] == '"':
                if _COLON.match(text, token.end()):
                    continue
                made = self._string(given, depth)
            else:
                made = self._number(given)
            if made is not given:
                pieces += (text[end : token.start()], made)
                end = token.end()
        return text if not pieces else "".join(pieces) + text[end:]

    def _string(self, given: str, depth: int) -> str:
        try:
            value = json.loads(given, strict=False) if "\\" in given else given[1:-1]
        except ValueError:
            return f'"{FILTERED}"'
        made = self._text(value, depth + 1)
        if made == value:
            return given
        try:
            made.encode()
        except UnicodeEncodeError:  # half a surrogate pair, which only an escape can write
            return json.dumps(made)
        return json.dumps(made, ensure_ascii=False)

    def _number(self, given: str) -> str:
        made = self._plain(given)
        return given if made == given else json.dumps(made)

    def _plain(self, text: str) -> str:
        for _ in range(ROUNDS_MAX):
            before = text
            for finder, label in self._finders:
                text = _replaced(text, finder, label)
            if text == before:
                return text
        return FILTERED


def _rows(marks: pl.Series) -> Indexes:
    found: Indexes = np.flatnonzero(marks.fill_null(False).to_numpy())
    return found


def _containing(texts: pl.Series, rows: Indexes, pattern: str) -> Indexes:
    if not len(rows):
        return rows
    kept: Indexes = rows[texts.gather(pl.Series(rows)).str.contains(pattern).to_numpy()]
    return kept


def _valid(text: str) -> bool:
    try:
        _document(text)
    except (ValueError, RecursionError):
        return False
    return True


def _replaced(text: str, finder: Callable[[str], list[Span]], label: str) -> str:
    """The text with the label instead of what the finder finds in its folded form."""
    folded, at = text, None
    if not text.isascii():
        folded = text.translate(_FOLDS)
        if len(folded) != len(text):
            at = [index for index, character in enumerate(text) if _FOLDS.get(ord(character), "") is not None]
    spans = finder(folded)
    if not spans:
        return text
    pieces: list[str] = []
    end = 0
    for start, stop in spans:
        first, last = (start, stop) if at is None else (at[start], at[stop - 1] + 1)
        pieces += (text[end:first], label)
        end = last
    return "".join(pieces) + text[end:]
