"""`chronicle dev`: the local stack, without Docker."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress as Bars
from rich.progress import SpinnerColumn, TaskID, TextColumn
from rich.table import Table

from chronicle.cli import demo as _demo
from chronicle.cli import shown
from chronicle.cli.terminal import command, err, out, print_json
from chronicle.dev import processes
from chronicle.dev.stack import DEFAULT_PARTS, PARTS, PartStatus, Progress, Stack
from chronicle.errors import StackError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="The local stack: Kafka, registry, Connect, databases and ClickHouse, without Docker.",
    epilog="Example: chronicle dev up",
)

DEFAULT_DIRECTORY = Path(".chronicle")
Directory = Annotated[Path, typer.Option("--dir", help="State directory; one stack each.")]
PortBase = Annotated[
    int | None, typer.Option("--port-base", help="First of ten ports; 28000 if never said; remembered in the state directory.")
]
Only = Annotated[str | None, typer.Option("--only", help=f"Parts to start, by commas: {','.join(PARTS)}.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Part = Annotated[str, typer.Argument(help=f"One of {', '.join(PARTS)}.")]

_STYLES = {
    "ready": "green",
    "running": "green",
    "stopped": "dim",
    "failed": "bold red",
    "died": "bold red",
    "unhealthy": "yellow",
}


@app.command(epilog="Example: chronicle dev up --only kafka,clickhouse --dir /tmp/other --port-base 29000")
@command
def up(
    directory: Directory = DEFAULT_DIRECTORY,
    port_base: PortBase = None,
    only: Only = None,
    with_mysql: Annotated[
        bool, typer.Option("--with-mysql", help="Also start the MariaDB server that says it is MySQL 5.7.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Start what does not run, wait until it is healthy, and write DIR/chronicle.toml. May be repeated."""
    stack = Stack(directory, port_base)
    names = _names(only)
    began = time.monotonic()
    with showing() as report:
        stack.up([*names, *(["mysql"] if with_mysql else [])], report)
    err.print(f"up in {time.monotonic() - began:.1f} s; settings in {stack.settings_file}", soft_wrap=True, markup=False)
    if as_json:
        print_json(
            {
                "directory": str(stack.directory),
                "kafka": stack.kafka,
                "registry": stack.registry_url,
                "connect": stack.connect_url,
                "clickhouse": stack.clickhouse_url,
                "postgres_port": stack.ports.postgres,
                "mariadb_port": stack.ports.mariadb,
                "settings": str(stack.settings_file),
            }
        )


@app.command(epilog="Example: chronicle dev fetch --only clickhouse")
@command
def fetch(only: Only = None) -> None:
    """Download and build what the stack is made of into the cache (CHRONICLE_CACHE, ~/.cache/chronicle); start nothing."""
    with showing() as report:
        Stack(DEFAULT_DIRECTORY).fetch(_names(only), report)
    err.print("everything is in the cache")


@app.command(epilog="Example: chronicle dev down")
@command
def down(directory: Directory = DEFAULT_DIRECTORY) -> None:
    """Stop everything, also what an interrupted `up` left behind; the data stay."""
    with showing() as report:
        Stack(directory).down(report)
    err.print("nothing of this stack is running")


@app.command(epilog="Example: chronicle dev status --json")
@command
def status(directory: Directory = DEFAULT_DIRECTORY, as_json: AsJson = False) -> None:
    """What each part does: state, process, port, memory, uptime, health. Exit 1 when a part died or is not healthy."""
    stack = Stack(directory)
    parts = stack.status()
    if as_json:
        print_json([asdict(part) for part in parts])
    else:
        shown.print_table(_table(parts))
    for part in parts:
        if part.state == "died":
            err.print(f"{part.part} died; the end of {stack.log_file(part.part)}:", style="bold red", soft_wrap=True)
            err.print(processes.tail(stack.log_file(part.part), 10), markup=False, soft_wrap=True)
    if any(part.state in ("died", "unhealthy") for part in parts):
        raise typer.Exit(1)


