"""`chronicle routes`: which topics the policy feeds besides the audit topic, and which of them a change would take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chronicle import config
from chronicle.cli import shown
from chronicle.cli.terminal import command, err, print_json

if TYPE_CHECKING:
    from chronicle.policy.rules import Route

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Topics that the policy feeds besides the audit topic: show them, and test which an event type takes.",
    epilog="Example: chronicle routes test hiring.public.applications.update",
)

File = Annotated[Path | None, typer.Option("--policy", help="The policy file; default: policy_file of the settings.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


@app.command(epilog="Example: chronicle routes show --json")
@command
def show(policy: File = None, as_json: AsJson = False) -> None:
    """All routes: what they match, where they go, and which roles read them."""
    settings = config.load()
    routes = [_described(route, settings) for route in _routes(settings, policy)]
    if as_json:
        print_json(routes)
    elif routes:
        _print(routes)
    else:
        err.print("no routes: add [[routes]] to the policy", markup=False)


@app.command(epilog="Example: chronicle routes test 'shop.public.customers.delete'")
@command
def test(
    event_type: Annotated[str, typer.Argument(help="source.schema.table.operation", metavar="EVENT_TYPE")],
    policy: File = None,
    as_json: AsJson = False,
) -> None:
    """Which routes an event type takes. Exit code 1: none."""
    from chronicle.policy.routing import matches

    settings = config.load()
    routes = [_described(route, settings) for route in _routes(settings, policy) if matches(route.match, event_type)]
    if as_json:
        print_json({"event_type": event_type, "routes": routes})
    elif routes:
        _print(routes)
    else:
        err.print(f"no route takes {event_type}; it is on the audit topic all the same", markup=False)
    if not routes:
        raise typer.Exit(1)


def _routes(settings: config.Settings, policy: Path | None) -> tuple[Route, ...]:
    from chronicle.policy_files import read_policy

    return read_policy(policy or settings.policy_file).routes


def _described(route: Route, settings: config.Settings) -> dict[str, Any]:
    return {
        "name": route.name,
        "match": list(route.match),
        "to": route.to,
        "format": route.format.value,
        "where": route.where,
        "labels": list(route.labels),
        "sample": route.sample,
        "where_deletes": route.where_deletes,
        "dead_letters": route.dead_letters,
        "roles": sorted(name for name, role in settings.roles.items() if route.name in role.routes),
    }


def _print(routes: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table("route", "match", "only", "to", "format", "roles", box=None, header_style="bold", pad_edge=False)
    for route in routes:
        shares = [f"{route['sample']:.2%} of the entities"] if route["sample"] is not None else []
        labels = [f"labelled {' or '.join(route['labels'])}"] if route["labels"] else []
        only = [*([f"where {route['where']}"] if route["where"] else []), *labels, *shares]
        cells = (", ".join(route["match"]), "; ".join(only), route["to"], route["format"], ", ".join(route["roles"]))
        table.add_row(*(_plain(cell) for cell in (route["name"], *cells)))
    shown.print_table(table)


def _plain(text: str) -> Any:
    from rich.text import Text

    return Text(text)
