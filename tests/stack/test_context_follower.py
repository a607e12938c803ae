"""The follower on the real broker and registry: contexts found, ENDs waited for, topics that come, go and come again."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from chronicle.config import Kafka, Registry
from chronicle.dev.stack import Stack
from chronicle.errors import TransientError
from chronicle.model.chunk import SourceSpec
from chronicle.registry import Registry as RegistryClient
from chronicle.stages.path import Path
from chronicle.testing import IDENTITY_KEY, rules
from chronicle.worker.context_store import ContextStore
from chronicle.worker.follower import Follower
from chronicle.worker.transaction_log import TransactionLog
from tests.stack.debezium_records import framed, register
from tests.stack.worker_process import Broker, until

pytestmark = pytest.mark.stack

WAIT_S = 0.3
LONG_S = 20.0
MARKER: dict[str, Any] = {
    "type": "record", "name": "TransactionMetadataValue", "namespace": "io.debezium.connector.common",
    "connect.name": "io.debezium.connector.common.TransactionMetadataValue",
    "fields": [
        {"name": "status", "type": "string"},
        {"name": "id", "type": "string"},
        {"name": "event_count", "type": ["null", "long"], "default": None},
        {"name": "data_collections", "default": None, "type": ["null", {"type": "array", "items": {
            "type": "record", "name": "ConnectDefault", "namespace": "io.confluent.connect.avro",
            "fields": [{"name": "data_collection", "type": "string"}, {"name": "event_count", "type": "long"}]}}]},
        {"name": "ts_ms", "type": "long"},
    ],
}  # fmt: skip


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def pause() -> None:
    """Until the clock of record times has moved on."""
    began = now_ms()
    until(lambda: now_ms() > began + 5, "the clock moves")


class Source:
    """A source's transaction topic, and followers of it."""

    def __init__(self, stack: Stack, name: str) -> None:
        self.stack, self.name, self.topic = stack, name, f"{name}.transaction"
        self.broker = Broker(stack.kafka)
        self.schema_id = register(stack.registry_url, f"{name}-transaction", MARKER)
        self.followers: list[Follower] = []

    def create(self) -> None:
        self.broker.create(self.topic)

    def follower(self, servers: str | None = None, **options: Any) -> Follower:
        kafka = Kafka(bootstrap_servers=servers or self.stack.kafka)
        path = Path([SourceSpec(self.name, "postgresql")], IDENTITY_KEY, rules())
        registry = RegistryClient(Registry(url=self.stack.registry_url))
        follower = Follower(TransactionLog(kafka, [self.name]), path, registry, **options)
        self.followers.append(follower)
        return follower

    def marker(self, status: str, transaction: int) -> bytes:
        datum = {"status": status, "id": f"{transaction}:1", "event_count": None, "data_collections": None, "ts_ms": now_ms()}
        return framed(self.schema_id, MARKER, datum)

    def message(self, transaction: int, actor: str) -> bytes:
        content = base64.b64encode(json.dumps({"actor": actor}).encode()).decode()
        source = {"connector": "postgresql", "name": self.name, "ts_ms": now_ms(), "txId": transaction, "lsn": transaction}
        return json.dumps({"op": "m", "source": source, "message": {"prefix": "chronicle", "content": content}}).encode()

    def whole(self, transaction: int, actor: str | None) -> list[bytes]:
        said = [] if actor is None else [self.message(transaction, actor)]
        return [self.marker("BEGIN", transaction), *said, self.marker("END", transaction)]

    def send(self, *records: bytes) -> None:
        self.broker.produce(self.topic, records)

    def one(self, transaction: int) -> tuple[str, int, str]:
        return (self.name, 0, str(transaction))

    def ask(
        self, follower: Follower, *transactions: int, timeout_s: float = WAIT_S, received_ms: int | None = None
    ) -> tuple[dict[str, str], set[str]]:
        """Actors by transaction, and what is open."""
        wanted = {self.one(number): received_ms or now_ms() for number in transactions}
        found, open_ = follower.wait(wanted, timeout_s)
        actors = {row["transaction_id"]: json.loads(row["context"])["actor"]["id"] for row in found.to_dicts()}
        return actors, {transaction_id for _, _, transaction_id in open_}

    def close(self) -> None:
        for follower in self.followers:
            follower.close()
        names = [name for name in self.broker.admin.list_topics(timeout=10).topics if name.startswith(self.name)]
        if names:
            self.broker.delete(*names)


