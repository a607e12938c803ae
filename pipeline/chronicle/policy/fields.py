"""Reading a TOML document strictly: every key is known, every value has its type, and all mistakes are told at once.

No mistake shows a value: what stands in a policy or a key ring by mistake may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import StrEnum
from typing import Any, TypeVar

Word = TypeVar("Word", bound=StrEnum)
Path = tuple[str | int, ...]

_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(#.*)?$")
_KEY = re.compile(r"""^\s*((?:"[^"]*"|'[^']*'|[\w*-]+)(?:\s*\.\s*(?:"[^"]*"|'[^']*'|[\w*-]+))*)\s*=""")
_NAME = re.compile(r""""([^"]*)"|'([^']*)'|([^\s."']+)""")


class Lines:
    """Where in a TOML text a table or a key begins, as well as can be told from its lines."""

    def __init__(self, text: str) -> None:
        self._at: dict[Path, int] = {}
        self._counts: dict[Path, int] = {}
        here: Path = ()
        for number, line in enumerate(text.splitlines(), 1):
            if header := _HEADER.match(line):
                here = self._header(_names(header[2]), array=header[1] == "[[")
                self._at.setdefault(here, number)
            elif key := _KEY.match(line):
                path = here
                for name in _names(key[1]):
                    path = (*path, name)
                    self._at.setdefault(path, number)

    def _header(self, names: Sequence[str], *, array: bool) -> Path:
        path: Path = ()
        for depth, name in enumerate(names):
            path = (*path, name)
            if array and depth == len(names) - 1:
                self._counts[path] = self._counts.get(path, 0) + 1
            if path in self._counts:
                path = (*path, self._counts[path] - 1)
        return path

    def of(self, path: Path) -> int | None:
        """The line of the path, or of the nearest table around it; None: not found."""
        while path:
            if path in self._at:
                return self._at[path]
            path = path[:-1]
        return None


def _names(dotted: str) -> list[str]:
    return [next(filter(None, found.groups()), "") for found in _NAME.finditer(dotted)]


@dataclass(frozen=True, slots=True)
class Problems:
    """The mistakes of one document."""

    lines: Lines
    found: list[str] = field(default_factory=list)

    def add(self, path: Path, what: str, about: str = "") -> None:
        """Note a mistake at this place; `about`: what the place is about, when its path does not say it."""
        line = self.lines.of(path)
        parts = ((part if part.isprintable() else ascii(part)) if isinstance(part, str) else f"#{part + 1}" for part in path)
        names = ".".join(parts).replace(".#", " #")
        where = [f"line {line}" if line else "", names, about]
        self.found.append(": ".join([", ".join(filter(None, where)), what]))


class Fields:
    """One table of a document, read key by key; `done` tells the keys that nobody asked for."""

    def __init__(self, given: Mapping[str, Any], path: Path, problems: Problems, about: str = "") -> None:
        """`about`: added to every mistake, as the tables a block is about."""
        self.given, self.path, self.problems, self.about = given, path, problems, about
        self._asked: dict[str, None] = {}

    def __contains__(self, name: str) -> bool:
        return name in self.given

    def wrong(self, name: str, what: str) -> None:
        """A mistake in the value of this key; with an empty name, in the table."""
        self.problems.add((*self.path, name) if name else self.path, what, self.about)

    def take(self, name: str) -> Any:
        """The value as it is, or None."""
        self._asked[name] = None
        return self.given.get(name)

    def text(self, name: str, *, empty: bool = False, required: bool = False) -> str | None:
        """A string without characters that only steer a terminal."""
        value = self.take(name)
        if value is None:
            if required and name not in self.given:
                self.wrong("", f"{name} is missing")
            return None
        if (
            not isinstance(value, str)
            or (not value and not empty)
            or not value.replace("\n", "").replace("\t", "").isprintable()
        ):
            self.wrong(name, "write a text")
            return None
        return value

    def flag(self, name: str) -> bool | None:
        """true or false."""
        value = self.take(name)
        if value is not None and not isinstance(value, bool):
            self.wrong(name, "write true or false")
            return None
        return value

    def whole(self, name: str, least: int, most: int) -> int | None:
        """A whole number within these bounds."""
        value = self.take(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self.wrong(name, f"write a whole number from {least} to {most}")
            return None
        return value

    def share(self, name: str) -> float | None:
        """A number above 0, at most 1."""
        value = self.take(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
            self.wrong(name, "write a share above 0 and at most 1")
            return None
        return float(value)

    def texts(self, name: str, *, one: bool = False) -> tuple[str, ...] | None:
        """A list of strings, none twice; `one`: a string alone is a list of it."""
        value = self.take(name)
        if value is None:
            return None
        if one and isinstance(value, str):
            value = [value]
        if not isinstance(value, list) or not all(isinstance(each, str) and each.isprintable() and each for each in value):
            self.wrong(name, "write a text or a list of texts" if one else "write a list of texts")
            return None
        if len(set(value)) < len(value):
            self.wrong(name, "names something twice")
        return tuple(value)

    def word(self, name: str, words: type[Word], allowed: Collection[Word] | None = None) -> Word | None:
        """One of some words."""
        value = self.take(name)
        return None if value is None else self.word_of(name, value, words, allowed)

    def word_of(self, name: str, value: Any, words: type[Word], allowed: Collection[Word] | None = None) -> Word | None:
        """This value as one of some words."""
        known = {str(word): word for word in (words if allowed is None else allowed)}
        if isinstance(value, str) and value in known:
            return known[value]
        close = get_close_matches(value, known, 1) if isinstance(value, str) else []
        self.wrong(name, f"choose from {', '.join(known)}" + (f" (did you mean {close[0]}?)" if close else ""))
        return None

    def table(self, name: str) -> Fields | None:
        """A table inside."""
        value = self.take(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            self.wrong(name, "write a table")
            return None
        return Fields(value, (*self.path, name), self.problems, self.about)

    def tables(self, name: str) -> Iterator[Fields]:
        """An array of tables inside."""
        value = self.take(name)
        if value is None:
            return
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            self.wrong(name, f"write [[{'.'.join(part for part in (*self.path, name) if isinstance(part, str))}]] blocks")
            return
        for at, each in enumerate(value):
            yield Fields(each, (*self.path, name, at), self.problems, self.about)

    def done(self) -> None:
        """Tell each key that is not known here."""
        for name in self.given:
            if name in self._asked:
                continue
            close = get_close_matches(name, self._asked, 1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(self._asked)}"
            self.wrong(name if name.isprintable() else "", f"no such option; {hint}")
