"""Events on routes: the workers of a role deliver them as they do changes, to endpoint, archive and topic."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from chronicle.dev.stack import Stack
from tests.sinks.endpoint import OK
from tests.stack import test_roles
from tests.stack.test_events_trail import event
from tests.stack.test_roles import Site

pytestmark = pytest.mark.stack

POLICY = """
[defaults]
ignore = []
[[tables]]
match = "**"
columns = {{ "*" = "clear" }}
[[events]]
match = "**"
columns = {{ "payload.method" = "clear" }}
[[routes]]
name = "rows"
match = ["*.public.t.#", "security.#"]
to = "{name}-rows"
"""


@pytest.fixture
def site(stack: Stack, unique: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A role with a processor, an endpoint, an archive and a topic, on a route of changes and events."""
    monkeypatch.setattr(test_roles, "POLICY", POLICY)
    made = Site(stack, unique, tmp_path, processors=["my_security"], to=f"{unique}-out")
    yield made
    made.close()


def say(site: Site, *events: dict[str, Any]) -> None:
    made = site.deployment
    made.send([(b"user:1", json.dumps(one).encode()) for one in events], topic=made.settings.kafka.events_topic)


def numbers(records: list[Any]) -> list[int]:
    """Of the events among audit records: the number that each was made with."""
    said = [one["core"] for one in records if one["core"]["unmapped"].get("kind") == "event"]
    return [int(one["metadata"]["uid"].replace("-", ""), 16) for one in said]


def test_a_role_delivers_events_and_changes_of_its_route(site: Site) -> None:
    """From the events topic to the endpoint, the archive and the role's own topic; processors see the changes alone."""
    made = site.deployment
    made.create(4)
    say(site, *(event(n) for n in range(1, 6)), event(9, type="order.placed"))
    site.stream()
    summary = site.drain()
    assert (summary["records"], summary["events"], summary["dead_letters"]) == (9, 5, {})
    assert sorted(numbers(site.endpoint.records)) == [1, 2, 3, 4, 5]
    assert len(site.endpoint.records) == 9
    assert "hunter2" not in json.dumps(site.endpoint.records)
    place = made.directory / "archive"
    said = pl.read_parquet(f"{place}/events/**/*.parquet")
    assert sorted(int(one.replace("-", ""), 16) for one in said["event_id"]) == [1, 2, 3, 4, 5]
    assert json.loads(said["payload"][0]) == {"method": "passkey", "password": "[FILTERED]"}
    assert len(pl.read_parquet(f"{place}/source={made.name}/**/*.parquet")) == 4
    out = [json.loads(value or b"") for _, value, _ in made.broker.read(f"{made.name}-out")]
    assert sorted(numbers(out)) == [1, 2, 3, 4, 5]
    assert len(out) == 9
    assert site.drain()["records"] == 0


def test_an_event_that_an_endpoint_refuses_is_a_letter_of_the_role_and_can_be_sent_back(site: Site) -> None:
    """Its neighbours go through."""
    poison, bad = [True], event(3)["id"].encode()
    site.endpoint.answer = lambda posted: (422, {}) if poison and bad in posted.body else OK
    say(site, *(event(n) for n in range(1, 6)))
    site.stream()
    assert site.drain()["dead_letters"] == {"value_refused": 1}
    assert sorted(set(numbers(site.endpoint.records))) == [1, 2, 4, 5]
    poison.clear()
    sent = site.command("dead-letters", "replay", "--role", "security", "--reason", "value_refused", "--json")
    assert sent["sent"] == 1
    assert site.drain()["events"] == 1
    assert 3 in numbers(site.endpoint.records)
