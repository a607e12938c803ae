"""`chronicle policy history`: every policy that rows were written under, and how many rows still are."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from chronicle.cli import shown
from chronicle.cli.asking import open_trail
from chronicle.cli.terminal import command, err, print_json
from chronicle.errors import ChronicleError

EPILOG = "Example: chronicle policy history"


def register(app: typer.Typer) -> None:
    """Make it a command of the group."""
    app.command(epilog=EPILOG)(history)


@command
def history(
    hash_: Annotated[
        str | None, typer.Argument(metavar="[HASH]", help="Print the text of this one.", show_default=False)
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line and policy.")] = False,
) -> None:
    """List the policies that rows were written under, the latest first; with a hash: the text of that one."""
    from chronicle.sinks import policies

    with open_trail() as trail:
        if hash_ is not None:
            text = policies.text_of(trail.client, trail.database, hash_)
            if text is None:
                raise ChronicleError(f"look with `chronicle policy history`: no policy {hash_} is kept")
            if as_json:
                print_json({"hash": hash_, "text": text})
            else:
                typer.echo(text, nl=not text.endswith("\n"))
            return
        found = policies.kept(trail.client, trail.database)
    if as_json:
        for one in found:
            seen = {"first_seen": one.first_seen.isoformat(), "last_seen": one.last_seen.isoformat()}
            print_json({"hash": one.hash, "name": one.name, **seen, "rows": one.rows})
        return
    if not found:
        err.print("no policy yet: the first batch of a worker keeps its own")
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("policy", "first seen (UTC)", "last seen (UTC)", "rows", "file"):
        table.add_column(title, no_wrap=title != "file", overflow="fold", justify="right" if title == "rows" else "left")
    for one in found:
        times = shown.instant(one.first_seen), shown.instant(one.last_seen)
        table.add_row(one.hash, *times, f"{one.rows:,}", Text(one.name))
    shown.print_table(table)
