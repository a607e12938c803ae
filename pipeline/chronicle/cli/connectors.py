"""`chronicle connectors`: sources as files, brought to Kafka Connect like infrastructure: check, plan, apply."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.table import Table

from chronicle import config
from chronicle.cli import shown
from chronicle.cli.terminal import command, err, interruptible, out, print_json
from chronicle.errors import ConfigError

# Everything of `capture` is imported inside the commands: it brings Kafka and HTTP clients, and --help is to be quick.

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Sources as files: check, plan and apply their Debezium connectors.",
    epilog="Example: chronicle connectors status",
)

Names = Annotated[list[str] | None, typer.Argument(help="Sources; all of connect.directory when none is named.")]
Name = Annotated[str, typer.Argument(help="A source: the name of its file.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]

STYLES = {"error": "bold red", "warning": "yellow", "note": "dim", "RUNNING": "green", "FAILED": "bold red", "PAUSED": "yellow"}


@app.command(epilog="Example: chronicle connectors check shop")
@command
def check(names: Names = None, as_json: AsJson = False) -> None:
    """Check files against templates, ask Connect, and ask the database when it can be reached. Exit 1 on errors."""
    from chronicle.capture.check import check as check_source
    from chronicle.capture.check import check_files

    with _deployment() as (settings, deployment):
        sources, findings = check_files(settings.connect.directory, names or [])
        for name, source in sources.items():
            with _progress(f"{name}: check"):
                findings += check_source(source, deployment)
    errors = sum(finding.level == "error" for finding in findings)
    if as_json:
        print_json({"errors": errors, "findings": [finding.as_json() for finding in findings]})
    else:
        for finding in findings:
            out.print(f"{finding.level:<8}", style=STYLES[finding.level], end="")
            out.print(f"{finding.source}: {finding.what}", markup=False)
            out.print(f"        → {finding.fix}", markup=False, style="dim")
        counted = f"{len(sources)} source{'' if len(sources) == 1 else 's'}"
        err.print(f"{counted} checked: {errors} errors, {len(findings) - errors} warnings and notes")
    if errors:
        raise typer.Exit(1)


@app.command(epilog="Example: chronicle connectors render shop")
@command
def render(names: Names = None, as_json: AsJson = False) -> None:
    """Print the complete configuration, as Connect gets it: references to secrets stay references."""
    from chronicle.capture.plan import masked

    with _deployment() as (settings, deployment):
        rendered: dict[str, dict[str, str | None]] = {}
        for name, source in _sources(settings, names).items():
            rendered[name] = {option: masked(option, value) for option, value in deployment.rendered(source).items()}
    if as_json:
        print_json(rendered)
        return
    for name, options in rendered.items():
        out.print(f"# {name}", style="bold")
        for option, value in options.items():
            out.print(f"{option} = {value}", markup=False)


@app.command(epilog="Example: chronicle connectors plan")
@command
def plan(names: Names = None, as_json: AsJson = False) -> None:
    """Show what `apply` would change, and change nothing."""
    with _deployment() as (settings, deployment):
        plans = [deployment.plan(source) for source in _sources(settings, names).values()]
    if as_json:
        print_json([each.as_json() for each in plans])
        return
    for each in plans:
        _print_plan(each)


@app.command(epilog="Example: chronicle connectors apply shop")
@command
def apply(
    names: Names = None,
    new_epoch: Annotated[
        bool,
        typer.Option("--new-epoch", help="Start over: after a slot, a binlog or the server did. Raises `epoch` in the file."),
    ] = False,
    timeout_s: Annotated[float, typer.Option("--timeout", help="Seconds to wait until each task runs.")] = 120.0,
    as_json: AsJson = False,
) -> None:
    """Create or change connectors until they are what the files say, and wait until they run. May be repeated."""
    from chronicle.capture.apply import apply as apply_source
    from chronicle.capture.apply import raise_epoch

    if new_epoch and not names:
        raise ConfigError("name the sources that start over: `chronicle connectors apply SOURCE --new-epoch`")
    done = []
    with _deployment() as (settings, deployment):
        for source in _sources(settings, names).values():
            current = raise_epoch(source.file) if new_epoch else source
            with _progress(f"{source.name}: apply") as report:
                done.append(apply_source(current, deployment, report=report, deadline_s=timeout_s))
    if as_json:
        print_json([each.as_json() for each in done])
        return
    for each in done:
        word = "no changes" if each.plan.action == "none" else each.plan.action
        out.print(f"{each.plan.source}: {word}, {each.state}", style=STYLES.get(each.state, ""))
        for warning in (*each.plan.warnings, *each.notes):
            err.print(f"  {warning}", markup=False, style="yellow")
        if each.snapshot_requested:
            out.print(f"  incremental snapshot requested: {', '.join(each.snapshot_requested)}", markup=False)


@app.command(epilog="Example: chronicle connectors status --json")
@command
def status(names: Names = None, as_json: AsJson = False) -> None:
    """Show each task (a connector stays RUNNING when its task has failed), lag and slot. Exit 1 when one is not running."""
    from chronicle.capture.status import status as status_of

    with _deployment() as (settings, deployment):
        found = [
            status_of(source, deployment.connect, deployment.environment, settings.kafka)
            for source in _sources(settings, names).values()
        ]
    if as_json:
        print_json([each.as_json() for each in found])
    else:
        _print_status(found)
    if not all(each.healthy for each in found):
        raise typer.Exit(1)


@app.command(epilog="Example: chronicle connectors pause shop")
@command
def pause(name: Name, as_json: AsJson = False) -> None:
    """Stop capturing for a while. The slot or binlog position is kept, and with it the database's log: not for days."""
    _change_state(name, "pause", as_json)


