"""Reference data on the real broker and ClickHouse: confirmed means effective, in memory and in the table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from chronicle import entities, setup
from chronicle.codec.entity import Entity, entity_of
from chronicle.config import Kafka, Settings
from chronicle.dev.stack import Stack
from chronicle.errors import ChronicleError, ConfigError, StopWorker, TransientError
from chronicle.sinks.clickhouse_client import connect
from chronicle.sinks.entities import EntityTable
from chronicle.stages.enrich import EntityFrame
from chronicle.worker.entities import Bounds, EntityFollower
from chronicle.worker.entity_log import EntityLog
from tests.stack.test_worker import Deployment
from tests.stack.worker_process import Broker, probe, until

pytestmark = pytest.mark.stack

ACME = Entity("org:acme", 'Acme "Corp"', {"tier": "enterprise", "seats": [1, {"of": None}]})
BERT = Entity("org:bert", "Bert & Sons")
ENOUGH = Bounds(1_000_000, 1_000_000_000)
POLICY = """
[[tables]]
match = "*.public.t"
columns = { id = "clear", note = "clear" }

[[tables.enrich]]
column = "note"
entity = "org:{}"
into = "organisation"

[[tables.enrich]]
column = "email"
entity = "person:{}"
into = "person"
"""


class Site:
    """A topic and a table of one test, and followers of them."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.kafka, self.topic = settings, settings.kafka, settings.kafka.entities_topic
        self.broker = Broker(settings.kafka.bootstrap_servers)
        self.client: Client = connect(settings.clickhouse)
        self.followers: list[EntityFollower] = []

    def follower(self, *, bounds: Bounds = ENOUGH, table: bool = False, kafka: Kafka | None = None) -> EntityFollower:
        copy = EntityTable(self.settings.clickhouse) if table else None
        made = EntityFollower(EntityLog(kafka or self.kafka), bounds, table=copy)
        self.followers.append(made)
        made.start()
        return made

    def known(self, follower: EntityFollower) -> dict[str, Entity]:
        """As a batch would get it that begins now."""
        frame = awaited(follower)
        return {id_: entity_of(id_, body) for id_, body in frame.frame.select("id", "body").iter_rows()}

    def table(self) -> dict[str, Entity]:
        query = f"SELECT id, name, metadata FROM {self.settings.clickhouse.database}.entities_current"
        return {id_: Entity(id_, name, json.loads(metadata)) for id_, name, metadata in self.client.query(query).result_rows}

    def stop(self) -> None:
        while self.followers:
            self.followers.pop().close()

    def close(self) -> None:
        self.stop()
        self.client.close()


def awaited(follower: EntityFollower) -> EntityFrame:
    """A snapshot; a busy machine may need more than one wait for its first."""
    found: list[EntityFrame] = []

    def asked() -> bool:
        try:
            found.append(follower.snapshot())
        except TransientError:
            return False
        return True

    until(asked, "the topic is read")
    return found[0]


def failure(follower: EntityFollower) -> ChronicleError:
    """What stops the worker."""
    found: list[ChronicleError] = []

    def failed() -> bool:
        try:
            follower.snapshot()
        except TransientError:
            return False
        except ChronicleError as error:
            found.append(error)
        return bool(found)

    until(failed, "the follower fails")
    return found[0]


@pytest.fixture
def site(settings: Settings) -> Iterator[Site]:
    setup.run(settings)
    made = Site(settings)
    yield made
    made.close()


def test_what_was_confirmed_is_known_to_the_next_batch(site: Site) -> None:
    """Each state right after the call that made it returned, and not a moment later."""
    follower = site.follower()
    assert site.known(follower) == {}
    entities.put(site.kafka, [ACME, BERT])
    assert site.known(follower) == {ACME.id: ACME, BERT.id: BERT}
    before = follower.snapshot()
    other = Entity(ACME.id, "Acme Inc.")
    entities.put(site.kafka, [other])
    assert site.known(follower) == {ACME.id: other, BERT.id: BERT}
    entities.delete(site.kafka, [BERT.id, "org:never"])
    assert site.known(follower) == {ACME.id: other}
    assert entity_of(ACME.id, before.frame.filter(id=ACME.id)["body"][0]) == ACME, "a batch keeps the state it began with"


