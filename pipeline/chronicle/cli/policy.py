"""`chronicle policy`: what may be seen: propose a policy, check it against the captured tables, show what it does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from chronicle import config
from chronicle.cli import policy_diff, policy_events, policy_history, policy_keys, policy_models, shown
from chronicle.cli.terminal import command, err, out, print_json
from chronicle.errors import ConfigError

if TYPE_CHECKING:
    from chronicle.captured_tables import Captured
    from chronicle.policy.check import Finding
    from chronicle.policy.rules import TablePolicy, Treatment

# What reads schemas is imported inside the commands: it brings Polars and HTTP, and --help is to be quick.

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="What may be seen: propose a policy, check it against the captured tables, show what it does.",
    epilog="Example: chronicle policy check",
)
app.add_typer(policy_keys.app, name="keys")
policy_diff.register(app)
policy_history.register(app)
policy_models.register(app)

File = Annotated[Path | None, typer.Option("--policy", help="The policy file; default: policy_file of the settings.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]

STYLES = {"error": "bold red", "warning": "yellow"}
CLASS_STYLES = {"clear": "green", "drop": "dim", "redact": "red"}


@app.command(epilog="Example: chronicle policy init --policy proposed.toml")
@command
def init(
    policy: File = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a first policy: a class for every column of every captured table, from names and types. For you to review."""
    from chronicle.policy.file import parse
    from chronicle.policy.proposal import proposal

    settings = config.load()
    path = policy or settings.policy_file
    if path.exists() and not force:
        raise ConfigError(f"name another file (--policy FILE), or give --force: {path} exists")
    tables = _captured(settings).tables
    if not tables:
        raise ConfigError("capture tables first (`chronicle connectors apply`): the registry has no schema of a captured table")
    text = proposal(tables)
    parse(text, name=str(path))  # what is proposed can be used
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"make {path} writable: {type(error).__name__}") from None
    columns = sum(len(table.names) for table in tables)
    if as_json:
        print_json({"file": str(path), "tables": len(tables), "columns": columns})
        return
    err.print(
        f"{path}: {columns} columns of {len(tables)} tables; review each line, then `chronicle policy check`", markup=False
    )


@app.command(epilog="Example: chronicle policy check --policy policy.toml --no-keys")
@command
def check(
    policy: File = None,
    keys: Annotated[
        bool, typer.Option("--keys/--no-keys", help="Whether the keys it needs must be there (not in a CI).")
    ] = True,
    key_ring: policy_keys.RingFile = None,
    as_json: AsJson = False,
) -> None:
    """Compare the policy with the captured tables and the key ring. Exit 1 on errors: unclassified columns, rules that
    contradict each other or mean nothing, classes that make no sense for a column's type, routes whose `where` fits none
    of their tables, keys that are missing; of events: fields that a type's schema does not have, or that nobody classifies.
    """
    from chronicle.captured_tables import misfits, route_findings
    from chronicle.policy.check import Level, findings
    from chronicle.policy.check_events import event_findings
    from chronicle.policy_files import read_key_ring, read_policy
    from chronicle.schema_files import event_types

    settings = config.load()
    parsed = read_policy(policy or settings.policy_file)
    ring = read_key_ring(settings, key_ring) if keys else None
    seen = _captured(settings, alone=not parsed.blocks)
    tables, types = seen.tables, event_types(settings.schemas_dir)
    named = [block.pattern.type for block in parsed.events]
    found = [*misfits(parsed, seen), *route_findings(parsed, seen, (*types.types, *named)), *findings(parsed, tables, ring)]
    found += event_findings(parsed, types, strict=settings.events.mode == "strict")
    found.sort(key=lambda one: one.level is not Level.ERROR)
    errors = sum(one.level is Level.ERROR for one in found)
    if as_json:
        print_json(
            {"policy": parsed.hash, "tables": len(tables), "errors": errors, "findings": [one.as_json() for one in found]}
        )
    else:
        _print_findings(found)
        err.print(f"policy {parsed.hash}, {len(tables)} tables: {errors} errors, {len(found) - errors} warnings")
    if errors:
        raise typer.Exit(1)


