"""What a policy says of events: `[[events]]` blocks, and what they make of one event type of one application.

`match` are event types, words with dots between them: `*` stands within one word, `**` for any words, none included. Rules
are about `resource_id`, `description` and `payload.<field>` (fields at the top of the payload). Blocks apply from general
to specific, as those of tables do; who did it and why follows `[context]`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from chronicle.events.sealed import SEALED
from chronicle.policy.blocks import ColumnRule
from chronicle.policy.fields import Fields
from chronicle.policy.patterns import Glob, Rank
from chronicle.policy.resolve import Because, decided
from chronicle.policy.rules import CLEAR, REDACTED, Class, ColumnPolicy, Treatment, Unclassified
from chronicle.policy.treatments import treatment

TEXTS = ("resource_id", "description")
"""Of the envelope: clear, unless a rule says otherwise."""
PAYLOAD = "payload."
_CLASSES = tuple(one for one in Class if one is not Class.ENCRYPT)
"""Of the envelope's texts, and of names that may mean them: what is encrypted is a field of the payload."""
_WORD = re.compile(r"[A-Za-z0-9_*-]+")
_ANY = "**"
ANYONE = Glob("*")


@dataclass(frozen=True, slots=True)
class EventPattern:
    """Which events a block is about."""

    type: str
    source: Glob = ANYONE

    @classmethod
    def parse(cls, text: str, source: str = "*") -> EventPattern:
        """Read `security.*`, `**`, `order.**.refused`.

        Raises:
            ValueError: says what is wrong with it.
        """
        words = text.split(".")
        if not all(_WORD.fullmatch(word) and ("**" not in word or word == _ANY) for word in words):
            raise ValueError("write words with dots between them; * stands within a word, ** alone for any words")
        return cls(text, Glob(source))

    @property
    def specificity(self) -> tuple[int, int, int, int, Rank]:
        """Comparable: first more exact words, then no wildcard at all, then fewer `**`, then a pattern that names more
        characters, then the more specific source."""
        words = self.type.split(".")
        exact = sum("*" not in word for word in words) + self.source.exact
        literal = len(self.type) - self.type.count("*")
        return (exact, int("*" not in self.type), -words.count(_ANY), literal, self.source.rank)

    def matches(self, source: str, type_: str) -> bool:
        """Whether an event of this application and type is one of those it stands for."""
        return self.source.matches(source) and _compiled(self.type).fullmatch(f".{type_}") is not None

    def __str__(self) -> str:
        """For people."""
        return self.type if self.source.text == "*" else f"{self.source.text}: {self.type}"


def _compiled(pattern: str) -> re.Pattern[str]:
    """Over the type with a dot before it, so that every word has one. `re` caches what it compiles."""
    words: list[str] = []
    for word in pattern.split("."):
        if word == _ANY and words[-1:] == [_WORDS]:
            continue  # `**.**` is `**`, and twice the work
        words.append(_WORDS if word == _ANY else r"\." + "[^.]*".join(map(re.escape, word.split("*"))))
    return re.compile("".join(words))


_WORDS = r"(?:\.[^.]+)*"


@dataclass(frozen=True, slots=True)
class EventBlock:
    """One `[[events]]` block, for one of its patterns. None, or nothing: as inherited."""

    pattern: EventPattern
    place: str = field(compare=False)
    """Where it stands in the file, for people."""
    columns: tuple[ColumnRule, ...] = ()
    labels: tuple[str, ...] = ()
    skip: bool | None = None


