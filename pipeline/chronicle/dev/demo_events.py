"""The demo's events: what applications published against the audit topic and the trail, and one request as it stands there."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from clickhouse_connect.driver.client import Client

from chronicle.config import Settings
from chronicle.dev.proof import Row, Side, side
from chronicle.dev.traffic_hiring import SUBMITTED
from chronicle.dev.traffic_sessions import LOGIN, REFUSED, Published, Sessions
from chronicle.dev.traffic_shop import ORDER_PLACED
from chronicle.journal import Journal
from chronicle.trail.reading import rows

TYPES = (LOGIN, REFUSED, ORDER_PLACED, SUBMITTED)
"""What the demo's applications publish: types of their own, described in `schemas/events/` as any deployment's are."""
CLOSE_TIMEOUT_S = 30.0
WAIT_S = 30.0
POLL_INTERVAL_S = 0.2
LOST = ("refused", "dropped", "rate_limited", "lost", "damaged", "invalid")
"""What a journal counts that must not happen in the demo."""

TRAIL = """
    SELECT source, toString(event_id) AS id, type, ifNull(request_id, '') AS request_id FROM {database:Identifier}.events FINAL
    WHERE source IN {sources:Array(String)} AND time >= {since:DateTime64(6)}
"""
FIND = """
    SELECT request_id FROM {database:Identifier}.audit_trail
    WHERE source = 'shop' AND time >= {since:DateTime64(6)} AND request_id IS NOT NULL
    GROUP BY request_id
    HAVING countIf(type = {first:String}) = 1 AND countIf(type = {last:String}) = 1 AND countIf(kind = 'change') > 0
    ORDER BY min(time) LIMIT 1
"""
SHOW = """
    SELECT request_id, kind, time, source, type, action, resource_type, resource_id, outcome, actor_id, attribution, payload,
        labels
    FROM {database:Identifier}.audit_trail WHERE request_id = {request:String} AND time >= {since:DateTime64(6)}
    ORDER BY time, position, type
"""


@dataclass(frozen=True, slots=True)
class EventsProof:
    """Of one application: its events of this run, by digest of id, type and request."""

    source: str
    sent: int
    """Confirmed by the broker."""
    written: int
    """Part of transactions that were committed …"""
    rolled_back: int
    """… and of others: nowhere to be seen."""
    lost: int
    """What the journal says that it could not deliver: `LOST`."""
    published: Side
    audit: Side
    trail: Side

    @property
    def equal(self) -> bool:
        """What the application published, and nothing else, is on the audit topic and in the trail, each once."""
        delivered = self.sent + self.written == self.published.rows and not self.lost
        return delivered and self.published == self.audit == self.trail

    def as_json(self) -> dict[str, Any]:
        """For a pipe."""
        return {
            "source": self.source,
            "sent": self.sent,
            "in_transactions": self.written,
            "rolled_back": self.rolled_back,
            "lost": self.lost,
            "events": self.published.rows,
            "digests": {"published": self.published.digest, "audit": self.audit.digest, "trail": self.trail.digest},
            "equal": self.equal,
        }


class Applications:
    """The journals of the demo's applications for one run. Close it: events that are not sent by then stay in its spill."""

    def __init__(self, settings: Settings, spill: Path, sources: Sequence[str]) -> None:
        """Open them, and send what an earlier run that was killed may have left.

        Args:
            spill: a directory for events while the broker is away.
        """
        self.began = datetime.now(UTC)
        self._journals = ExitStack()
        self.sessions: dict[str, Sessions] = {}
        for source in sources:
            journal = Journal(
                source=source,
                transport=f"kafka://{settings.kafka.bootstrap_servers}/{settings.kafka.events_topic}",
                spill=str(spill / source),
                close_timeout_s=CLOSE_TIMEOUT_S,
            )
            self._journals.callback(journal.close)
            journal.recover(CLOSE_TIMEOUT_S)
            self.sessions[source] = Sessions(journal)
        self._earlier = {source: one.journal.counts["confirmed"] for source, one in self.sessions.items()}

    def close(self) -> None:
        """Send everything. May be repeated."""
        self._journals.close()

    def sent(self, source: str) -> int:
        """Events of this run that the broker has confirmed."""
        return self.sessions[source].journal.counts["confirmed"] - self._earlier[source]

    @property
    def published(self) -> int:
        """Events so far, of all."""
        return sum(len(one.published) for one in self.sessions.values())


def wait(client: Client, database: str, applications: Applications) -> int:
    """Until as many events are in the trail as were published, or for some time: the proof says what is missing."""
    deadline = time.monotonic() + WAIT_S
    while True:
        found = len(_trail(client, database, applications))
        if found >= applications.published or time.monotonic() > deadline:
            return found
        time.sleep(POLL_INTERVAL_S)


def prove(client: Client, database: str, applications: Applications, audited: Iterable[Mapping[str, Any]]) -> list[EventsProof]:
    """Compare three sides of each application's events.

    Args:
        audited: the audit topic's records, as of `proof.audited`.
    """
    trail = _trail(client, database, applications)
    audit = [
        {**record, "request_id": record["request_id"] or ""}
        for record in audited
        if record.get("kind") == "event" and datetime.fromisoformat(record["occurred_at"]) >= applications.began
    ]
    return [
        EventsProof(
            source=source,
            sent=applications.sent(source),
            written=(counts := one.journal.counts)["written"],
            rolled_back=counts["rolled_back"],
            lost=sum(counts[name] for name in LOST),
            published=_side(event._asdict() for event in one.published),
            audit=_side(record for record in audit if record["source"] == source),
            trail=_side(event for event in trail if event["source"] == source),
        )
        for source, one in applications.sessions.items()
    ]


def request(client: Client, database: str, since: datetime) -> list[dict[str, Any]]:
    """All that the trail knows of the run's first request in which somebody logged in and placed an order, in order of time."""
    asked = {"database": database, "since": since, "first": LOGIN, "last": ORDER_PLACED}
    found = rows(client, FIND, asked)
    return rows(client, SHOW, {**asked, "request": found[0]["request_id"]}) if found else []


def problems(found: Sequence[EventsProof], shown: Sequence[Mapping[str, Any]]) -> list[str]:
    """Everything about events that is not as it must be."""
    told = [f"{one.source}: events published, on the audit topic and in the trail differ" for one in found if not one.equal]
    told += [f"{one.source}: no event was rolled back with its transaction" for one in found if not one.rolled_back]
    if not shown:
        return [*told, "no request shows a login, changes and an order"]
    if shown[0]["type"] != LOGIN:
        told.append("the request that is shown does not begin with its login")
    if len({entry["actor_id"] for entry in shown}) != 1:
        told.append("the request that is shown has more than one actor")
    if {entry["attribution"] for entry in shown} != {"event", "message"}:
        told.append("not all changes of the request that is shown are attributed by its message")
    return told


def _trail(client: Client, database: str, applications: Applications) -> list[dict[str, Any]]:
    asked = {"database": database, "sources": list(applications.sessions), "since": applications.began}
    return rows(client, TRAIL, asked)


def _side(events: Iterable[Row]) -> Side:
    return side(events, Published._fields)
