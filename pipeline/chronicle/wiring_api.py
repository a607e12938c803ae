"""Settings to the live HTTP service: the only place where the constructors of its parts are called."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from chronicle.config import Kafka, Settings
from chronicle.errors import ConfigError, TransientError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi import FastAPI

    from chronicle.api.keys import Keys
    from chronicle.api.metrics import ApiMetrics
    from chronicle.api.parts import EntityWriter, Parts, Publisher
    from chronicle.codec.entity import Entity
    from chronicle.events.event import Event
    from chronicle.trail.store import Store

MEMORY_BYTES_MAX = 2 * 1024 * 1024 * 1024
"""Of one question, at the store."""


class KafkaEntities:
    """Implements `api.parts.EntityWriter` over the compacted topic."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka

    def put(self, entities: Sequence[Entity]) -> None:
        """As `chronicle.entities.put`."""
        from chronicle import entities as reference_data

        reference_data.put(self._kafka, entities)

    def delete(self, ids: Sequence[str]) -> None:
        """As `chronicle.entities.delete`."""
        from chronicle import entities as reference_data

        reference_data.delete(self._kafka, ids)


def application() -> FastAPI:
    """The service of the settings, for a server's process.

    Raises:
        ConfigError: the first thing to correct before a start can succeed.
    """
    from chronicle import config
    from chronicle.api.app import create
    from chronicle.observe import configure_logging

    settings = config.load()
    configure_logging(settings.worker.log_level)
    made = create(build_api(settings))
    # what is here stays; a collection of all of it would stand in the way of a request
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    return made


def build_api(settings: Settings) -> Parts:
    """Parts over Kafka, a spill and ClickHouse; nothing is opened yet.

    Raises:
        ConfigError: the broker does not let us in; one that is away is what the spill is for.
    """
    from chronicle.api.metrics import ApiMetrics
    from chronicle.api.publisher import KafkaPublisher, Route
    from chronicle.api.recovery import Spills
    from chronicle.refusals import turned_away

    if wrong := turned_away(settings.kafka.client_config()):
        raise wrong
    api = settings.api
    metrics = ApiMetrics(shared=api.workers > 1)
    spills = None if api.spill_directory is None else Spills(api.spill_directory, api.spill_bytes_max)
    publisher = KafkaPublisher(settings.kafka, Route(settings.kafka.events_topic, api.confirm_timeout_s), spills)
    metrics.gauges["chronicle_api_spilled"] = ("Events that wait for the broker.", lambda: float(publisher.spilled))
    metrics.gauges["chronicle_api_spilled_bytes"] = ("Bytes of the spill.", lambda: float(publisher.spilled_bytes))
    store = connecting(settings)
    return parts(settings, publisher=publisher, store=store, entities=KafkaEntities(settings.kafka), metrics=metrics)


def parts(settings: Settings, *, publisher: Publisher, store: Store, entities: EntityWriter, metrics: ApiMetrics) -> Parts:
    """Parts with these; everything else follows from the settings.

    Raises:
        ConfigError: something in `[api]` is wrong.
    """
    from chronicle.api.access import Limits, Role
    from chronicle.api.gate import is_loopback
    from chronicle.api.limits import Sizes
    from chronicle.api.parts import Parts, ReadLimits
    from chronicle.api.tokens import Oidc, Tokens
    from chronicle.trail.store import Bounded

    api = settings.api
    tokens = None
    if api.oidc_issuer is not None:
        oidc = Oidc(
            api.oidc_issuer,
            api.oidc_audience,
            api.oidc_jwks_url,
            api.oidc_algorithms,
            api.oidc_roles_claim,
            api.oidc_tenants_claim,
        )
        tokens = Tokens(oidc, time.monotonic)
    return Parts(
        database=settings.clickhouse.database,
        publisher=publisher,
        store=Bounded(store, query_limits(settings, api.query_timeout_s, api.page_rows_max * 12)),
        export_store=Bounded(store, query_limits(settings, api.export_timeout_s, api.export_rows_max + 1)),
        entities=entities,
        keys=build_keys(settings, store),
        tokens=tokens,
        sizes=Sizes(api.body_bytes_max, api.inflated_bytes_max, api.batch_max),
        reads=ReadLimits(
            api.query_timeout_s,
            page_rows_max=api.page_rows_max,
            export_rows_max=api.export_rows_max,
            export_timeout_s=api.export_timeout_s,
            streams_max=api.streams_max,
            reads_per_s=api.reads_per_s,
        ),
        metrics=metrics,
        open_to_all=is_loopback(api.host),
        role_limits={Role(role): Limits(one.sources, one.tables, one.tenants, one.columns) for role, one in api.limits.items()},
        events_per_s=api.events_per_s,
        refuse=_refuse(settings),
        clock=time.monotonic,
        now=lambda: datetime.now(UTC),
    )


