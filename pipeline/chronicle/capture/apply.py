"""Brings a source's connector to what its file says, and changes its state: the only module that changes Connect."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit

from chronicle.capture import slots, snapshots, topics
from chronicle.capture.connect import ConnectClient, ConnectorState
from chronicle.capture.database import Unreachable
from chronicle.capture.plan import Plan, plan
from chronicle.capture.render import RenderEnvironment, environment_of, render
from chronicle.capture.sources import Source, load_source
from chronicle.capture.templates import load_template
from chronicle.config import Kafka, Registry
from chronicle.errors import ChronicleError, ConfigError

DEADLINE_S = 120.0
POLL_INTERVAL_S = 0.3
STEADY_POLLS = 4
"""A task that fails at its first contact with the database is RUNNING for a moment: it must stay so for this many polls."""

Report = Callable[[str], None]


def silent(_: str) -> None:
    """A `Report` for callers that show no progress."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """What applying needs beside the source. `environment` resolves `${env:NAME}` when the database is asked directly."""

    connect: ConnectClient
    kafka: Kafka
    registry: Registry
    environment: Mapping[str, str]

    def rendered(self, source: Source) -> dict[str, str]:
        """The complete configuration for this deployment."""
        template = load_template(source.file.parent / "templates", source.template)
        return render(source, template, self.render_environment)

    @property
    def render_environment(self) -> RenderEnvironment:
        return environment_of(self.kafka, self.registry)

    def plan(self, source: Source) -> Plan:
        """What `apply` would do. Changes nothing."""
        return plan(source, self.rendered(source), self.connect.config(source.name))


@dataclass(frozen=True, slots=True)
class Applied:
    """What was done."""

    plan: Plan
    state: str
    snapshot_requested: tuple[str, ...] = ()
    topics_created: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            **self.plan.as_json(),
            "state": self.state,
            "snapshot_requested": list(self.snapshot_requested),
            "topics_created": list(self.topics_created),
            "notes": list(self.notes),
        }


def apply(source: Source, deployment: Deployment, *, report: Report = silent, deadline_s: float = DEADLINE_S) -> Applied:
    """Create or change the connector until it is what the file says, and wait until its task runs.

    May be repeated at any time: a second call finds nothing to do, and a call that was interrupted is completed by the
    next one, a snapshot that failed while nobody looked included. A connector that somebody paused stays paused.

    Raises:
        ConfigError: the file, the template or Connect's own validation refuses.
        TransientError: Connect or Kafka is not reachable.
        ChronicleError: the task failed (its first cause is in the message) or did not run in time.
    """
    wanted = deployment.rendered(source)
    todo = plan(source, wanted, deployment.connect.config(source.name))
    created = tuple(topics.prepare(deployment.kafka, source))
    notes: tuple[str, ...] = ()
    requested: tuple[str, ...] = ()
    since = 0
    before = deployment.connect.state(source.name)
    if before is not None and before.failure and deployment.connect.empty_position(source.name):
        _stop(source.name, deployment.connect, report=report, deadline_s=deadline_s)
        before = deployment.connect.state(source.name)
    paused = before is not None and before.state == "PAUSED" and todo.action in ("none", "update")
    if todo.action == "create":
        report(f"{source.name}: create connector")
        deployment.connect.put(source.name, wanted)
    elif todo.action == "update":
        requested, since = _update(source, deployment, wanted, todo, report=report, deadline_s=deadline_s)
    elif todo.action == "new-epoch":
        notes = _start_over(source, deployment, wanted, report=report, deadline_s=deadline_s)
    if before is not None and not paused and (todo.action != "none" or before.state == "STOPPED"):
        deployment.connect.order(source.name, "resume")
    if paused:
        if todo.action == "update":
            deployment.connect.order(source.name, "pause")
        return Applied(todo, "PAUSED", requested, created, ("it was paused and stays so: `chronicle connectors resume`",))
    if todo.action == "none" and before is not None and before.running:
        requested, notes = _heal(source, deployment, report=report)
        return Applied(todo, before.state, requested, created, notes)
    state = wait_running(source.name, deployment.connect, report=report, deadline_s=deadline_s)
    if requested:
        notes = (*notes, *snapshots.begin(deployment.kafka, source, requested, since=since, report=report))
    return Applied(todo, state.state, requested, created, notes)


def _heal(source: Source, deployment: Deployment, *, report: Report) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Ask again for snapshots that failed while nobody looked; returns their tables, and notes on what did not work."""
    failed = snapshots.failures(deployment.kafka, source)
    tables = tuple(scan.table for scan in failed if scan.reason != snapshots.NO_PRIMARY_KEY)
    notes = snapshots.begin(deployment.kafka, source, tables, report=report) if tables else ()
    return tables, notes


