"""A worker as a child process, and what the tests ask the broker beside it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec  # type: ignore[attr-defined]  # its stubs miss it

DEADLINE_S = 60.0
Coordinates = tuple[str, int, int]


def until(condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Wait for a condition; fails naming it."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"not within {deadline_s:.0f} s: {what}"
        time.sleep(0.05)


class WorkerProcess:
    """`python -m MODULE …` with settings by environment; its log is in a file."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *arguments], env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=file
            )

    def wait(self, deadline_s: float = DEADLINE_S) -> int:
        """Its exit code (negative: killed by that signal)."""
        try:
            return self.process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the worker did not end within {deadline_s:.0f} s:\n{self.log_text()[-3000:]}") from None

    def output(self) -> str:
        """What it printed; call after `wait`."""
        assert self.process.stdout is not None
        return self.process.stdout.read().decode()

    def term(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    def events(self, name: str) -> list[dict[str, object]]:
        """Its log events of that name."""
        lines = (line for line in self.log_text().splitlines() if f'"{name}"' in line)
        return [event for event in map(json.loads, lines) if event.get("event") == name]

    def until_event(self, name: str, deadline_s: float = DEADLINE_S) -> dict[str, object]:
        """Wait for a log event; fails when the process ends first."""
        end = time.monotonic() + deadline_s
        while not (found := self.events(name)):
            assert self.process.poll() is None, f"ended ({self.process.returncode}) before {name}:\n{self.log_text()[-3000:]}"
            assert time.monotonic() < end, f"no {name} within {deadline_s:.0f} s:\n{self.log_text()[-3000:]}"
            time.sleep(0.05)
        return found[-1]


def probe(port: int, path: str) -> tuple[int, str]:
    """Status and body of the worker's HTTP port; (0, "") while nothing listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


class Broker:
    """Topics of one test."""

    def __init__(self, servers: str) -> None:
        self.servers = servers
        self.admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})

    def create(self, name: str, partitions: int = 1, **settings: str) -> None:
        topic = NewTopic(name, partitions, 1, config={key.replace("_", "."): value for key, value in settings.items()})
        self.admin.create_topics([topic])[name].result(30)

    def delete(self, *names: str) -> None:
        for future in self.admin.delete_topics(list(names)).values():
            future.result(30)
        until(lambda: not set(names) & set(self.admin.list_topics(timeout=10).topics), f"deletion of {names}")

    def produce(
        self, topic: str, values: Sequence[bytes | None], partition: int = 0, transactional_id: str | None = None
    ) -> None:
        options = {"transactional.id": transactional_id} if transactional_id else {}
        producer = Producer(
            {
                "bootstrap.servers": self.servers,
                "linger.ms": 5,
                "queue.buffering.max.messages": 1_000_000,
                "message.max.bytes": 20_000_000,
                **options,
            }
        )
        if transactional_id:
            producer.init_transactions(30)
            producer.begin_transaction()
        for number, value in enumerate(values):
            producer.produce(topic, value=value, key=str(number).encode(), partition=partition)
            producer.poll(0)
        if transactional_id:
            producer.commit_transaction(30)
        assert producer.flush(60) == 0

    def ends(self, topic: str, partitions: int) -> dict[int, int]:
        latest: Any = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        asked = {TopicPartition(topic, number): latest for number in range(partitions)}
        return {tp.partition: future.result(30).offset for tp, future in self.admin.list_offsets(asked).items()}

    def committed(self, group: str, topic: str, partitions: int) -> dict[int, int]:
        asked = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, number) for number in range(partitions)])
        found = self.admin.list_consumer_group_offsets([asked])[group].result(30)
        return {tp.partition: tp.offset for tp in found.topic_partitions}

    def commit(self, group: str, topic: str, partition: int, offset: int) -> None:
        """Move a group that has no members."""
        asked = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, partition, offset)])
        self.admin.alter_consumer_group_offsets([asked])[group].result(30)

    def delete_before(self, topic: str, partition: int, offset: int) -> None:
        """As retention does it."""
        for future in self.admin.delete_records([TopicPartition(topic, partition, offset)]).values():
            future.result(30)

    def read(self, topic: str, deadline_s: float = DEADLINE_S) -> list[tuple[bytes | None, bytes | None, dict[str, bytes]]]:
        """Every record of a topic up to its end: key, value, headers."""
        consumer = Consumer(
            {"bootstrap.servers": self.servers, "group.id": f"read-{time.time_ns()}", "enable.partition.eof": True}
        )
        partitions = self.admin.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        found: list[tuple[Any, Any, dict[str, bytes]]] = []
        open_partitions, end = len(partitions), time.monotonic() + deadline_s
        while open_partitions:
            assert time.monotonic() < end, f"{topic} was not read to its end"
            message = consumer.poll(1.0)
            if message is None:
                continue
            error = message.error()
            if error is not None:
                open_partitions -= error.name() == "_PARTITION_EOF"
                continue
            headers: Any = message.headers() or []
            found.append((message.key(), message.value(), dict(headers)))
        consumer.close()
        return found
