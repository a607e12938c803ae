"""Settings to the live objects of a role's workers, as `wiring` has it for the stream worker."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from chronicle.config import Settings
from chronicle.errors import ConfigError
from chronicle.wiring import check_store, fed

if TYPE_CHECKING:
    from chronicle.engine import Step
    from chronicle.observe import Metrics
    from chronicle.policy.rules import Route
    from chronicle.sinks import Sink
    from chronicle.worker.roles import RoleJob
    from chronicle.worker.status import Status


def role_routes(settings: Settings, name: str) -> tuple[Route, ...]:
    """The routes whose topics a role reads.

    Raises:
        ConfigError: there is no such role, or what it says does not fit the policy.
    """
    from chronicle.policy.rules import Route
    from chronicle.policy_files import read_policy

    role = settings.role(name)
    known = {route.name: route for route in read_policy(settings.policy_file).routes}
    if unknown := [one for one in role.routes if one not in known]:
        there = ", ".join(sorted(known)) or "none"
        raise ConfigError(f"correct roles.{name}.routes: the policy has no route {unknown[0]}; there is {there}")
    if not (role.processors or role.to or role.webhook or role.archive):
        raise ConfigError(f"give roles.{name} something to do: processors, to, webhook or archive")
    routes = tuple(known[one] for one in role.routes)
    delivered = [Route(f"roles.{name}.to", ("#",), role.to)] if role.to else []
    fed(settings.kafka, [*known.values(), *delivered], [one.stem for one in settings.connect.directory.glob("*.toml")])
    if role.to in {route.to for route in routes}:
        raise ConfigError(f"choose another roles.{name}.to: the role reads that topic")
    return routes


def role_sinks(settings: Settings, name: str, routes: Sequence[Route], watch: Status) -> tuple[Sink, ...]:
    """The destinations of a role, those that may refuse a record first. None connects yet.

    Raises:
        ConfigError: the webhook's or the archive's url cannot be.
    """
    from chronicle.policy.rules import Route, RouteFormat
    from chronicle.sinks.archive import ArchiveSink
    from chronicle.sinks.clickhouse import ClickHouseSink
    from chronicle.sinks.letters import LetterSink
    from chronicle.sinks.parts import RoleSink
    from chronicle.sinks.routes import RouteSink
    from chronicle.sinks.webhook import WebhookSink
    from chronicle.stages.deliveries import Router

    role, kafka = settings.role(name), settings.role_kafka(name)
    found: list[Sink] = []
    if role.webhook is not None:
        found.append(WebhookSink(role.webhook, pause=watch.stopping.wait))
    if role.to is not None:
        found.append(RouteSink(kafka, Router([Route(name, ("#",), role.to, format=RouteFormat(role.format))])))
    if role.archive is not None:
        found.append(ArchiveSink(role.archive))
    found.append(RoleSink(ClickHouseSink(settings.clickhouse)))
    letters = {route.to: route.dead_letters for route in routes if route.dead_letters}
    return (*found, LetterSink(kafka, letters))


def build_role(
    settings: Settings,
    metrics: Metrics,
    name: str,
    *,
    accept_gap: bool = False,
    until_drained: bool = False,
    parent: int | None = None,
) -> RoleJob:
    """Everything a process of a role needs.

    Raises:
        ConfigError: the first thing to correct before a start can succeed.
    """
    from chronicle.engine import Engine, Flood
    from chronicle.processors.registry import load
    from chronicle.processors.step import Processing
    from chronicle.stages.receive import Receiving
    from chronicle.worker.role_consumer import Limits, RoleConsumer
    from chronicle.worker.roles import NoSchemas, RoleJob
    from chronicle.worker.status import Status
    from chronicle.worker.topics import Broker

    routes, role, kafka, status = role_routes(settings, name), settings.role(name), settings.role_kafka(name), Status()
    steps: list[Step] = []
    if role.processors:
        processing = Processing(load(role.processors, directory=Path.cwd()))
        metrics.registry.register(processing)
        steps.append(processing)
    check_store(settings)
    engine = Engine(
        Receiving(),
        NoSchemas(),
        role_sinks(settings, name, routes, status),
        watch=status,
        flood=Flood(settings.worker.dead_letter_share_max, settings.worker.dead_letter_rows_min),
        steps=steps,
    )
    topics = (*dict.fromkeys(route.to for route in routes), kafka.retry_topic)
    written = (kafka.dead_letter_topic, role.to, *(route.dead_letters for route in routes))
    limits = Limits(role.batch_rows_max, role.batch_wait_ms / 1000)
    return RoleJob(
        role=name,
        topics=topics,
        retry_topic=kafka.retry_topic,
        needed_topics=tuple(dict.fromkeys((*topics, *filter(None, written)))),
        engine=engine,
        broker=Broker(kafka.client_config()),
        consumer=lambda: RoleConsumer(
            kafka.client_config(), settings.role_group(name), topics, status=status, limits=limits, accept_gap=accept_gap
        ),
        status=status,
        metrics=metrics,
        stall_timeout_s=settings.worker.stall_timeout_s,
        until_drained=until_drained,
        parent=parent,
    )
