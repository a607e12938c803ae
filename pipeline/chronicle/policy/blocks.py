"""What a policy file says, block by block, before it is resolved for a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from chronicle.policy.patterns import Glob, Specificity, TablePattern
from chronicle.policy.rules import Enrich, Images, OnBreak, RowActor, Treatment, Unclassified, ValueRule

IGNORED = ("created_at", "updated_at")
"""Ignored where a policy says nothing about it."""


@dataclass(frozen=True, slots=True)
class ColumnRule:
    """One line under `columns`."""

    column: Glob
    treatment: Treatment


@dataclass(frozen=True, slots=True)
class Ignoring:
    """What a block does to the list of ignored columns."""

    replace: tuple[str, ...] | None = None
    """Instead of what is inherited."""
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelEntry:
    """Adds columns to the label of this name, or switches it off."""

    name: str
    columns: tuple[Glob, ...] = ()
    off: bool = False


@dataclass(frozen=True, slots=True)
class EnrichEntry:
    """Joins an entity under this name, in place of what is inherited under it; None switches that off."""

    into: str
    enrich: Enrich | None = None


@dataclass(frozen=True, slots=True)
class RuleEntry:
    """Adds a value rule, in place of the inherited one of this column and name; None switches it off."""

    column: str
    name: str | None = None
    """None, to switch off: all rules of the column."""
    rule: ValueRule | None = None


@dataclass(frozen=True, slots=True)
class ActorEntry:
    """Says where the actor stands in the row; None: nowhere."""

    actor: RowActor | None = None


@dataclass(frozen=True, slots=True)
class Block:
    """One `[[tables]]` block, for one of its patterns. None, or nothing: as inherited."""

    pattern: TablePattern
    place: str = field(compare=False)
    """Where it stands in the file, for people."""
    columns: tuple[ColumnRule, ...] = ()
    ignore: Ignoring | None = None
    labels: tuple[LabelEntry, ...] = ()
    enrich: tuple[EnrichEntry, ...] = ()
    rules: tuple[RuleEntry, ...] = ()
    actor: ActorEntry | None = None
    images: Images | None = None
    snapshot_on_delete: bool | None = None
    contract: OnBreak | None = None
    where: str | None = None
    """Empty: no filter."""
    where_deletes: bool | None = None
    sample: float | None = None
    """1: no sampling."""
    skip: bool | None = None


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds where no block says otherwise."""

    unclassified: Unclassified = Unclassified.REDACT
    ignore: tuple[str, ...] = IGNORED
    images: Images = Images.FULL
    snapshot_on_delete: bool = True
    contract: OnBreak = OnBreak.DEADLETTER


def canonical_order(blocks: Sequence[Block]) -> tuple[Block, ...]:
    """Blocks in the order in which they apply: general to specific, equally specific ones in the file's order.

    Where the file's order means nothing (no table matches both), it is not kept, so that files that mean the same give
    the same order.
    """
    equals: dict[Specificity, list[Block]] = {}
    for block in blocks:
        equals.setdefault(block.pattern.specificity, []).append(block)
    return tuple(block for specificity in sorted(equals) for block in _independent(equals[specificity]))


def _independent(blocks: Sequence[Block]) -> Iterator[Block]:
    """By name, but none before one that stands before it in the file and is about a common table."""
    names = [str(block.pattern) for block in blocks]
    exact = all(block.pattern.exact for block in blocks)  # equally specific: all are, or none is
    waits: list[set[int]] = [set() for _ in blocks]
    followers: list[list[int]] = [[] for _ in blocks]
    for later, block in enumerate(blocks):
        for earlier in range(later):
            if names[later] == names[earlier] or (not exact and block.pattern.overlaps(blocks[earlier].pattern)):
                waits[later].add(earlier)
                followers[earlier].append(later)
    free = [(names[at], at) for at, others in enumerate(waits) if not others]
    heapify(free)
    while free:
        _, at = heappop(free)
        yield blocks[at]
        for follower in followers[at]:
            waits[follower].discard(at)
            if not waits[follower]:
                heappush(free, (names[follower], follower))


def treatments(blocks: Sequence[Block], context: Mapping[str, Treatment]) -> tuple[Treatment, ...]:
    """All treatments that a file asks for."""
    return (*(rule.treatment for block in blocks for rule in block.columns), *context.values())
