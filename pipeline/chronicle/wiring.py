"""Settings to live objects: the only place where constructors of the worker's parts are called."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from chronicle.config import Kafka, Settings
from chronicle.errors import ConfigError, TransientError

if TYPE_CHECKING:
    from chronicle.capture.sources import Source
    from chronicle.engine import Engine, Step
    from chronicle.model.batch import Batch
    from chronicle.model.chunk import SourceSpec
    from chronicle.observe import Metrics
    from chronicle.policy.file import Policy
    from chronicle.policy.rules import Route
    from chronicle.processors.step import Processing
    from chronicle.reprocess import Retracting
    from chronicle.sinks import Sink
    from chronicle.stages.events import EventRules
    from chronicle.stages.table_plan import Rules
    from chronicle.worker.entities import EntityFollower
    from chronicle.worker.follower import Follower
    from chronicle.worker.run import Job
    from chronicle.worker.status import Status

EVENTS = "events"
"""Stands in `worker.sources` (`--sources`) for what applications say themselves; no source may be named so."""
CONNECTORS = {"postgres": "postgresql", "mysql": "mysql", "mariadb": "mariadb"}
"""A template's kind → `source.connector` in Debezium's records."""


def sources(settings: Settings) -> tuple[SourceSpec, ...]:
    """As `any_sources`, for what makes no sense without a source.

    Raises:
        ConfigError: there is no source.
    """
    found = any_sources(settings)
    if not found:
        raise ConfigError(f"write a source file first: there is no <source>.toml in {settings.connect.directory}")
    return found


def any_sources(settings: Settings) -> tuple[SourceSpec, ...]:
    """What the pure path must know of every source: also of those whose topics this worker does not read, because dead
    letters that were sent back may come from any. None in a deployment with events alone."""
    from chronicle.capture.sources import load_sources

    found = load_sources(settings.connect.directory)
    return tuple(spec(found[name]) for name in sorted(found))


def prefixes(settings: Settings, specs: Sequence[SourceSpec]) -> tuple[tuple[str, ...], bool]:
    """The sources whose topics the worker reads, and whether it reads events: those of `worker.sources`, else all of `specs`
    and events.

    Raises:
        ConfigError: a named one has no file.
    """
    found, named = [each.name for each in specs], settings.worker.sources
    if not named:
        return tuple(found), True
    unknown = [name for name in named if name not in (*found, EVENTS)]
    if unknown:
        raise ConfigError(
            f"correct worker.sources (or --sources): no file in {settings.connect.directory} for {', '.join(unknown)}; "
            f"there are {', '.join((*found, EVENTS))}"
        )
    return tuple(name for name in named if name != EVENTS), EVENTS in named


def spec(source: Source) -> SourceSpec:
    """A source file as the pure path sees it."""
    from chronicle.model.chunk import SourceSpec

    found = SourceSpec(
        name=source.name,
        connector=CONNECTORS[source.kind],
        epoch=source.epoch,
        full_identity=full_identity(source),
        keyless=frozenset(source.keyless),
        signal_tables=frozenset(one.partition(".")[2] for one in (source.signal_table, source.outbox_table) if one is not None),
        context_tables=frozenset({source.context_table.partition(".")[2]} if source.context_table else ()),
    )
    placeholder = source.unavailable_value_placeholder
    return found if placeholder is None else replace(found, unavailable_value_placeholder=placeholder)


def full_identity(source: Source) -> frozenset[str] | None:
    """Tables whose old rows arrive whole: all of MySQL's and MariaDB's (full row images), on Postgres those named."""
    if source.kind != "postgres":
        return None
    return frozenset(source.full_identity)


def sinks(settings: Settings, routes: Sequence[Route] = ()) -> tuple[Sink, ...]:
    """ClickHouse first: what is queryable soonest; then the audit and dead-letter topics, then routes. None connects yet."""
    from chronicle.sinks.clickhouse import ClickHouseSink
    from chronicle.sinks.kafka import KafkaSink
    from chronicle.sinks.routes import RouteSink
    from chronicle.stages.deliveries import Router

    first = (ClickHouseSink(settings.clickhouse), KafkaSink(settings.kafka))
    return (*first, RouteSink(settings.kafka, Router(routes))) if routes else first


def fed(kafka: Kafka, routes: Sequence[Route], sources: Iterable[str]) -> tuple[str, ...]:
    """The topics that routes feed. `sources`: names of those that there are.

    Raises:
        ConfigError: one of them is read or written by Chronicle itself: a change would go in circles.
    """
    names = [f"{name}." for name in sources]
    own = {kafka.audit_topic, kafka.dead_letter_topic, kafka.retry_topic, kafka.entities_topic, kafka.events_topic}
    names.append(f"{kafka.events_topic}.")
    for route in routes:
        for topic in filter(None, (route.to, route.dead_letters)):
            if topic in own or topic.startswith(tuple(names)):
                raise ConfigError(f"choose another topic for route {route.name}: {topic} is one of Chronicle's own")
    return tuple(sorted({route.to for route in routes}))


def build_engine(
    settings: Settings,
    specs: Sequence[SourceSpec],
    watch: Status,
    *,
    rules: Rules,
    guards: tuple[Callable[[Batch], None], ...] = (),
    steps: tuple[Step, ...] = (),
    into: tuple[Sink, ...] | None = None,
    failpoint: Callable[[str], None] = lambda _name: None,
) -> Engine:
    """The engine over the real path, registry and sinks (`into`: other ones)."""
    from chronicle.engine import Engine, Flood
    from chronicle.model.dead_letters import Limits
    from chronicle.registry import Registry
    from chronicle.setup import identity_key
    from chronicle.sinks.kafka import RECORD_BYTES_MAX
    from chronicle.stages.path import Path

    limits = Limits(record=settings.worker.record_bytes_max, audit=RECORD_BYTES_MAX)
    events = event_rules(settings)
    return Engine(
        Path(specs, identity_key(settings), rules, limits, events=events),
        Registry(settings.registry, watch.stopping),
        sinks(settings, rules.policy.routes) if into is None else into,
        watch=watch,
        flood=Flood(settings.worker.dead_letter_share_max, settings.worker.dead_letter_rows_min, events.about),
        guards=guards,
        failpoint=failpoint,
        steps=steps,
    )


def event_rules(settings: Settings) -> EventRules:
    """Which topics hold events, and the types that the deployment knows.

    Raises:
        ConfigError: a schema of an event type cannot be read.
    """
    from chronicle.schema_files import event_types
    from chronicle.stages.events import EventRules

    return EventRules(settings.kafka.events_topic, settings.events.mode == "strict", event_types(settings.schemas_dir))


def rules(settings: Settings) -> Rules:
    """The policy in force, with its keys.

    Raises:
        ConfigError: there is none, something in it is wrong, or it needs a key that is not there.
    """
    import secrets

    from chronicle.policy_files import read_key_ring, read_policy
    from chronicle.schema_files import contracts
    from chronicle.setup import identity_key
    from chronicle.stages.table_plan import compiled

    policy, ring = read_policy(settings.policy_file), read_key_ring(settings)
    found = contracts(settings.schemas_dir)
    return compiled(policy, ring, identity_key(settings), nonce=secrets.token_hex(16), contracts=found)


def build_entity_follower(settings: Settings) -> EntityFollower:
    """What follows the reference data; not started."""
    from chronicle.sinks.entities import EntityTable
    from chronicle.worker.entities import Bounds, EntityFollower
    from chronicle.worker.entity_log import EntityLog

    bounds = Bounds(settings.worker.entities_max, settings.worker.entities_bytes_max)
    return EntityFollower(EntityLog(settings.kafka), bounds, table=EntityTable(settings.clickhouse))


def build_worker(settings: Settings, metrics: Metrics, *, until_drained: bool = False) -> Job:
    """Everything a worker process needs.

    Raises:
        ConfigError: the first thing to correct before a start can succeed.
    """
    from chronicle.worker.failpoint import Failpoint
    from chronicle.worker.order import PositionGuard
    from chronicle.worker.requesting import Requesting
    from chronicle.worker.run import Job
    from chronicle.worker.status import Status
    from chronicle.worker.topics import Broker

    specs = any_sources(settings)
    read, events = prefixes(settings, specs)
    if not specs:
        metrics.warn(f"no <source>.toml in {settings.connect.directory}: this worker reads events alone")
    status = Status()
    failpoint = Failpoint(settings.worker.failpoint)
    guard = PositionGuard(accept=settings.worker.accept_gap, warn=metrics.warn)
    policy = rules(settings)
    follower = build_follower(settings, specs, policy, status)
    processing = build_processing(settings)
    policy = replace(policy, granted=processing.granted, keep_whole=policy.policy.requests.snapshots)
    entities = build_entity_follower(settings)
    done = steps(settings, policy, follower, entities, processing)
    for collector in (follower, processing):
        metrics.registry.register(collector)
    for step in done:
        if isinstance(step, Requesting):
            metrics.registry.register(step)
    routed = fed(settings.kafka, policy.policy.routes, [one.name for one in specs])
    engine = build_engine(settings, specs, status, rules=policy, guards=(guard,), steps=done, failpoint=failpoint)
    check(settings, specs, policy.policy)
    kafka = settings.kafka
    broker = Broker(kafka.client_config())
    if kafka.security_protocol != "PLAINTEXT":
        with suppress(TransientError):
            broker.require_group(settings.worker.group)
    return Job(
        kafka=kafka,
        worker=settings.worker,
        engine=engine,
        broker=broker,
        status=status,
        metrics=metrics,
        sources=read,
        events_topic=kafka.events_topic if events else None,
        needed_topics=(*own_topics(kafka, events=events), *routed),
        failpoint=failpoint,
        follower=follower,
        entities=entities,
        until_drained=until_drained,
    )


def own_topics(kafka: Kafka, *, events: bool) -> tuple[str, ...]:
    """Chronicle's topics without which a worker does not start. `events`: it reads what applications say."""
    needed = (kafka.audit_topic, kafka.dead_letter_topic, kafka.retry_topic, kafka.entities_topic)
    return (*needed, kafka.events_topic) if events else needed


