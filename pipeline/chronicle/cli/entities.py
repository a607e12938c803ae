"""`chronicle entities`: reference data that is joined to changes: put, get, list, delete, load."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from chronicle.cli import shown
from chronicle.cli.terminal import command, err, interruptible, out, print_json
from chronicle.errors import ChronicleError, ConfigError

if TYPE_CHECKING:
    from chronicle.entities import Format

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Reference data that is joined to changes: who a customer is, what an organisation is called.",
    epilog="Example: chronicle entities put org:acme --name 'Acme Corp'",
)

Id = Annotated[str, typer.Argument(metavar="ID", help="kind:value, as the policy's `entity` makes it: org:acme.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output.")]


@app.command(epilog="""Example: chronicle entities put org:acme --name 'Acme Corp' --metadata '{"tier":"enterprise"}'""")
@command
def put(
    id_: Id,
    *,
    name: Annotated[str, typer.Option(help="What people call it.")],
    metadata: Annotated[str, typer.Option(help="More about it: a JSON object.")] = "{}",
    as_json: AsJson = False,
) -> None:
    """Write one entity whole, new or in place of what there was. Effective at the next batch once this command returns."""
    from chronicle import config, entities
    from chronicle.codec.entity import Entity, metadata_of

    entity = Entity(id_, name, metadata_of(metadata))
    kafka = config.load().kafka
    interruptible(lambda: entities.put(kafka, [entity]))
    if as_json:
        print_json(entity.as_json())
    else:
        out.print(Text(f"put {shown.value(entity.id)}"))


@app.command(epilog="Example: chronicle entities get org:acme --json")
@command
def get(id_: Id, *, as_json: AsJson = False) -> None:
    """Show one entity; exit code 1 when there is none."""
    from chronicle import config, entities

    kafka = config.load().kafka
    with _reading() as told:
        entity = interruptible(lambda: entities.get(kafka, id_, told))
    if entity is None:
        raise ChronicleError("look with `chronicle entities list`: there is no such entity")
    if as_json:
        print_json(entity.as_json())
        return
    shown.print_record([(title, shown.cell(given)) for title, given in entity.as_json().items()])


@app.command("list", epilog="Example: chronicle entities list --prefix org:")
@command
def list_(
    *,
    prefix: Annotated[str, typer.Option(help="Only ids that begin so, as in org:.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line and entity, on standard output.")] = False,
) -> None:
    """List entities by id."""
    from chronicle import config, entities

    kafka = config.load().kafka
    with _reading() as told:
        found = interruptible(lambda: entities.read(kafka, lambda id_: id_.startswith(prefix), told))
    if found.unreadable:
        err.print(f"({found.unreadable} records of {kafka.entities_topic} are no entities: skipped)", markup=False)
    if as_json:
        for entity in found.entities:
            print_json(entity.as_json())
        return
    if not found.entities:
        err.print("no entities" + (" with this prefix" if prefix else ""))
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("id", "name", "metadata"):
        table.add_column(title, no_wrap=title == "id", overflow="fold")
    for entity in found.entities:
        table.add_row(shown.cell(entity.id), shown.cell(entity.name), shown.cell(dict(entity.metadata) or ""))
    shown.print_table(table)


@app.command(epilog="Example: chronicle entities delete org:acme")
@command
def delete(id_: Id, *, as_json: AsJson = False) -> None:
    """Delete one entity; exit code 1 when there is none. Changes keep what was joined to them."""
    from chronicle import config, entities

    kafka = config.load().kafka
    with _reading() as told:
        entity = interruptible(lambda: entities.get(kafka, id_, told))
    if entity is None:
        raise ChronicleError("look with `chronicle entities list`: there is no such entity")
    interruptible(lambda: entities.delete(kafka, [id_]))
    if as_json:
        print_json({"id": id_, "deleted": True})
    else:
        out.print(Text(f"deleted {shown.value(id_)}"))


@app.command(epilog="Example: chronicle entities load customers.csv")
@command
def load(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="NDJSON, a JSON array, or CSV with columns id and name.")],
    *,
    format_: Annotated[str | None, typer.Option("--format", help="ndjson, json or csv; otherwise by the file's name.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the file, send nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write all entities of a file, or none: it is checked whole before the first is sent.

    Objects have id, name and metadata. In CSV, metadata is JSON, and every column besides id, name and metadata becomes a
    text in it. Running it again is safe.
    """
    from chronicle import config, entities

    kafka = config.load().kafka
    with _progress() as describe:
        describe(f"checking {file}")
        found = entities.parsed(file, _known(format_))
        if not dry_run:
            interruptible(lambda: entities.put(kafka, found, lambda count: describe(f"{count:,} of {len(found):,} confirmed")))
    if as_json:
        print_json({"entities": len(found), "sent": 0 if dry_run else len(found), "dry_run": dry_run})
    else:
        plural = "entity" if len(found) == 1 else "entities"
        out.print(Text(f"{len(found)} {plural} {'would be put' if dry_run else 'put'}"))


def _known(format_: str | None) -> Format | None:
    """A format that there is."""
    from chronicle.entities import Format

    known: tuple[Format, ...] = get_args(Format)
    if format_ is not None and format_ not in known:
        raise ConfigError(f"choose a --format from {', '.join(known)}")
    return next((one for one in known if one == format_), None)


@contextmanager
def _reading() -> Iterator[Callable[[int], None]]:
    """A line that says how many records were read."""
    with _progress() as describe:
        describe("reading entities")
        yield lambda count: describe(f"{count:,} records read")


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("")
        yield lambda text: progress.update(task, description=text)