def _stop(name: str, client: ConnectClient, *, report: Report, deadline_s: float) -> None:
    """Stop a connector, and forget that it has no position: stopped in its first moment it would never start again.

    Nothing was captured then, and the next start begins with the snapshot, as the first one did.
    """
    report(f"{name}: stop connector")
    client.order(name, "stop")
    wait_for(name, client, lambda state: state.state == "STOPPED" and not state.tasks, "stop", deadline_s)
    if client.empty_position(name):
        client.forget_offsets(name)


def _update(
    source: Source, deployment: Deployment, wanted: Mapping[str, str], todo: Plan, *, report: Report, deadline_s: float
) -> tuple[tuple[str, ...], int]:
    """Change options; returns the tables that are new, and where answers to the request for their snapshot begin.

    The connector is stopped for it, so that what runs afterwards is certainly the new configuration.
    """
    _refuse_invalid(source, deployment, wanted)
    _stop(source.name, deployment.connect, report=report, deadline_s=deadline_s)
    # Neither is a table of the trail: what their rows say, they say about transactions that are over, or have said.
    added = tuple(table for table in todo.tables_added if table not in source.routed)
    since = 0
    if added:
        since = snapshots.end(deployment.kafka, source)
        # Before the new configuration, so that a crash in between asks twice rather than never.
        report(f"{source.name}: request snapshot of {', '.join(added)}")
        topics.request_snapshot(deployment.kafka, source, added)
    report(f"{source.name}: {len(todo.changes)} options changed")
    deployment.connect.put(source.name, wanted)
    return added, since


def _start_over(
    source: Source, deployment: Deployment, wanted: Mapping[str, str], *, report: Report, deadline_s: float
) -> tuple[str, ...]:
    """Forget the position, drop the slot, and begin with a snapshot under the new epoch. Each step may be repeated."""
    _refuse_invalid(source, deployment, wanted)
    _stop(source.name, deployment.connect, report=report, deadline_s=deadline_s)
    notes: tuple[str, ...] = ()
    if source.kind == "postgres":
        try:
            dropped = slots.drop_slot(source, deployment.environment)
            notes = (f"slot {source.slot} dropped",) if dropped else ()
        except Unreachable as error:
            notes = (f"an old slot, if there is one, was not dropped: {error}",)
    report(f"{source.name}: forget stored position")
    deployment.connect.forget_offsets(source.name)
    report(f"{source.name}: epoch {source.epoch}")
    deployment.connect.put(source.name, wanted)
    return notes


def _refuse_invalid(source: Source, deployment: Deployment, wanted: Mapping[str, str]) -> None:
    """Ask Connect before anything is stopped."""
    problems = deployment.connect.validate(source.name, wanted)
    if problems:
        lines = "\n".join(f"  {option}: {problem}" for option, problem in problems)
        raise ConfigError(f"correct {source.file}, or its template: Connect refuses it; nothing was changed\n{lines}")


def raise_epoch(path: Path) -> Source:
    """Add one to `epoch` in a source file, everything else as it was; returns the source as it is now.

    Raises:
        ConfigError: the file is not right, or the epoch has reached its end (255).
    """
    source = load_source(path)
    if source.epoch >= 255:
        raise ConfigError(f"start a new source instead of {path}: epochs end at 255")
    document = tomlkit.parse(path.read_text(encoding="utf-8"))
    document["epoch"] = source.epoch + 1  # a new key is put before the first section
    path.write_text(tomlkit.dumps(document), encoding="utf-8")
    return load_source(path)