@app.command(epilog="Example: chronicle policy show shop.public.customers")
@command
def show(
    table: Annotated[str, typer.Argument(help="A captured table: source.schema.table; or events:TYPE, events:SOURCE:TYPE.")],
    policy: File = None,
    as_json: AsJson = False,
) -> None:
    """Show what becomes of each column of a table, by which rule, and what else holds for the table; or of an event type."""
    from chronicle.policy_files import read_policy

    settings = config.load()
    parsed = read_policy(policy or settings.policy_file)
    if table.startswith(policy_events.PREFIX):
        policy_events.show(settings, parsed, table, as_json=as_json)
        return
    tables = {one.name: one for one in _captured(settings).tables}
    if table not in tables:
        raise ConfigError(f"name a captured table: {_suggested(table, list(tables))}")
    seen = tables[table]
    resolved = parsed.table(*seen.parts, seen.names, seen.key)
    if as_json:
        print_json({"table": table, "policy": parsed.hash, **_as_json(resolved)})
        return
    shown.print_table(_columns_table(resolved))
    others = [(name, Text(text)) for name, text in _others(resolved)]
    if others:
        out.print()
        shown.print_record(others)


def _captured(settings: config.Settings, *, alone: bool = False) -> Captured:
    """`alone`: there may be events and no source."""
    from chronicle import wiring
    from chronicle.captured_tables import Captured, captured

    if alone and not wiring.any_sources(settings):
        return Captured((), {}, ())
    found = captured(settings, wiring.sources(settings))
    for topic in found.unreadable:
        err.print(f"warning: the schema of {topic} cannot be read; its columns are not checked", markup=False)
    return found


def _suggested(table: str, known: list[str]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(table, known, 1)
    if close:
        return f"did you mean {close[0]}?"
    return f"there are {', '.join(known[:10])}" if known else "the registry knows none"


def _print_findings(found: list[Finding]) -> None:
    if not found:
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("level", "where", "what", "fix"):
        table.add_column(title, no_wrap=title == "level", overflow="fold")
    for one in found:
        table.add_row(Text(one.level, STYLES[one.level]), Text(one.where), Text(f"{one.kind}: {one.what}"), Text(one.fix))
    shown.print_table(table)


def _columns_table(resolved: TablePolicy) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("column", "class", "", "rule"):
        table.add_column(title, overflow="fold")
    for name, column in resolved.columns.items():
        kind = column.treatment.kind
        detail = "; ".join(filter(None, ("key" if name in resolved.key_columns else "", _detail(column.treatment))))
        table.add_row(Text(name), Text(kind, CLASS_STYLES.get(kind, "yellow")), Text(detail), Text(column.origin))
    return table


def _detail(treatment: Treatment) -> str:
    from chronicle.policy.rules import Class

    match treatment.kind:
        case Class.MASK:
            return f"keep {treatment.keep}"
        case Class.TOKEN:
            return f"domain {treatment.domain}"
        case Class.GENERALIZE:
            return f"to {treatment.to}"
        case Class.CLEAR if treatment.scan:
            return f"scan {', '.join(treatment.scan)}"
    return ""


def _others(resolved: TablePolicy) -> list[tuple[str, str]]:
    """What holds for the whole table, as far as it is not what holds anyway."""
    given = [
        ("skip", "all rows" if resolved.skip else ""),
        ("ignore", ", ".join(sorted(resolved.ignore))),
        ("images", "" if resolved.images == "full" else str(resolved.images)),
        ("snapshot_on_delete", "" if resolved.snapshot_on_delete else "false"),
        ("contract", str(resolved.contract)),
        ("where", resolved.where or ""),
        ("sample", "" if resolved.sample is None else f"{resolved.sample:g}"),
        ("where_deletes", "true" if resolved.where_deletes else ""),
        ("actor", f"{resolved.actor.column} ({resolved.actor.type})" if resolved.actor else ""),
        ("refuse", "all records, until its columns are classified" if resolved.refuse else ""),
    ]
    given += [("label", f"{label.name}: {', '.join(label.columns)}") for label in resolved.labels]
    given += [("enrich", f"{one.into}: {one.entity} by {one.column}") for one in resolved.enrich]
    given += [("rule", f"{rule.column} {rule.name} ({rule.on_break})") for rule in resolved.rules]
    return [(name, text) for name, text in given if text]


def _as_json(resolved: TablePolicy) -> dict[str, Any]:
    from dataclasses import asdict

    columns = [
        {
            "column": name,
            "class": str(one.treatment.kind),
            "key": name in resolved.key_columns,
            "detail": _detail(one.treatment),
            "rule": one.origin,
        }
        for name, one in resolved.columns.items()
    ]
    rest = asdict(resolved)
    for name in ("source", "schema", "table", "columns"):
        del rest[name]
    return {"columns": columns, **rest, "ignore": sorted(resolved.ignore)}