def test_a_start_reads_everything_before_the_first_batch(site: Site) -> None:
    """Many more records than one read brings, outdated ones among them."""
    many = [Entity(f"k:{number}", f"n{number}", {"a": "x" * 200}) for number in range(30_000)]
    entities.put(site.kafka, many)
    entities.put(site.kafka, [Entity(one.id, "newer") for one in many[:5000]])
    frame = awaited(site.follower())
    assert len(frame) == len(many)
    assert frame.frame["body"].str.contains('"newer"').sum() == 5000


def test_what_is_written_is_read_back_once(site: Site) -> None:
    """The command line's way; records that are no entities are counted and harm nothing."""
    assert entities.read(site.kafka).entities == []
    entities.put(site.kafka, [BERT, ACME])
    site.broker.produce(site.topic, [b"{}", None, b"7"])
    assert entities.get(site.kafka, ACME.id) == ACME
    assert entities.get(site.kafka, "org:nobody") is None
    told: list[int] = []
    found = entities.read(site.kafka, lambda id_: id_.startswith("org:"), told.append)
    assert (found.entities, found.unreadable) == ([ACME, BERT], 3)
    assert told[-1] == found.records
    follower = site.follower()
    assert site.known(follower) == {ACME.id: ACME, BERT.id: BERT}
    assert follower.unreadable == 3


@pytest.mark.parametrize(
    ("bounds", "setting"), [(Bounds(1, 10_000), "worker.entities_max"), (Bounds(10, 30), "worker.entities_bytes_max")]
)
def test_over_the_bound_the_worker_stops_and_names_the_setting(site: Site, bounds: Bounds, setting: str) -> None:
    """Also when the bound is reached later."""
    follower = site.follower(bounds=bounds)
    assert site.known(follower) == {}
    entities.put(site.kafka, [ACME, BERT])
    error = failure(follower)
    assert isinstance(error, ConfigError)
    assert setting in str(error)


def test_a_topic_that_is_not_there_is_named(site: Site, unique: str) -> None:
    """By whoever needs it."""
    missing = site.kafka.model_copy(update={"entities_topic": f"{unique}.missing"})
    for call in (lambda: entities.put(missing, [ACME]), lambda: entities.read(missing)):
        with pytest.raises(ConfigError, match=r"chronicle setup.*missing"):
            call()
    error = failure(site.follower(kafka=missing))
    assert isinstance(error, ConfigError)
    assert f"{unique}.missing" in str(error)


def test_a_topic_made_anew_stops_the_worker(site: Site) -> None:
    """What is in memory is then no longer true, and which part of it cannot be told."""
    entities.put(site.kafka, [ACME, BERT])
    follower = site.follower()
    assert site.known(follower) == {ACME.id: ACME, BERT.id: BERT}
    site.broker.delete(site.topic)
    setup.run(site.settings)
    assert isinstance(failure(follower), StopWorker | ConfigError)


