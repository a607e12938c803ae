"""The Kafka side of capture: the topics a connector needs before it starts, and signals to it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from chronicle.capture.render import escaped
from chronicle.capture.sources import Source
from chronicle.config import Kafka
from chronicle.errors import ChronicleError, TransientError
from chronicle.refusals import refused

TIMEOUT_S = 15.0
FOREVER = {"retention.ms": "-1", "retention.bytes": "-1", "cleanup.policy": "delete"}
SIGNALS = {"retention.ms": "604800000", "cleanup.policy": "delete"}


def prepare(settings: Kafka, source: Source) -> list[str]:
    """Create the topics that must be there before the connector is, one partition each; returns those that were new.

    While its signal topic is missing, a connector runs and hears nothing; a schema history that Debezium creates itself
    lives only as long as the broker's default retention; notifications are read before the first one was written.

    Raises:
        TransientError: the broker is not reachable.
    """
    wanted = {source.signal_topic: SIGNALS, source.notification_topic: SIGNALS}
    if source.schema_history_topic is not None:
        wanted[source.schema_history_topic] = FOREVER
    admin = AdminClient(settings.client_config())
    topics = [NewTopic(name, 1, settings.replication_factor, config=config) for name, config in wanted.items()]
    created = []
    for name, future in admin.create_topics(topics, operation_timeout=TIMEOUT_S, request_timeout=TIMEOUT_S).items():
        try:
            future.result(TIMEOUT_S)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise translated(settings, error) from None
        else:
            created.append(name)
    return sorted(created)


def remove(settings: Kafka, source: Source) -> list[str]:
    """Delete the source's signal, notification and schema-history topics (all epochs); returns what was there.

    Raw topics are not touched: they hold data.

    Raises:
        TransientError: the broker is not reachable.
    """
    admin = AdminClient(settings.client_config())
    history = f"chronicle.schema-history.{source.name}."
    try:
        present = admin.list_topics(timeout=TIMEOUT_S).topics
        names = [
            name
            for name in present
            if name in (source.signal_topic, source.notification_topic)
            or (name.startswith(history) and name.removeprefix(history).isdigit())
        ]
        for future in admin.delete_topics(names).values() if names else ():
            future.result(TIMEOUT_S)
        # A group that outlived its topic would skip the first signals of the next topic of that name.
        for future in admin.delete_consumer_groups([source.signal_group], request_timeout=TIMEOUT_S).values():
            if (failure := future.exception(TIMEOUT_S)) is not None and not _no_such_group(failure):
                raise failure
    except KafkaException as error:
        raise translated(settings, error) from None
    return sorted(names)


def request_snapshot(settings: Kafka, source: Source, tables: Sequence[str], condition: str | None = None) -> str:
    """Ask the connector for an incremental snapshot of captured tables; returns the signal's id.

    The signal waits in its topic until the connector reads it, so it may be sent while the connector is stopped.
    `condition` is SQL that a row must meet, for all of `tables`.

    Raises:
        TransientError: the broker did not take it.
    """
    # The collections are regular expressions to Debezium, the condition's name is compared as it is.
    collections = [escaped(table) for table in tables]
    data: dict[str, Any] = {"data-collections": collections, "type": "INCREMENTAL"}
    if condition is not None:
        data["additional-conditions"] = [{"data-collection": table, "filter": condition} for table in tables]
    signal = {"id": str(uuid.uuid4()), "type": "execute-snapshot", "data": data}
    failures: list[KafkaError] = []
    producer = Producer({**settings.client_config(), "enable.idempotence": True, "message.timeout.ms": int(TIMEOUT_S * 1000)})
    producer.produce(
        source.signal_topic,
        key=source.name.encode(),
        value=json.dumps(signal).encode(),
        partition=0,
        on_delivery=lambda error, _: failures.append(error) if error else None,
    )
    if producer.flush(TIMEOUT_S + 5) or failures:
        wrong = refused(failures[0], settings.client_config(), about=source.signal_topic) if failures else None
        raise wrong or TransientError(
            f"start Kafka, or run `chronicle connectors apply`: {source.signal_topic} takes no signal"
            f" ({', '.join(failure.name() for failure in failures) or 'timeout'})"
        )
    return str(signal["id"])


def _no_such_group(failure: BaseException) -> bool:
    return isinstance(failure, KafkaException) and failure.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND


def silent(settings: Kafka) -> TransientError:
    """A broker that is there by its metadata, but gives no records."""
    return TransientError(f"start Kafka, or correct kafka.bootstrap_servers ({settings.bootstrap_servers}): no records come")


def translated(settings: Kafka, error: KafkaException) -> ChronicleError:
    """The error for the operator: TransientError when the broker is away, ConfigError when it refuses us."""
    cause: KafkaError = error.args[0]
    if wrong := refused(cause, settings.client_config()):
        return wrong
    if cause.retriable() or cause.code() in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT):
        return TransientError(
            f"start Kafka, or correct kafka.bootstrap_servers ({settings.bootstrap_servers}): not reachable ({cause.name()})"
        )
    return ChronicleError(f"Kafka refuses: {cause.name()}")
