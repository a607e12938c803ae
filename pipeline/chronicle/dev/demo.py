"""The whole pipeline on two live databases, step by step, and the proof that nothing was lost, doubled or changed.

Every step may find its work done already: a second run reuses the stack, the databases, the connectors and the worker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from clickhouse_connect.driver.client import Client
from confluent_kafka import Producer

from chronicle import setup
from chronicle.capture.apply import Deployment, apply
from chronicle.capture.connect import ConnectClient
from chronicle.capture.sources import load_sources
from chronicle.config import Settings
from chronicle.dev import demo_contract, demo_events, proof, traffic, traffic_hiring, traffic_shop
from chronicle.dev.demo_contract import ContractProof
from chronicle.dev.demo_result import SOURCES, Proof, TableProof, problems
from chronicle.dev.draining import lag, missing_topics
from chronicle.dev.latency import Poller, latencies
from chronicle.dev.stack import DEFAULT_PARTS, Progress, Stack
from chronicle.dev.worker_part import Worker
from chronicle.errors import ChronicleError, ConfigError
from chronicle.policy.file import Policy
from chronicle.policy.keyring import lacking
from chronicle.policy.rules import CLEAR
from chronicle.policy_files import add_key, read_key_ring, read_policy
from chronicle.sinks.clickhouse_client import connect
from chronicle.trail import changes, letters
from chronicle.trail.changes import Filters
from chronicle.trail.tables import TableName

BAD_TOPIC = "shop.public.customers"
BAD_KEY, BAD_VALUE = b"\x07", b"\x07this was never written by Debezium"
"""Planted on purpose: no converter writes a record that begins with 7."""
DRAIN_DEADLINE_S = 90.0
POLL_INTERVAL_S = 0.2


class Step(Protocol):
    """One step while it runs."""

    def detail(self, text: str) -> None:
        """What it is doing now, or in the end what it did."""


Steps = Callable[[str], AbstractContextManager[Step]]
"""Opens a step by its title; the context shows its progress and time."""


def prepare(stack: Stack, steps: Steps) -> None:
    """Stack and databases: everything that needs no settings file yet.

    Raises:
        StackError: a part could not be started.
        ConfigError: the connector files are not where the command was started.
    """
    if not all(Path("connectors", f"{source}.toml").is_file() for source in SOURCES):
        raise ConfigError("start the demo in Chronicle's own directory: connectors/shop.toml and hiring.toml are not here")
    with steps("start the local stack") as step:

        def told(progress: Progress) -> None:
            step.detail(f"{progress.part} {progress.step} {progress.detail}".rstrip())

        stack.up(report=told)
        step.detail(f"{len(DEFAULT_PARTS)} parts on ports {stack.ports.base} to {stack.ports.base + 7}, in {stack.directory}")
    with steps("create the databases") as step:
        made = {
            "shop": traffic_shop.create(stack.postgres_dsn(), stack.postgres_dsn("shop"), traffic.Plan().seed),
            "hiring": traffic_hiring.create(stack.mariadb_params(), traffic.Plan().seed),
        }
        told_now = [f"{name} {'created' if new else 'is there'}" for name, new in made.items()]
        step.detail("Postgres: {1}, MariaDB: {0}".format(*sorted(told_now)))


def start_pipeline(stack: Stack, settings: Settings, steps: Steps) -> None:
    """Topics and tables, connectors, and a worker that stays."""
    with steps("set up topics, tables, subjects, keys") as step:
        done = setup.run(settings, lambda one: step.detail(f"{one.kind} {one.name} {one.action}"))
        made = sum(one.action != "present" for one in done)
        keys = _make_keys(settings)
        step.detail(f"{made} made, {len(done) - made} there; {keys} keys made for {settings.policy_file}")
    with steps("apply the connectors") as step:
        deployment = Deployment(ConnectClient(settings.connect), settings.kafka, settings.registry, stack.environment)
        sources = load_sources(settings.connect.directory)
        applied = [f"{name} {apply(sources[name], deployment, report=step.detail).plan.action}" for name in SOURCES]
        # the worker looks for new topics now and then; with these there at its start, nothing waits for that
        _wait_topics(settings, step)
        step.detail(", ".join(applied).replace(" none", " unchanged"))
    with steps("start the worker") as step:
        if demo_contract.mended(stack, settings):
            stack.stop(Worker.name)
        stack.up([Worker.name], lambda progress: step.detail(f"{progress.step} {progress.detail}".rstrip()))
        step.detail(f"metrics at http://127.0.0.1:{stack.ports.worker}/metrics, log in {stack.log_file(Worker.name)}")


def _make_keys(settings: Settings) -> int:
    """The keys that the policy needs and the key ring lacks; says how many were made."""
    lacks = lacking(read_policy(settings.policy_file), read_key_ring(settings))
    for one in lacks:
        add_key(settings.key_ring_file, one.id or one.purpose.value, one.purpose, datetime.now(UTC))
    return len(lacks)


def run(stack: Stack, settings: Settings, plan: traffic.Plan, steps: Steps) -> Proof:
    """Traffic on both databases, one bad record, and then the proof."""
    client = connect(settings.clickhouse)
    polling = connect(settings.clickhouse)
    poller = Poller(polling, settings.clickhouse.database)
    told = {source: traffic.Told() for source in SOURCES}
    events = demo_events.Applications(settings, stack.directory / "spill", SOURCES)
    try:
        with steps("wait until what was there before is through") as step:
            _wait_drained(client, settings, stack, step)
        with steps(f"traffic on both databases for {plan.seconds:.0f} s") as step:
            poller.start()
            applications: dict[str, Callable[[], traffic.Application]] = {
                "shop": lambda: traffic_shop.Shop(stack.postgres_dsn("shop"), events.sessions["shop"]),
                "hiring": lambda: traffic_hiring.Hiring(stack.mariadb_params("hiring"), events.sessions["hiring"]),
            }

            def progress(share: float) -> None:
                done = ", ".join(f"{source} {len(one.commits)}" for source, one in told.items())
                step.detail(f"{share:.0%}, commits: {done}; {events.published} events")

            planted = plant(settings)
            traffic.run(applications, plan, told, progress)
            events.close()
            progress(1.0)
        with steps("wait until every change and event is queryable") as step:
            _wait_seen([one.commits[-1] for one in told.values()], poller, step)
            _wait_drained(client, settings, stack, step)
            demo_events.wait(client, settings.clickhouse.database, events)
            _wait_letter(client, settings, planted)
            poller.stop()
        with steps("a contract that the shop does not keep") as step:
            waiting = demo_contract.broken(stack, settings, client, step.detail)
        with steps("the contract corrected, dead letters sent back") as step:
            contract = demo_contract.corrected(stack, settings, client, waiting, step.detail)
        with steps("compare source, mirror, audit topic; events") as step:
            _wait_drained(client, settings, stack, step)
            return _prove(
                _Evidence(
                    stack, settings, client, told, poller.seen, planted, contract, read_policy(settings.policy_file), events
                ),
                step,
            )
    finally:
        events.close()
        poller.end()
        polling.close()
        client.close()


def plant(settings: Settings) -> tuple[str, int, int]:
    """Write one record that no connector would, between good ones; returns its topic, partition and offset."""
    placed: list[tuple[str, int, int]] = []
    producer = Producer(settings.kafka.client_config())
    producer.produce(
        BAD_TOPIC,
        key=BAD_KEY,
        value=BAD_VALUE,
        on_delivery=lambda error, message: (
            placed.append((message.topic() or "", message.partition() or 0, message.offset() or 0)) if error is None else None
        ),
    )
    producer.flush(30)
    if not placed:
        raise ChronicleError("look at the broker's log: it did not take the planted record")
    return placed[0]


def _wait_topics(settings: Settings, step: Step) -> None:
    """The initial snapshot has reached every captured table."""
    deadline = time.monotonic() + DRAIN_DEADLINE_S
    names = [str(name) for name in _tables()]
    while names := missing_topics(settings.kafka, names):
        step.detail(f"waiting for the snapshot of {', '.join(names)}")
        if time.monotonic() > deadline:
            raise ChronicleError(f"look at `chronicle connectors status`: no snapshot of {', '.join(names)}")
        time.sleep(POLL_INTERVAL_S)


def _wait_seen(last: Sequence[traffic.Commit], poller: Poller, step: Step) -> None:
    """The last transaction of each source is queryable; Debezium reads in order of commit, so all others are on their way."""
    deadline = time.monotonic() + DRAIN_DEADLINE_S
    missing = list(last)
    while missing:
        missing = [commit for commit in missing if (commit.source, commit.transaction_id) not in poller.seen]
        step.detail(f"last transaction of {', '.join(commit.source for commit in missing)} is not there yet" if missing else "")
        if time.monotonic() > deadline:
            raise ChronicleError(
                f"look at `chronicle connectors status` and the worker's log: the last transaction of "
                f"{', '.join(commit.source for commit in missing)} is not queryable after {DRAIN_DEADLINE_S:.0f} s"
            )
        time.sleep(POLL_INTERVAL_S)


def _wait_drained(client: Client, settings: Settings, stack: Stack, step: Step) -> None:
    """Connect has read both databases to their end as of now, and the worker has acknowledged every record."""
    deadline = time.monotonic() + DRAIN_DEADLINE_S
    while (behind := lag(settings.kafka, settings.worker.group, SOURCES)) > 0:
        step.detail(f"{behind:,} records to go")
        if time.monotonic() > deadline:
            raise ChronicleError(
                f"look at {stack.log_file(Worker.name)}: {behind:,} records are not processed after {DRAIN_DEADLINE_S:.0f} s"
            )
        time.sleep(POLL_INTERVAL_S)
    total = sum(
        sum(by_operation.values()) for _, by_operation in changes.counts(client, settings.clickhouse.database, Filters())
    )
    step.detail(f"every record processed; {total:,} changes in the trail")


def _wait_letter(client: Client, settings: Settings, planted: tuple[str, int, int]) -> None:
    deadline = time.monotonic() + 30
    topic, partition, offset = planted
    filters = letters.Filters(topic=topic, partition=partition, offset=offset)
    while not letters.letters(client, settings.clickhouse.database, filters, limit=1):
        if time.monotonic() > deadline:
            return  # the proof will say so
        time.sleep(POLL_INTERVAL_S)


@dataclass(frozen=True, slots=True)
class _Evidence:
    """Where the proof looks."""

    stack: Stack
    settings: Settings
    client: Client
    told: Mapping[str, traffic.Told]
    seen: Mapping[tuple[str, str], float]
    planted: tuple[str, int, int]
    contract: ContractProof
    policy: Policy
    events: demo_events.Applications

    def table(self, name: TableName, by_operation: Mapping[str, int], records: Sequence[Mapping[str, Any]]) -> TableProof:
        """Read one table from all three sides."""
        rows = (
            proof.postgres_rows(self.stack.postgres_dsn("shop"), name)
            if name.source == "shop"
            else proof.mariadb_rows(self.stack.mariadb_params("hiring"), name)
        )
        mirrored = proof.mirror_rows(self.client, self.settings.clickhouse.mirror_database, name)
        audited = proof.audit_rows(records, name)
        policy = self.policy.table(name.source, name.schema, name.table, tuple(rows[0]) if rows else (), ())
        # an ignored update reaches the mirror only
        clear = {column for column, one in policy.columns.items() if one.treatment == CLEAR} - policy.ignore
        hidden = tuple(sorted({column for row in mirrored for column in row} - clear - policy.ignore))
        return TableProof(
            name=name,
            by_operation=by_operation,
            source=proof.side(rows, clear),
            mirror=proof.side(mirrored, clear),
            audit=proof.side(audited, clear),
            hidden=hidden,
            hidden_mirror=proof.side(mirrored, hidden),
            hidden_audit=proof.side(audited, hidden),
        )


def _prove(evidence: _Evidence, step: Step) -> Proof:
    database = evidence.settings.clickhouse.database
    audited = proof.audited(evidence.settings.kafka, SOURCES)
    records = [record for record in audited if "operation" in record]
    counted = dict(changes.counts(evidence.client, database, Filters()))
    tables = []
    for name in _tables():
        step.detail(str(name))
        tables.append(evidence.table(name, counted.get(name, {}), records))
    found = letters.letters(evidence.client, database, letters.Filters(), limit=20)
    commits = [commit for one in evidence.told.values() for commit in one.commits]
    rollbacks = sum(one.rollbacks for one in evidence.told.values())
    measured = latencies(commits, evidence.seen)
    step.detail(f"{len(audited):,} audit records, {len(tables)} tables, {sum(table.source.rows for table in tables):,} rows")
    told = _told(evidence.client, database)
    events = demo_events.prove(evidence.client, database, evidence.events, audited)
    request = demo_events.request(evidence.client, database, evidence.events.began)
    unfinished = Proof(
        tables, measured, len(commits), rollbacks, found, evidence.planted, *told, evidence.contract, events, request, ()
    )
    return replace(unfinished, problems=problems(unfinished, _started(commits)))


FUNNEL = """
    SELECT JSONExtractString(said, 'stage') AS stage, count() AS applications,
        round(avg(JSONExtract(said, 'quality_score', 'Nullable(Float64)')), 1) AS quality,
        round(avg(JSONExtract(said, 'time_to_hire_days', 'Nullable(Float64)')), 1) AS days
    FROM (SELECT assumeNotNull(extra) AS said, operation FROM {database:Identifier}.changes FINAL
          WHERE source = 'hiring' AND table = 'applications' AND extra IS NOT NULL AND operation IN ('create', 'update'))
    WHERE stage != JSONExtractString(said, 'previous_stage')
    GROUP BY stage ORDER BY any(JSONExtractInt(said, 'funnel_position')), stage