@app.command(epilog="Example: chronicle connectors resume shop")
@command
def resume(name: Name, as_json: AsJson = False) -> None:
    """Go on where capturing was paused or stopped."""
    _change_state(name, "resume", as_json)


@app.command(epilog="Example: chronicle connectors restart shop")
@command
def restart(name: Name, as_json: AsJson = False) -> None:
    """Stop and start the connector and its task, and wait until it runs: after a failure whose cause is gone."""
    _change_state(name, "restart", as_json)


@app.command(epilog="""Example: chronicle connectors snapshot shop.public.customers --where "id < 100" """)
@command
def snapshot(
    table: Annotated[str, typer.Argument(help="A captured table with its source in front: shop.public.orders.")],
    where: Annotated[str | None, typer.Option("--where", help="SQL that a row must meet.")] = None,
    as_json: AsJson = False,
) -> None:
    """Read a table again while changes go on (an incremental snapshot), and wait until the connector has begun with it."""
    from chronicle.capture import snapshots
    from chronicle.capture.topics import request_snapshot

    name, _, qualified = table.partition(".")
    with _deployment() as (settings, deployment):
        source = _source(settings, name)
        if qualified not in source.tables:
            listed = ", ".join(f"{name}.{each}" for each in source.tables)
            raise ConfigError(f"name one of {listed}: {table} is not captured")
        state = deployment.connect.state(name)
        if state is None:
            raise ConfigError(f"run `chronicle connectors apply {name}`: there is no such connector")
        notes: tuple[str, ...] = ()
        if state.running:
            with _progress(f"{name}: snapshot") as report:
                notes = interruptible(
                    lambda: snapshots.begin(settings.kafka, source, [qualified], condition=where, report=report)
                )
        else:
            interruptible(lambda: request_snapshot(settings.kafka, source, [qualified], where))
    if as_json:
        begun = state.running and not notes
        print_json({"source": name, "table": qualified, "state": state.state, "begun": begun, "notes": list(notes)})
    elif not state.running:
        out.print(f"{table}: snapshot requested", markup=False)
        err.print(f"{name} is not running: the signal waits until it is", style="yellow")
    elif not notes:
        out.print(f"{table}: snapshot begun", markup=False)
    if notes and not as_json:
        for note in notes:
            err.print(note, markup=False, style="red")
    if notes:
        raise typer.Exit(1)


