"""Whose requests the demo's applications serve: who acts, in which session and request, said to database and journal alike."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from chronicle.attribution import attribute
from chronicle.dev.traffic import CLERKS
from chronicle.journal import Event, Journal, actor, current, tagged

METHODS = ("passkey", "password", "single sign-on")
REQUESTS_OF_A_SESSION = 8
LOGIN, REFUSED = "security.login", "security.permission.denied"


class Published(NamedTuple):
    """What must be found of an event wherever it goes."""

    id: str
    type: str
    request_id: str


@dataclass(slots=True)
class _Session:
    id: str
    requests: int = 0


@dataclass(slots=True)
class Sessions:
    """The sessions of one application, and every event that it has published in them."""

    journal: Journal
    published: set[Published] = field(default_factory=set)
    """Those accepted by the journal, and those of transactions that were committed. Complete when the application is done."""
    _sessions: dict[str, _Session] = field(default_factory=dict)
    _uncommitted: list[Published] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.journal.on_enqueue(self._note)

    @contextmanager
    def request(
        self, connection: Any, chosen: random.Random, who: str, reason: str, *, comment: bool = False, login: bool = False
    ) -> Iterator[None]:
        """One request of somebody: whatever the block writes and publishes has the same actor, session and request id.

        Args:
            connection: to the database whose changes are attributed.
            comment: say it in comments on statements (MariaDB).
            login: begin a new session in any case, as every few requests do.
        """
        session = self._sessions.get(who)
        new = login or session is None or session.requests >= REQUESTS_OF_A_SESSION
        if session is None or new:
            session = self._sessions[who] = _Session(_id(chosen))
        session.requests += 1
        request_id = _id(chosen)
        attributed = attribute(connection, actor=who, reason=reason, request_id=request_id, session=session.id, comment=comment)
        with actor(who), tagged(reason=reason, request_id=request_id, session=session.id), attributed:
            if new:
                self.journal.publish(LOGIN, outcome="success", payload={"method": chosen.choice(METHODS)})
            yield

    def refused(self, chosen: random.Random, permission: str, resource: tuple[str, object]) -> None:
        """A request of somebody who must not: an event, and nothing in the database."""
        with actor(chosen.choice(CLERKS)), tagged(request_id=_id(chosen)):
            self.journal.publish(REFUSED, outcome="failure", resource=resource, payload={"permission": permission})

    def in_transaction(self, connection: Any, type_: str, resource: tuple[str, object], payload: dict[str, Any]) -> None:
        """An event of the connection's transaction: published if that is committed."""
        event = self.journal.in_transaction(connection).publish(type_, outcome="success", resource=resource, payload=payload)
        if event is not None:
            self._uncommitted.append(Published(event, type_, str(current().get("request_id", ""))))

    def ended(self, *, committed: bool) -> None:
        """The transaction is over: its events are published, or never were."""
        if committed:
            self.published.update(self._uncommitted)
        self._uncommitted.clear()

    def _note(self, event: Event) -> None:
        self.published.add(Published(event.id, event.type, event.request_id or ""))


def _id(chosen: random.Random) -> str:
    return str(uuid.UUID(int=chosen.getrandbits(128), version=4))
