"""What a check says: how bad it is, what it is about, and what to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`error`: capture will fail or lose changes; `warning`: a risk, or the trail says less; `note`: not checked."""

    level: Level
    source: str
    what: str
    fix: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Findings:
    """Collects the findings about one source, in the order in which they were made."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.all: list[Finding] = []

    def error(self, what: str, fix: str) -> None:
        self.all.append(Finding("error", self.source, what, fix))

    def warning(self, what: str, fix: str) -> None:
        self.all.append(Finding("warning", self.source, what, fix))

    def note(self, what: str, fix: str) -> None:
        self.all.append(Finding("note", self.source, what, fix))

    def keyless(self, table: str, *, said: bool, has_key: bool) -> None:
        """`keyless` of the source file against the database: a record without a key is a row there, or else a dead letter."""
        if not has_key and not said:
            self.error(
                f"table {table} has no primary key and is not in `keyless`: all its rows become dead letters",
                f'add "{table}" to `keyless`, or give it a primary key',
            )
        elif has_key and said:
            self.warning(
                f"table {table} has a primary key but is in `keyless`: a record that lost its key is taken as a row",
                "take it out of `keyless`",
            )