"""


def _told(
    client: Client, database: str
) -> tuple[dict[str, dict[str, int]], dict[str, int], dict[str, int], list[tuple[str, int, float | None, float | None]]]:
    """Who did it, what it means, what was left out, and the funnel, as counts."""
    parameters = {"database": database}

    def rows(sql: str) -> Sequence[Sequence[Any]]:
        return client.query(sql, parameters=parameters).result_rows

    attributed: dict[str, dict[str, int]] = {source: {} for source in SOURCES}
    for source, rung, count in rows(
        "SELECT source, attribution, count() FROM {database:Identifier}.attributed_changes WHERE operation != 'snapshot' "
        "GROUP BY source, attribution ORDER BY source, attribution"
    ):
        attributed.setdefault(source, {})[rung] = count
    labels = rows(
        "SELECT arrayJoin(labels) AS label, count() FROM {database:Identifier}.changes FINAL GROUP BY label ORDER BY label"
    )
    stubs = rows("SELECT stub, count() FROM {database:Identifier}.changes FINAL WHERE stub != '' GROUP BY stub ORDER BY stub")
    funnel = [(row[0], row[1], row[2], row[3]) for row in rows(FUNNEL)]
    return attributed, {row[0]: row[1] for row in labels}, {row[0]: row[1] for row in stubs}, funnel


def _tables() -> list[TableName]:
    named = [("shop", table) for table in traffic_shop.TABLES] + [("hiring", table) for table in traffic_hiring.TABLES]
    return [TableName(source, *table.split(".")) for source, table in named]


def _started(commits: Sequence[traffic.Commit]) -> datetime:
    return datetime.fromtimestamp(min(commit.returned_at for commit in commits), UTC)
