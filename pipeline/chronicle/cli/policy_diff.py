"""`chronicle policy diff`: what two policies say differently, and what recorded changes look like under either."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from chronicle.cli import policy_keys, shown
from chronicle.cli.asking import open_trail
from chronicle.cli.terminal import command, err, interruptible, out, print_json
from chronicle.errors import ConfigError

if TYPE_CHECKING:
    from chronicle.config import Settings
    from chronicle.policy.differences import Difference, OptionDiffers
    from chronicle.policy.file import Policy
    from chronicle.stages.policy_effects import Comparison, TableEffect

EPILOG = "Example: chronicle policy diff policy.toml stricter.toml --replay shop.public.customers --last 1000"
_HASH = re.compile(r"[0-9a-f]{16}")
_WHOLE = "told whole"
Given = Annotated[str, typer.Argument(help="A policy file, or the hash of one that `chronicle policy history` lists.")]


def register(app: typer.Typer) -> None:
    """Make it a command of the group."""
    app.command(epilog=EPILOG)(diff)


@command
def diff(
    old: Given,
    new: Given,
    *,
    replay: Annotated[
        str | None, typer.Option(metavar="TOPIC", help="Run both over recorded changes: a table's raw topic.")
    ] = None,
    last: Annotated[int, typer.Option(min=1, max=1_000_000, help="The last so many records of it.")] = 10_000,
    key_ring: policy_keys.RingFile = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit 1 when there is a difference.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Show which columns of the captured tables change class, and by which rules; with --replay: what would look different.

    Samples never show a clear value that either policy hides: of what one leaves clear, the last two characters at most.
    """
    from chronicle import config, wiring
    from chronicle.captured_tables import captured
    from chronicle.policy.differences import differences

    settings = config.load()
    policies = _read(settings, old), _read(settings, new)
    seen = captured(settings, wiring.sources(settings))
    for topic in seen.unreadable:
        err.print(f"warning: the schema of {topic} cannot be read; its columns are not compared", markup=False)
    found = differences(*policies, seen.tables)
    effects = _replayed(settings, policies, replay, last, key_ring) if replay else None
    differs = bool(found) or bool(effects)
    if as_json:
        hashes = {"old": policies[0].hash, "new": policies[1].hash}
        told = {} if effects is None else {"replay": {"topic": replay, **_effects_json(effects)}}
        print_json({**hashes, "differs": differs, **found.as_json(), **told})
    else:
        _show(found)
        if effects is not None:
            _show_effects(effects, replay or "")
    if exit_code and differs:
        raise typer.Exit(1)


def _read(settings: Settings, given: str) -> Policy:
    from chronicle.policy.file import parse
    from chronicle.policy_files import read_policy
    from chronicle.sinks.policies import text_of

    if not _HASH.fullmatch(given) or Path(given).exists():
        return read_policy(Path(given))
    with open_trail(settings) as trail:
        text = text_of(trail.client, trail.database, given)
    if text is None:
        raise ConfigError(f"name a file, or a hash of `chronicle policy history`: there is no policy {given}")
    return parse(text, name=given)


def _replayed(settings: Settings, policies: tuple[Policy, Policy], topic: str, last: int, key_ring: Path | None) -> Comparison:
    from chronicle import wiring
    from chronicle.policy_files import read_key_ring
    from chronicle.policy_replay import compare
    from chronicle.raw_records import RawTopic
    from chronicle.registry import Registry
    from chronicle.schema_files import contracts
    from chronicle.setup import identity_key

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    ring, key, specs = read_key_ring(settings, key_ring), identity_key(settings), wiring.sources(settings)
    registry = Registry(settings.registry)

    def all_of_it() -> Comparison:
        with (
            RawTopic(settings.kafka, topic) as raw,
            Progress(*columns, console=err, transient=True, disable=not sys.stderr.isatty()) as progress,
        ):
            task = progress.add_task("reading")
            return compare(
                policies,
                raw.chunks(raw.last(last), settings.worker.batch_rows_max),
                registry,
                specs=specs,
                ring=ring,
                identity_key=key,
                contracts=contracts(settings.schemas_dir),
                progress=lambda records: progress.update(task, description=f"{records:,} records"),
            )

    try:
        return interruptible(all_of_it)
    finally:
        registry.close()


