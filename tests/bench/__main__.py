"""`python -m tests.bench`: every figure of the project, as a table with the machine and as `bench.json`. Never a timed test."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from chronicle.dev.stack import Stack
from tests.bench import api_load, capacity, features, journal_library, latency
from tests.bench.figures import Figures
from tests.bench.meter import machine
from tests.bench.site import Site

PORT_BASE = 28900
WIDTH = 130
RATES = [50.0, 100.0, 500.0, 1000.0]
"""Transactions/s on each of two databases: 100 and 1,000 in all, and 100 and 1,000 on each."""
TARGET_PER_CORE = 50_000
TARGET_FULL_POLICY_PER_CORE = 30_000
TARGET_P99_S = 1.0
TARGET_API_P99_MS = 50.0
TARGET_IMPORT_MS = 50.0
TARGET_RESIDENT_MIB = 1024
PLAIN = {"each": "an insert per event", "take": "an insert per 1,000 events"}
err = Console(stderr=True)


@contextmanager
def running(directory: Path | None) -> Iterator[Stack]:
    """The named stack as it is, or one of its own, removed afterwards."""
    if directory is not None:
        yield Stack(directory)
        return
    own = Stack(Path(tempfile.gettempdir(), f"chronicle-bench-{os.getuid()}-{PORT_BASE}"), PORT_BASE)
    own.reset()
    try:
        own.up()
        yield own
    finally:
        own.reset()


def add_capacity(figures: Figures, stack: Stack, tables: int, rows: int) -> None:
    """One backlog, one worker."""
    err.print(f"capacity: {rows:,} changes over {tables} tables")
    backlog, drained = capacity.measure(stack, f"{os.getpid()}_{tables}", tables=tables, changes=rows, seed=figures.seed)
    growth = drained.last_quarter_mib / drained.second_quarter_mib

    def add(what: str, value: float, unit: str, note: str, ratio: float | None = None) -> None:
        figures.add(f"capacity.{tables}_tables.{what}", value, unit, ratio=ratio, note=note)

    add("changes_per_core", drained.per_core_s, "changes/s", "ratio: to 50,000", drained.per_core_s / TARGET_PER_CORE)
    add("worker_cpu", drained.worker_us, "us/change", f"all threads; {backlog.mean_bytes:.0f} bytes a change")
    add("clickhouse_cpu", drained.clickhouse_us, "us/change", "its own process, merges included")
    add("wall", rows / drained.wall_s, "changes/s", "with everything on the same cores")
    add("start_cpu", drained.start_s, "s", "before the first change")
    add("resident_peak", drained.peak_mib, "MiB", "ratio: to 1 GiB", drained.peak_mib / TARGET_RESIDENT_MIB)
    add("resident_last_quarter", drained.last_quarter_mib, "MiB", "ratio: to the second quarter", growth)


def add_features(figures: Figures, stack: Stack, rows: int, repeats: int) -> None:
    """The full policy, and what each of its features costs."""
    steps = len(features.STEPS)
    err.print(f"features: {rows:,} changes over {features.TABLES} tables, {steps} steps, each {repeats} times")
    backlog, found = features.measure(stack, f"{os.getpid()}_features", changes=rows, seed=figures.seed, repeats=repeats)
    for one in found:
        note = f"{one.step.adds}; ClickHouse {one.drained.clickhouse_us:.1f}"
        figures.add(f"features.{one.step.name}.worker_cpu", one.drained.worker_us, "us/change", note=note)
    for one in found:
        if one.added_us is not None:
            share = one.added_us / found[0].drained.worker_us
            figures.add(
                f"features.{one.step.name}.adds", one.added_us, "us/change", ratio=share, note="ratio: to the spine alone"
            )
    full = found[-1].drained
    figures.add(
        "features.full_policy.changes_per_core",
        full.per_core_s,
        "changes/s",
        ratio=full.per_core_s / TARGET_FULL_POLICY_PER_CORE,
        note=f"ratio: to 30,000; {backlog.mean_bytes:.0f} bytes a change, all sinks on",
    )
    figures.add("features.full_policy.resident_peak", full.peak_mib, "MiB")
    figures.add(
        "features.full_policy.attributed_at_once", found[-1].attributed, "share", note="the others: pending, later in the view"
    )


def add_plain(figures: Figures, stack: Stack, rows: int) -> None:
    """The same kind of backlog through a plain agent, as a ratio to the worker."""
    worker = figures.value("capacity.20_tables.worker_cpu")
    with tempfile.TemporaryDirectory(prefix="chronicle-bench-") as directory:
        site = Site(stack, f"{os.getpid()}_plain", Path(directory))
        try:
            backlog = capacity.fill(site, tables=20, changes=rows, partitions=4, seed=figures.seed)
            for way, note in PLAIN.items():
                # the literal one is so slow that a part of the backlog has to do
                wanted = rows // 10 if way == "each" else rows * 8 // 10
                err.print(f"plain agent: {wanted:,} events, {note}")
                cost = capacity.plain_agent(site, backlog, wanted, way)
                figures.add(
                    f"plain_faust.{way}",
                    cost,
                    "us/change",
                    ratio=cost / worker if worker else None,
                    note=f"{note}; ratio: to the worker",
                )
        finally:
            site.close()


def add_latency(figures: Figures, stack: Stack, seconds: float) -> None:
    """Commit → queryable."""
    err.print(f"latency: {', '.join(f'{rate:,.0f}' for rate in RATES)} transactions/s on each database, {seconds:.0f} s each")
    for rate, found in latency.measure(stack, f"{os.getpid()}_latency", RATES, seconds).items():
        for item in found:
            name, note = f"latency.{rate:.0f}_per_s_each.{item.kind}", f"{item.rows:,} rows at {item.rate:,.0f}/s"
            figures.add(f"{name}.p50", item.p50_s * 1000, "ms", note=note)
            figures.add(f"{name}.p99", item.p99_s * 1000, "ms", ratio=item.p99_s / TARGET_P99_S, note=f"ratio: to 1 s; {note}")
            figures.add(f"{name}.max", item.max_s * 1000, "ms", note=note)


def add_api(figures: Figures, stack: Stack, seconds: float) -> None:
    """Events over HTTP: as many as can be, and how long each takes at half of the target."""
    err.print(f"api: single events and batches of {api_load.BATCH}, {seconds:.0f} s each")
    targets = {1: api_load.SINGLES_PER_S, api_load.BATCH: api_load.BATCHED_PER_S}
    for load in api_load.measure(stack, f"{os.getpid()}_api", seconds=seconds):
        name = "api.single" if load.batch == 1 else f"api.batches_of_{load.batch}"
        note = f"service CPU {load.cpu_us:.0f} us/event, {load.failed} requests refused; one process, h2load beside it"
        if load.wanted_per_s is None:
            target = targets[load.batch]
            figures.add(
                f"{name}.most",
                load.events_per_s,
                "events/s",
                ratio=load.events_per_s / target,
                note=f"ratio: to {target:,}; {note}",
            )
            continue
        at = f"{name}.at_{load.wanted_per_s:.0f}_per_s"
        figures.add(f"{at}.p50", load.p50_ms, "ms", note=f"{load.events_per_s:,.0f} events/s")
        figures.add(f"{at}.p99", load.p99_ms, "ms", ratio=load.p99_ms / TARGET_API_P99_MS, note=f"ratio: to 50 ms; {note}")


def add_journal(figures: Figures) -> None:
    """What the library costs an application."""
    err.print("journal: import and publish")
    start, event = journal_library.measure_import(), journal_library.measure_publish()
    note = f"wall, above `python -c pass`; ratio: to 50 ms; CPU {start.import_cpu_ms:.0f} ms"
    figures.add("journal.import", start.import_ms, "ms", ratio=start.import_ms / TARGET_IMPORT_MS, note=note)
    figures.add("journal.first_event", start.first_event_ms, "ms", note="import, first event and its confirmation")
    figures.add("journal.publish", event.publish_us, "us/event", note="CPU of the calling thread, protection on, to memory")
    figures.add("journal.publish_all_threads", event.all_threads_us, "us/event")


def main(
    rows: Annotated[int, typer.Option(help="Changes in the backlog.")] = 500_000,
    plain_rows: Annotated[int, typer.Option(help="Changes in the plain agent's backlog.")] = 50_000,
    feature_rows: Annotated[int, typer.Option(help="Changes in the backlog that features are measured on.")] = 200_000,
    repeats: Annotated[int, typer.Option(help="How often each step of the features is drained; the cheapest counts.")] = 2,
    seconds: Annotated[float, typer.Option(help="How long each rate is written at.")] = 20.0,
    seed: Annotated[int, typer.Option(help="Equal seeds make equal backlogs.")] = 1,
    only: Annotated[str, typer.Option(help="Parts, by commas.")] = "capacity,features,plain,latency,api,journal",
    tables: Annotated[str, typer.Option(help="Numbers of tables, by commas.")] = "20,1,200",
    stack: Annotated[Path | None, typer.Option(help="Directory of a running stack; default: one of its own.")] = None,
    output: Annotated[Path, typer.Option(help="Where the JSON goes.")] = Path("bench.json"),
) -> None:
    """Measure, print a table, write the JSON. Example: python -m tests.bench --rows 50000 --only capacity --tables 20"""
    parts = set(only.split(","))
    if "api" in parts:
        api_load.need_generator()  # before anything that takes long
    figures = Figures(seed, machine())
    with running(stack) as live:
        if "capacity" in parts:
            for number in tables.split(","):
                add_capacity(figures, live, int(number), rows)
        if "features" in parts:
            add_features(figures, live, feature_rows, repeats)
        if "plain" in parts:
            add_plain(figures, live, plain_rows)
        if "latency" in parts:
            add_latency(figures, live, seconds)
        if "api" in parts:
            add_api(figures, live, seconds)
        if "journal" in parts:
            add_journal(figures)
    figures.show(Console() if sys.stdout.isatty() else Console(width=WIDTH))
    figures.write(output)


if __name__ == "__main__":
    typer.run(main)