@pytest.fixture
def source(stack: Stack, unique: str) -> Iterator[Source]:
    """Without its topic yet."""
    made = Source(stack, unique)
    yield made
    made.close()


def test_contexts_are_found_and_an_end_without_one_is_proof(source: Source) -> None:
    """The answer comes at once when it is there; a transaction without END is open after the bound, not before."""
    source.create()
    source.send(*source.whole(1, "ada"), *source.whole(2, None), source.marker("BEGIN", 3))
    follower = source.follower()
    follower.need_from(now_ms())
    began = time.monotonic()
    assert source.ask(follower, 1, 2, timeout_s=LONG_S) == ({"1": "ada"}, set())
    assert time.monotonic() - began < LONG_S / 2
    began = time.monotonic()
    assert source.ask(follower, 1, 2, 3) == ({"1": "ada"}, {"3"})
    assert WAIT_S <= time.monotonic() - began < LONG_S / 2


def test_a_context_that_comes_during_the_wait_ends_it(source: Source) -> None:
    """Rows are often readable before their context."""
    from threading import Timer

    source.create()
    follower = source.follower()
    follower.need_from(now_ms())
    assert source.ask(follower, 1, timeout_s=0.0) == ({}, {"1"})
    timer = Timer(0.3, lambda: source.send(*source.whole(1, "ada")))
    timer.start()
    began = time.monotonic()
    assert source.ask(follower, 1, timeout_s=LONG_S) == ({"1": "ada"}, set())
    assert time.monotonic() - began < LONG_S / 2
    timer.join()


def test_a_topic_that_appears_later_is_followed(source: Source) -> None:
    """Until then nothing is waited for: no topic, no END."""
    follower = source.follower()
    follower.need_from(now_ms())
    began = time.monotonic()
    assert source.ask(follower, 1, timeout_s=LONG_S) == ({}, {"1"})
    assert time.monotonic() - began < LONG_S / 2
    source.create()
    source.send(*source.whole(1, "ada"))
    until(lambda: source.ask(follower, 1) == ({"1": "ada"}, set()), "the new topic is read", 30)


def test_a_topic_made_anew_is_read_from_its_start(source: Source) -> None:
    """Also when it has more records than the old one had."""
    source.create()
    source.send(*source.whole(1, "ada"))
    follower = source.follower()
    follower.need_from(now_ms())
    assert source.ask(follower, 1, timeout_s=LONG_S) == ({"1": "ada"}, set())
    source.broker.delete(source.topic)
    source.create()
    source.send(*source.whole(2, "bob"), *source.whole(3, "eve"), *source.whole(4, "joe"))
    until(lambda: source.ask(follower, 2, 3, 4) == ({"2": "bob", "3": "eve", "4": "joe"}, set()), "read from its start", 60)


def test_an_earlier_need_makes_it_read_again(source: Source) -> None:
    """A partition with a backlog was assigned: what was skipped at the start is read then."""
    source.create()
    source.send(*source.whole(1, "ada"))
    pause()
    middle = now_ms()
    source.send(*source.whole(2, "bob"))
    follower = source.follower(margin_ms=0)
    follower.need_from(middle)
    assert source.ask(follower, 1, 2, received_ms=middle) == ({"2": "bob"}, {"1"})
    follower.need_from(middle - 60_000)
    until(lambda: source.ask(follower, 1, 2)[0] == {"1": "ada", "2": "bob"}, "read from there", 30)