def build_processing(settings: Settings) -> Processing:
    """The processors of the settings, as a step."""
    from chronicle.processors.registry import load
    from chronicle.processors.step import Processing

    return Processing(load(settings.processors, directory=Path.cwd()))


def steps(
    settings: Settings, policy: Rules, follower: Follower, entities: EntityFollower, processing: Processing
) -> tuple[Step, ...]:
    """What is done to each batch between the path and the sinks, in a worker and when changes are processed again."""
    from chronicle.sinks.policies import Recording
    from chronicle.stages.enrich import Enriching
    from chronicle.worker.attributing import Attributing
    from chronicle.worker.requesting import Requesting

    return (
        Recording(settings.clickhouse, policy.policy, policy.policy.text),
        Attributing(follower, wait_ms=settings.worker.attribution_wait_ms),
        Enriching(entities),
        Requesting(follower, policy.policy, wait_ms=settings.worker.attribution_wait_ms),
        processing,
    )


@dataclass(frozen=True)
class Reprocessing:
    """What processes recorded changes again."""

    engine: Engine
    follower: Follower | None
    entities: EntityFollower | None
    retracting: Retracting | None

    def need_from(self, timestamp_ms: int) -> None:
        """From when on contexts are needed (milliseconds since 1970)."""
        if self.follower is not None:
            self.follower.need_from(timestamp_ms)

    def retracted(self) -> int:
        """Audit records that were taken back."""
        return 0 if self.retracting is None else self.retracting.sent

    def close(self) -> None:
        """Give back threads and connections."""
        if self.follower is not None:
            self.follower.close()
        if self.entities is not None:
            self.entities.close()
        self.engine.close()


