"""Which tables and columns a rule is about: patterns with `*`, and how specific each of them is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

_NOT_IN_TOPICS = re.compile(r"[^A-Za-z0-9._-]")
_NOT_IN_PATTERNS = re.compile(r"[^A-Za-z0-9._*-]")
_PART = re.compile(r'"([^"]*)"|([^."]+)')

PARTS = ("source", "schema", "table")

Rank = tuple[int, int]
"""How specific one part is: 2 exact, 1 with a wildcard (then: how many characters it names), 0 anything."""
Specificity = tuple[int, Rank, Rank, Rank]


@lru_cache(maxsize=65_536)
def _compiled(text: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, text.split("*"))), re.DOTALL)


@dataclass(frozen=True, slots=True)
class Glob:
    """A name, or a pattern in which each `*` stands for any characters, none included. Case matters."""

    text: str

    @property
    def exact(self) -> bool:
        """Whether it names one thing."""
        return "*" not in self.text

    @property
    def literal(self) -> int:
        """How many characters it names."""
        return len(self.text) - self.text.count("*")

    @property
    def rank(self) -> Rank:
        """Comparable: the greater, the more specific."""
        return (2, 0) if self.exact else (1, self.literal) if self.literal else (0, 0)

    def matches(self, name: str) -> bool:
        """Whether the name is one of those it stands for."""
        return self.text == name if self.exact else _compiled(self.text).fullmatch(name) is not None

    def overlaps(self, other: Glob) -> bool:
        """Whether a name may match both; true where that is not easily told (two patterns)."""
        if self.exact:
            return other.matches(self.text)
        return self.matches(other.text) if other.exact else True


@dataclass(frozen=True, slots=True)
class TablePattern:
    """`source.schema.table`: which tables a block of the policy is about.

    Names are compared as topics have them: what a topic's name cannot hold is `_`, as Debezium writes it.
    """

    source: Glob
    schema: Glob
    table: Glob

    @classmethod
    def parse(cls, text: str) -> TablePattern:
        """Read `shop.public.*`, `shop.**`, `**`, `**.customers`; a part with dots in it stands in double quotes.

        Raises:
            ValueError: says what is wrong with it.
        """
        parts = _parts(text)
        if parts.count("**") > 1:
            raise ValueError("write ** once")
        if "**" in parts:
            at = parts.index("**")
            parts[at : at + 1] = ["*"] * (len(PARTS) - len(parts) + 1)
        if len(parts) != len(PARTS):
            raise ValueError("write source.schema.table, with * within a part and ** for any parts")
        if any("**" in part for part in parts):
            raise ValueError("write * within a part; ** stands alone")
        return cls(*(Glob(_NOT_IN_PATTERNS.sub("_", part)) for part in parts))

    @property
    def specificity(self) -> Specificity:
        """Blocks apply in this order, the most specific last: first more exact parts, then the more specific source, then
        schema, then table; within a part an exact name, then the pattern that names more characters."""
        parts = (self.source, self.schema, self.table)
        return (sum(part.exact for part in parts), self.source.rank, self.schema.rank, self.table.rank)

    @property
    def exact(self) -> bool:
        """Whether it names one table."""
        return self.source.exact and self.schema.exact and self.table.exact

    def matches(self, source: str, schema: str, table: str) -> bool:
        """Whether the table is one of those it stands for."""
        return (
            self.source.matches(_topic_name(source))
            and self.schema.matches(_topic_name(schema))
            and self.table.matches(_topic_name(table))
        )

    def overlaps(self, other: TablePattern) -> bool:
        """Whether a table may match both."""
        pairs = ((self.source, other.source), (self.schema, other.schema), (self.table, other.table))
        return all(mine.overlaps(its) for mine, its in pairs)

    def __str__(self) -> str:
        """As it could be written; `**` for everything."""
        texts = [f'"{part.text}"' if "." in part.text else part.text for part in (self.source, self.schema, self.table)]
        return "**" if texts == ["*"] * len(PARTS) else ".".join(texts)


@lru_cache(maxsize=65_536)
def _topic_name(name: str) -> str:
    return _NOT_IN_TOPICS.sub("_", name)


def _parts(text: str) -> list[str]:
    parts, at = [], 0
    while found := _PART.match(text, at):
        parts.append(found[1] if found[1] is not None else found[2].strip())
        at = found.end()
        if at == len(text) or text[at] != ".":
            break
        at += 1
    if at != len(text) or not parts or not all(parts) or text.endswith("."):
        raise ValueError("write source.schema.table, with * within a part and ** for any parts")
    return parts