def change_state(
    source: Source, order: str, client: ConnectClient, *, report: Report = silent, deadline_s: float = DEADLINE_S
) -> str:
    """`pause`, `resume` or `restart` a connector and wait until it is so; returns its state.

    Raises:
        ConfigError: there is no such connector.
        ChronicleError: it did not get there in time, or its task failed.
    """
    if client.state(source.name) is None:
        raise ConfigError(f"run `chronicle connectors apply {source.name}`: there is no such connector")
    if order == "pause":
        client.order(source.name, "pause")
        paused = wait_for(
            source.name,
            client,
            lambda state: state.state == "PAUSED" and all(task.state in ("PAUSED", "FAILED") for task in state.tasks),
            "pause",
            deadline_s,
        )
        return paused.state
    if order == "restart":
        # By stop and resume: Connect's own restart answers before anything happened, and RUNNING could be the old task.
        _stop(source.name, client, report=report, deadline_s=deadline_s)
    client.order(source.name, "resume")
    return wait_running(source.name, client, report=report, deadline_s=deadline_s).state


def delete(
    source: Source, deployment: Deployment, *, drop: bool, report: Report = silent, deadline_s: float = DEADLINE_S
) -> list[str]:
    """Remove the connector; with `drop` also its stored position, its slot and publication, and its internal topics.

    Raw topics stay: they hold data. Returns what was removed. May be repeated.

    Raises:
        Unreachable: `drop` was asked and the database cannot be reached; the connector is still there, stopped.
    """
    removed: list[str] = []
    state = deployment.connect.state(source.name)
    if state is not None and drop:
        _stop(source.name, deployment.connect, report=report, deadline_s=deadline_s)
    if drop:
        if source.kind == "postgres":
            if slots.drop_slot(source, deployment.environment):
                removed.append(f"slot {source.slot}")
            if slots.drop_publication(source, deployment.environment):
                removed.append(f"publication {source.publication}")
        if state is not None:
            # A stored position without its slot makes the next connector of this name fail: they go together.
            deployment.connect.forget_offsets(source.name)
            removed.append("stored position")
    if state is not None:
        deployment.connect.delete(source.name)
        removed.append(f"connector {source.name}")
    if drop:
        removed += [f"topic {name}" for name in topics.remove(deployment.kafka, source)]
    return removed


def wait_running(
    name: str, client: ConnectClient, *, report: Report = silent, deadline_s: float = DEADLINE_S
) -> ConnectorState:
    """Wait until the connector's task runs and goes on running.

    Raises:
        ChronicleError: the task failed; the message says the first cause.
    """
    deadline = time.monotonic() + deadline_s
    steady, last = 0, ""
    while True:
        state = client.state(name)
        failure = state.failure if state else None
        if failure:
            raise ChronicleError(f"see `chronicle connectors check {name}`: connector {name} failed\n  {failure}")
        steady = steady + 1 if state is not None and state.running else 0
        if state is not None and steady >= STEADY_POLLS:
            return state
        now = "starting" if state is None else f"{state.state}, {len(state.tasks)} tasks"
        if now != last:
            report(f"{name}: {now}")
            last = now
        if time.monotonic() > deadline:
            raise ChronicleError(f"look into Connect's log: connector {name} is not running after {deadline_s:.0f} s ({now})")
        time.sleep(POLL_INTERVAL_S)


def wait_for(
    name: str, client: ConnectClient, reached: Callable[[ConnectorState], bool], what: str, deadline_s: float = DEADLINE_S
) -> ConnectorState:
    """Wait until the connector's state is as asked. Raises ChronicleError when it does not get there in time."""
    deadline = time.monotonic() + deadline_s
    while True:
        state = client.state(name)
        if state is not None and reached(state):
            return state
        if time.monotonic() > deadline:
            now = "gone" if state is None else state.state
            raise ChronicleError(
                f"look into Connect's log: connector {name} did not {what} within {deadline_s:.0f} s (it is {now})"
            )
        time.sleep(POLL_INTERVAL_S)
