"""Which topics the worker reads, asked from the broker itself: names now, new names later, retention of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs miss what it documents
    AclOperation,
    AdminClient,
    ConfigResource,
    OffsetSpec,
    ResourceType,
)

from chronicle.errors import ConfigError, TransientError
from chronicle.refusals import ASK_S, refused
from chronicle.worker.ledger import Partition

TIMEOUT_S = 10.0


def wanted(names: Iterable[str], sources: Sequence[str], retry_topic: str, events_topic: str | None) -> tuple[str, ...]:
    """The topics to read among `names`: those of the sources (`<source>.…`), of events (`events_topic`, and any
    `<events_topic>.…`; None: another worker reads them), and the retry topic.

    The connector's own topics (schema history, signals, notifications, heartbeats) do not begin with a source's name and
    a dot, so a table may have any name.
    """
    own = [events_topic] if events_topic is not None else []
    prefixes = tuple(f"{name}." for name in (*sources, *own))
    return tuple(sorted(name for name in names if name in (retry_topic, *own) or name.startswith(prefixes)))


class Broker:
    """Questions to the broker beside the consumer, on a connection of their own. Blocking: call it in a thread."""

    def __init__(self, client_config: Mapping[str, Any]) -> None:
        """`client_config`: confluent-kafka's, with the security settings."""
        self._config = client_config
        self._admin = AdminClient({**client_config, "log_level": 0})

    def topics(self) -> tuple[str, ...]:
        """Names of all topics that we may see.

        Raises:
            TransientError: the broker is away.
            ConfigError: it does not let us in.
        """
        try:
            return tuple(self._admin.list_topics(timeout=TIMEOUT_S).topics)
        except KafkaException as error:
            raise refused(error.args[0], self._config) or translated(error) from None

    def require_group(self, group: str) -> None:
        """Make sure that we may be a member of this group: the consumer would wait for ever, without a word.

        Raises:
            ConfigError: we may not.
            TransientError: the broker is away, or does not know yet.
        """
        asked = self._admin.describe_consumer_groups([group], include_authorized_operations=True, request_timeout=ASK_S)
        try:
            allowed = asked[group].result().authorized_operations
        except KafkaException as error:
            raise refused(error.args[0], {}, about=f"group {group}") or translated(error) from None
        if allowed and not {AclOperation.READ, AclOperation.ALL} & set(allowed):  # None: this broker does not tell
            raise ConfigError(f"grant this user READ on the group {group} (worker.group)")

    def ends(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """Where each log ends now: the offset the next record will get. Raises TransientError."""
        latest: Any = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        wanted_offsets = {TopicPartition(topic, number): latest for topic, number in partitions}
        if not wanted_offsets:
            return {}
        try:
            return self._offsets(wanted_offsets)
        except KafkaException as error:
            if "LEADER" not in error.args[0].name():
                raise translated(error) from None
        # the library asks with the leader epoch it knows, and after a restart of the broker never looks for a new one itself
        self.topics()
        try:
            return self._offsets(wanted_offsets)
        except KafkaException as error:
            raise translated(error) from None

    def _offsets(self, wanted_offsets: dict[TopicPartition, Any]) -> dict[Partition, int]:
        futures = self._admin.list_offsets(wanted_offsets, request_timeout=TIMEOUT_S)
        return {(tp.topic, tp.partition): future.result().offset for tp, future in futures.items()}

    def retention_s(self, topics: Iterable[str]) -> dict[str, float]:
        """Seconds that each topic keeps a record; topics that keep everything are absent. Raises TransientError."""
        resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in topics]
        if not resources:
            return {}
        found: dict[str, float] = {}
        try:
            for resource, future in self._admin.describe_configs(resources, request_timeout=TIMEOUT_S).items():
                entries = future.result()
                milliseconds = int(entries["retention.ms"].value)
                if milliseconds >= 0 and "delete" in entries["cleanup.policy"].value:
                    found[resource.name] = milliseconds / 1000
        except KafkaException as error:
            raise translated(error) from None
        return found


def translated(error: KafkaException) -> TransientError | ConfigError:
    """The broker's error as one of ours: refused credentials are the operator's, the rest is the world's."""
    # without the settings it is not asked what an error of the connection may stand for: the caller tries again
    return refused(error.args[0], {}) or TransientError(f"the broker does not answer ({error.args[0].name()})")
