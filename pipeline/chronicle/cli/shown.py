"""How the trail's values look at a terminal: one line each, escaped, never longer than a person reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from chronicle.cli.terminal import out

VALUE_WIDTH_MAX = 120
"""Characters of one value in a layout for people; `--json` always has all of it."""

PIPE_WIDTH = 10_000
"""A pipe has no width: tables take what they need."""

OPERATION_STYLES = {"create": "green", "update": "yellow", "delete": "red", "truncate": "bold red", "snapshot": "dim"}


def value(given: Any, width: int = VALUE_WIDTH_MAX) -> str:
    """A value as JSON on one line. What is not printable is escaped, so that no value steers the terminal."""
    text = json.dumps(given, ensure_ascii=False, separators=(",", ":"), default=str)
    text = "".join(one if one.isprintable() else f"\\u{ord(one):04x}" for one in text)
    return text if len(text) <= width else f"{text[:width]}… ({len(text) - width} more characters)"


def key(given: Mapping[str, Any] | None) -> str:
    """A primary key: the bare value when it has one column."""
    if not given:
        return "-"
    return value(next(iter(given.values())) if len(given) == 1 else given)


def operation(name: str) -> Text:
    """The operation's word in its colour."""
    return Text(name, OPERATION_STYLES.get(name, ""))


def instant(at: datetime) -> str:
    """In UTC, to the millisecond."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def print_table(table: Table) -> None:
    """On standard output: as wide as the terminal, or as the table when there is none."""
    if out.is_terminal:
        out.print(table)
    else:
        Console(width=PIPE_WIDTH, highlight=False).print(table)
