"""The figures of one run: a table for a person with the machine, and `bench.json` for comparing runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Figure:
    """One number. `ratio`: to the plain Faust agent of the same run, or to the target where one is named."""

    name: str
    value: float
    unit: str
    seed: int
    ratio: float | None = None
    note: str = ""


@dataclass(slots=True)
class Figures:
    """All numbers of a run."""

    seed: int
    machine: Mapping[str, str | int | float]
    items: list[Figure] = field(default_factory=list)

    def add(self, name: str, value: float, unit: str, *, ratio: float | None = None, note: str = "") -> None:
        """Note a number."""
        self.items.append(Figure(name, round(value, 4), unit, self.seed, None if ratio is None else round(ratio, 3), note))

    def value(self, name: str) -> float | None:
        """A number noted before."""
        return next((item.value for item in self.items if item.name == name), None)

    def show(self, console: Console) -> None:
        """Print the table."""
        about = "  ".join(f"{name} {value}" for name, value in self.machine.items())
        table = Table(title="Chronicle's figures", caption=about)
        for heading in ("figure", "value", "unit", "ratio", "note"):
            table.add_column(heading, justify="right" if heading in ("value", "ratio") else "left")
        for item in self.items:
            ratio = "" if item.ratio is None else f"{item.ratio:,.2f}×"
            table.add_row(item.name, f"{item.value:,.2f}", item.unit, ratio, item.note)
        console.print(table)

    def write(self, path: Path) -> None:
        """Write them as JSON."""
        document = {"machine": dict(self.machine), "seed": self.seed, "figures": [asdict(item) for item in self.items]}
        path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