def _show(found: Difference) -> None:
    if not found:
        err.print("the policies treat all captured tables alike")
        return
    _show_options("for all tables", found.general)
    for one in found.tables:
        out.print(Text(one.table, "bold"))
        if one.columns:
            table = Table(box=None, header_style="bold", pad_edge=False)
            for title in ("column", "old", "new", "old rule", "new rule"):
                table.add_column(title, overflow="fold")
            for column in one.columns:
                cells = (column.column, column.old, column.new, column.old_rule, column.new_rule)
                table.add_row(*map(Text, cells))
            shown.print_table(table)
        _show_options("", one.options)
        out.print()


def _show_options(title: str, options: tuple[OptionDiffers, ...]) -> None:
    if options and title:
        out.print(title, style="bold")
    shown.print_record([(one.what, Text(f"{one.old or '-'} → {one.new or '-'}")) for one in options])


def _show_effects(effects: Comparison, topic: str) -> None:
    out.print(Text(f"{effects.records:,} records of {topic}", "bold"))
    if not effects:
        err.print("they look the same under both policies")
        return
    for name, table in effects.tables.items():
        out.print(Text(f"{name}: {table.changes:,} changes"))
        if table.columns:
            rows = Table(box=None, header_style="bold", pad_edge=False)
            for title in ("column", "old", "new", "differs in", "samples (old → new)"):
                rows.add_column(title, overflow="fold", justify="right" if title == "differs in" else "left")
            for column, effect in table.columns.items():
                samples = "; ".join(f"{_line(old)} → {_line(new)}" for old, new in effect.samples)
                rows.add_row(Text(column), Text(effect.old), Text(effect.new), f"{effect.changes:,}", Text(samples))
            shown.print_table(rows)
        shown.print_record([(what, Text(words)) for what, words in _counted(table)])
    for (_, old, new), count in sorted(effects.dead_letters.items()):
        out.print(Text(f"dead letters: {count:,} records {old or 'processed'} → {new or 'processed'}"))


def _line(sample: str) -> str:
    """What is not printable is escaped, so that no value steers the terminal."""
    return "".join(one if one.isprintable() else f"\\u{ord(one):04x}" for one in sample)


def _counted(table: TableEffect) -> Iterator[tuple[str, str]]:
    for (old, new), count in sorted(table.stubs.items()):
        yield "stubs", f"{count:,} changes {old or _WHOLE} → {new or _WHOLE}"
    for title, counted in (("label", table.labels), ("violation", table.violations)):
        for (name, how), count in sorted(counted.items()):
            yield title, f"{name} {how} by {count:,} changes"
    for name, count in sorted(table.context.items()):
        yield "who did it", f"{name} differs in {count:,} changes"
    if table.changed:
        yield "changed", f"names other columns in {table.changed:,} updates"


def _effects_json(effects: Comparison) -> dict[str, Any]:
    def pairs(counted: dict[Any, int], *names: str) -> list[dict[str, Any]]:
        return [{**dict(zip(names, what, strict=True)), "changes": count} for what, count in sorted(counted.items())]

    tables = [
        {
            "table": name,
            "changes": table.changes,
            "columns": [
                {
                    "column": column,
                    "old": effect.old,
                    "new": effect.new,
                    "changes": effect.changes,
                    "samples": [{"old": old, "new": new} for old, new in effect.samples],
                }
                for column, effect in table.columns.items()
            ],
            "stubs": pairs(table.stubs, "old", "new"),
            "labels": pairs(table.labels, "label", "how"),
            "violations": pairs(table.violations, "violation", "how"),
            "context": dict(sorted(table.context.items())),
            "changed": table.changed,
        }
        for name, table in effects.tables.items()
    ]
    letters = [{"topic": t, "old": old, "new": new, "records": n} for (t, old, new), n in sorted(effects.dead_letters.items())]
    return {"records": effects.records, "tables": tables, "dead_letters": letters}
