"""The journal on the real broker: confirmed records with their keys; away, on the disk, and then in order."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chronicle.dev.stack import Stack
from chronicle.journal import Journal
from chronicle.journal.transports import TransportAway
from chronicle.journal.transports.kafka import Kafka
from tests.stack.api_process import Forwarder
from tests.stack.worker_process import Broker, until

pytestmark = pytest.mark.stack


@pytest.fixture
def broker(stack: Stack) -> Broker:
    return Broker(stack.kafka)


@pytest.fixture
def topic(broker: Broker, unique: str) -> Iterator[str]:
    """A topic of four partitions, as `setup` makes it."""
    name = f"{unique}_events"
    broker.create(name, 4)
    yield name
    broker.delete(*(there for there in broker.admin.list_topics(timeout=30).topics if there.startswith(unique)))


def journal_to(brokers: str, topic: str, **settings: Any) -> Journal:
    given: dict[str, Any] = {"timeout_s": 2.0, "breaker_reset_s": 0.05, "breaker_reset_max_s": 0.2, "on_error": lambda *_: None}
    return Journal(source="shop", transport=f"kafka://{brokers}/{topic}", **{**given, **settings})


def numbers(broker: Broker, topic: str, having: Callable[[dict[str, Any]], bool] = lambda event: True) -> list[int]:
    events = [json.loads(value or b"") for _, value, _ in broker.read(topic)]
    return [event["payload"]["n"] for event in events if having(event)]


def test_a_published_event_is_a_record_with_its_key(stack: Stack, broker: Broker, topic: str) -> None:
    """Value: the event's JSON. Key: partition key, resource, actor. A route's topic is another topic."""
    other = f"{topic}.security"
    broker.create(other)
    journal = journal_to(stack.kafka, topic, production=True, routes={"security.**": {"topic": other}})
    receipt = journal.publish_sync("order.placed", actor="ann", resource=("order", 7), payload={"total": 3})
    assert receipt.disposition == "confirmed"
    journal.publish("order.placed", actor="ann", partition_key="schlüssel", payload={"total": 4})
    journal.publish("security.login", actor="ann", payload={"method": "passkey"})
    journal.close()
    records = {
        json.loads(value or b"")["payload"]["total"]: (key, json.loads(value or b"")) for key, value, _ in broker.read(topic)
    }
    assert {total: key for total, (key, _) in records.items()} == {3: b"order:7", 4: "schlüssel".encode()}
    assert records[3][1]["id"] == receipt.id
    ((key, value, _),) = broker.read(other)
    assert (key, json.loads(value or b"")["type"]) == (b"ann", "security.login")
    assert journal.counts["confirmed"] == 3


def test_a_thousand_events_of_a_key_stay_in_order(stack: Stack, broker: Broker, topic: str) -> None:
    """With several workers and full batches."""
    journal = journal_to(stack.kafka, topic, workers=3, batch_events=50)
    for n in range(3_000):
        journal.publish("a.b", partition_key=f"k{n % 3}", payload={"n": n})
    journal.close(60)
    assert journal.counts["confirmed"] == 3_000
    for key in range(3):
        assert numbers(broker, topic, lambda event, key=key: event["partition_key"] == f"k{key}") == list(range(key, 3_000, 3))  # type: ignore[misc]


def test_events_wait_on_the_disk_while_the_broker_is_away(stack: Stack, broker: Broker, topic: str, tmp_path: Path) -> None:
    """Unreachable when they are published, reachable later in the same process: all there, in order, once."""
    forwarder = Forwarder(stack.kafka)
    journal = journal_to(f"127.0.0.1:{forwarder.port}", topic, spill=str(tmp_path), queue_events=20, timeout_s=1.0)
    for n in range(100):
        journal.publish("a.b", partition_key="k", payload={"n": n})
    assert journal.publish_sync("a.b", partition_key="k", payload={"n": 100}).disposition == "spilled"
    forwarder.open()
    journal.recover(60)
    assert journal.publish_sync("a.b", partition_key="k", payload={"n": 101}).disposition in ("confirmed", "spilled")
    journal.recover(60)
    journal.close()
    forwarder.close()
    assert numbers(broker, topic) == list(range(102))
    assert (journal.counts["confirmed"], journal.counts["dropped"]) == (102, 0)


def test_what_one_process_spilled_the_next_one_sends(stack: Stack, broker: Broker, topic: str, tmp_path: Path) -> None:
    """In order, before its own events."""
    nowhere = Forwarder(stack.kafka)
    first = journal_to(f"127.0.0.1:{nowhere.port}", topic, spill=str(tmp_path), timeout_s=1.0)
    for n in range(50):
        first.publish("a.b", partition_key="k", payload={"n": n})
    first.close(10)
    nowhere.close()
    assert first.counts["spilled"] == 50
    second = journal_to(stack.kafka, topic, spill=str(tmp_path))
    second.publish("a.b", partition_key="k", payload={"n": 50})
    second.recover(60)
    second.close()
    assert numbers(broker, topic) == list(range(51))


def test_a_record_that_is_too_large_is_refused_alone(stack: Stack, broker: Broker, topic: str) -> None:
    """For good, with the broker's name for it; its neighbours are confirmed."""
    broker.create(f"{topic}.small", 1, max_message_bytes="2000")
    journal = journal_to(stack.kafka, f"{topic}.small", kafka={"compression.type": "none", "batch.num.messages": "1"})
    sizes = [10, 5_000, 10]
    receipts = [journal.publish("a.b", payload={"n": n, "x": "y" * size}) for n, size in enumerate(sizes)]
    assert journal.flush(60)
    journal.close()
    assert [receipt.disposition for receipt in receipts] == ["confirmed", "refused", "confirmed"]
    assert receipts[1].problem == "kafka: MSG_SIZE_TOO_LARGE"


def test_a_topic_that_is_not_there_is_waited_for(stack: Stack, broker: Broker, topic: str) -> None:
    """Nothing is lost by publishing before `setup` ran."""
    missing = f"{topic}.later"
    journal = journal_to(stack.kafka, missing, timeout_s=1.0)
    receipt = journal.publish("a.b", payload={"n": 1})
    until(lambda: journal.counts["errors"] > 0, "the first failure")
    if missing not in broker.admin.list_topics(timeout=30).topics:
        broker.create(missing)
    assert receipt.wait(60).disposition == "confirmed"
    journal.close()
    assert numbers(broker, missing) == [1]


def test_a_forked_child_has_a_producer_of_its_own(stack: Stack, broker: Broker, topic: str) -> None:
    """The parent's is running; both send, each its own events, and both end."""
    journal = journal_to(stack.kafka, topic, timeout_s=10.0)
    journal.publish_sync("a.b", payload={"n": 0})
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            journal.publish_sync("a.b", payload={"n": 1})
            journal.close()
            code = 0
        finally:
            os._exit(code)
    journal.publish_sync("a.b", payload={"n": 2})
    assert os.waitpid(pid, 0)[1] == 0
    journal.close()
    assert sorted(numbers(broker, topic)) == [0, 1, 2]


def test_a_broker_that_is_not_there_says_so() -> None:
    """Within the timeout, as away."""
    transport = Kafka("127.0.0.1:1", timeout_s=1.0)
    with Journal(source="test", transport="memory://") as journal:
        out = journal.prepared("a.b")
    assert out is not None
    with pytest.raises(TransportAway, match="kafka"):
        transport.send([out])
    transport.close()
