"""Routes on a real broker: what each topic gets, and what a missing topic means."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from chronicle import config
from chronicle.dev.stack import Stack
from chronicle.errors import ConfigError
from chronicle.policy.rules import Route, RouteFormat
from chronicle.sinks.letters import LetterSink
from chronicle.sinks.routes import RouteSink
from chronicle.stages.deliveries import Router
from tests.sinks import batches
from tests.sinks.reading import records
from tests.sinks.reading import topics as made

pytestmark = pytest.mark.stack


@pytest.fixture
def topics(stack: Stack, unique: str) -> Iterator[tuple[config.Kafka, str]]:
    """Topics `<name>.deletes`, `<name>.all` and `<name>.dead`, deleted afterwards."""
    settings = config.Kafka(bootstrap_servers=stack.kafka)
    with made(settings, [f"{unique}.{name}" for name in ("deletes", "all", "dead")], 3):
        yield settings, unique


def test_each_topic_gets_what_its_route_takes(topics: tuple[config.Kafka, str]) -> None:
    """By pattern, in its format, keyed by event id, a row's records in one partition in their order."""
    kafka, name = topics
    routes = [
        Route("deletes", ("#.delete",), f"{name}.deletes", format=RouteFormat.CLOUDEVENTS),
        Route("all", ("shop.#",), f"{name}.all"),
    ]
    operations = ("create", "update", "delete")
    changes = [batches.change("shop", at, key=at % 7, operation=operations[at % 3]) for at in range(60)]
    changes += [batches.change("hiring", 1, operation="delete"), batches.change("shop", 99, stub="ignored")]
    sink = RouteSink(kafka, Router(routes))
    sink.write(batches.batch(changes, dead_letters=[batches.dead_letter("shop", 5)]))
    sink.close()
    deletes, everything = records(kafka, f"{name}.deletes"), records(kafka, f"{name}.all")
    assert len(deletes) == 21
    assert {dict(message.headers() or [])["content-type"] for message in deletes} == {b"application/cloudevents+json"}
    assert {json.loads(message.value() or b"")["type"] for message in deletes} == {
        "chronicle.shop.public.customers.delete", "chronicle.hiring.public.customers.delete"
    }  # fmt: skip
    ids = {batches.digest("event", "shop", "customers", at).hex() for at in range(60)}
    assert {(message.key() or b"").decode().replace("-", "") for message in everything} == ids
    order: dict[int, list[int]] = {}
    places: dict[int, set[int]] = {}
    for message in everything:
        at = json.loads(message.value() or b"")["meta"]["offset"]
        order.setdefault(at % 7, []).append(at)
        places.setdefault(at % 7, set()).add(message.partition() or 0)
    assert all(found == sorted(found) for found in order.values())
    assert all(len(found) == 1 for found in places.values())


def test_a_missing_topic_is_the_operators(topics: tuple[config.Kafka, str]) -> None:
    """`chronicle setup` makes it; nothing is created by writing."""
    kafka, name = topics
    sink = RouteSink(kafka, Router([Route("r", ("#",), f"{name}.absent")]))
    with pytest.raises(ConfigError, match="chronicle setup"):
        sink.write(batches.plain("shop", 1))
    sink.close()


def test_a_dead_letter_goes_to_the_topic_of_its_route(topics: tuple[config.Kafka, str]) -> None:
    """Of what was read from others, to the role's own; a batch's changes go nowhere."""
    kafka, name = topics
    own = kafka.model_copy(update={"dead_letter_topic": f"{name}.dead"})
    sink = LetterSink(own, {f"{name}.all": f"{name}.deletes"})
    letters = [batches.dead_letter("shop", 1, topic=f"{name}.all"), batches.dead_letter("shop", 2, topic="other")]
    sink.write(batches.batch([batches.change("shop", 1)], dead_letters=letters))
    sink.close()
    (routed,), (rest,) = records(kafka, f"{name}.deletes"), records(kafka, f"{name}.dead")
    assert dict(routed.headers() or [])["chronicle.original.offset"] == b"1"
    assert dict(rest.headers() or [])["chronicle.original.offset"] == b"2"
    assert routed.value() == b"\x00secret-value"
