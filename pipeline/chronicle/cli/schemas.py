"""`chronicle schemas`: contracts of captured tables: take them from the registry, compare, and show how a table changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from chronicle import config
from chronicle.cli import shown
from chronicle.cli.terminal import command, err, out, print_json
from chronicle.errors import ConfigError

if TYPE_CHECKING:
    from chronicle.cli.schema_versions import Version, Versions
    from chronicle.codec.contract import Break, Contract
    from chronicle.codec.schema_diff import Difference

# What reads schemas is imported inside the commands: it brings Polars and HTTP, and --help is to be quick.

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Contracts of captured tables: take them from the registry, compare, show how a table changed.",
    epilog="Example: chronicle schemas check",
)

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Directory = Annotated[Path, typer.Option("--dir", help="Where contracts and examples are.")]
SubjectName = Annotated[str, typer.Argument(help="A captured table (shop.public.customers), or any subject of the registry.")]
STYLES = {"added": "green", "removed": "red", "changed": "yellow"}


@app.command(epilog="Example: chronicle schemas pull shop.public.customers")
@command
def pull(
    tables: Annotated[list[str] | None, typer.Argument(help="Captured tables; all of them when none is named.")] = None,
    directory: Directory = Path("schemas"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite contracts that say something else.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a contract for each table: the columns that its newest schema has, each of which has to stay. For you to cut
    down to what is relied on.
    """
    from chronicle.cli.schema_versions import subject_of
    from chronicle.codec.contract import pinned
    from chronicle.schema_files import path_of, save

    with _registry() as (settings, registry):
        wanted = [subject_of(one) for one in tables or ()] or _captured(settings)
        done = []
        for subject in wanted:
            newest = registry.newest(subject)
            try:
                text = pinned(newest.text)
            except ValueError:
                raise ConfigError(f"name a captured table: {subject} has no rows of a table") from None
            done.append((path_of(directory, subject), newest.number, save(directory, subject, text, force=force)))
    if as_json:
        print_json(
            {"contracts": [{"file": str(path), "version": number, "action": str(saved)} for path, number, saved in done]}
        )
        return
    for path, number, saved in done:
        note = ": it says something else (--force overwrites it)" if saved == "kept" else ""
        out.print(f"{saved:<8} {path} (version {number}){note}", markup=False)


