"""Topics of a test's own, and what is in them now."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # its stubs miss what it documents

from chronicle import config

_DEADLINE_S = 30.0


def records(kafka: config.Kafka, topic: str) -> list[Message]:
    """All records of the topic, partition by partition up to the end it has now."""
    consumer = Consumer(
        kafka.client_config() | {"group.id": "unused", "enable.auto.commit": False, "enable.partition.eof": False}
    )
    found: list[Message] = []
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        deadline = time.monotonic() + _DEADLINE_S
        ends = {number: _end(consumer, TopicPartition(topic, number), deadline) for number in partitions}
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        left = {number for number, end in ends.items() if end}
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


@contextmanager
def topics(kafka: config.Kafka, names: Sequence[str], partitions: int = 1, **settings: str) -> Iterator[None]:
    """Topics that every client sees, deleted afterwards. `settings`: with _ for dots."""
    admin = AdminClient(kafka.client_config())
    options = {name.replace("_", "."): value for name, value in settings.items()}
    new = [NewTopic(name, partitions, 1, config=options) for name in names]
    for made in admin.create_topics(new, request_timeout=30).values():
        made.result()
    deadline = time.monotonic() + _DEADLINE_S
    while any(admin.list_topics(name, timeout=10).topics[name].error for name in names):
        assert time.monotonic() < deadline, f"topics {names} are not seen"
        time.sleep(0.05)
    yield
    for gone in admin.delete_topics(list(names), request_timeout=30).values():
        gone.result()


def _end(consumer: Consumer, partition: TopicPartition, deadline: float) -> int:
    """The offset after the last record; a topic just made may have no leader yet."""
    while True:
        try:
            return int(consumer.get_watermark_offsets(partition, timeout=10)[1])
        except KafkaException as error:
            if not error.args[0].retriable() or time.monotonic() > deadline:
                raise
            consumer.poll(0.1)