@app.command(epilog="Example: chronicle dev logs connect -n 50 -f")
@command
def logs(
    part: Part,
    lines: Annotated[int, typer.Option("-n", min=0, help="How many of the last lines.")] = 100,
    follow: Annotated[bool, typer.Option("-f", help="Go on as the log grows, until Ctrl-C.")] = False,
    directory: Directory = DEFAULT_DIRECTORY,
) -> None:
    """The end of a part's log."""
    file = Stack(directory).log_file(part)
    if not file.exists():
        raise StackError(f"start {part} first (chronicle dev up --only {part}): there is no log at {file}")
    sys.stdout.flush()
    try:
        subprocess.run(["tail", "-n", str(lines), *(["-F"] if follow else []), str(file)], check=False)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


@app.command(epilog="Example: chronicle dev reset --yes")
@command
def reset(
    directory: Directory = DEFAULT_DIRECTORY,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Stop everything and delete the stack's data; downloads stay in the cache."""
    stack = Stack(directory)
    if not yes and sys.stdin.isatty():
        typer.confirm(f"Delete all data of the stack in {stack.directory}?", abort=True, err=True)
    with showing() as report:
        stack.reset(report)
    what = "what is left there is not the stack's" if stack.directory.exists() else "the directory is gone"
    err.print(f"no data of a stack in {stack.directory}; {what}", soft_wrap=True, markup=False)


@app.command(epilog='Example: eval "$(chronicle dev env)"')
@command
def env(directory: Directory = DEFAULT_DIRECTORY, as_json: AsJson = False) -> None:
    """The variables that the demo's connector files name, and CHRONICLE_CONFIG, as lines for a shell."""
    stack = Stack(directory)
    variables = {"CHRONICLE_CONFIG": str(stack.settings_file), **stack.environment}
    if as_json:
        print_json(variables)
    else:
        for name, value in variables.items():
            out.print(f"export {name}={shlex.quote(value)}", markup=False, soft_wrap=True)


def _names(only: str | None) -> list[str]:
    return list(DEFAULT_PARTS) if only is None else [name.strip() for name in only.split(",") if name.strip()]


def _table(parts: list[PartStatus]) -> Table:
    table = Table("part", "state", "pid", "port", "memory", "up since", "health")
    for column in (2, 3, 4, 5):
        table.columns[column].justify = "right"
    for part in parts:
        table.add_row(
            part.part,
            f"[{_STYLES[part.state]}]{part.state}[/]",
            str(part.pid or ""),
            str(part.port),
            f"{part.memory_bytes / 2**20:.0f} MiB" if part.memory_bytes else "",
            shown.span(part.uptime_s) if part.uptime_s is not None else "",
            part.health,
        )
    total = sum(part.memory_bytes for part in parts)
    table.add_section()
    table.add_row("together", "", "", "", f"{total / 2**20:.0f} MiB", "", "")
    return table


@contextmanager
def showing() -> Iterator[Callable[[Progress], None]]:
    """A report that shows each part on a line of its own: with spinners for a person, as plain lines in a log."""
    if not err.is_terminal:
        yield lambda progress: err.print(_line(progress), markup=False, soft_wrap=True)
        return
    with Bars(SpinnerColumn(finished_text=" "), TextColumn("{task.description}"), console=err) as bars:
        tasks: dict[str, TaskID] = {}

        def report(progress: Progress) -> None:
            done = progress.step in ("ready", "running", "stopped", "failed")
            if progress.part not in tasks:
                tasks[progress.part] = bars.add_task("", total=1)
            style = _STYLES.get(progress.step, "cyan")
            text = _line(progress).replace("[", r"\[").replace(progress.step, f"[{style}]{progress.step}[/]", 1)
            bars.update(tasks[progress.part], description=text, completed=int(done))

        yield report


def _line(progress: Progress) -> str:
    return f"{progress.part:<11} {progress.step:<9} {progress.elapsed_s:5.1f} s  {progress.detail}".rstrip()


app.command(epilog=_demo.EPILOG)(_demo.demo)


if __name__ == "__main__":
    app()
