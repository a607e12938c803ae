"""`chronicle decrypt`: one change or event with what is encrypted in it in clear, for those who hold the key ring."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer
from rich.table import Table
from rich.text import Text

from chronicle import config
from chronicle.cli import shown
from chronicle.cli.asking import open_trail
from chronicle.cli.terminal import command, err, print_json
from chronicle.errors import ConfigError

if TYPE_CHECKING:
    from chronicle.trail.decrypt import OpenedChange, OpenedImage, Stored, StoredEvent

EPILOG = "Example: chronicle decrypt 5f0c9a52-6f0e-4a4b-9d4a-0c8f5d0c2b7e --column iban"


@command
def decrypt(
    event_id: Annotated[
        str, typer.Argument(metavar="EVENT_ID", help="The change, as `chronicle changes --json` names it; or an event.")
    ],
    *,
    column: Annotated[str | None, typer.Option(help="Open only this column, or field of the payload.")] = None,
    source: Annotated[str | None, typer.Option(help="An event of this application: ids are theirs.")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="An event of this type.")] = None,
    tenant: Annotated[str | None, typer.Option(help="An event of this tenant; '': of none.")] = None,
    key_ring: Annotated[
        Path | None, typer.Option("--key-ring", help="The key ring; default: key_ring_file of the settings.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Print a change before and after, encrypted columns opened; or the payload of an event.

    A value that was changed or moved, or whose key is not in the key ring, is left as it is stored and named on standard
    error; the exit code is 1 then.
    """
    from chronicle.policy_files import read_key_ring
    from chronicle.trail.decrypt import opened_change, opened_event, stored, stored_event

    try:
        id = UUID(event_id)
    except ValueError:
        raise ConfigError("write the event id as a UUID, such as `chronicle changes --json` shows it") from None
    settings = config.load()
    ring = read_key_ring(settings, key_ring)
    with open_trail(settings) as trail:
        named = {"source": source, "type_": type_, "tenant": tenant}
        change = stored(trail.client, trail.database, id) if not any(one is not None for one in named.values()) else None
        event = stored_event(trail.client, trail.database, id, **named) if change is None else None
    if change is not None:
        both = opened_change(change, ring, column)
        _print(change, both, as_json=as_json)
        failed = both.failed
    else:
        assert event is not None  # noqa: S101  # one of the two is there
        payload = opened_event(event, ring, column)
        _print_event(event, payload, as_json=as_json)
        failed = {f"payload.{name}": why for name, why in payload.failed.items()}
    for place, why in failed.items():
        err.print(Text(f"{place}: {why}"), soft_wrap=True)
    if failed:
        raise typer.Exit(1)


def _print_event(event: StoredEvent, found: OpenedImage, *, as_json: bool) -> None:
    payload = found.row or {}
    if as_json:
        names = {"event_id": str(event.event_id), "source": event.source, "type": event.type, "tenant": event.tenant}
        print_json({**names, "payload": payload, "opened": list(found.columns), "failed": found.failed})
        return
    err.print(Text(f"{event.type} of {event.source}"))
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("field", "value"):
        table.add_column(title, overflow="fold")
    for name, value in payload.items():
        table.add_row(Text(name), Text(shown.value(value), "bold" if name in found.columns else ""))
    shown.print_table(table)


def _print(change: Stored, found: OpenedChange, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "event_id": str(change.event_id),
                "source": change.name.source,
                "schema": change.name.schema,
                "table": change.name.table,
                "operation": change.operation,
                "key": change.key,
                "before": found.before.row,
                "after": found.after.row,
                "opened": {"before": list(found.before.columns), "after": list(found.after.columns)},
                "failed": found.failed,
            }
        )
        return
    err.print(Text.assemble(f"{change.name} {shown.key(change.key)}  ", shown.operation(change.operation)))
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("column", "before", "after"):
        table.add_column(title, overflow="fold")
    images = (found.before, found.after)
    for name in dict.fromkeys(name for image in images for name in image.row or {}):
        texts = [shown.value(image.row[name]) if image.row is not None and name in image.row else "-" for image in images]
        styles = ["bold" if name in image.columns else "" for image in images]
        table.add_row(Text(name), *(Text(text, style) for text, style in zip(texts, styles, strict=True)))
    shown.print_table(table)