@app.command(epilog="Example: chronicle connectors delete shop --drop-slot --yes")
@command
def delete(
    name: Name,
    drop: Annotated[
        bool | None,
        typer.Option(
            "--drop-slot/--keep-slot", help="Also drop slot, publication and stored position. Asked when neither is given."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove a connector. Raw topics stay. A slot that is kept holds back the database's log until its disk is full."""
    from chronicle.capture.apply import delete as delete_source

    with _deployment() as (settings, deployment):
        source = _source(settings, name)
        asking = sys.stdin.isatty() and not yes
        if drop is None:
            if not asking:
                raise ConfigError("say --drop-slot or --keep-slot: a forgotten slot fills the database's disk")
            what = f"slot {source.slot}, publication {source.publication} and the stored position"
            thing = what if source.kind == "postgres" else "the stored position"
            drop = typer.confirm(f"Also drop {thing}? (a forgotten slot fills the database's disk)", err=True)
        if asking and not typer.confirm(f"Delete connector {name}?", err=True):
            raise typer.Exit(1)
        with _progress(f"{name}: delete") as report:
            removed = delete_source(source, deployment, drop=drop, report=report)
    if as_json:
        print_json({"source": name, "removed": removed})
    else:
        out.print(f"{name}: removed {', '.join(removed) or 'nothing, it was not there'}", markup=False)


def _change_state(name: str, order: str, as_json: bool) -> None:
    from chronicle.capture.apply import change_state

    with _deployment() as (settings, deployment):
        source = _source(settings, name)
        with _progress(f"{name}: {order}") as report:
            state = change_state(source, order, deployment.connect, report=report)
    if as_json:
        print_json({"source": name, "state": state})
    else:
        out.print(f"{name}: {state}", style=STYLES.get(state, ""))


def _print_status(found: list[Any]) -> None:
    columns = ("source", "connector", "task", "epoch", "position", "lag", "slot keeps", "last change")
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=column != "slot keeps")
    for each in found:
        bad = next((task.state for task in each.tasks if task.state != "RUNNING"), each.state)
        table.add_row(
            each.name,
            each.state,
            ", ".join(f"{task.id} {task.state}" for task in each.tasks) or "none",
            "" if each.epoch is None else str(each.epoch),
            each.position or "",
            _bytes(each.lag_bytes),
            "" if each.slot is None else f"{_bytes(each.slot.retained_bytes)} ({each.slot.wal_status})",
            "" if each.idle_s is None else f"{shown.span(each.idle_s)} ago",
            style=STYLES.get(bad),
        )
    shown.print_table(table)
    for each in found:
        causes = [(f"{each.name} task {task.id}", task.cause) for task in each.tasks] + [(each.name, each.cause)]
        for place, cause in causes:
            if cause:
                out.print(f"{place}: {cause}", markup=False, style="red")
        for note in each.notes:
            err.print(f"{each.name}: {note}", markup=False, style="yellow")


def _print_plan(each: Any) -> None:
    if each.action == "none":
        out.print(f"{each.source}: no changes", style="green")
        return
    out.print(f"{each.source}: {each.action}", style="bold")
    for change in each.changes:
        if change.before is None:
            out.print(f"  + {change.option} = {change.after}", markup=False, style="green")
        elif change.after is None:
            out.print(f"  - {change.option} = {change.before}", markup=False, style="red")
        else:
            out.print(f"  ~ {change.option} = {change.before} → {change.after}", markup=False, style="yellow")
    if each.action == "update" and each.tables_added:
        out.print(f"  incremental snapshot: {', '.join(each.tables_added)}", markup=False)
    for warning in each.warnings:
        err.print(f"  ! {warning}", markup=False, style="yellow")


@contextmanager
def _deployment() -> Iterator[tuple[config.Settings, Any]]:
    from chronicle.capture.apply import Deployment
    from chronicle.capture.connect import ConnectClient

    settings = config.load()
    with ConnectClient(settings.connect) as client:
        # The environment only resolves `${env:NAME}` of [database], as Connect does with its own.
        known = {name: value.get_secret_value() for name, value in settings.connect.environment.items()}
        yield settings, Deployment(client, settings.kafka, settings.registry, {**known, **os.environ})


def _sources(settings: config.Settings, names: list[str] | None) -> dict[str, Any]:
    """All sources, or those named; a file that is not right stops the command before it does anything."""
    from chronicle.capture.check import check_files

    sources, findings = check_files(settings.connect.directory, names or [])
    errors = [finding.what for finding in findings if finding.level == "error"]
    if errors:
        raise ConfigError("\n".join(errors))
    if not sources:
        raise ConfigError(f"add a source file to {settings.connect.directory}: there is none")
    return sources


def _source(settings: config.Settings, name: str) -> Any:
    return _sources(settings, [name])[name]


@contextmanager
def _progress(what: str) -> Iterator[Callable[[str], None]]:
    """A spinner with what is waited for, for a person; plain lines otherwise."""
    if not err.is_terminal:
        yield lambda message: err.print(message, markup=False)
        return
    with err.status(what) as spinner:
        yield spinner.update


def _bytes(count: int | None) -> str:
    if count is None:
        return ""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


if __name__ == "__main__":
    app()