@dataclass(frozen=True, slots=True)
class EventPolicy:
    """What becomes of events of one type of one application."""

    blocks: tuple[EventBlock, ...]
    """Those that are about it, general to specific."""
    unclassified: Unclassified
    classes: Mapping[str, str] = field(default_factory=dict)
    """Payload field → the class that the type's own schema proposes."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Of all blocks."""
        return tuple(sorted({label for block in self.blocks for label in block.labels}))

    @property
    def skip(self) -> bool:
        """Whether these events are left out: the most specific block that says something."""
        said = [(block.pattern.specificity, block.skip) for block in self.blocks if block.skip is not None]
        return max(said)[1] if said else False

    @property
    def passes_sealed(self) -> bool:
        """Whether payloads that the application sealed (`events.sealed`) go on as they are: unless a rule names that field."""
        name = f"{PAYLOAD}{SEALED}"
        return not any(rule.column.exact and rule.column.matches(name) for block in self.blocks for rule in block.columns)

    def text(self, name: str) -> ColumnPolicy:
        """Of `resource_id` or `description`."""
        decision = decided(self.blocks, self.unclassified, name)
        if decision.because is Because.UNCLASSIFIED:
            return ColumnPolicy(CLEAR, "defaults of events")
        return ColumnPolicy(decision.treatment, decision.origin)

    def payload(self, name: str) -> tuple[ColumnPolicy, bool]:
        """Of a field of the payload; and whether nobody has classified it."""
        decision = decided(self.blocks, self.unclassified, f"{PAYLOAD}{name}")
        if decision.because is not Because.UNCLASSIFIED:
            return ColumnPolicy(decision.treatment, decision.origin), False
        proposed = self.classes.get(name)
        if proposed is None:
            return ColumnPolicy(decision.treatment, decision.origin), True
        return ColumnPolicy(_proposed(proposed), "the type's schema"), False


def _proposed(word: str) -> Treatment:
    """A schema has no room for options: what needs one redacts."""
    kinds = {str(one): Treatment(one) for one in (Class.CLEAR, Class.DROP, Class.MASK, Class.TOKEN)}
    return kinds.get(word, REDACTED)


def matching(blocks: Sequence[EventBlock], source: str, type_: str) -> tuple[EventBlock, ...]:
    """The blocks that are about these events, in the order in which they apply."""
    return tuple(block for block in blocks if block.pattern.matches(source, type_))


def event_blocks(top: Fields) -> tuple[EventBlock, ...]:
    """All `[[events]]`, general to specific."""
    found = [block for fields in top.tables("events") for block in _blocks(fields)]
    return tuple(sorted(found, key=lambda block: (block.pattern.specificity, str(block.pattern))))


def _blocks(fields: Fields) -> list[EventBlock]:
    texts = fields.texts("match", one=True)
    if texts is None and "match" not in fields:
        fields.wrong("", 'match is missing: say which event types, as in match = "security.*"')
    fields.about = ", ".join(texts or ())
    source = fields.text("source") or "*"
    patterns = []
    for text in texts or ():
        try:
            patterns.append(EventPattern.parse(text, source))
        except ValueError as error:
            fields.wrong("match", str(error))
    columns, labels, skip = _columns(fields), fields.texts("label", one=True) or (), fields.flag("skip")
    fields.done()
    line = fields.problems.lines.of(fields.path)
    place = f"line {line}" if line else f"[[events]] #{int(fields.path[-1]) + 1}"
    return [EventBlock(pattern, place, columns, tuple(sorted(labels)), skip) for pattern in patterns]


def _columns(fields: Fields) -> tuple[ColumnRule, ...]:
    """`payload.method = …` stands in TOML as a table within `columns`, or, quoted, as one name."""
    inner = fields.table("columns")
    if inner is None:
        return ()
    rules = []
    for name in inner.given:
        if name == PAYLOAD[:-1] and isinstance(inner.given[name], Mapping):
            nested = inner.table(name)
            assert nested is not None  # noqa: S101  # a table, as was just seen
            rules += [ColumnRule(Glob(f"{PAYLOAD}{one}"), treatment(nested, one)) for one in nested.given]
        elif name.startswith(PAYLOAD):
            rules.append(ColumnRule(Glob(name), treatment(inner, name)))
        elif name in TEXTS or "*" in name:
            rules.append(ColumnRule(Glob(name), treatment(inner, name, _CLASSES)))
        else:
            inner.take(name)
            inner.wrong(name, f"choose from {', '.join(TEXTS)}, payload.FIELD; who did it is in [context]")
    return tuple(rules)