def test_an_end_whose_begin_was_not_read_is_no_proof(source: Source) -> None:
    """Reading began in the middle of the transaction: its context may stand before."""
    source.create()
    source.send(source.marker("BEGIN", 1), source.message(1, "ada"))
    pause()
    middle = now_ms()
    source.send(source.marker("END", 1), *source.whole(2, None))
    follower = source.follower(margin_ms=0)
    follower.need_from(middle)
    began = time.monotonic()
    assert source.ask(follower, 1, 2, timeout_s=LONG_S) == ({}, {"1"})
    assert time.monotonic() - began < LONG_S / 2, "nothing more comes: not waited for"


def test_a_backlog_is_read_without_an_end_of_patience(source: Source) -> None:
    """Thousands of contexts, most of them beyond the memory's bound: each is found, and the bound of a wait does not cut it."""
    source.create()
    count = 5_000
    source.send(*(record for number in range(count) for record in source.whole(number, f"actor {number}")))
    follower = source.follower(store=ContextStore(memory_max=1_000))
    follower.need_from(now_ms() - 60_000)
    began = time.monotonic()
    actors, open_ = source.ask(follower, *range(count), timeout_s=0.001)
    assert (len(actors), open_) == (count, set())
    assert actors["0"] == "actor 0"
    assert time.monotonic() - began < LONG_S


def test_old_rows_wait_for_reading_only(source: Source) -> None:
    """The END of an old transaction is not late but absent."""
    source.create()
    source.send(*source.whole(2, "bob"))
    follower = source.follower()
    old = now_ms() - 600_000
    follower.need_from(old)
    assert source.ask(follower, 2, timeout_s=LONG_S)[0] == {"2": "bob"}
    began = time.monotonic()
    assert source.ask(follower, 1, timeout_s=LONG_S, received_ms=old) == ({}, {"1"})
    assert time.monotonic() - began < LONG_S / 2


def test_a_broker_that_is_away_is_said_and_not_taken_for_an_answer(source: Source) -> None:
    """Rows must not be written pending because nobody could look."""
    follower = source.follower(servers="127.0.0.1:1")
    with pytest.raises(TransientError, match="broker"):
        source.ask(follower, 1, timeout_s=60.0)


def test_transaction_markers_do_not_hide_the_end(source: Source) -> None:
    """A transactional producer's commit takes an offset that no record has."""
    source.create()
    source.broker.produce(source.topic, source.whole(1, "ada"), transactional_id=source.name)
    follower = source.follower()
    follower.need_from(now_ms())
    assert source.ask(follower, 1, timeout_s=LONG_S)[0] == {"1": "ada"}
    began = time.monotonic()
    assert source.ask(follower, 9, timeout_s=0.1) == ({}, {"9"})
    assert time.monotonic() - began < 5.0


def test_lag_is_told_while_the_log_is_waited_for(source: Source) -> None:
    """Whoever asks for metrics does not wait for the thread that reads, and it is about what that thread has fetched."""
    source.create()
    source.send(*source.whole(1, "ann"))
    log = TransactionLog(Kafka(bootstrap_servers=source.stack.kafka), [source.name])
    reader = threading.Thread(target=lambda: log.read(LONG_S), daemon=True)
    try:
        log.seek(0)
        assert log.lag() == {(source.topic, 0): 0}
        until(lambda: log.read(WAIT_S).reached.get((source.topic, 0)) == 3, "all is read")
        log.read(WAIT_S)  # the end of the partition, which ends a wait as a record does
        reader.start()
        assert [log.lag() for _ in range(100)] == [{(source.topic, 0): 0}] * 100
        assert reader.is_alive()
        source.send(*source.whole(2, "bob"))
        reader.join(LONG_S)
        assert not reader.is_alive()
        assert log.lag()[source.topic, 0] in range(3)
    finally:
        log.close()
