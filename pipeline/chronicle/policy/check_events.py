"""What is wrong with what a policy says of events, seen against the event types there are: as `policy.check` is for tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches

from chronicle.events.catalogue import Catalogue
from chronicle.events.sealed import SEALED
from chronicle.policy.blocks import ColumnRule
from chronicle.policy.check import Finding, Level
from chronicle.policy.events import PAYLOAD, EventBlock, EventPolicy
from chronicle.policy.file import Policy
from chronicle.policy.names import looks_secret
from chronicle.policy.resolve import Because, decided
from chronicle.policy.rules import Class


def event_findings(policy: Policy, catalogue: Catalogue, *, strict: bool) -> list[Finding]:
    """Everything that is wrong: errors first.

    Args:
        strict: events of types that the catalogue does not know are refused, so that a rule about them is in vain.
    """
    found = [finding for type_ in catalogue.types for finding in _of_type(policy, catalogue, type_)]
    found += [finding for block in policy.events for finding in _of_block(block, catalogue, strict=strict)]
    return sorted(dict.fromkeys(found), key=lambda one: one.level != Level.ERROR)


def _of_type(policy: Policy, catalogue: Catalogue, type_: str) -> Iterator[Finding]:
    """What is wrong with the classes of a known type's fields. Rules of one application are judged with those of all."""
    sources = {block.pattern.source.text for block in policy.events}
    mine = [block for block in policy.events if block.pattern.matches(block.pattern.source.text, type_)]
    common = [block for block in mine if block.pattern.source.text == "*"]
    for source in sorted({"*", *sources}):
        blocks = common if source == "*" else [block for block in mine if block.pattern.source.text in ("*", source)]
        if (source != "*" and blocks == common) or EventPolicy(tuple(blocks), policy.unclassified).skip:
            continue
        classes = catalogue.classes(type_)
        name = f"events:{type_}" if source == "*" else f"events:{source}:{type_}"
        for field in catalogue.columns(type_):
            decision, where = decided(blocks, policy.unclassified, f"{PAYLOAD}{field}"), f"{name}: {PAYLOAD}{field}"
            if decision.because is Because.UNCLASSIFIED and field not in classes:
                what = f"neither a rule nor its schema classifies it (until then: {policy.unclassified})"
                fix = "give it a class, or its schema chronicle.class"
                yield Finding(Level.ERROR, "unclassified", where, what, fix)
            elif decision.because is Because.CONTRADICTION:
                rules = " and ".join(
                    f"{block.place} ({block.pattern}: {rule.column.text}) says {rule.treatment.kind}"
                    for block, rule in decision.rules
                )
                what = f"{rules} (until then: redact)"
                yield Finding(Level.ERROR, "contradiction", where, what, "keep one, or name it exactly")
            elif decision.because is Because.RULE and decision.treatment.kind is Class.CLEAR and looks_secret(field):
                yield Finding(Level.WARNING, "secret", where, f"looks secret and is clear ({decision.origin})", "be sure of it")


def _of_block(block: EventBlock, catalogue: Catalogue, *, strict: bool) -> Iterator[Finding]:
    """What a block says in vain."""
    exact = "*" not in block.pattern.type
    mine = [type_ for type_ in catalogue.types if block.pattern.matches(block.pattern.source.text, type_)]
    where = f"{block.place}: {block.pattern}"
    if not mine:
        close = get_close_matches(block.pattern.type, catalogue.types, 1)
        fix = f"did you mean {close[0]}?" if close else f"describe it in schemas/events/{block.pattern.type}.avsc"
        if not exact and not close:
            fix = "describe its types in schemas/events/"
        what = "no known type is meant by it" + (", and unknown ones are refused (events.mode)" if strict else "")
        yield Finding(Level.ERROR if strict else Level.WARNING, "no type", where, what, fix)
        return
    fields = list(dict.fromkeys(field for type_ in mine for field in catalogue.columns(type_)))
    # a pattern may mean types that nobody has described, and those may have any field
    certain = strict or exact
    for rule in block.columns:
        if not _in_vain(rule, fields):
            continue
        close = get_close_matches(rule.column.text.removeprefix(PAYLOAD), fields, 1)
        fix = f"did you mean {PAYLOAD}{close[0]}?" if close else "correct its name, or take the rule out"
        level = Level.ERROR if certain and rule.column.exact else Level.WARNING
        what = "classifies a field that its type has not" if exact else "classifies a field that none of its known types has"
        yield Finding(level, "no field", f"{where}: {rule.column.text}", what, fix)


def _in_vain(rule: ColumnRule, fields: Sequence[str]) -> bool:
    if not rule.column.text.startswith(PAYLOAD):  # of the envelope, or a pattern that may mean it
        return False
    return not any(rule.column.matches(f"{PAYLOAD}{field}") for field in (*fields, SEALED))
