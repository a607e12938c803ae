"""The journal against the real HTTP service: accepted, refused by item, and an outage that loses and reorders nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chronicle.dev.stack import Stack
from chronicle.journal import Journal, PublishRefused
from tests.stack.api_process import ApiSite

pytestmark = pytest.mark.stack


@pytest.fixture
def site(stack: Stack, unique: str, tmp_path: Path) -> Iterator[ApiSite]:
    """A deployment of its own, with nothing running."""
    made = ApiSite(stack, unique, tmp_path)
    yield made
    made.close()


def test_a_journal_publishes_through_the_service(site: ApiSite) -> None:
    """With a key; what the service refuses, the caller is told; the records are on the topic, by key and in order."""
    site.serve()
    token = site.key("ingest")["authorization"].removeprefix("Bearer ")
    journal = Journal(source="shop", transport=site.url, key=token, on_error=lambda *_: None)
    for n in range(1_200):
        journal.publish("order.placed", actor="ann", resource=("order", 7), payload={"n": n})
    assert journal.publish("security.login", actor="ann", outcome="success", timeout=60).disposition == "confirmed"
    journal.close(60)
    assert journal.counts["confirmed"] == 1_201
    placed = [event["payload"]["n"] for event in site.events_on_topic() if event["type"] == "order.placed"]
    assert placed == list(range(1_200))


def test_an_outage_of_the_service_loses_nothing(site: ApiSite, tmp_path: Path) -> None:
    """Killed with SIGKILL in the middle and started again: every event is on the topic, in order, doubled ones by id alone."""
    process = site.serve()
    token = site.key("ingest")["authorization"].removeprefix("Bearer ")
    journal = Journal(
        source="shop",
        transport=site.url,
        key=token,
        spill=str(tmp_path / "journal"),
        breaker_reset_s=0.05,
        breaker_reset_max_s=0.2,
        batch_events=20,
        on_error=lambda *_: None,
    )
    for n in range(300):
        journal.publish("order.placed", partition_key="k", payload={"n": n})
        if n == 150:
            process.kill()
    assert journal.publish_sync("order.placed", partition_key="k", payload={"n": 300}).disposition == "spilled"
    site.serve()
    journal.recover(60)
    journal.close(60)
    assert journal.counts["confirmed"] == 301
    first: dict[str, int] = {}
    for event in site.events_on_topic():
        first.setdefault(event["id"], event["payload"]["n"])
    assert list(first.values()) == list(range(301))


def test_a_wrong_key_loses_no_event(site: ApiSite, tmp_path: Path) -> None:
    """They wait until an operator has put it right."""
    site.serve()
    token = site.key("ingest")["authorization"].removeprefix("Bearer ")
    wrong = Journal(
        source="shop", transport=site.url, key=token[:-3] + "aaa", spill=str(tmp_path / "j"), on_error=lambda *_: None
    )
    assert wrong.publish_sync("order.placed", payload={"n": 1}).disposition == "spilled"
    wrong.close()
    right = Journal(source="shop", transport=site.url, key=token, spill=str(tmp_path / "j"), on_error=lambda *_: None)
    right.recover(60)
    right.close()
    assert [event["payload"]["n"] for event in site.events_on_topic()] == [1]


def test_the_services_limits_are_told_to_the_caller(site: ApiSite) -> None:
    """An event of a source that the key may not write is refused by the service, not lost in silence."""
    site.serve()
    token = site.key("ingest", sources=("hiring",))["authorization"].removeprefix("Bearer ")
    journal = Journal(source="shop", transport=site.url, key=token, on_error=lambda *_: None)
    with pytest.raises(PublishRefused):
        journal.publish("order.placed", timeout=60)
    journal.close()
    assert journal.counts["refused"] == 1
