"""What of some sources is not through yet, asked from the broker itself: topics still to come, records to acknowledge."""

from __future__ import annotations

from collections.abc import Sequence

from confluent_kafka import Consumer, KafkaException, TopicPartition

from chronicle.config import Kafka
from chronicle.errors import TransientError

TIMEOUT_S = 15.0


def lag(kafka: Kafka, group: str, sources: Sequence[str]) -> int:
    """Records between the group's committed offsets and the ends of all topics of the sources, of events, and of the topic by
    which dead letters come back; 0 when it has all.

    Raises:
        TransientError: the broker does not answer.
    """
    consumer = Consumer({**kafka.client_config(), "group.id": group, "enable.auto.commit": False})  # asks, never joins
    try:
        topics = consumer.list_topics(timeout=TIMEOUT_S).topics
        prefixes = (*(f"{source}." for source in sources), f"{kafka.events_topic}.")
        partitions = [
            TopicPartition(name, partition)
            for name, topic in topics.items()
            if name.startswith(prefixes) or name in (kafka.retry_topic, kafka.events_topic)
            for partition in topic.partitions
        ]
        total = 0
        for committed in consumer.committed(partitions, timeout=TIMEOUT_S):
            low, high = consumer.get_watermark_offsets(TopicPartition(committed.topic, committed.partition), timeout=TIMEOUT_S)
            total += max(0, high - (committed.offset if committed.offset >= 0 else low))
        return total
    except KafkaException as error:
        raise TransientError(f"start the broker or correct kafka.bootstrap_servers: {error.args[0].name()}") from None
    finally:
        consumer.close()


def missing_topics(kafka: Kafka, names: Sequence[str]) -> list[str]:
    """Those of the named topics that do not exist yet.

    Raises:
        TransientError: the broker does not answer.
    """
    consumer = Consumer({**kafka.client_config(), "group.id": "chronicle-demo"})
    try:
        there = consumer.list_topics(timeout=TIMEOUT_S).topics
        return [name for name in names if name not in there]
    except KafkaException as error:
        raise TransientError(f"start the broker or correct kafka.bootstrap_servers: {error.args[0].name()}") from None
    finally:
        consumer.close()
