"""What is in a topic now, for tests."""

from __future__ import annotations

import time

from confluent_kafka import Consumer, Message, TopicPartition

from chronicle import config
from chronicle.sinks.kafka import client_config

_DEADLINE_S = 30.0


def records(kafka: config.Kafka, topic: str) -> list[Message]:
    """All records of the topic, partition by partition up to the end it has now."""
    consumer = Consumer(
        client_config(kafka) | {"group.id": "unused", "enable.auto.commit": False, "enable.partition.eof": False}
    )
    found: list[Message] = []
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        ends = {number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=10)[1] for number in partitions}
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        left = {number for number, end in ends.items() if end}
        deadline = time.monotonic() + _DEADLINE_S
        while left:
            assert time.monotonic() < deadline, f"partitions {left} of {topic} were not read to their end"
            message = consumer.poll(1.0)
            if message is None:
                continue
            assert message.error() is None
            found.append(message)
            if (message.offset() or 0) + 1 >= ends[message.partition() or 0]:
                left.discard(message.partition() or 0)
    finally:
        consumer.close()
    return found