@app.command(epilog="Example: chronicle schemas check --json")
@command
def check(
    directory: Directory = Path("schemas"),
    registry: Annotated[
        bool,
        typer.Option("--registry/--no-registry", help="Whether contracts are compared with the registry's newest schemas."),
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Compare contracts with the newest schemas in the registry, event types with their earlier versions, and examples with
    the Avro schemas beside them. Exit 1 when a contract is broken, a version cannot be read or an example does not fit.
    """
    from chronicle.schema_files import contracts, event_breaks, mismatches

    pinned = contracts(directory)
    count, unfit = mismatches(directory)
    outdated = event_breaks(directory)
    broken = {**(_broken(pinned) if registry and pinned else {}), **outdated}
    if as_json:
        told = [{"subject": subject, **one.as_json()} for subject, found in broken.items() for one in found]
        print_json(
            {"contracts": len(pinned), "examples": count, "breaks": told, "mismatches": [one.as_json() for one in unfit]}
        )
    else:
        for subject, found in broken.items():
            for one in found:
                out.print(f"{subject}: {one.column}{': ' if one.column else ''}{one.what}", markup=False, style="bold red")
                out.print(f"        → {one.fix}", markup=False, style="dim")
        for mismatch in unfit:
            out.print(f"{mismatch.file}: {mismatch.what}", markup=False, style="bold red")
            out.print(f"        → {mismatch.fix}", markup=False, style="dim")
        compared = f"{len(pinned)} contracts{'' if registry else ' (not compared with a registry)'}"
        err.print(
            f"{compared}: {len(broken) - len(outdated)} broken; {len(outdated)} event types cannot read an earlier version; "
            f"{count} examples: {len({one.file for one in unfit})} do not fit"
        )
    if broken or unfit:
        raise typer.Exit(1)


@app.command(name="events", epilog="Example: chronicle schemas events auth.login")
@command
def event_types(
    types: Annotated[list[str] | None, typer.Argument(help="Event types; all of them when none is named.")] = None,
    directory: Directory = Path("schemas"),
    as_json: AsJson = False,
) -> None:
    """Show the event types that there are, what their payloads hold, and the class that each field has unless the policy
    says otherwise.
    """
    from chronicle import schema_files

    catalogue = schema_files.event_types(directory)
    unknown = [one for one in types or () if not catalogue.known(one)]
    if unknown:
        raise ConfigError(f"write {directory}/events/<type>.avsc, or name a type that there is: chronicle schemas events")
    wanted = types or catalogue.types
    fields = {name: {one: catalogue.classes(name).get(one) for one in catalogue.columns(name)} for name in wanted}
    versions = {name: catalogue.schema(name).get("version") for name in wanted}
    if as_json:
        print_json({"types": [{"type": name, "version": versions[name], "fields": fields[name]} for name in wanted]})
        return
    table = Table("type", "version", "fields")
    for name in wanted:
        words = (f"{one} {proposed}" if proposed not in (None, "clear") else one for one, proposed in fields[name].items())
        table.add_row(shown.cell(name), shown.cell(str(versions[name] or "-")), shown.cell(", ".join(words)))
    shown.print_table(table)


@app.command(epilog="Example: chronicle schemas diff shop.public.customers 1 2")
@command
def diff(
    subject: SubjectName,
    old: Annotated[int | None, typer.Argument(help="Version; default: the one before the newest.")] = None,
    new: Annotated[int | None, typer.Argument(help="Version; default: the newest.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show which columns were added, removed or changed between two versions."""
    from chronicle.cli.schema_versions import subject_of
    from chronicle.codec.schema_diff import differences

    with _registry() as (_, registry):
        name = registry.known(subject_of(subject), subject)
        numbers = registry.numbers(name)
        second = new if new is not None else numbers[-1]
        earlier = [number for number in numbers if number < second]
        first = old if old is not None else (earlier[-1] if earlier else second)
        one, two = registry.version(name, first), registry.version(name, second)
    found = differences(one.schema, two.schema)
    if as_json:
        print_json({"subject": name, "old": first, "new": second, "columns": [each.as_json() for each in found]})
        return
    if found:
        shown.print_table(_differences_table(found))
    err.print(f"{name}: version {first} to {second}: {len(found) or 'no'} columns differ", markup=False)


@app.command(epilog="Example: chronicle schemas history shop.public.customers")
@command
def history(subject: SubjectName, as_json: AsJson = False) -> None:
    """Show a table's schema over time: its versions in the registry, and what each changed."""
    from chronicle.cli.schema_versions import subject_of
    from chronicle.codec.schema_diff import differences

    with _registry() as (_, registry):
        name = registry.known(subject_of(subject), subject)
        versions = [registry.version(name, number) for number in registry.numbers(name)]
    steps: list[tuple[Version, tuple[Difference, ...] | None]] = [
        (version, differences(versions[at - 1].schema, version.schema) if at else None) for at, version in enumerate(versions)
    ]
    if as_json:
        told = [
            {"version": version.number, "id": version.id, "changes": [one.as_json() for one in found or ()]}
            for version, found in steps
        ]
        print_json({"subject": name, "versions": told})
        return
    table = Table("version", "id", "what changed")
    for version, found in steps:
        words = f"{version.columns} columns" if found is None else "\n".join(one.words for one in found) or "no column"
        table.add_row(str(version.number), str(version.id), shown.cell(words) if "\n" not in words else words)
    shown.print_table(table)


def _differences_table(found: tuple[Difference, ...]) -> Table:
    table = Table("column", "", "before", "after")
    for one in found:
        table.add_row(
            shown.cell(one.column), str(one.how), shown.cell(one.old or "-"), shown.cell(one.new or "-"), style=STYLES[one.how]
        )
    return table


@contextmanager
def _registry() -> Iterator[tuple[config.Settings, Versions]]:
    from chronicle.cli.schema_versions import Versions

    settings = config.load()
    registry = Versions(settings.registry)
    try:
        yield settings, registry
    finally:
        registry.close()


def _captured(settings: config.Settings) -> list[str]:
    """Subjects of all captured tables."""
    from chronicle import wiring
    from chronicle.captured_tables import captured
    from chronicle.cli.schema_versions import subject_of

    found = [subject_of(table.name) for table in captured(settings, wiring.sources(settings)).tables]
    if not found:
        raise ConfigError("capture tables first (`chronicle connectors apply`): the registry has no schema of a captured table")
    return found


def _broken(pinned: Mapping[str, Contract]) -> dict[str, tuple[Break, ...]]:
    """By subject."""
    from chronicle.codec.contract import Break, breaks

    found = {}
    with _registry() as (_, registry):
        known = registry.names()
        for subject, contract in pinned.items():
            if subject in known:
                found[subject] = breaks(contract, registry.newest(subject).schema)
            else:
                found[subject] = (
                    Break("", "the registry has no such subject", f"capture the table, or remove {contract.name}"),
                )
    return {subject: one for subject, one in found.items() if one}
