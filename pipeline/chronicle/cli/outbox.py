"""`chronicle outbox`: the table in which applications write events within their own transactions."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from chronicle.cli.terminal import command, print_json
from chronicle.errors import ConfigError

EPILOG = "Example: chronicle outbox ddl --dialect mariadb --grants shop_app | mariadb shop"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="The table in which applications write events within their own transactions.",
    epilog=EPILOG,
)


@app.callback()
def _group() -> None:
    """The table in which applications write events within their own transactions."""


@app.command(epilog=EPILOG)
@command
def ddl(
    *,
    dialect: Annotated[Literal["postgres", "mariadb", "mysql"], typer.Option(help="The database.")] = "postgres",
    table: Annotated[
        str, typer.Option(help="With its schema (MySQL, MariaDB: database), if need be: audit.chronicle_outbox.")
    ] = "chronicle_outbox",
    grants: Annotated[
        str | None, typer.Option("--grants", metavar="ACCOUNT", help="And what the application's account needs.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Print the table's CREATE statement; it may be run again. Then name it in the source file (`outbox_table`), and apply.

    Rows are inserted and deleted in one transaction: the table stays empty, the database's log has the events.
    """
    from chronicle.journal import outbox_table

    try:
        statements = [outbox_table.ddl(dialect, table)]
        if grants is not None:
            statements.append(outbox_table.grants(dialect, grants, table))
    except outbox_table.OutboxError as error:
        raise ConfigError(str(error)) from None
    if as_json:
        print_json({"dialect": dialect, "table": table, "statements": statements})
        return
    for statement in statements:
        typer.echo(f"{statement};")
