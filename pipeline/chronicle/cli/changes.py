"""`chronicle changes`: what changed, by filter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from chronicle.cli import shown
from chronicle.cli.asking import Trail, moment, open_trail
from chronicle.cli.terminal import command, err, print_json
from chronicle.errors import ConfigError

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

    with open_trail() as trail:
        filters = _filters(
            trail,
            source=source,
            schema=schema,
            table=table,
            key=key,
            operation=operation,
            column=column,
            transaction=transaction,
            since=since,
            until=until,
        )
        found = trail_changes.changes(trail.client, trail.database, filters, limit=limit)
        who = contexts.of(trail.client, trail.database, found)
    if as_json:
        for change in found:
            context = contexts.look_up(who, change)
            print_json({**change.as_json(), "context": None if context is None else context.as_json()})
        return
    if not found:
        err.print("no changes match" + ("" if since is None else " (is --since too short?)"))
        return
    shown.print_table(_table([(change, contexts.look_up(who, change)) for change in found]))
    if len(found) == limit:
        err.print(f"(the newest {limit}; there may be more: --limit)")


def _filters(
    trail: Trail,
    *,
    source: str | None,
    schema: str | None,
    table: str | None,
    key: str | None,
    operation: list[str] | None,
    column: str | None,
    transaction: str | None,
    since: str | None,
    until: str | None,
) -> Filters:
    from chronicle.trail import keys, tables
    from chronicle.trail.changes import Filters

    since_at, until_at = moment(since), moment(until)
    filters = Filters(source, schema, None, (), tuple(operation or ()), column, transaction, since_at, until_at)
    if key is not None and table is None:
        raise ConfigError("add --table: a key means nothing without its table")
    if table is None and source is None:
        return filters
    known = [name for name in tables.known(trail.client, trail.database) if source in (None, name.source)]
    if source is not None and not known:
        raise ConfigError(f"correct --source: no changes of a source {source!r}")
    if table is None:
        return filters
    name = tables.resolve(table, [name for name in known if schema in (None, name.schema)])
    texts = () if key is None else tuple(keys.texts(key, keys.shapes(trail.client, trail.database, name)))
    return Filters(name.source, name.schema, name.table, texts, filters.operations, column, transaction, since_at, until_at)


def _table(found: list[tuple[Change, Context | None]]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("committed (UTC)", "table", "operation", "key", "changed", "transaction"):
        table.add_column(title, no_wrap=title != "changed", overflow="fold")
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
