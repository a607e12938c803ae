"""The `chronicle` command: a table of command groups, each loaded only when it is called, so that `--help` is quick."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

GROUPS: dict[str, tuple[str, str]] = {
    "dev": ("dev", "The local stack: up, down, status, logs, reset, demo."),
    "setup": ("setup", "Make topics, tables, subjects and the identity key. May be repeated."),
    "connectors": ("connectors", "Sources as files: check, plan and apply their Debezium connectors."),
    "run": ("run", "The HTTP service with its worker, or all of Chronicle in one process (--embedded)."),
    "worker": ("worker", "Process changes: from Kafka to ClickHouse and the audit topic."),
    "api": ("api", "The HTTP service: take events, answer questions about the trail."),
    "keys": ("keys", "Keys of the HTTP service: create, list, revoke."),
    "history": ("history", "What happened to one row, from what to what."),
    "changes": ("changes", "Find changes by table, operation, column, transaction, time."),
    "events": ("events", "Application events: post one, watch them come in, flood."),
    "sql": ("sql", "Ask ClickHouse anything, read-only."),
    "schemas": ("schemas", "Contracts of captured tables: pull, check, diff, history."),
    "attribution": ("attribution", "Who did it: how much of the trail says so."),
    "decrypt": ("decrypt", "A change with its encrypted columns in clear, for those who hold the key."),
    "policy": ("policy", "What may be seen: propose, check and show the policy; its keys."),
    "reprocess": ("reprocess", "Recorded changes of a table again, under the policy in force now."),
    "entities": ("entities", "Reference data joined to changes: put, get, list, delete, load."),
    "routes": ("routes", "Topics that the policy feeds besides the audit topic: show and test them."),
    "outbox": ("outbox", "The table for events within an application's own transactions: its DDL."),
    "dead-letters": ("dead_letters", "Records that could not be processed: list, show, replay."),
}
"""Command → (module in this package, one line of help). A module exports `app`, or a function of the command's name."""


class _LazyGroup(TyperGroup):
    """Lists commands from `GROUPS`; imports one when it is to run."""

    _resolving = False

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 (typer's signature)
        """In the order of the table."""
        return [name for name, (module, _) in GROUPS.items() if (Path(__file__).parent / f"{module}.py").is_file()]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command itself when it is to run; for a listing, its name and help."""
        if cmd_name not in self.list_commands(ctx):
            return None
        return _load(cmd_name) if self._resolving else TyperCommand(cmd_name, help=GROUPS[cmd_name][1])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Called when a command is to run (or to be completed)."""
        self._resolving = True
        try:
            return super().resolve_command(ctx, args)
        finally:
            self._resolving = False


def _load(name: str) -> Any:
    module = import_module(f"chronicle.cli.{GROUPS[name][0]}")
    group = getattr(module, "app", None)
    if group is None:
        group = typer.Typer(add_completion=False)
        group.command(name, epilog=getattr(module, "EPILOG", None))(getattr(module, GROUPS[name][0]))
    command = typer.main.get_command(group)
    command.name = name
    return command


app = typer.Typer(cls=_LazyGroup, no_args_is_help=True, pretty_exceptions_show_locals=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"chronicle {version('chronicle')}")
        raise typer.Exit


@app.callback(epilog="Example: chronicle history shop.public.customers 7")
def main_options(
    config: Annotated[
        Path | None, typer.Option("--config", help="Settings file, instead of ./chronicle.toml or ./.chronicle/chronicle.toml.")
    ] = None,
    version: Annotated[  # noqa: ARG001 (handled by its callback)
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Row changes of Postgres, MySQL and MariaDB as one audit trail and one analytics store."""
    if config is not None:
        os.environ["CHRONICLE_CONFIG"] = str(config)  # for `chronicle.config`, the only reader


def main() -> None:
    """Entry point of the console script."""
    try:
        code = app(prog_name="chronicle", standalone_mode=False)
    except typer.Abort:
        typer.echo("nothing done", err=True)
        sys.exit(1)
    except Exception as error:
        if not hasattr(error, "format_message"):  # typer's own errors have it: the words on the command line are wrong
            raise
        sys.exit(_misused(error))
    sys.exit(code if isinstance(code, int) else 0)


def _misused(error: Any) -> int:
    """What is wrong with the command line, first; then where to look, and an example. No box: a log shows it as well."""
    from chronicle.cli.terminal import err

    message = str(error.format_message()).strip()
    err.print(f"error: {message[:1].lower()}{message[1:]}", markup=False, soft_wrap=True)
    context = getattr(error, "ctx", None)
    if context is not None:
        err.print(f"see `{context.command_path} --help`", markup=False, soft_wrap=True)
        if context.command.epilog:
            err.print(context.command.epilog, markup=False, soft_wrap=True)
    return int(getattr(error, "exit_code", 2))
