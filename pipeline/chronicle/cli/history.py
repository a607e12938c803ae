"""`chronicle history`: the life of one row, from what to what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from chronicle.cli import shown
from chronicle.cli.asking import open_trail
from chronicle.cli.terminal import command, err, out, print_json
from chronicle.errors import ChronicleError

if TYPE_CHECKING:
    from chronicle.trail.contexts import Context
    from chronicle.trail.history import ColumnChange, Entry, History

EPILOG = "Example: chronicle history shop.public.customers 7"
NULL = "∅"
"""Stands where there was no value at all; NULL itself is shown as null."""


@command
def history(
    table: Annotated[str, typer.Argument(help="source.schema.table, or an unambiguous end of it: customers.")],
    key: Annotated[str, typer.Argument(help="Primary key: 7, or 1,2 for a composite one, or JSON: '{\"id\":7}'.")],
    everything: Annotated[
        bool, typer.Option("--all", help="Also snapshot rows that say nothing new, and both halves of a key change.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line and change, on standard output.")] = False,
) -> None:
    """What happened to one row: every change from what to what, who did it, in order of position.

    Earlier primary keys of the row are followed back. Times are the database's commit times, in UTC.
    """
    from chronicle.trail import contexts, keys, tables
    from chronicle.trail import history as trail_history

    with open_trail() as trail:
        name = tables.resolve(table, tables.known(trail.client, trail.database))
        texts = keys.texts(key, keys.shapes(trail.client, trail.database, name))
        found = trail_history.history(trail.client, trail.database, name, texts)
        if not found.entries:
            raise ChronicleError(
                f"look for the row with `chronicle changes --table {name}`: {name} has no changes under this key"
            )
        who = contexts.of(trail.client, trail.database, [entry.change for entry in found.entries])
    entries = [entry for entry in found.entries if everything or not (entry.says_nothing_new or entry.given_up)]
    if as_json:
        for entry in entries:
            print_json(_as_json(entry, contexts.look_up(who, entry.change)))
        return
    _show(found, entries, {entry.change.event_id: contexts.look_up(who, entry.change) for entry in entries})


def _show(found: History, entries: list[Entry], who: Mapping[str, Context | None]) -> None:
    newest = next((entry.change.key for entry in reversed(found.entries) if entry.change.key), None)
    out.print(
        Text.assemble((f"{found.name} ", "bold"), (shown.key(newest), "bold cyan"), f"  {_counted(len(entries), 'change')}")
    )
    if found.followed:
        out.print(f"earlier under key {', '.join(shown.key(one) for one in found.followed)}", style="dim", markup=False)
    for entry in entries:
        out.print()
        _show_entry(entry, who[entry.change.event_id])
    hidden = len(found.entries) - len(entries)
    if hidden:
        err.print(f"({_counted(hidden, 'entry', 'entries')} without news not shown: --all)")
    if found.cut:
        err.print("(older changes are left out: this row has more than one answer holds; use `chronicle changes --until …`)")


def _show_entry(entry: Entry, who: Context | None) -> None:
    from chronicle.trail.history import Known

    change = entry.change
    line = Text.assemble(shown.instant(change.committed_at), "  ")
    line.append_text(Text("key change", "magenta") if change.previous_key else shown.operation(change.operation))
    if change.previous_key:
        line.append(f" {shown.key(change.previous_key)} → {shown.key(change.key)}")
    if who is not None:
        line.append(f"  by {who.actor or 'unknown actor'}", "bold")
        line.append(f" ({who.reason})" if who.reason else "")
    line.append(f"  tx {change.transaction_id}" if change.transaction_id else "", "dim")
    out.print(line, soft_wrap=True)
    width = max((len(column.column) for column in entry.columns), default=0)
    for column in entry.columns:
        name = Text(f"    {column.column:<{width}}  ", "cyan")
        out.print(name.append_text(_from_to(change.operation, column)), soft_wrap=True)
    notes = []
    if change.operation == "truncate":
        notes.append("the whole table was emptied")
    if change.operation in ("update", "delete") and not change.before_known:
        notes.append(
            "the database did not send the old row: compared with what the trail last recorded"
            if entry.known is Known.TRAIL
            else "the database did not send the old row, and the trail does not know it"
        )
    if change.operation == "update" and not entry.columns:
        notes.append("no recorded value differs")
    if change.unavailable:
        notes.append(f"value not sent by the database: {', '.join(change.unavailable)}")
    for note in notes:
        out.print(Text(f"    ({note})", "dim italic"))


def _from_to(operation: str, column: ColumnChange) -> Text:
    from chronicle.trail.history import ABSENT, Known

    before = NULL if column.before is ABSENT else shown.value(column.before)
    after = NULL if column.after is ABSENT else shown.value(column.after)
    if operation == "delete":
        return Text(before, "red")
    if column.before is ABSENT and (operation in ("create", "snapshot")):
        return Text(after, "green")
    if column.before is ABSENT and column.known is not Known.DATABASE:
        return Text.assemble(("not known", "dim italic"), " → ", (after, "green"))
    return Text.assemble((before, "red"), " → ", (after, "green"))


def _as_json(entry: Entry, who: Context | None) -> dict[str, Any]:
    from chronicle.trail.history import ABSENT

    columns = []
    for one in entry.columns:
        told: dict[str, Any] = {"column": one.column}
        told |= {} if one.before is ABSENT else {"before": one.before}
        told |= {} if one.after is ABSENT else {"after": one.after}
        columns.append({**told, "before_from": one.known.value})
    return {
        **entry.change.as_json(),
        "columns": columns,
        "says_nothing_new": entry.says_nothing_new,
        "context": None if who is None else who.as_json(),
    }


def _counted(count: int, one: str, many: str | None = None) -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"
