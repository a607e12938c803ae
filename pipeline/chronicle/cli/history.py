"""`chronicle history`: the life of one row, from what to what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from chronicle.cli import shown
from chronicle.cli.asking import open_trail, say_left_out
from chronicle.cli.terminal import command, err, out, print_json
from chronicle.errors import ChronicleError

if TYPE_CHECKING:
    from chronicle.trail.changes import Change
    from chronicle.trail.history import ColumnChange, Entry, History

EPILOG = "Example: chronicle history shop.public.customers 7"
NULL = "∅"
"""Stands where there was no value at all; NULL itself is shown as null."""
SHORT = 40
"""A name of reference data that is longer is not shown beside a change; `--json` has it."""


@command
def history(
    table: Annotated[str, typer.Argument(help="source.schema.table, or an unambiguous end of it: customers.")],
    key: Annotated[str, typer.Argument(help="Primary key: 7, or 1,2 for a composite one, or JSON: '{\"id\":7}'.")],
    everything: Annotated[
        bool, typer.Option("--all", help="Also snapshot rows that say nothing new, and both halves of a key change.")
    ] = False,
    stubs: Annotated[bool, typer.Option("--stubs", help="Also changes of which the policy keeps only a line.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line and change, on standard output.")] = False,
) -> None:
    """What happened to one row: every change from what to what, who did it, in order of position.

    Earlier primary keys of the row are followed back. Times are the database's commit times, in UTC.
    """
    from chronicle.trail import history as trail_history
    from chronicle.trail import keys, tables

    with open_trail() as trail:
        name = tables.resolve(table, tables.known(trail.client, trail.database))
        texts = keys.texts(key, keys.shapes(trail.client, trail.database, name))
        found = trail_history.history(trail.client, trail.database, name, texts)
        if not found.entries:
            raise ChronicleError(
                f"look for the row with `chronicle changes --table {name}`: {name} has no changes under this key"
            )
    news = [entry for entry in found.entries if everything or not (entry.says_nothing_new or entry.given_up)]
    entries = [entry for entry in news if stubs or not entry.change.stub]
    if as_json:
        for entry in entries:
            print_json(_as_json(entry))
    else:
        _show(found, entries)
        if hidden := len(found.entries) - len(news):
            err.print(f"({_counted(hidden, 'entry', 'entries')} without news not shown: --all)")
    say_left_out(len(news) - len(entries))
    if found.cut:
        err.print("(older changes are left out: this row has more than one answer holds; use `chronicle changes --until …`)")


def _show(found: History, entries: list[Entry]) -> None:
    newest = next((entry.change.key for entry in reversed(found.entries) if entry.change.key), None)
    name, count = shown.words(str(found.name)), _counted(len(entries), "change")
    out.print(Text.assemble((f"{name} ", "bold"), (shown.key(newest), "bold cyan"), f"  {count}"))
    if found.followed:
        out.print(Text(f"earlier under key {', '.join(shown.key(one) for one in found.followed)}", "dim"))
    for entry in entries:
        out.print()
        _show_entry(entry)


def _show_entry(entry: Entry) -> None:
    change = entry.change
    line = Text.assemble(shown.instant(change.committed_at), "  ")
    line.append_text(Text("key change", "magenta") if change.previous_key else shown.operation(change.operation))
    if change.previous_key:
        line.append(f" {shown.key(change.previous_key)} → {shown.key(change.key)}")
    line.append_text(_said(change))
    line.append("".join(f"  #{shown.words(label)}" for label in change.labels), "magenta")
    line.append(f"  tx {shown.words(change.transaction_id)}" if change.transaction_id else "", "dim")
    if change.stub:
        line.append(f"  (left out by the policy: {shown.words(change.stub)})", "italic")
        line.stylize("dim")
    out.print(line, soft_wrap=True)
    width = max((len(shown.words(column.column)) for column in entry.columns), default=0)
    for column in entry.columns:
        name = Text(f"    {shown.words(column.column):<{width}}  ", "cyan")
        out.print(name.append_text(_from_to(change.operation, column)), soft_wrap=True)
    for note in _notes(entry):
        out.print(Text(f"    ({note})", "dim italic"), soft_wrap=True)


def _said(change: Change) -> Text:
    """Who did it and why; what says so, unless it is the transaction's own context."""
    if change.operation == "snapshot":
        return Text()
    if change.attribution in ("none", "pending"):
        return Text("  by whom is not known yet" if change.attribution == "pending" else "  nobody says by whom", "dim")
    said = Text()
    if change.attribution:
        said.append(f"  by {shown.who(change).plain or 'unknown actor'}", "bold")
    if change.attribution in ("comment", "row"):
        said.append(f" [{change.attribution}]", "dim")
    return said.append(f" ({shown.words(change.reason)})" if change.reason else "")


def _notes(entry: Entry) -> list[str]:
    from chronicle.trail.history import Known

    change, notes = entry.change, []
    if names := _entities(change):
        notes.append(", ".join(names))
    if change.violations:
        notes.append(f"breaks rules: {', '.join(map(shown.words, change.violations))}")
    if change.operation == "truncate":
        notes.append("the whole table was emptied")
    if entry.bare:
        notes.append("images not kept by the policy")
    elif change.operation in ("update", "delete") and not change.before_known and not change.stub:
        notes.append(
            "the database did not send the old row: compared with what the trail last recorded"
            if entry.known is Known.TRAIL
            else "the database did not send the old row, and the trail does not know it"
        )
    if change.operation == "update" and not (entry.columns or entry.bare or change.stub):
        notes.append("no recorded value differs")
    if entry.uncompared:
        notes.append(f"encrypted, so not compared: {', '.join(map(shown.words, entry.uncompared))}")
    if change.unavailable:
        notes.append(f"value not sent by the database: {', '.join(map(shown.words, change.unavailable))}")
    return notes


def _entities(change: Change) -> list[str]:
    """Names of the reference data joined to a change, where they are short."""
    joined = {into: one.get("name") for into, one in (change.enriched or {}).items() if isinstance(one, dict)}
    return [f"{shown.words(into)}: {shown.words(name)}" for into, name in joined.items() if name and len(str(name)) <= SHORT]


def _from_to(operation: str, column: ColumnChange) -> Text:
    from chronicle.trail.history import ABSENT, Known

    if column.hidden:
        return Text("changed (hidden)", "italic")
    before = NULL if column.before is ABSENT else shown.value(column.before)
    after = NULL if column.after is ABSENT else shown.value(column.after)
    if operation == "delete":
        return Text(before, "red")
    if column.before is ABSENT and (operation in ("create", "snapshot")):
        return Text(after, "green")
    if column.before is ABSENT and column.known is not Known.DATABASE:
        return Text.assemble(("not known", "dim italic"), " → ", (after, "green"))
    return Text.assemble((before, "red"), " → ", (after, "green"))


def _as_json(entry: Entry) -> dict[str, Any]:
    from chronicle.trail.history import ABSENT

    columns = []
    for one in entry.columns:
        told: dict[str, Any] = {"column": one.column}
        told |= {} if one.before is ABSENT else {"before": one.before}
        told |= {} if one.after is ABSENT else {"after": one.after}
        columns.append({**told, "before_from": one.known.value, **({"hidden": True} if one.hidden else {})})
    return {
        **entry.change.as_json(),
        "columns": columns,
        "says_nothing_new": entry.says_nothing_new,
        "images_kept": not (entry.bare or entry.change.stub),
        "uncompared": list(entry.uncompared),
    }


def _counted(count: int, one: str, many: str | None = None) -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"
