"""Reading the trail is itself on the trail: who read a history, a transaction, an activity or an export, and how they asked."""

from __future__ import annotations

import re
from collections.abc import Iterable
from uuid import uuid4

from starlette.requests import Request

from chronicle.api.access import Principal
from chronicle.api.parts import Parts, Unavailable
from chronicle.api.problems import unavailable
from chronicle.events.event import Actor, Event, EventRefused, completed, encoded
from chronicle.journal.outgoing import key_of

TYPE = "chronicle.history.read"
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,200}")


async def recorded(parts: Parts, request: Request, principal: Principal, endpoint: str, asked: Iterable[str]) -> None:
    """Put this read on the trail, before anything is answered. `asked`: names of parameters, never their values.

    Raises:
        Problem: 503 when it cannot be recorded; then nothing is read.
    """
    tenants = principal.only("tenants")
    request_id = request.headers.get("x-request-id", "")
    event = Event(
        type=TYPE,
        source="chronicle",
        actor=Actor(principal.id[:1000], principal.kind, principal.name[:1000]),
        action="read",
        resource_type="history",
        outcome="success",
        payload={"endpoint": endpoint, "filters": sorted(asked)},
        request_id=request_id if _REQUEST_ID.fullmatch(request_id) else None,
        ip=request.client.host if request.client else None,
        tenant=tenants[0] if tenants and len(tenants) == 1 else None,
    )
    try:
        whole = completed(event, id=str(uuid4()), time=parts.now().isoformat().replace("+00:00", "Z"))
        await parts.publisher.publish([(key_of(whole), encoded(whole))])
    except (Unavailable, EventRefused):
        raise unavailable("record", "this read cannot be recorded now, so nothing is read") from None
