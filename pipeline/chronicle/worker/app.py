"""The Faust application: one agent over all raw topics, which hands every delivery to the batcher."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from typing import Any

import faust
import structlog
from faust.app.base import BootStrategy
from faust.auth import SASLCredentials, SSLCredentials

from chronicle import config
from chronicle.errors import ConfigError
from chronicle.refusals import certificates
from chronicle.worker.transport import BatchConsumer, Control, Delivery, RawSchema

log = structlog.get_logger("chronicle.worker")

SESSION_TIMEOUT_S = 10
HEARTBEAT_INTERVAL_S = 2
REQUEST_TIMEOUT_S = 30
COMMIT_INTERVAL_S = 0.5
POLL_INTERVAL_MAX_S = 1_000_000
"""A declared retry may last for days while the process stays in its group; stalls are the watchdog's business."""


class _Boot(BootStrategy):
    enable_kafka_producer = False  # sinks have their own producer


class WorkerApp(faust.App):
    """Faust with Chronicle's transport; `control` is read by `BatchConsumer`."""

    BootStrategy = _Boot
    control: Control

    async def on_first_start(self) -> None:
        """Nothing: Faust would make a directory for tables, and there are none."""


def build_app(
    kafka: config.Kafka, worker: config.Worker, control: Control, names: Sequence[str], take: Callable[[Delivery], None]
) -> tuple[WorkerApp, Any]:
    """The application and its topic (a Faust channel over all `names`). `take` gets each delivery, in the event loop."""
    app = WorkerApp(
        worker.group,
        broker=[f"chronicle://{server.strip()}" for server in kafka.bootstrap_servers.split(",") if server.strip()],
        broker_credentials=credentials(kafka),
        topic_disable_leader=True,
        topic_allow_declare=False,
        web_enabled=False,
        store="memory://",
        table_standby_replicas=0,  # no tables: aiokafka's round robin instead of Faust's assignor
        # new partitions, and topics that were deleted and made again, are noticed as quickly as new topics
        consumer_metadata_max_age_ms=max(1000, int(worker.discovery_interval_s * 1000)),
        # a topic found later must be read from its first record; gaps are noticed by the transport itself
        consumer_auto_offset_reset="earliest",
        consumer_group_instance_id=worker.instance_id,
        consumer_max_fetch_size=2 * 1024 * 1024,
        broker_max_poll_records=worker.batch_rows_max,
        broker_max_poll_interval=POLL_INTERVAL_MAX_S,
        broker_commit_interval=COMMIT_INTERVAL_S,
        broker_session_timeout=SESSION_TIMEOUT_S,
        broker_heartbeat_interval=HEARTBEAT_INTERVAL_S,
        broker_request_timeout=REQUEST_TIMEOUT_S,
        stream_wait_empty=False,
        stream_buffer_maxsize=worker.in_flight_rows_max + 1,  # never full: the transport bounds it (fact 28)
    )
    app.control = control
    topic = app.topic(*names, schema=RawSchema(key_type=bytes, value_type=bytes))

    @app.agent(topic)
    async def batches(stream: Any) -> None:
        async for event in stream.noack().events():
            take(event.value)

    return app, topic


async def follow(app: WorkerApp, topic: Any, names: Sequence[str]) -> bool:
    """Subscribe to topics that were found later (fact 47). False: a rebalance is under way, try again."""
    if app.rebalancing:
        return False
    new = [name for name in names if name not in topic.topics]
    if not new:
        return True
    # the agent's own topic and its clones in the conductor: one agent, so all of them
    for channel in {topic, *app.topics}:
        channel.topics = (*channel.topics, *(name for name in new if name not in channel.topics))
    await app.consumer.subscribe(await app.topics._update_indices())  # type: ignore[attr-defined]
    log.info("topics.discovered", topics=new)
    return True


def consumer_of(app: WorkerApp) -> BatchConsumer:
    """The application's consumer."""
    consumer = app.consumer
    if not isinstance(consumer, BatchConsumer):
        raise ConfigError("reinstall chronicle: its Faust transport (entry point faust.transports) is not registered")
    return consumer


def credentials(kafka: config.Kafka) -> SASLCredentials | SSLCredentials | None:
    """The broker's security settings in Faust's words."""
    context: ssl.SSLContext | None = None
    if kafka.security_protocol in ("SSL", "SASL_SSL"):
        context = certificates(kafka.ssl_ca_location, "kafka.ssl_ca_location")
    if kafka.security_protocol.startswith("SASL"):
        if kafka.sasl_mechanism is None or kafka.sasl_username is None or kafka.sasl_password is None:
            raise ConfigError("set kafka.sasl_mechanism, kafka.sasl_username and kafka.sasl_password: the protocol is SASL")
        return SASLCredentials(
            username=kafka.sasl_username,
            password=kafka.sasl_password.get_secret_value(),
            ssl_context=context,
            mechanism=kafka.sasl_mechanism,
        )
    return SSLCredentials(context=context) if context is not None else None


async def stop(app: WorkerApp, timeout: float) -> None:
    """Leave the group; what takes longer than `timeout` seconds is left to the end of the process."""
    try:
        await asyncio.wait_for(app.stop(), timeout)
    except TimeoutError:
        log.warning("stop.timeout", seconds=timeout)