def build_reprocessing(
    settings: Settings, specs: Sequence[SourceSpec], policy: Rules, watch: Status, *, dry_run: bool
) -> Reprocessing:
    """The worker's engine with its steps and sinks, and one that takes audit records back; in a dry run neither."""
    from chronicle.reprocess import Nowhere, Retracting

    if dry_run:
        return Reprocessing(build_engine(settings, specs, watch, rules=policy, into=(Nowhere(),)), None, None, None)
    processing = build_processing(settings)
    policy = replace(policy, granted=processing.granted, keep_whole=policy.policy.requests.snapshots)
    follower, retracting = build_follower(settings, specs, policy, watch), Retracting(settings.kafka)
    entities = build_entity_follower(settings)
    entities.start()
    into, done = (*sinks(settings), retracting), steps(settings, policy, follower, entities, processing)
    engine = build_engine(settings, specs, watch, rules=policy, steps=done, into=into)
    return Reprocessing(engine, follower, entities, retracting)


def build_follower(settings: Settings, specs: Sequence[SourceSpec], policy: Rules, watch: Status) -> Follower:
    """What reads the transaction topics of all sources; with a path and a registry of its own, for its own thread."""
    from chronicle.registry import Registry
    from chronicle.setup import identity_key
    from chronicle.stages.path import Path
    from chronicle.worker.follower import Follower
    from chronicle.worker.transaction_log import TransactionLog

    return Follower(
        TransactionLog(settings.kafka, [spec.name for spec in specs]),
        Path(specs, identity_key(settings), policy),
        Registry(settings.registry, watch.stopping),
    )


def check(settings: Settings, specs: Sequence[SourceSpec], policy: Policy) -> None:
    """Ask the services what only a start would show. One that is away is not asked: the worker waits for it.

    Raises:
        ConfigError: `chronicle setup` was not run, a service refuses our credentials, or the policy does not fit the tables.
    """
    from chronicle.captured_tables import captured, misfits
    from chronicle.refusals import turned_away
    from chronicle.registry import Registry

    if wrong := turned_away(settings.kafka.client_config()):
        raise wrong
    check_store(settings)
    registry = Registry(settings.registry)
    try:
        with suppress(TransientError):
            registry.check()
            if found := misfits(policy, captured(settings, specs)):
                told = "; ".join(f"{one.where}: {one.what}" for one in found[:5])
                raise ConfigError(f"correct {policy.name} (see `chronicle policy check`): {told}")
    finally:
        registry.close()


def check_store(settings: Settings) -> None:
    """As `check`, of ClickHouse alone."""
    from chronicle.sinks import migrations
    from chronicle.sinks.clickhouse_client import connect

    with suppress(TransientError):
        client = connect(settings.clickhouse)
        try:
            migrations.check(client, settings.clickhouse)
        finally:
            client.close()