def test_while_the_broker_is_away_a_batch_waits(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything says so as what may pass, and the way to mend it."""
    away = site.kafka.model_copy(update={"bootstrap_servers": "127.0.0.1:1"})
    monkeypatch.setattr(entities, "ANSWER_S", 2.0)
    follower = site.follower(kafka=away)
    with pytest.raises(TransientError):
        follower.snapshot()
    with pytest.raises(TransientError, match=r"kafka\.bootstrap_servers"):
        entities.put(away, [ACME])


def test_after_a_restart_of_the_broker_it_goes_on(site: Site, stack: Stack) -> None:
    """Without a new follower; what was put since then is there."""
    entities.put(site.kafka, [ACME])
    follower = site.follower()
    assert site.known(follower) == {ACME.id: ACME}
    stack.stop("kafka")
    try:
        with pytest.raises(TransientError):
            follower.snapshot()
    finally:
        stack.start("kafka")
    entities.put(site.kafka, [BERT])
    assert site.known(follower) == {ACME.id: ACME, BERT.id: BERT}


def test_the_table_is_what_the_topic_says(site: Site) -> None:
    """Of several workers that write it, after changes while none did, and when somebody emptied it."""
    entities.put(site.kafka, [ACME, BERT])
    for _ in range(2):
        site.follower(table=True)
    until(lambda: site.table() == {ACME.id: ACME, BERT.id: BERT}, "the table is filled")
    third = Entity("org:third", "Third")
    entities.put(site.kafka, [third])
    entities.delete(site.kafka, [BERT.id])
    until(lambda: site.table() == {ACME.id: ACME, third.id: third}, "the table follows")
    site.stop()
    entities.put(site.kafka, [BERT, Entity(ACME.id, "Acme Inc.")])
    entities.delete(site.kafka, [third.id])
    now = {ACME.id: Entity(ACME.id, "Acme Inc."), BERT.id: BERT}
    site.follower(table=True)
    until(lambda: site.table() == now, "the table is made equal at the start")
    site.stop()
    database = site.settings.clickhouse.database
    site.client.command(f"TRUNCATE TABLE {database}.entities")
    site.client.insert("entities", [["org:ghost", "Ghost", "{}", 5]], ["id", "name", "metadata", "offset"], database=database)
    assert set(site.table()) == {"org:ghost"}
    site.follower(table=True)
    until(lambda: site.table() == now, "what the topic does not have is gone")


def test_a_worker_enriches_and_counts_what_it_does_not_know(stack: Stack, unique: str, tmp_path: Path) -> None:
    """From the topic to ClickHouse; an update holds from the next batch on; a hidden column's value does not come back."""
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY)
    site = Deployment(stack, unique, tmp_path)
    kafka, settings = site.settings.kafka, {"CHRONICLE_POLICY_FILE": str(policy)}
    query = f"SELECT JSONExtractInt(key, 'id') AS n, enriched FROM {unique}.changes FINAL ORDER BY n"
    try:
        entities.put(kafka, [ACME, Entity("person:p0@example.org", "Ada")])
        worker = site.start(**settings)
        site.send([(site.table.key(0), site.change("c", 0, note="acme"))])
        until(lambda: len(site.ids()) == 1, "the first change is there")
        entities.put(kafka, [Entity(ACME.id, "Acme Inc.")])
        site.send([(site.table.key(n), site.change("c", n, note=note)) for n, note in ((2, "acme"), (4, "nobody"))])
        until(lambda: len(site.ids()) == 3, "the others are there")
        person = '"person":{"metadata":{},"name":"Ada"}'
        first = f'{{"organisation":{{"id":"org:acme",{ACME.body},{person}}}'
        second = '{"organisation":{"id":"org:acme","metadata":{},"name":"Acme Inc."},"person":{}}'
        assert site.rows(query) == [(0, first), (2, second), (4, '{"organisation":{},"person":{}}')]
        for into, count in (("person", 2.0), ("organisation", 1.0)):  # counted once every sink has the batch
            line = f'chronicle_unknown_entities_total{{into="{into}",table="{unique}.public.t"}} {count}'
            until(lambda line=line: line in probe(site.port, "/metrics")[1], line)  # type: ignore[misc]
        worker.term()
        assert worker.wait() == 0
        assert "p0@" not in worker.log_text()
        small = site.start(**settings, CHRONICLE_WORKER__ENTITIES_MAX="1")
        site.send([(site.table.key(6), site.change("c", 6, note="acme"))])
        assert small.wait() == 2
        assert "worker.entities_max" in small.log_text()
        assert len(site.ids()) == 3
    finally:
        site.close()
