"""A deployment with events alone, on the real stack; what it encrypts, and times that no calendar has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from chronicle.dev.stack import Stack
from chronicle.policy.keyring import Purpose, entry
from tests.stack.test_events_trail import Site, event
from tests.stack.worker_process import until

pytestmark = pytest.mark.stack

ENCRYPTING = """
[[events]]
match = "**"
columns = { "payload.iban" = "encrypt", "payload.method" = "clear" }
"""


@pytest.fixture
def site(stack: Stack, unique: str, tmp_path: Path) -> Iterator[Site]:
    """Without any source file."""
    made = Site(stack, unique, tmp_path)
    (tmp_path / "connectors" / f"{unique}.toml").unlink()
    yield made
    made.close()


def test_a_worker_without_a_source_reads_events(site: Site) -> None:
    """It starts, says so once, and drains; the topics of tables are not its business."""
    site.create(5)
    site.say(*(json.dumps(event(n)).encode() for n in range(1, 4)))
    worker = site.start("--until-drained", "--json")
    assert worker.wait() == 0, worker.log_text()[-3000:]
    summary = json.loads(worker.output())
    assert (summary["records"], summary["events"]) == (3, 3)
    assert "reads events alone" in worker.log_text()


def test_a_worker_limited_to_sources_leaves_events_to_another(stack: Stack, unique: str, tmp_path: Path) -> None:
    """`--sources SOURCE`, and `--sources events`."""
    made = Site(stack, unique, tmp_path)
    try:
        made.create(4)
        made.say(*(json.dumps(event(n)).encode() for n in range(1, 4)))
        counts = []
        for named, group in ((unique, "a"), ("events", "b")):
            worker = made.start("--until-drained", "--json", "--sources", named, group=f"{unique}-{group}")
            assert worker.wait() == 0, worker.log_text()[-3000:]
            counts.append(json.loads(worker.output()))
        assert [(one["records"], one["events"]) for one in counts] == [(4, 0), (3, 3)]
    finally:
        made.close()


def test_without_the_topic_of_events_a_worker_says_what_to_do(site: Site) -> None:
    """Neither a source nor the topic: there is nothing to read."""
    site.broker.delete(site.settings.kafka.events_topic)
    until(lambda: site.settings.kafka.events_topic not in site.broker.admin.list_topics(timeout=10).topics, "gone")
    worker = site.start()
    assert worker.wait() == 2
    assert f"run `chronicle setup` first: there is no topic {site.name}-events" in worker.log_text()


def chronicle(site: Site, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    run = [sys.executable, "-m", "chronicle.cli", *words]
    names = {**os.environ, "CHRONICLE_CONFIG": str(site.settings_file), **environment}
    return subprocess.run(run, env=names, capture_output=True, text=True, check=False, timeout=60)


def test_an_encrypted_field_is_opened_by_those_who_hold_the_key(site: Site) -> None:
    """Stored as a ciphertext, printed in clear; of two events with one id the one that is named."""
    ring, policy = site.directory / "keys.toml", site.directory / "encrypting.toml"
    ring.write_text(entry("e-1", Purpose.ENCRYPT, bytes(range(32)), datetime(2026, 1, 1, tzinfo=UTC)))
    ring.chmod(0o600)
    policy.write_text(ENCRYPTING)
    names = {"CHRONICLE_POLICY_FILE": str(policy), "CHRONICLE_KEY_RING_FILE": str(ring)}
    payload = {"iban": {"number": "DE89370400440532013000", "n": [1]}, "method": "card"}
    site.say(*(json.dumps(event(7, type=type_, payload=payload)).encode() for type_ in ("order.paid", "order.lost")))
    assert site.drain(**names)["events"] == 2
    stored = site.rows(f"SELECT payload FROM {site.name}.events FINAL")
    assert all("DE89" not in text for (text,) in stored)
    id_: Any = event(7)["id"]
    several = chronicle(site, "decrypt", id_, **names)
    assert several.returncode == 1
    assert "--type" in several.stderr
    done = chronicle(site, "decrypt", id_, "--type", "order.paid", "--json", **names)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["payload"], said["opened"], said["type"]) == (payload, ["iban"], "order.paid")
    site.say(*(json.dumps(event(7, type="order.paid", tenant=tenant, payload=payload)).encode() for tenant in ("acme", "blue")))
    site.drain(**names)
    several = chronicle(site, "decrypt", id_, "--type", "order.paid", **names)
    assert (several.returncode, "--tenant" in several.stderr) == (1, True)
    for tenant in ("acme", "blue", ""):
        found = chronicle(site, "decrypt", id_, "--type", "order.paid", "--tenant", tenant, "--json", **names)
        assert json.loads(found.stdout)["tenant"] == (tenant or None)
    nobody = chronicle(site, "decrypt", event(8)["id"], **names)
    assert nobody.returncode == 1
    assert "no change or event" in nobody.stderr


def test_a_record_that_says_it_is_from_another_age_stops_nothing(site: Site) -> None:
    """The broker says when a record came, and a topic where it does not may say anything."""
    site.broker.create(f"{site.name}-events.old", 1, **{"message.timestamp.type": "CreateTime"})
    producer = Producer({"bootstrap.servers": site.stack.kafka})
    lasting = json.dumps({"source": "shop", "type": "a.b"}).encode()
    for topic in (f"{site.name}-events", f"{site.name}-events.old"):
        for value in (lasting, b"junk"):
            producer.produce(topic, value=value, key=b"k", timestamp=1)
    assert producer.flush(30) == 0
    summary = site.drain()
    assert (summary["events"], summary["dead_letters"]) == (2, {"wrong_frame": 2})
    times = site.rows(f"SELECT toYear(received_at) > 2000, time = received_at FROM {site.name}.events FINAL ORDER BY time")
    assert times == [(0, 1), (1, 1)]


def test_random_times_make_few_partitions(site: Site) -> None:
    """A thousand years said by an application are one partition; an event that comes again later is one event still."""
    said = [event(n, time=f"{1900 + n % 299}-{1 + n % 12:02}-03T00:00:00Z") for n in range(1, 1500)]
    site.say(*(json.dumps(one).encode() for one in [*said, *said[:5]]))
    assert site.drain()["events"] == 1504
    where = f"database = '{site.name}' AND table = 'events' AND active"
    ((partitions, parts),) = site.rows(f"SELECT uniqExact(partition), count() FROM system.parts WHERE {where}")
    assert partitions <= 15
    assert parts <= 60
    assert site.rows(f"SELECT count() FROM {site.name}.events FINAL") == [(1499,)]
    assert site.rows(f"SELECT count() FROM {site.name}.events FINAL WHERE time < '1910-01-01 00:00:00'") == [
        (sum(1900 + n % 299 < 1910 for n in range(1, 1500)),)
    ]
