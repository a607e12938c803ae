"""`chronicle changes`: what changed, by filter."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from chronicle.cli import shown
from chronicle.cli.asking import Trail, moment, open_trail
from chronicle.cli.terminal import command, err, print_json
from chronicle.errors import ChronicleError, ConfigError

if TYPE_CHECKING:
    from chronicle.trail.changes import Change, Filters
    from chronicle.trail.contexts import Context

EPILOG = "Example: chronicle changes --source hiring --operation delete --since 10m"


@command
def changes(
    *,
    source: Annotated[str | None, typer.Option(help="Only this source, in order of position.")] = None,
    schema: Annotated[str | None, typer.Option(help="Only this schema (MySQL, MariaDB: database).")] = None,
    table: Annotated[str | None, typer.Option(help="source.schema.table, or an unambiguous end of it: customers.")] = None,
    key: Annotated[str | None, typer.Option(help="Primary key, with --table: 7, or 1,2, or JSON.")] = None,
    operation: Annotated[
        list[str] | None, typer.Option(help="snapshot, create, update, delete or truncate; may be given again.")
    ] = None,
    column: Annotated[str | None, typer.Option(help="Only updates that changed this column.")] = None,
    transaction: Annotated[str | None, typer.Option(help="Only this transaction id.")] = None,
    since: Annotated[str | None, typer.Option(help="Committed since: 10m, 2h, 3d ago, or ISO 8601.")] = None,
    until: Annotated[str | None, typer.Option(help="Committed before: likewise.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="The newest so many.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line and change, on standard output.")] = False,
) -> None:
    """List changes, the newest last.

    Within one source they are in order of position; over several sources in order of commit time (UTC).
    """
    from chronicle.trail import changes as trail_changes
    from chronicle.trail import contexts

    if key is not None and table is None:
        raise ConfigError("add --table: a key means nothing without its table")
    asked = trail_changes.Filters(
        source, schema, None, (), tuple(operation or ()), column, transaction, moment(since), moment(until)
    )
    with open_trail() as trail:
        filters = _filters(trail, asked, table, key)
        found = trail_changes.changes(trail.client, trail.database, filters, limit=limit)
        who = contexts.of(trail.client, trail.database, found)
    if as_json:
        for change in found:
            context = contexts.look_up(who, change)
            print_json({**change.as_json(), "context": None if context is None else context.as_json()})
        return
    if not found:
        err.print("no changes match" + ("" if since is None else " (committed since then)"))
        return
    shown.print_table(_table([(change, contexts.look_up(who, change)) for change in found]))
    if len(found) == limit:
        err.print(f"(the newest {limit}; there may be more: --limit)")


def _filters(trail: Trail, asked: Filters, table: str | None, key: str | None) -> Filters:
    """What was asked for, with the table and key that its words mean in this trail."""
    from chronicle.trail import keys, tables

    if table is None and asked.source is None:
        return asked
    known = [name for name in tables.known(trail.client, trail.database) if asked.source in (None, name.source)]
    if asked.source is not None and not known:
        raise ChronicleError(f"correct --source: no changes of a source {asked.source!r}")
    if table is None:
        return asked
    name = tables.resolve(table, [name for name in known if asked.schema in (None, name.schema)])
    texts = () if key is None else tuple(keys.texts(key, keys.shapes(trail.client, trail.database, name)))
    return replace(asked, source=name.source, schema=name.schema, table=name.table, keys=texts)


def _table(found: list[tuple[Change, Context | None]]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("committed (UTC)", "table", "operation", "key", "changed", "transaction"):
        table.add_column(title, no_wrap=title not in ("key", "changed"), overflow="fold")
    named = any(context is not None for _, context in found)
    if named:
        table.add_column("who", overflow="fold")
    for change, context in found:
        cells = [
            Text(shown.instant(change.committed_at)),
            Text(str(change.name)),
            shown.operation(change.operation),
            Text(_key(change)),
            Text(", ".join(change.changed) if change.before_known else "(old row not sent)"),
            Text(change.transaction_id or "-", "dim"),
        ]
        table.add_row(*cells, *([Text((context.actor or "") if context else "")] if named else []))
    return table


def _key(change: Change) -> str:
    return f"{shown.key(change.previous_key)} → {shown.key(change.key)}" if change.previous_key else shown.key(change.key)
