"""`chronicle setup`: make everything that a worker needs around it, any number of times."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from chronicle.cli import shown
from chronicle.cli.asking import quiet
from chronicle.cli.terminal import command, err, interruptible, print_json

if TYPE_CHECKING:
    from chronicle.setup import Step

EPILOG = "Example: chronicle setup"
_STYLES = {"created": "green", "changed": "yellow", "present": "dim"}


@command
def setup(as_json: Annotated[bool, typer.Option("--json", help="One JSON array on standard output.")] = False) -> None:
    """Make topics, tables, registry subjects and the identity key; what is there already is left as it is."""
    from chronicle import config
    from chronicle.errors import TransientError
    from chronicle.setup import run

    settings = config.load()
    quiet()
    try:
        steps = interruptible(lambda: run(settings, _progress))
    except TransientError as error:
        raise TransientError(f"start what does not answer, or correct its address in the settings: {error}") from error
    if as_json:
        print_json([asdict(step) for step in steps])
        return
    table = Table("what", "name", "did", "detail")
    for step in steps:
        table.add_row(step.kind, step.name, f"[{_STYLES[step.action]}]{step.action}[/]", step.detail)
    shown.print_table(table)


def _progress(step: Step) -> None:
    if err.is_terminal:
        err.print(f"{step.kind:8} {step.name}: {step.action}", style="dim", markup=False)


if __name__ == "__main__":
    typer.run(setup)
