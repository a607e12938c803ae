"""Settings to live objects: the only place where constructors of the worker's parts are called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from chronicle.config import Settings
from chronicle.errors import ConfigError, TransientError

if TYPE_CHECKING:
    from chronicle.capture.sources import Source
    from chronicle.engine import Engine, Step
    from chronicle.model.batch import Batch
    from chronicle.model.chunk import SourceSpec
    from chronicle.observe import Metrics
    from chronicle.policy.file import Policy
    from chronicle.sinks import Sink
    from chronicle.stages.table_plan import Rules
    from chronicle.worker.follower import Follower
    from chronicle.worker.run import Job
    from chronicle.worker.status import Status

CONNECTORS = {"postgres": "postgresql", "mysql": "mysql", "mariadb": "mariadb"}
"""A template's kind → `source.connector` in Debezium's records."""


def sources(settings: Settings) -> tuple[SourceSpec, ...]:
    """What the pure path must know of every source: also of those whose topics this worker does not read, because dead
    letters that were sent back may come from any.

    Raises:
        ConfigError: there is no source.
    """
    from chronicle.capture.sources import load_sources

    found = load_sources(settings.connect.directory)
    if not found:
        raise ConfigError(f"write a source file first: there is no <source>.toml in {settings.connect.directory}")
    return tuple(spec(found[name]) for name in sorted(found))


def prefixes(settings: Settings, specs: Sequence[SourceSpec]) -> tuple[str, ...]:
    """The sources whose topics the worker reads: those of `worker.sources`, else all of `specs`.

    Raises:
        ConfigError: a named one has no file.
    """
    found = [each.name for each in specs]
    unknown = [name for name in settings.worker.sources if name not in found]
    if unknown:
        raise ConfigError(
            f"correct worker.sources (or --sources): no file in {settings.connect.directory} for {', '.join(unknown)}; "
            f"there are {', '.join(found)}"
        )
    return settings.worker.sources or tuple(found)


def spec(source: Source) -> SourceSpec:
    """A source file as the pure path sees it."""
    from chronicle.model.chunk import SourceSpec

    found = SourceSpec(
        name=source.name,
        connector=CONNECTORS[source.kind],
        epoch=source.epoch,
        full_identity=full_identity(source),
        keyless=frozenset(source.keyless),
        signal_tables=frozenset({source.signal_table.partition(".")[2]}),
        context_tables=frozenset({source.context_table.partition(".")[2]} if source.context_table else ()),
    )
    placeholder = source.unavailable_value_placeholder
    return found if placeholder is None else replace(found, unavailable_value_placeholder=placeholder)


def full_identity(source: Source) -> frozenset[str] | None:
    """Tables whose old rows arrive whole: all of MySQL's and MariaDB's (full row images), on Postgres those named."""
    if source.kind != "postgres":
        return None
    return frozenset(source.full_identity)


def sinks(settings: Settings) -> tuple[Sink, ...]:
    """ClickHouse first: what is queryable soonest; then the audit and dead-letter topics. None connects yet."""
    from chronicle.sinks.clickhouse import ClickHouseSink
    from chronicle.sinks.kafka import KafkaSink

    return (ClickHouseSink(settings.clickhouse), KafkaSink(settings.kafka))


def build_engine(
    settings: Settings,
    specs: Sequence[SourceSpec],
    watch: Status,
    *,
    rules: Rules,
    guards: tuple[Callable[[Batch], None], ...] = (),
    steps: tuple[Step, ...] = (),
    failpoint: Callable[[str], None] = lambda _name: None,
) -> Engine:
    """The engine over the real path, registry and sinks."""
    from chronicle.engine import Engine, Flood
    from chronicle.model.dead_letters import Limits
    from chronicle.registry import Registry
    from chronicle.setup import identity_key
    from chronicle.sinks.kafka import RECORD_BYTES_MAX
    from chronicle.stages.path import Path

    limits = Limits(record=settings.worker.record_bytes_max, audit=RECORD_BYTES_MAX)
    return Engine(
        Path(specs, identity_key(settings), rules, limits),
        Registry(settings.registry, watch.stopping),
        sinks(settings),
        watch=watch,
        flood=Flood(settings.worker.dead_letter_share_max, settings.worker.dead_letter_rows_min),
        guards=guards,
        failpoint=failpoint,
        steps=steps,
    )


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


def build_worker(settings: Settings, metrics: Metrics, *, until_drained: bool = False) -> Job:
    """Everything a worker process needs.

    Raises:
        ConfigError: the first thing to correct before a start can succeed.
    """
    from chronicle.worker.attributing import Attributing
    from chronicle.worker.failpoint import Failpoint
    from chronicle.worker.order import PositionGuard
    from chronicle.worker.run import Job
    from chronicle.worker.status import Status
    from chronicle.worker.topics import Broker

    specs = sources(settings)
    read = prefixes(settings, specs)
    status = Status()
    failpoint = Failpoint(settings.worker.failpoint)
    guard = PositionGuard(accept=settings.worker.accept_gap, warn=metrics.warn)
    policy = rules(settings)
    follower = build_follower(settings, specs, policy, status)
    metrics.registry.register(follower)
    steps = (Attributing(follower, wait_ms=settings.worker.attribution_wait_ms),)
    engine = build_engine(settings, specs, status, rules=policy, guards=(guard,), steps=steps, failpoint=failpoint)
    check(settings, specs, policy.policy)
    kafka = settings.kafka
    return Job(
        kafka=kafka,
        worker=settings.worker,
        engine=engine,
        broker=Broker(kafka.client_config()),
        status=status,
        metrics=metrics,
        sources=read,
        needed_topics=(kafka.audit_topic, kafka.dead_letter_topic, kafka.retry_topic),
        failpoint=failpoint,
        follower=follower,
        until_drained=until_drained,
    )


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
    from chronicle.registry import Registry
    from chronicle.sinks import migrations
    from chronicle.sinks.clickhouse_client import connect

    with suppress(TransientError):
        client = connect(settings.clickhouse)
        try:
            migrations.check(client, settings.clickhouse)
        finally:
            client.close()
    registry = Registry(settings.registry)
    try:
        with suppress(TransientError):
            registry.check()
            if wrong := misfits(policy, captured(settings, specs)):
                told = "; ".join(f"{one.where}: {one.what}" for one in wrong[:5])
                raise ConfigError(f"correct {policy.name} (see `chronicle policy check`): {told}")
    finally:
        registry.close()
