"""How the trail's values look at a terminal: one line each, escaped, never longer than a person reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any
from uuid import UUID

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from chronicle.cli.terminal import out

if TYPE_CHECKING:
    from chronicle.trail.changes import Change

VALUE_WIDTH_MAX = 120
"""Characters of one value in a layout for people; `--json` always has all of it."""

PIPE_WIDTH = 10_000
"""A pipe has no width: tables take what they need."""

FOLD_WIDTH_MIN = 16
"""A column that may fold is not made narrower than this."""

BARE = (int, float, Decimal, date, time, timedelta, UUID, IPv4Address, IPv6Address)
"""Types whose own text a person can read."""

OPERATION_STYLES = {"create": "green", "update": "yellow", "delete": "red", "truncate": "bold red", "snapshot": "dim"}


def value(given: Any, width: int = VALUE_WIDTH_MAX) -> str:
    """A value as JSON on one line. What is not printable is escaped, so that no value steers the terminal."""
    text = _escaped(json.dumps(given, ensure_ascii=False, separators=(",", ":"), default=str))
    return text if len(text) <= width else f"{text[:width]}… ({len(text) - width} more characters)"


def words(given: str, width: int = VALUE_WIDTH_MAX) -> str:
    """A name or a sentence that somebody wrote, as it is, on one line: escaped and cut like a value, without quotes."""
    text = _escaped(given)
    return text if len(text) <= width else f"{text[:width]}…"


def _escaped(text: str) -> str:
    return text if text.isprintable() else "".join(one if one.isprintable() else f"\\u{ord(one):04x}" for one in text)


def key(given: Mapping[str, Any] | None) -> str:
    """A primary key: the bare value when it has one column."""
    if not given:
        return "-"
    return value(next(iter(given.values())) if len(given) == 1 else given)


def operation(name: str) -> Text:
    """The operation's word in its colour."""
    return Text(name, OPERATION_STYLES.get(name, ""))


def who(change: Change) -> Text:
    """Who did it: the name, or else the id; that it is not known yet."""
    if change.actor is not None:
        return Text(words(change.actor.shown))
    return Text("not known yet", "dim italic") if change.attribution == "pending" else Text()


def instant(at: datetime) -> str:
    """In UTC, to the millisecond."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def span(seconds: float) -> str:
    """Seconds as a person says them: 45 s, 12 min, 3 h 20 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def cell(given: Any) -> Text:
    """A value of an answer as a person reads it: texts, times and numbers bare, the rest as JSON."""
    if given is None:
        return Text("null", "dim italic")
    if isinstance(given, datetime):
        at = given.astimezone(UTC) if given.tzinfo else given
        return Text(at.strftime("%Y-%m-%d %H:%M:%S") + (f".{at.microsecond:06d}" if at.microsecond else ""))
    if isinstance(given, str) and given.isprintable():
        return Text(given)
    return Text(str(given) if isinstance(given, BARE) and not isinstance(given, bool) else value(given))


def print_table(table: Table) -> None:
    """On standard output. Where there is no terminal: as wide as it is. On a terminal: as a table if it fits, when columns
    that may fold do; else row by row, a line per column, so that nothing is cut off.
    """
    if not out.is_terminal:
        Console(width=PIPE_WIDTH, highlight=False).print(table)
    elif _narrowest(table) <= out.width:
        out.print(table)
    else:
        _print_rows(table)


def print_record(record: Sequence[tuple[str, Text]]) -> None:
    """One line per name and value; a long value runs over the line's end, for the terminal to wrap."""
    width = max((cell_len(name) for name, _ in record), default=0)
    for name, text in record:
        padding = " " * (width - cell_len(name) + 2) if width else ""
        out.print(Text.assemble((name, "bold"), padding, text), soft_wrap=True)


def _narrowest(table: Table) -> int:
    """The terminal it needs: a column that may fold narrows down to `FOLD_WIDTH_MIN`, or its title."""
    needed = len(table.columns) * 2 + (len(table.columns) + 1 if table.box else 0)
    for column in table.columns:
        title = cell_len(_text(column.header).plain)
        natural = max([title, *(cell_len(_text(one).plain) for one in column.cells)])
        needed += natural if column.no_wrap else min(natural, max(title, FOLD_WIDTH_MIN))
    return needed


def _print_rows(table: Table) -> None:
    if table.title:
        out.print(table.title, style="italic")
    titles = [_text(column.header).plain for column in table.columns]
    for row, *cells in zip(table.rows, *(column.cells for column in table.columns), strict=True):
        out.print()
        texts = (_text(one).copy() for one in cells)
        record = [(title, text) for title, text in zip(titles, texts, strict=True) if text.plain]
        for _, text in record:
            text.stylize_before(row.style or "")
        print_record(record)


def _text(given: Any) -> Text:
    return given if isinstance(given, Text) else Text.from_markup(str(given))
