"""`chronicle sql`: any question to the trail and the mirrors, read-only."""

from __future__ import annotations

import csv
import json
import math
import re
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from chronicle.cli import shown
from chronicle.cli.asking import open_trail
from chronicle.cli.terminal import command, err, print_json
from chronicle.errors import ConfigError

if TYPE_CHECKING:
    from chronicle.trail.query import Answer

EPILOG = 'Example: chronicle sql "SELECT operation, count() FROM chronicle.changes FINAL GROUP BY operation"'

WIDE = re.compile(r"\bU?Int(128|256)\b")
"""Types that JSON's numbers cannot hold; a position is one."""


@command
def sql(
    statement: Annotated[str, typer.Argument(help="One ClickHouse statement that only reads; - reads it from standard input.")],
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="Rows at most.")] = 1_000,
    timeout_s: Annotated[int, typer.Option("--timeout", min=1, max=3_600, help="Seconds at most.")] = 60,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line and row, on standard output.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV with a header, on standard output.")] = False,
) -> None:
    """Ask ClickHouse.

    The trail is in `chronicle.changes` (read it with FINAL), captured tables as they are now in
    `mirror.<source>__<schema>__<table>__current`.
    """
    from chronicle.trail import query

    if as_json and as_csv:
        raise ConfigError("choose one of --json and --csv")
    text = sys.stdin.read() if statement == "-" else statement
    with open_trail() as trail:
        answer = query.run(trail.client, text, limit=limit, timeout_s=timeout_s)
    if as_json:
        wide = [WIDE.search(name) is not None for name in answer.types]
        for row in answer.rows:
            values = (str(one) if big and one is not None else _jsonable(one) for one, big in zip(row, wide, strict=True))
            print_json(dict(zip(answer.columns, values, strict=True)))
    elif as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(answer.columns)
        writer.writerows([_csv(one) for one in row] for row in answer.rows)
    elif not answer.rows:
        err.print("no rows")
    else:
        shown.print_table(_table(answer))
    if answer.cut:
        err.print(f"(the first {limit} rows; there are more: --limit)")


def _table(answer: Answer) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in answer.columns:
        table.add_column(Text(name), overflow="fold")
    for row in answer.rows:
        table.add_row(*map(shown.cell, row))
    return table


def _jsonable(value: Any) -> Any:
    """A time as in every other command's JSON; NaN and infinities, which JSON does not have, as null."""
    if isinstance(value, datetime):
        return value.isoformat()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _csv(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, list | tuple | dict) else value
