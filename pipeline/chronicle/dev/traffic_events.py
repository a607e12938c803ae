"""Events as applications say them, made up: requests with what happens in them, from a seed; for `chronicle events flood`."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from chronicle.events.event import Actor, Event, Outcome
from chronicle.events.payload import Payload
from chronicle.events.types import payload_of

SOURCE = "flood"
PEOPLE = ("ann", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy", "mallory", "niaj")
TENANTS = ("acme", "globex", "initech", None)
ROUTES = (
    ("GET", "/orders/{order_id}", 200),
    ("GET", "/reports/{report_id}", 200),
    ("POST", "/items", 201),
    ("PATCH", "/items/{item_id}", 200),
    ("POST", "/items/{item_id}/comments", 201),
    ("GET", "/reports/{report_id}", 403),
    ("POST", "/session", 401),
)
WEIGHTS = (30, 14, 10, 20, 14, 4, 8)
STATES = ("open", "doing", "waiting", "done")


class Requests:
    """Endless, and the same for the same seed, besides ids and times, which are made when an event is sent."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)  # noqa: S311  # nothing secret
        self._number = 0

    def events(self, count: int) -> Iterator[Event]:
        """So many, request by request."""
        left = count
        while left > 0:
            for event in self._request():
                if left == 0:
                    return
                left -= 1
                yield event

    def _request(self) -> Iterator[Event]:
        chance = self._chance
        self._number += 1
        method, route, status = chance.choices(ROUTES, WEIGHTS)[0]
        person = chance.choice(PEOPLE)
        about = chance.randrange(1, 5_000)
        path = "/".join(str(about) if part.startswith("{") else part for part in route.split("/"))
        common: dict[str, Any] = {
            "source": SOURCE,
            "actor": Actor(f"user:{PEOPLE.index(person)}", "user", person),
            "request_id": str(UUID(int=chance.getrandbits(128), version=4)),
            "traceparent": f"00-{chance.getrandbits(127) + 1:032x}-{chance.getrandbits(63) + 1:016x}-01",
            "ip": f"10.{PEOPLE.index(person)}.{chance.randrange(256)}.{chance.randrange(1, 255)}",
            "session": f"s-{chance.randrange(10_000):04d}",
            "tenant": chance.choice(TENANTS),
            "tags": {"release": "2026.11", "region": chance.choice(("eu-1", "eu-2", "us-1"))},
        }
        yield _said(common, "http.request.received", method=method, route=route, path=path, scheme="https", http_version="1.1")
        yield from self._within(common, method, route, status, about)
        outcome: Outcome = "success" if status < 400 else "failure"
        milliseconds = round(chance.lognormvariate(3, 0.8), 3)
        given: dict[str, Any] = {"method": method, "status": status, "route": route, "path": path, "duration_ms": milliseconds}
        yield _said(common, "http.response.sent", outcome=outcome, **given)

    def _within(self, common: dict[str, Any], method: str, route: str, status: int, about: int) -> Iterator[Event]:
        chance = self._chance
        given: dict[str, Any]
        item = {"resource_type": "work_item", "resource_id": str(about)}
        if route == "/session":
            given = {"method": "password", "attempt": chance.randrange(1, 5), "failure": "wrong_answer"}
            yield _said(common, "auth.login", outcome="failure", priority="high", **given)
        elif status == 403:
            given = {"resource_type": "report", "resource_id": str(about), "action": "read", "reason": "not granted"}
            yield Event(**{**common, **given, "outcome": "failure"})
        elif route == "/items":
            given = {"project": "website", "item_type": "task", "status": "open", "labels": ["checkout"]}
            yield _said(common, "work_item.created", about=item, outcome="success", **given)
        elif method == "PATCH":
            before, after = chance.sample(STATES, 2)
            yield _said(common, "work_item.updated", about=item, changed=["status"], status=after, previous_status=before)
        elif route.endswith("comments"):
            comment = {"resource_type": "comment", "resource_id": str(self._number)}
            given = {"on_type": "work_item", "on_id": str(about), "length": chance.randrange(1, 2_000)}
            yield _said(common, "comment.added", about=comment, **given)


def _said(
    common: dict[str, Any],
    type: str,
    *,
    about: dict[str, str] | None = None,
    outcome: Outcome | None = None,
    priority: str = "normal",
    **fields: Any,
) -> Event:
    payload: Payload = payload_of(type)(**fields)
    kind = payload.KIND
    given = {"resource_type": kind.resource_type, **(about or {}), "action": kind.action, "type": type, "outcome": outcome}
    return Event(**{**common, **given, "priority": priority, "payload": payload.fields()})
