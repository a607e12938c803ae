"""`chronicle dev demo`: the whole pipeline on two live databases, the proof, and what to try next."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from chronicle.cli import shown
from chronicle.cli.terminal import command, err, out, print_json

if TYPE_CHECKING:
    from chronicle.dev.demo_result import Proof

RUNGS = ("message", "table", "comment", "row", "pending", "none")
"""As `trail.attribution.RUNGS`, which is not imported for `--help`."""

EPILOG = "Example: chronicle dev demo --seconds 10"
OPERATIONS = ("snapshot", "create", "update", "delete", "truncate")
TRY_NEXT = (
    "uv run chronicle history shop.public.customers 7",
    "uv run chronicle changes --source hiring --operation delete --since 10m",
    'uv run chronicle sql "SELECT tier, count() FROM mirror.shop__public__customers__current GROUP BY tier"',
    "uv run chronicle connectors status",
    "uv run chronicle dead-letters list",
    "uv run chronicle events tail -n 5 --no-follow --type 'security.**' --outcome failure",
)


@command
def demo(
    *,
    directory: Annotated[Path, typer.Option("--dir", help="State directory; one stack each.")] = Path(".chronicle"),
    port_base: Annotated[int | None, typer.Option("--port-base", help="First of ten ports; remembered there.")] = None,
    seconds: Annotated[float, typer.Option(min=1, max=3_600, help="How long the applications write.")] = 30.0,
    rate: Annotated[float, typer.Option(min=1, max=500, help="Transactions per second and database.")] = 40.0,
    seed: Annotated[int, typer.Option(help="Of the traffic.")] = 7,
    as_json: Annotated[bool, typer.Option("--json", help="The proof as one JSON document on standard output.")] = False,
) -> None:
    """Run the whole pipeline on a shop (Postgres) and a recruiting system (MariaDB), and prove that nothing is missing.

    Everything is left running. Exit code 1 when source, mirror and audit topic differ in anything, or published events from
    what audit topic and trail have of them.
    """
    from chronicle import config
    from chronicle.dev import demo as steps
    from chronicle.dev.stack import Stack
    from chronicle.dev.traffic import Plan

    began = time.monotonic()
    stack = Stack(directory, port_base)
    steps.prepare(stack, _step)
    os.environ["CHRONICLE_CONFIG"] = str(stack.settings_file)  # for `chronicle.config`, the only reader
    settings = config.load()
    steps.start_pipeline(stack, settings, _step)
    err.print(f"up in {time.monotonic() - began:.1f} s", style="dim")
    proof = steps.run(stack, settings, Plan(seed, seconds, rate), _step)
    if as_json:
        print_json(proof.as_json())
    else:
        _show(proof)
        _show_request(proof)
        _show_history()
        _show_end(proof, directory, f"http://{settings.api.host}:{settings.api.port}")
    if proof.problems:
        for problem in proof.problems:
            err.print(Text(f"differs: {problem}", "bold red"))
        raise typer.Exit(1)


class _Shown:
    """A step at the terminal: its latest detail beside a spinner, or nothing until it ends when nobody is looking."""

    def __init__(self, title: str) -> None:
        self.title, self.text, self.began = title, "", time.monotonic()
        self.status = err.status(title) if err.is_terminal else None

    def detail(self, text: str) -> None:
        """Show what the step does now."""
        self.text = text
        if self.status is not None:
            self.status.update(Text.assemble(self.title, (f"  {text}", "dim")))


@contextmanager
def _step(title: str) -> Iterator[_Shown]:
    step = _Shown(title)
    if step.status is not None:
        step.status.start()
    ok = False
    try:
        yield step
        ok = True
    finally:
        if step.status is not None:
            step.status.stop()
        mark = ("✓ ", "green") if ok else ("✗ ", "bold red")
        line = Text.assemble(mark, f"{title:<48}", f"{time.monotonic() - step.began:6.1f} s  ", (step.text, "dim"))
        err.print(line, soft_wrap=True)


def _show(proof: Proof) -> None:
    out.print()
    table = Table(title="Changes by operation", title_justify="left", header_style="bold")
    table.add_column("table")
    for operation in OPERATIONS:
        table.add_column(operation, justify="right")
    for one in proof.tables:
        table.add_row(str(one.name), *(f"{one.by_operation.get(operation, 0):,}" for operation in OPERATIONS))
    shown.print_table(table)
    table = Table(
        title="Final rows: source = mirror = audit topic, by digest of every clear value (hidden ones: mirror = audit topic)",
        title_justify="left",
    )
    for title in ("table", "rows", "source", "mirror", "audit topic", "hidden", ""):
        table.add_column(title, justify="right" if title == "rows" else "left")
    for one in proof.tables:
        rows = {one.source.rows, one.mirror.rows, one.audit.rows}
        verdict = Text("equal", "green") if one.equal else Text("DIFFERENT", "bold red")
        digests = (one.source.digest, one.mirror.digest, one.audit.digest)
        hidden = ", ".join(one.hidden)
        table.add_row(str(one.name), " / ".join(f"{count:,}" for count in sorted(rows)), *digests, hidden, verdict)
    shown.print_table(table)
    table = Table(title="Who did it", title_justify="left", header_style="bold")
    table.add_column("source")
    for rung in RUNGS:
        table.add_column(rung, justify="right")
    for source, counts in proof.attributed.items():
        table.add_row(source, *(f"{counts.get(rung, 0):,}" for rung in RUNGS))
    shown.print_table(table)
    table = Table(title="The hiring funnel, by a processor", title_justify="left", header_style="bold")
    for title in ("stage", "came to it", "mean quality", "days to hire"):
        table.add_column(title, justify="left" if title == "stage" else "right")
    for stage, count, quality, days in proof.funnel:
        table.add_row(stage, f"{count:,}", *("" if one is None else f"{one:,.1f}" for one in (quality, days)))
    shown.print_table(table)
    _show_events(proof)
    said = [f"{count:,} {name}" for name, count in proof.labels.items()]
    left = [f"{count:,} {rule}" for rule, count in proof.stubs.items()]
    out.print(Text(f"labels: {', '.join(said) or 'none'}; left out by the policy: {', '.join(left) or 'nothing'}", "dim"))
    table = Table(title="Commit → queryable, measured by polling (ms)", title_justify="left", header_style="bold")
    for title in ("source", "transactions", "p50", "p99", "max"):
        table.add_column(title, justify="left" if title == "source" else "right")
    for latency in proof.latencies:
        figures = (f"{figure:,.0f}" for figure in (latency.p50_ms, latency.p99_ms, latency.max_ms))
        table.add_row(latency.source, f"{latency.measured:,}", *figures)
    shown.print_table(table)
    out.print(
        Text(f"{proof.commits:,} transactions committed, {proof.rollbacks:,} rolled back (and nowhere to be seen)", "dim")
    )
    table = Table(title="Dead letters", title_justify="left", header_style="bold")
    for title in ("failed (UTC)", "topic", "partition", "offset", "reason", "detail", ""):
        table.add_column(title)
    for letter in proof.dead_letters:
        planted = "planted on purpose" if letter.coordinates == proof.planted else ""
        planted = "sent back, on the trail" if letter.change_since else planted
        place = (shown.instant(letter.failed_at), letter.topic, str(letter.partition), str(letter.offset))
        table.add_row(*place, Text(letter.reason, "red"), Text(letter.detail), planted)
    shown.print_table(table)
    out.print(Text(proof.contract.told, "dim"), soft_wrap=True)


def _show_events(proof: Proof) -> None:
    table = Table(title="Events: published = audit topic = trail, by digest of ids, types and requests", title_justify="left")
    for title in ("application", "sent", "in transactions", "rolled back", "published", "audit topic", "trail", ""):
        table.add_column(title, justify="right" if title in ("sent", "in transactions", "rolled back") else "left")
    for one in proof.events:
        verdict = Text("equal", "green") if one.equal else Text("DIFFERENT", "bold red")
        counts = (f"{count:,}" for count in (one.sent, one.written, one.rolled_back))
        table.add_row(one.source, *counts, one.published.digest, one.audit.digest, one.trail.digest, verdict)
    shown.print_table(table)


def _show_request(proof: Proof) -> None:
    """Changes and events side by side, as `audit_trail` has them."""
    table = Table(title="One request in the trail (its changes at the time of their commit)", title_justify="left")
    for title in ("time (UTC)", "event or change", "of what", "by", "known by", "outcome", "says"):
        table.add_column(title)
    for entry in proof.request:
        event = entry["kind"] == "event"
        key = entry["resource_id"] or ""
        if key and not event:
            key = "/".join(str(part) for part in json.loads(key).values())
        table.add_row(
            shown.instant(entry["time"]).partition(" ")[2],
            Text(entry["type"], "bold") if event else shown.operation(entry["action"]),
            Text(shown.words(f"{entry['resource_type'] or ''} {key}".strip())),
            Text(shown.words(entry["actor_id"] or "")),
            entry["attribution"],
            entry["outcome"] or "",
            Text(shown.words(entry["payload"] or " ".join(entry["labels"]))),
        )
    shown.print_table(table)


def _show_history() -> None:
    from chronicle.cli.history import history
    from chronicle.dev.traffic_shop import STAR

    out.print(Text("\nThe history of one customer", "italic"))
    history("shop.public.customers", str(STAR))


def _show_end(proof: Proof, directory: Path, api: str) -> None:
    out.print()
    if not proof.problems:
        out.print(Text("Everything is equal. It all goes on running; try:", "bold green"))
    prefix = "" if directory == Path(".chronicle") else f"CHRONICLE_CONFIG={directory / 'chronicle.toml'} "
    for line in (*TRY_NEXT, "uv run chronicle api"):
        out.print(Text(f"  {prefix}{line}"), soft_wrap=True)
    if proof.request:
        out.print(Text(f"  and while that runs, from another terminal ({api}/docs says what else):", "dim"), soft_wrap=True)
        out.print(Text(f"  curl '{api}/events?request={proof.request[0]['request_id']}'"), soft_wrap=True)
    where = "" if directory == Path(".chronicle") else f" --dir {directory}"
    out.print(Text(f"  uv run chronicle dev down{where}"), soft_wrap=True)
    sys.stdout.flush()
