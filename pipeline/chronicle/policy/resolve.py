"""Blocks to the effective policy of one table: what every column becomes and which rule says so.

A column that is named exactly goes before one that a pattern names; then the more specific block wins, then the pattern
that names more characters. Rules that contradict each other on that footing redact, whatever their order in the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from chronicle.errors import ConfigError
from chronicle.policy.blocks import Block, ColumnRule, Defaults
from chronicle.policy.names import looks_secret
from chronicle.policy.patterns import Glob
from chronicle.policy.rules import (
    REDACTED,
    Class,
    ColumnPolicy,
    Enrich,
    Label,
    RowActor,
    TablePolicy,
    Treatment,
    Unclassified,
    ValueRule,
)

KEY_TOKEN = Treatment(Class.TOKEN)
"""What a key column becomes that no rule names, or one that a pattern wants hidden in a way that keys cannot be."""
_UNNAMED = {
    Unclassified.REDACT: REDACTED,
    Unclassified.DROP: Treatment(Class.DROP),
    Unclassified.DEADLETTER: REDACTED,
}


class Pattern(Protocol):
    """What a block is about."""

    @property
    def specificity(self) -> tuple[Any, ...]:
        """Comparable: the greater, the more specific."""


class Ruling(Protocol):
    """A block with rules about columns: of tables, or of events."""

    @property
    def pattern(self) -> Pattern:
        """What it is about."""

    @property
    def place(self) -> str:
        """Where it stands in the file, for people."""

    @property
    def columns(self) -> tuple[ColumnRule, ...]:
        """Its rules."""


class Because(StrEnum):
    """Why a column becomes what it becomes."""

    RULE = "rule"
    SECRET = "secret name"  # noqa: S105  # a reason
    UNCLASSIFIED = "unclassified"
    CONTRADICTION = "contradiction"


@dataclass(frozen=True, slots=True)
class Decision:
    """What the rules say about one column, whether or not it is part of a key."""

    because: Because
    treatment: Treatment
    rules: tuple[tuple[Ruling, ColumnRule], ...] = ()
    """Those that decided; several that agree, or that contradict each other."""

    @property
    def exact(self) -> bool:
        """Whether a rule names this very column."""
        return any(rule.column.exact for _, rule in self.rules)

    @property
    def origin(self) -> str:
        """For people."""
        names = list(dict.fromkeys(f"{block.pattern}: {rule.column.text}" for block, rule in self.rules))
        if self.because is Because.RULE:
            return names[0]
        return f"{self.because}: {' / '.join(names)}" if names else str(self.because)


def decided(blocks: Sequence[Ruling], unclassified: Unclassified, column: str) -> Decision:
    """What blocks that are about the table say about a column of it."""
    best: list[tuple[Ruling, ColumnRule]] = []
    best_rank: tuple[Any, ...] = ()
    for block in blocks:
        for rule in block.columns:
            rank = (rule.column.exact, block.pattern.specificity, rule.column.literal)
            if rank >= best_rank and rule.column.matches(column):
                best = [*best, (block, rule)] if rank == best_rank else [(block, rule)]
                best_rank = rank
    if looks_secret(column) and not any(rule.column.exact for _, rule in best):
        return Decision(Because.SECRET, REDACTED)
    if not best:
        return Decision(Because.UNCLASSIFIED, _UNNAMED[unclassified])
    if len({rule.treatment for _, rule in best}) > 1:
        return Decision(Because.CONTRADICTION, REDACTED, tuple(best))
    return Decision(Because.RULE, best[0][1].treatment, tuple(best))


def keyable(treatment: Treatment) -> bool:
    """Whether a key column can be treated so."""
    return treatment.kind is Class.TOKEN or (treatment.kind is Class.CLEAR and not treatment.scan)


def key_problem(decision: Decision) -> bool:
    """Whether a key column is named in a rule whose class no key can have."""
    return decision.because is Because.RULE and decision.exact and not keyable(decision.treatment)


def key_policy(decision: Decision) -> ColumnPolicy:
    """A key column: as its rule says if a key can be so, else a token."""
    if keyable(decision.treatment):
        return ColumnPolicy(decision.treatment, decision.origin)
    return ColumnPolicy(KEY_TOKEN, f"{decision.origin} (a key: token)")


def matching(blocks: Sequence[Block], source: str, schema: str, table: str) -> tuple[Block, ...]:
    """The blocks that are about the table, in the order in which they apply."""
    return tuple(block for block in blocks if block.pattern.matches(source, schema, table))


def resolved(
    blocks: Sequence[Block],
    defaults: Defaults,
    name: tuple[str, str, str],
    columns: Sequence[str],
    key: Sequence[str],
) -> TablePolicy:
    """The effective policy of the table `name` (source, schema, table).

    Args:
        blocks: of the whole policy, in `blocks.canonical_order`.

    Raises:
        ConfigError: a rule names a key column and gives it a class other than clear (without scan) or token.
    """
    mine = matching(blocks, *name)
    every = tuple(dict.fromkeys((*columns, *key)))
    decisions = {column: decided(mine, defaults.unclassified, column) for column in every}
    wrong = [(column, decisions[column]) for column in key if key_problem(decisions[column])]
    if wrong:
        told = [f"{column} (class {one.treatment.kind}, by {one.origin})" for column, one in wrong]
        raise ConfigError(f"make key columns of {'.'.join(name)} clear (without scan) or token: {', '.join(told)}")
    policies = {
        column: key_policy(one) if column in key else ColumnPolicy(one.treatment, one.origin)
        for column, one in decisions.items()
    }
    unclassified = tuple(column for column, one in decisions.items() if one.because is Because.UNCLASSIFIED)
    present = frozenset(every)
    where, sample = (_last(mine, option, None) for option in ("where", "sample"))
    return TablePolicy(
        *name,
        columns=policies,
        key_columns=tuple(key),
        unclassified=unclassified,
        refuse=bool(unclassified) and defaults.unclassified is Unclassified.DEADLETTER,
        skip=_last(mine, "skip", False),
        ignore=_ignored(mine, defaults, every),
        images=_last(mine, "images", defaults.images),
        snapshot_on_delete=_last(mine, "snapshot_on_delete", defaults.snapshot_on_delete),
        labels=_labels(mine, every),
        where=where or None,
        where_deletes=_last(mine, "where_deletes", False),
        sample=None if sample == 1 else sample,
        contract=_last(mine, "contract", defaults.contract),
        rules=tuple(rule for rule in _rules(mine) if rule.column in present),
        enrich=tuple(one for one in _enriched(mine) if one.column in present),
        actor=_actor(mine, present),
    )


def _last(blocks: Sequence[Block], option: str, default: Any) -> Any:
    """The most specific block that says something."""
    said = (value for block in reversed(blocks) if (value := getattr(block, option)) is not None)
    return next(said, default)


def _named(globs: Sequence[Glob], columns: Sequence[str]) -> Iterator[str]:
    return (column for column in columns if any(one.matches(column) for one in globs))


def _ignored(blocks: Sequence[Block], defaults: Defaults, columns: Sequence[str]) -> frozenset[str]:
    ignored = set(_named(_globs(defaults.ignore), columns))
    for block in blocks:
        change = block.ignore
        if change is None:
            continue
        if change.replace is not None:
            ignored = set(_named(_globs(change.replace), columns))
        ignored |= set(_named(_globs(change.add), columns))
        ignored -= set(_named(_globs(change.remove), columns))
    return frozenset(ignored)


def _globs(texts: Sequence[str]) -> list[Glob]:
    return [Glob(text) for text in texts]


def _labels(blocks: Sequence[Block], columns: Sequence[str]) -> tuple[Label, ...]:
    labels: dict[str, list[Glob]] = {}
    for entry in (one for block in blocks for one in block.labels):
        if entry.off:
            labels.pop(entry.name, None)
        else:
            labels.setdefault(entry.name, []).extend(entry.columns)
    found = (Label(tuple(_named(globs, columns)), name) for name, globs in labels.items())
    return tuple(sorted((label for label in found if label.columns), key=lambda label: label.name))


def _rules(blocks: Sequence[Block]) -> tuple[ValueRule, ...]:
    rules: dict[tuple[str, str], ValueRule] = {}
    for entry in (one for block in blocks for one in block.rules):
        if entry.rule is not None:
            rules[entry.column, entry.rule.name] = entry.rule
        else:
            gone = [one for one in rules if one[0] == entry.column and entry.name in (None, one[1])]
            for one in gone:
                del rules[one]
    return tuple(rules[one] for one in sorted(rules))


def _enriched(blocks: Sequence[Block]) -> tuple[Enrich, ...]:
    found = {entry.into: entry.enrich for block in blocks for entry in block.enrich}
    return tuple(enrich for _, enrich in sorted(found.items()) if enrich is not None)


def _actor(blocks: Sequence[Block], columns: frozenset[str]) -> RowActor | None:
    entry = next((block.actor for block in reversed(blocks) if block.actor is not None), None)
    return entry.actor if entry and entry.actor and entry.actor.column in columns else None
