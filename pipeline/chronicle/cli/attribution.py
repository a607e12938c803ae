"""`chronicle attribution report`: how much of the trail says who did it, and what was written past the applications."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from chronicle.cli import shown
from chronicle.cli.asking import moment, open_trail
from chronicle.cli.terminal import command, err, out, print_json

if TYPE_CHECKING:
    from chronicle.trail.attribution import Attributed, Report

EPILOG = "Example: chronicle attribution report --since 1h"

app = typer.Typer(no_args_is_help=True, help="Who did it: how much of the trail says so.", epilog=EPILOG)


@app.callback()
def _group() -> None:
    """Who did it: how much of the trail says so."""


@app.command(epilog=EPILOG)
@command
def report(
    *,
    since: Annotated[str | None, typer.Option(help="Committed since: 10m, 2h, 3d ago, or ISO 8601.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The newest so many out-of-band transactions.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document, on standard output.")] = False,
) -> None:
    """Share of each rung of the ladder (message, table, comment, row), by table; and transactions without a word.

    Contexts that came late count. Left out: snapshot rows, and rows that the policy left out. Database users are not
    captured: no connector's records name them.
    """
    from chronicle.trail import attribution

    with open_trail() as trail:
        found = attribution.report(trail.client, trail.database, since=moment(since), limit=limit)
    if as_json:
        print_json(found.as_json())
        return
    if not found.total.changes:
        err.print("no changes" + ("" if since is None else " committed since then"))
        return
    _show(found)


def _show(found: Report) -> None:
    from chronicle.trail.attribution import RUNGS

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("table", no_wrap=True)
    for title in ("changes", "known", *RUNGS):
        table.add_column(title, justify="right", no_wrap=True)
    for name, one in found.tables.items():
        table.add_row(Text(shown.words(str(name))), *_cells(one))
    table.add_row("all", *_cells(found.total), style="bold")
    shown.print_table(table)
    if found.late:
        err.print(f"({found.late:,} of these changes got their context after they had been written)")
    if not found.out_of_band:
        return
    out.print()
    out.print(f"out-of-band: {found.out_of_band_transactions:,} transactions without context, comment or rule", style="bold")
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("committed (UTC)", "source", "transaction", "changes", "tables", "operations"):
        table.add_column(title, no_wrap=title not in ("tables", "operations"), overflow="fold")
    for each in found.out_of_band:
        table.add_row(
            shown.instant(each.committed_at),
            Text(shown.words(each.source)),
            Text(shown.words(each.transaction_id)),
            f"{each.changes:,}",
            Text(shown.words(", ".join(each.tables))),
            ", ".join(each.operations),
        )
    shown.print_table(table)
    if len(found.out_of_band) < found.out_of_band_transactions:
        err.print(f"(the newest {len(found.out_of_band)}: --limit)")


def _cells(one: Attributed) -> list[Text]:
    from chronicle.trail.attribution import RUNGS

    share = one.share
    style = "" if share is None or share >= 1 else "yellow" if share > 0.5 else "red"
    known = Text("-" if share is None else f"{int(share * 1000) / 10:.1f}%", style)  # rounded down: 100 % means all
    counts = [Text(f"{count:,}" if count else "-", "" if count else "dim") for count in map(one.by_rung.get, RUNGS)]
    return [Text(f"{one.changes:,}"), known, *counts]
