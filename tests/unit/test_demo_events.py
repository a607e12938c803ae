"""The demo's events: what counts as published, and when its proof of them holds."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chronicle.dev.demo_events import TYPES, EventsProof, problems
from chronicle.dev.proof import Side, side
from chronicle.dev.traffic_hiring import SUBMITTED
from chronicle.dev.traffic_sessions import LOGIN, METHODS, REFUSED, Published, Sessions
from chronicle.dev.traffic_shop import ORDER_PLACED
from chronicle.events.event import Event
from chronicle.journal import Journal
from chronicle.policy.check_events import event_findings
from chronicle.policy.file import parse
from chronicle.schema_files import event_types

ROOT = Path(__file__).parents[2]
EVENTS = [Published(str(number), LOGIN, f"r-{number}") for number in range(3)]


def told(events: list[Published]) -> Side:
    """One side of the proof."""
    return side([event._asdict() for event in events], Published._fields)


WHOLE = EventsProof(
    source="shop", sent=2, written=1, rolled_back=1, lost=0, published=told(EVENTS), audit=told(EVENTS), trail=told(EVENTS)
)
REQUEST = [
    {"type": LOGIN, "actor_id": "ann", "attribution": "event"},
    {"type": "order.placed", "actor_id": "ann", "attribution": "event"},
    {"type": "shop.public.orders.create", "actor_id": "ann", "attribution": "message"},
]


@pytest.fixture
def sessions() -> Iterator[Sessions]:
    """Of an application whose events stay in memory."""
    with Journal(source="shop", transport="memory://") as journal:
        yield Sessions(journal)


def test_the_proof_holds_when_every_side_has_each_event_once() -> None:
    """In whatever order."""
    assert WHOLE.equal
    assert replace(WHOLE, trail=told(EVENTS[::-1])).equal
    assert problems([WHOLE], REQUEST) == []


@pytest.mark.parametrize(
    "changed",
    [
        {"trail": told(EVENTS[1:])},
        {"audit": told(EVENTS[1:])},
        {"trail": told([*EVENTS, EVENTS[0]])},
        {"trail": told([*EVENTS[:2], EVENTS[2]._replace(request_id="r-7")])},
        {"audit": told([*EVENTS[:2], EVENTS[2]._replace(type="other")])},
        {"sent": 1},
        {"written": 2},
        {"lost": 1},
    ],
)
def test_a_missing_doubled_changed_or_undelivered_event_breaks_the_proof(changed: dict[str, Any]) -> None:
    """On whichever side it is, and also when the journal alone knows."""
    broken = replace(WHOLE, **changed)
    assert not broken.equal
    assert any("shop" in text for text in problems([broken], REQUEST))


@pytest.mark.parametrize("strict", [False, True])
def test_the_demos_policy_and_types_have_nothing_to_warn_of(strict: bool) -> None:
    """Its types are described where any deployment describes its own."""
    policy = parse((ROOT / "policy.toml").read_text(encoding="utf-8"))
    assert event_findings(policy, event_types(ROOT / "schemas"), strict=strict) == []


def test_what_the_demo_publishes_fits_its_types(sessions: Sessions) -> None:
    """Nothing of it is marked in open mode, and nothing refused in strict mode."""
    catalogue = event_types(ROOT / "schemas")
    sessions.refused(random.Random(7), "orders.cancel", ("order", 1))
    published = list(sessions.journal.history(REFUSED, access="test"))
    assert published
    payloads: dict[str, list[dict[str, Any]]] = {
        LOGIN: [{"method": method} for method in METHODS],
        ORDER_PLACED: [{"total": "12.50", "items": 3}, {"items": 0}],
        SUBMITTED: [{"campaign_id": 7}, {}],
    }
    published += [Event(type=type_, payload=payload) for type_, said in payloads.items() for payload in said]
    assert {event.type for event in published} == set(TYPES)
    assert {event.type: catalogue.problems(event) for event in published if catalogue.problems(event)} == {}


def test_a_run_without_a_rollback_proves_nothing_of_rollbacks() -> None:
    """So it is told."""
    assert problems([replace(WHOLE, rolled_back=0)], REQUEST) == ["shop: no event was rolled back with its transaction"]


@pytest.mark.parametrize(
    "request_",
    [
        [],
        REQUEST[1:],
        [*REQUEST[:2], REQUEST[2] | {"actor_id": "bob"}],
        [*REQUEST[:2], REQUEST[2] | {"attribution": "none"}],
        REQUEST[:2],
    ],
)
def test_a_request_without_login_actor_or_attribution_is_a_problem(request_: list[dict[str, Any]]) -> None:
    """Events and changes of one request are shown together, or the demo fails."""
    assert len(problems([WHOLE], request_)) == 1


def test_what_the_journal_accepts_is_published_under_its_request(sessions: Sessions) -> None:
    """Each refusal is a request of its own, and its event is known by id, type and request."""
    chosen = random.Random(7)
    for number in range(3):
        sessions.refused(chosen, "orders.cancel", ("order", number))
    events = sessions.journal.history(REFUSED, access="test")
    assert [event.outcome for event in events] == ["failure"] * 3
    assert {Published(event.id, event.type, event.request_id or "") for event in events} <= sessions.published
    assert len({event.request_id for event in events}) == 3
