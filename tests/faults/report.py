"""What a check found: differences by law, counts, digests, and the text a person reads when a test fails."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any

SHOWN = 3
"""Differences of one law in one table that the text shows in full; the rest is counted."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One broken law, at one place. `law`: lost, phantom, doubled, order, value, image, changed, unavailable, identity,
    transaction, begin, end, context, final, audit, disposition, dead_letter, counted."""

    law: str
    where: str
    key: Any
    expected: Any
    observed: Any
    detail: str = ""


@dataclass(slots=True)
class Report:
    """All differences of one run. `counts` and `digests` are for the reader; `ok` is the verdict."""

    differences: list[Difference] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    digests: dict[str, dict[str, str]] = field(default_factory=dict)
    """Raw topic → side (truth, source, mirror, trail, audit) → digest of its final rows."""

    @property
    def ok(self) -> bool:
        """Whether every law holds."""
        return not self.differences

    def add(self, difference: Difference) -> None:
        """Note a broken law."""
        self.differences.append(difference)

    def laws(self) -> Counter[str]:
        """How often each law is broken."""
        return Counter(item.law for item in self.differences)

    def text(self) -> str:
        """The verdict for a person: counts, then for each broken law its first places with a diff."""
        lines = ["  ".join(f"{name}={count}" for name, count in sorted(self.counts.items()))]
        if self.ok:
            return lines[0] + "\nevery law holds"
        lines.append("broken: " + ", ".join(f"{law} ×{count}" for law, count in self.laws().most_common()))
        places: dict[tuple[str, str], list[Difference]] = {}
        for item in self.differences:
            places.setdefault((item.law, item.where), []).append(item)
        for (law, where), items in places.items():
            for item in items[:SHOWN]:
                lines.append(f"── {law} in {where} key={item.key!r} {item.detail}")
                lines.append(_diff(item.expected, item.observed))
            if len(items) > SHOWN:
                lines.append(f"── … and {len(items) - SHOWN} more of {law} in {where}")
        return "\n".join(lines)


def show(value: Any) -> Any:
    """A dataclass as a dictionary a diff can print."""
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _diff(left: Any, right: Any) -> str:
    if left is None or right is None or not isinstance(left, dict) or not isinstance(right, dict):
        return f"   expected: {_short(left)}\n   observed: {_short(right)}"
    before, after = (json.dumps(value, indent=1, sort_keys=True, default=str).splitlines() for value in (left, right))
    lines = [
        line[:200]
        for line in difflib.unified_diff(before, after, lineterm="", n=0)
        if not line.startswith(("---", "+++", "@@"))
    ]
    return "\n".join(f"   {line}" for line in lines[:40])


def _short(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False) if not isinstance(value, str) else value
    return text if len(text) <= 400 else text[:400] + "…"