def query_limits(settings: Settings, timeout_s: int, rows_max: int) -> dict[str, Any]:
    """ClickHouse's settings of every query: it only reads, it ends, and what is too much is refused instead of cut."""
    return {
        "readonly": 2,
        "max_execution_time": timeout_s,
        "timeout_overflow_mode": "throw",
        "max_rows_to_read": settings.api.query_rows_max,
        "read_overflow_mode": "throw",
        "max_result_rows": max(rows_max, 20_000),
        "result_overflow_mode": "throw",
        "max_memory_usage": MEMORY_BYTES_MAX,
        "cancel_http_readonly_queries_on_client_close": 1,
    }


def connecting(settings: Settings) -> Store:
    """ClickHouse as the service reads it, opened at the first question."""
    from chronicle.sinks.clickhouse_client import connect
    from chronicle.trail.store import Connecting, Unsettable

    api, clickhouse = settings.api, settings.clickhouse
    if api.clickhouse_username is not None:
        own = {"username": api.clickhouse_username}
        password = {} if api.clickhouse_password is None else {"password": api.clickhouse_password}
        clickhouse = clickhouse.model_copy(update={**own, **password})

    def opened() -> Store:
        client = connect(clickhouse)
        fixed = getattr(client, "server_settings", {}).get("max_execution_time")
        return Unsettable(client) if fixed is not None and fixed.readonly else client

    return Connecting(opened)


def build_keys(settings: Settings, store: Store) -> Keys:
    """The keys, none read yet."""
    from chronicle.api.keys import Keys

    api = settings.api
    return Keys(store, settings.clickhouse.database, time.monotonic, cache_s=api.keys_cache_s, stale_s=api.keys_stale_s)


def host_to_bind(settings: Settings, warn: Callable[[str], None]) -> str:
    """Where to listen: as the settings say, but on this machine only when nobody would be asked for a key.

    Raises:
        ConfigError: ClickHouse refuses us, or `chronicle setup` was not run.
    """
    from chronicle.api.gate import is_loopback

    api = settings.api
    if api.oidc_issuer is not None:
        return api.host
    keys = build_keys(settings, connecting(settings))
    with suppress(TransientError):  # then nobody gets in before it is known that there are keys
        keys.refresh()
    if not keys.none_at_all:
        return api.host
    warn("there is no key: whoever can reach this port on this machine may do everything; see `chronicle keys create`")
    if is_loopback(api.host):
        return api.host
    warn(f"not bound to {api.host}, but to 127.0.0.1 only, until there is a key and the service starts again")
    return "127.0.0.1"


def grants(settings: Settings) -> str:
    """SQL that makes the user who reads for the service; the password is the operator's to fill in.

    Raises:
        ConfigError: `api.clickhouse_username` is not set.
    """
    from chronicle.sinks.engines import Engines, quoted

    api, clickhouse = settings.api, settings.clickhouse
    if api.clickhouse_username is None:
        raise ConfigError("set api.clickhouse_username first, as to chronicle_api")
    user, database, cluster = (
        quoted(api.clickhouse_username),
        quoted(clickhouse.database),
        Engines(clickhouse.cluster).on_cluster,
    )
    return "\n".join(
        (
            "-- readonly = 2: it may bound its own queries, and neither write nor lift this",
            f"CREATE USER IF NOT EXISTS {user}{cluster} IDENTIFIED BY '<password>' SETTINGS readonly = 2;",
            f"GRANT{cluster} SELECT ON {database}.* TO {user};",
        )
    )


def _refuse(settings: Settings) -> Callable[[Event], None] | None:
    if settings.events.mode != "strict":
        return None
    from chronicle.schema_files import event_types

    return event_types(settings.schemas_dir).refuse
