"""`chronicle changes`: what changed, by filter."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from chronicle.cli import shown
from chronicle.cli.asking import Trail, moment, open_trail, say_left_out
from chronicle.cli.terminal import command, err, print_json
from chronicle.errors import ChronicleError, ConfigError

if TYPE_CHECKING:
    from chronicle.trail.changes import Change, Filters

EPILOG = "Example: chronicle changes --source hiring --operation delete --since 10m"
LABELS_MAX = 20
"""How many an error lists."""
AGAIN = "may be given again: any of them"


@command
def changes(
    *,
    source: Annotated[str | None, typer.Option(help="Only this source, in order of position.")] = None,
    schema: Annotated[str | None, typer.Option(help="Only this schema (MySQL, MariaDB: database).")] = None,
    table: Annotated[str | None, typer.Option(help="source.schema.table, or an unambiguous end of it: customers.")] = None,
    key: Annotated[str | None, typer.Option(help="Primary key, with --table: 7, or 1,2, or JSON.")] = None,
    operation: Annotated[list[str] | None, typer.Option(help=f"snapshot, create, update, delete or truncate; {AGAIN}.")] = None,
    column: Annotated[str | None, typer.Option(help="Only updates that changed this column.")] = None,
    label: Annotated[list[str] | None, typer.Option(help=f"A label of the policy; {AGAIN}.")] = None,
    actor: Annotated[str | None, typer.Option(help="Who did it: id or name, as the trail holds it.")] = None,
    request: Annotated[str | None, typer.Option(help="Only this request id.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant.")] = None,
    attribution: Annotated[
        list[str] | None,
        typer.Option(help=f"What says who did it: message, table, comment, row, pending or none; {AGAIN}."),
    ] = None,
    transaction: Annotated[str | None, typer.Option(help="Only this transaction id.")] = None,
    since: Annotated[str | None, typer.Option(help="Committed since: 10m, 2h, 3d ago, or ISO 8601.")] = None,
    until: Annotated[str | None, typer.Option(help="Committed before: likewise.")] = None,
    stubs: Annotated[bool, typer.Option("--stubs", help="Also changes of which the policy keeps only a line.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="The newest so many.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line and change, on standard output.")] = False,
) -> None:
    """List changes with who did them, the newest last.

    Within one source they are in order of position; over several sources in order of commit time (UTC).
    """
    from chronicle.trail import changes as trail_changes

    if key is not None and table is None:
        raise ConfigError("add --table: a key means nothing without its table")
    asked = trail_changes.Filters(
        source=source,
        schema=schema,
        operations=tuple(operation or ()),
        column=column,
        labels=tuple(label or ()),
        actor=actor,
        request=request,
        tenant=tenant,
        attributions=tuple(attribution or ()),
        transaction=transaction,
        since=moment(since),
        until=moment(until),
        stubs=stubs,
    )
    with open_trail() as trail:
        filters = _filters(trail, asked, table, key)
        found = trail_changes.changes(trail.client, trail.database, filters, limit=limit)
        if not found:
            _check_labels(trail, filters)
        whole = len(found) < limit
        hidden = 0
        if not stubs:
            oldest = None if whole else found[0]
            hidden = trail_changes.left_out(trail.client, trail.database, filters, since=oldest)
    for change in found if as_json else ():
        print_json(change.as_json())
    if not as_json:
        _show(found, filters)
        if not whole:
            err.print(f"(the newest {limit}; there may be more: --limit)")
    say_left_out(hidden)


def _show(found: list[Change], asked: Filters) -> None:
    if found:
        shown.print_table(_table(found))
    else:
        err.print("no changes match" + ("" if asked.since is None else " (committed since then)"))


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


def _check_labels(trail: Trail, asked: Filters) -> None:
    """A label that no change has may be a slip of the pen: say which there are."""
    from chronicle.trail import changes as trail_changes

    known = trail_changes.labels(trail.client, trail.database) if asked.labels else []
    wrong = [label for label in asked.labels if label not in known]
    if wrong and known:
        listed = ", ".join(map(shown.words, known[:LABELS_MAX])) + (" …" if len(known) > LABELS_MAX else "")
        raise ConfigError(f"choose a --label from {listed}: no change has the label {wrong[0]!r}")


def _table(found: list[Change]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    named = any(change.actor or change.attribution == "pending" for change in found)
    labelled = any(change.labels for change in found)
    optional = [title for title, wanted in (("who", named), ("labels", labelled)) if wanted]
    for title in ("committed (UTC)", "table", "operation", "key", "changed", *optional, "transaction"):
        table.add_column(title, no_wrap=title not in ("key", "changed", "who", "labels"), overflow="fold")
    for change in found:
        labels = Text(shown.words(", ".join(change.labels), shown.PIPE_WIDTH), "magenta")
        cells = {
            "committed": Text(shown.instant(change.committed_at)),
            "table": Text(shown.words(str(change.name))),
            "operation": shown.operation(change.operation),
            "key": Text(_key(change)),
            "changed": _changed(change),
            **({"who": shown.who(change)} if named else {}),
            **({"labels": labels} if labelled else {}),
            "transaction": Text(shown.words(change.transaction_id or "-"), "dim"),
        }
        table.add_row(*cells.values(), style="dim" if change.stub else None)
    return table


def _changed(change: Change) -> Text:
    if change.stub:
        return Text(f"(left out: {shown.words(change.stub)})", "italic")
    return Text(shown.words(", ".join(change.changed), shown.PIPE_WIDTH) if change.before_known else "(old row not sent)")


def _key(change: Change) -> str:
    return f"{shown.key(change.previous_key)} → {shown.key(change.key)}" if change.previous_key else shown.key(change.key)
