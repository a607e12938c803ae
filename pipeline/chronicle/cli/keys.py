"""`chronicle keys`: keys of the HTTP service: create, list, revoke."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from chronicle.cli import shown
from chronicle.cli.terminal import command, err, out, print_json
from chronicle.errors import ConfigError

if TYPE_CHECKING:
    from chronicle.api.keys import Key

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Keys of the HTTP service: who may hand in events, who may read, and what of it.",
    epilog="Example: chronicle keys create --name 'shop backend' --role ingest --source shop",
)

AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output.")]
Many = list[str] | None


@app.command(epilog="Example: chronicle keys create --name 'acme auditors' --role auditor --tenant acme --expires 90d")
@command
def create(
    *,
    name: Annotated[str, typer.Option(help="What or whom it is for.")],
    role: Annotated[Many, typer.Option(help="ingest, reader, auditor or admin; may be given again.")] = None,
    source: Annotated[Many, typer.Option(help="Only this source; may be given again.")] = None,
    table: Annotated[
        Many, typer.Option(help="Only tables like this: source.schema.table, or source.type of events; * is one word.")
    ] = None,
    tenant: Annotated[Many, typer.Option(help="Only this tenant; may be given again.")] = None,
    column: Annotated[Many, typer.Option(help="Only this column or payload field; may be given again.")] = None,
    expires: Annotated[str | None, typer.Option(help="When it ends: 90d, 12h, or an ISO 8601 time; default: never.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key. It is shown this once, on standard output, and kept only as a hash."""
    from chronicle.api import keys
    from chronicle.api.access import Limits

    now = datetime.now(UTC)
    limits = Limits(tuple(source or ()), tuple(table or ()), tuple(tenant or ()), tuple(column or ()))
    until = None if expires is None else _end(expires, now)
    with _opened() as (client, database):
        key, text = keys.create(client, database, name, role or (), limits, now=now, expires_at=until)
    if as_json:
        print_json({**key.as_json(now), "key": text})
        return
    err.print(
        f"key {key.id} for {shown.words(name)}. It is not shown again; send it as `Authorization: Bearer …`", markup=False
    )
    out.print(text, markup=False)


@app.command("list", epilog="Example: chronicle keys list --json")
@command
def list_(*, everything: Annotated[bool, typer.Option("--all", help="Also those that are over or revoked.")] = False,
          as_json: AsJson = False) -> None:  # fmt: skip
    """Show the keys: whose they are, what they open, when they end. None of them can be shown itself."""
    from chronicle.api import keys

    now = datetime.now(UTC)
    with _opened() as (client, database):
        found = keys.read(client, database)
    chosen = [key for key in found if everything or key.valid(now)]
    if as_json:
        for key in chosen:
            print_json(key.as_json(now))
    else:
        _show(chosen, now)


@app.command(epilog="Example: chronicle keys revoke 3f9c0a1b2c4d")
@command
def revoke(id: Annotated[str, typer.Argument(help="Its id, from `chronicle keys list`.")], *, as_json: AsJson = False) -> None:
    """Take a key back. Services that run notice within api.keys_cache_s seconds."""
    from chronicle.api import keys

    now = datetime.now(UTC)
    with _opened() as (client, database):
        key = keys.revoke(client, client, database, id, now=now)
    if as_json:
        print_json(key.as_json(now))
    else:
        err.print(f"revoked {key.id}", markup=False)


@contextmanager
def _opened() -> Iterator[tuple[Any, str]]:
    from chronicle import config
    from chronicle.sinks.clickhouse_client import connect

    settings = config.load()
    client = connect(settings.clickhouse)
    try:
        yield client, settings.clickhouse.database
    finally:
        client.close()


def _end(text: str, now: datetime) -> datetime:
    from chronicle.trail.moments import UNITS, parse

    at = parse(text, now)
    if text.strip()[-1:] in UNITS and at < now:  # a span, which `parse` counts back from now
        return now + (now - at)
    if at <= now:
        raise ConfigError("choose an --expires that is not over already")
    return at


def _show(found: list[Key], now: datetime) -> None:
    table = Table(box=None)
    for heading in ("id", "name", "roles", "limited to", "state", "until"):
        table.add_column(heading)
    for key in found:
        limits = key.as_json(now)
        names = [f"{what} {', '.join(limits[what])}" for what in ("sources", "tables", "tenants", "columns") if limits[what]]
        end = "" if key.expires_at is None else shown.instant(key.expires_at)
        told = (key.id, shown.words(key.name), ", ".join(sorted(key.roles)), shown.words("; ".join(names)), key.state(now))
        table.add_row(*map(Text, told), end)
    out.print(table)
