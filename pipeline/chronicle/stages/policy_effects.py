"""How the same records look under two policies: which columns of which tables differ, in how many changes, and how.

Samples show a form only when it is nobody's clear value: what a policy leaves clear is shown by its last two characters at
most, because the other policy may hide it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from chronicle.model.batch import Batch
from chronicle.policy.file import Policy
from chronicle.policy.rules import Class, TablePolicy

SAMPLES_MAX = 3
"""Different ones of one column."""
SHOWN_MAX = 60
"""Characters of a form that is not clear."""
TAIL_FROM = 6
"""A clear value with fewer characters shows none of them; a longer one its last two."""
ABSENT = "(absent)"
_IMAGES = ("key", "previous_key", "before", "after")
_CONTEXT = ("actor_id", "actor_type", "actor_name", "request_id", "reason", "ip", "session", "tenant", "tags", "attribution")
_KEPT = (*_IMAGES, *_CONTEXT, "source", "schema", "table", "stub", "labels", "violations", "changed")
_MISSING = object()
Place = tuple[str, int, int]


@dataclass(slots=True)
class ColumnEffect:
    """One column that looks different."""

    old: str
    """Its class under the old policy, with its parameters."""
    new: str
    changes: int = 0
    """In how many changes."""
    samples: dict[tuple[str, str], None] = field(default_factory=dict)
    """(old form, new form), never a clear value."""


@dataclass(slots=True)
class TableEffect:
    """One table with changes that look different."""

    changes: int = 0
    """All changes that both policies let through."""
    columns: dict[str, ColumnEffect] = field(default_factory=dict)
    stubs: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(old, new) rule that leaves a change out (empty: told whole) → changes for which it differs."""
    labels: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(label, `gained` or `lost`) → changes."""
    violations: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(rule:column, `gained` or `lost`) → changes."""
    context: Counter[str] = field(default_factory=Counter)
    """Fields that say who did it → changes for which they differ."""
    changed: int = 0
    """Updates of which `changed` names other columns."""

    def __bool__(self) -> bool:
        return bool(self.columns or self.stubs or self.labels or self.violations or self.context or self.changed)


class Comparison:
    """Adds up what two policies make of the same records, batch by batch."""

    def __init__(self, old: Policy, new: Policy) -> None:
        self._old, self._new = old, new
        self._resolved: dict[tuple[Any, ...], tuple[TablePolicy, TablePolicy]] = {}
        self.records = 0
        self._tables: dict[str, TableEffect] = {}
        self.dead_letters: Counter[tuple[str, str, str]] = Counter()
        """(topic, old reason, new reason; empty: none) → records for which it differs."""

    @property
    def tables(self) -> dict[str, TableEffect]:
        """Those that look different, by name."""
        return {name: one for name, one in sorted(self._tables.items()) if one}

    def __bool__(self) -> bool:
        return bool(self.tables or self.dead_letters)

    def add(self, old: Batch, new: Batch) -> None:
        """The same records under either policy."""
        self.records += old.rows()
        letters = [_letters(one) for one in (old, new)]
        for place in letters[0].keys() | letters[1].keys():
            reasons = letters[0].get(place, ""), letters[1].get(place, "")
            if reasons[0] != reasons[1]:
                self.dead_letters[(place[0], *reasons)] += 1
        before, after = _changes(old), _changes(new)
        for place, row in before.items():
            if place in after:
                self._compare(row, after[place])

    def _compare(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        parts = (old["source"], old["schema"], old["table"])
        table = self._tables.setdefault(".".join(parts), TableEffect())
        table.changes += 1
        if old["stub"] != new["stub"]:
            table.stubs[old["stub"], new["stub"]] += 1
            return  # one of them is told without its images
        for counted, name in ((table.labels, "labels"), (table.violations, "violations")):
            counted.update((one, "gained") for one in set(new[name]) - set(old[name]))
            counted.update((one, "lost") for one in set(old[name]) - set(new[name]))
        table.context.update(name for name in _CONTEXT if old[name] != new[name])
        table.changed += old["changed"] != new["changed"]
        differing: dict[str, tuple[Any, Any]] = {}
        for name in _IMAGES:
            differing |= dict(_cells(old[name], new[name]))
        if differing:
            self._columns(table, parts, old, new, differing)

    def _columns(
        self,
        table: TableEffect,
        parts: tuple[str, str, str],
        old: Mapping[str, Any],
        new: Mapping[str, Any],
        differing: Mapping[str, tuple[Any, Any]],
    ) -> None:
        key = tuple(sorted({**_row(old["key"]), **_row(new["key"])}))
        before, after = self._policies(parts, tuple(sorted(differing)), key)
        for name, forms in differing.items():
            treatments = before.columns[name].treatment, after.columns[name].treatment
            effect = table.columns.get(name)
            if effect is None:
                effect = table.columns[name] = ColumnEffect(treatments[0].label, treatments[1].label)
            effect.changes += 1
            if len(effect.samples) < SAMPLES_MAX:
                shown = [shown_form(form, one.kind) for form, one in zip(forms, treatments, strict=True)]
                effect.samples[shown[0], shown[1]] = None

    def _policies(
        self, parts: tuple[str, str, str], columns: tuple[str, ...], key: tuple[str, ...]
    ) -> tuple[TablePolicy, TablePolicy]:
        asked = (parts, columns, key)
        if asked not in self._resolved:
            self._resolved[asked] = (self._old.table(*parts, columns, key), self._new.table(*parts, columns, key))
        return self._resolved[asked]


def shown_form(form: object, kind: Class) -> str:
    """A value as a sample shows it, by the class of the policy that made it so."""
    if form is _MISSING:
        return ABSENT
    if form is None:
        return "null"
    text = form if isinstance(form, str) else json.dumps(form, ensure_ascii=False)
    if kind is Class.CLEAR:
        return f"…{text[-2:]}" if len(text) >= TAIL_FROM else "…"
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}…"


def _letters(batch: Batch) -> dict[Place, str]:
    return {(one.topic, one.partition, one.offset): one.reason.value for one in batch.dead_letters}


def _changes(batch: Batch) -> dict[Place, dict[str, Any]]:
    rows = batch.changes.select("topic", "partition", "offset", *_KEPT).iter_rows(named=True)
    return {(row["topic"], row["partition"], row["offset"]): row for row in rows}


def _cells(old: str | None, new: str | None) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """The columns of an image that differ, with their two forms."""
    if old == new:
        return
    before, after = _row(old), _row(new)
    for name in dict.fromkeys((*before, *after)):
        forms = before.get(name, _MISSING), after.get(name, _MISSING)
        if forms[0] is _MISSING or forms[1] is _MISSING or json.dumps(forms[0]) != json.dumps(forms[1]):
            yield name, forms


def _row(image: str | None) -> dict[str, Any]:
    found = json.loads(image) if image else {}
    return found if isinstance(found, dict) else {}
