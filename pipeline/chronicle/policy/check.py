"""What is wrong with a policy, seen against the tables there are: for a person, a CI, and a worker before it starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from enum import StrEnum

from chronicle.policy.blocks import Block
from chronicle.policy.file import Policy
from chronicle.policy.keyring import KeyRing, lacking
from chronicle.policy.names import looks_secret
from chronicle.policy.patterns import Glob
from chronicle.policy.resolve import Because, decided, key_problem, keyable
from chronicle.policy.rules import Class
from chronicle.policy.tables import SeenTable


class Level(StrEnum):
    """Whether a policy can go into use with it."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to correct, or to look at."""

    level: Level
    kind: str
    """`unclassified`, `contradiction`, `key`, `type`, `rule`, `route`, `no table`, `no column`, `nothing to switch off`,
    `missing key`, `secret`; of events (`policy.check_events`): `no type`, `no field`."""
    where: str
    """A table and column, or a block of the policy."""
    what: str
    fix: str

    def as_json(self) -> dict[str, str]:
        """For `--json`."""
        return asdict(self)


def findings(policy: Policy, tables: Sequence[SeenTable], ring: KeyRing | None = None) -> list[Finding]:
    """Everything that is wrong: errors first.

    Args:
        ring: the keys there are; None: not asked for.
    """
    found: list[Finding] = []
    for table in tables:
        found += _of_table(policy, table)
    for block in policy.blocks:
        found += _of_block(policy, block, tables)
    for lack in lacking(policy, ring) if ring is not None else ():
        fix = f"chronicle policy keys new {lack.id or 'ID'} --purpose {lack.purpose}"
        found.append(Finding(Level.ERROR, "missing key", "the key ring", f"{lack} is not there", fix))
    return sorted(dict.fromkeys(found), key=lambda one: one.level != Level.ERROR)


def _of_table(policy: Policy, table: SeenTable) -> Iterator[Finding]:
    """What is wrong with the classes of its columns."""
    mine = policy.about(*table.parts)
    resolved = [(name, decided(mine, policy.unclassified, name)) for name in table.names]
    skipped = next((block.skip for block in reversed(mine) if block.skip is not None), False)
    for name, decision in resolved:
        where, key = f"{table.name}: {name}", name in table.key
        if skipped and not key:
            continue
        if decision.because is Because.UNCLASSIFIED:
            until = "a token" if key else f"{policy.unclassified}"
            yield Finding(Level.ERROR, "unclassified", where, f"no rule names it (until then: {until})", "give it a class")
        elif decision.because is Because.CONTRADICTION:
            rules = " and ".join(
                f"{block.place} ({block.pattern}: {rule.column.text}) says {rule.treatment.kind}"
                for block, rule in decision.rules
            )
            until = "a token" if key else "redact"
            yield Finding(Level.ERROR, "contradiction", where, f"{rules} (until then: {until})", "keep one, or name it exactly")
        elif key and key_problem(decision):
            what = f"class {decision.treatment.kind} is no class of a key ({decision.origin})"
            yield Finding(Level.ERROR, "key", where, what, "make it clear (without scan) or token")
        elif key and not keyable(decision.treatment):
            what = f"a key cannot be {decision.treatment.kind} ({decision.origin}): it becomes a token"
            yield Finding(Level.WARNING, "key", where, what, "name it: clear or token")
        elif decision.because is Because.RULE and decision.treatment.kind is Class.CLEAR and looks_secret(name):
            yield Finding(Level.WARNING, "secret", where, f"looks secret and is clear ({decision.origin})", "be sure of it")


def _of_block(policy: Policy, block: Block, tables: Sequence[SeenTable]) -> Iterator[Finding]:
    """What a block says in vain."""
    mine = [table for table in tables if block.pattern.matches(*table.parts)]
    where = f"{block.place}: {block.pattern}"
    if not mine:
        known = [table.name for table in tables]
        close = get_close_matches(str(block.pattern), known, 1)
        fix = f"did you mean {close[0]}?" if close else f"there are {', '.join(known[:5])}" if known else "none is registered"
        yield Finding(Level.ERROR, "no table", where, "no captured table is meant by it", fix)
        return
    names = list(dict.fromkeys(name for table in mine for name in table.names))
    for role, glob in _mentioned(block):
        if any(map(glob.matches, names)):
            continue
        close = get_close_matches(glob.text, names, 1)
        fix = f"did you mean {close[0]}?" if close else "correct its name, or take the rule out"
        level = Level.ERROR if glob.exact else Level.WARNING
        yield Finding(level, "no column", f"{where}: {glob.text}", f"{role} a column that none of its tables has", fix)
    for what in _vain_switches(policy, block):
        fix = "correct its name, or take it out"
        yield Finding(Level.ERROR, "nothing to switch off", where, f"{what} is switched off, but not inherited", fix)


def _mentioned(block: Block) -> Iterator[tuple[str, Glob]]:
    for rule in block.columns:
        yield "classifies", rule.column
    for label in block.labels:
        for column in label.columns:
            yield f"label {label.name} names", column
    for one in block.enrich:
        if one.enrich is not None:
            yield f"enrich {one.into} names", Glob(one.enrich.column)
    for entry in block.rules:
        yield f"rule {entry.name or 'off'} names", Glob(entry.column)
    if block.actor and block.actor.actor:
        yield "actor names", Glob(block.actor.actor.column)
    if block.ignore:
        for name in (*(block.ignore.replace or ()), *block.ignore.add, *block.ignore.remove):
            yield "ignore names", Glob(name)


def _vain_switches(policy: Policy, block: Block) -> Iterator[str]:
    """What a block switches off although no block that applies before it says so."""
    before = [one for one in policy.blocks[: policy.blocks.index(block)] if one.pattern.overlaps(block.pattern)]
    before.append(block)
    labels = {entry.name for one in before for entry in one.labels if not entry.off}
    joined = {entry.into for one in before for entry in one.enrich if entry.enrich is not None}
    rules = {(entry.column, entry.name) for one in before for entry in one.rules if entry.rule is not None}
    rules |= {(column, None) for column, _ in rules}
    yield from (f"label {one.name}" for one in block.labels if one.off and one.name not in labels)
    yield from (f"enrich {one.into}" for one in block.enrich if one.enrich is None and one.into not in joined)
    for entry in block.rules:
        if entry.rule is None and (entry.column, entry.name) not in rules:
            yield f"rule {entry.name or 'of any kind'} of {entry.column}"
