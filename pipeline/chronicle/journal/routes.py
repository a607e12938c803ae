"""What an event's type decides: where it goes, how soon, with what it keeps its order, and how many of its kind are kept."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from chronicle.errors import ConfigError
from chronicle.events.event import PRIORITIES, Actor, Event, Priority
from chronicle.journal.patterns import matches

KEYS = ("resource", "actor", "tenant", "session", "request_id", "type")


class Route(NamedTuple):
    """For the events of a pattern; what an event says itself is not changed."""

    topic: str | None = None
    """For Kafka: another topic than the usual one, `chronicle.events.<name>`."""
    priority: Priority | None = None
    key: str | None = None
    """The partition key is taken from there: one of `KEYS`."""


class Routes:
    """A table of patterns. For each property the first pattern that fits and says something about it counts.

    Args:
        table: pattern → route, or its fields; or the text form of `CHRONICLE_JOURNAL_ROUTES`.

    Raises:
        ConfigError: malformed.
    """

    def __init__(self, table: Mapping[str, Route | Mapping[str, Any]] | str = "") -> None:
        if isinstance(table, str):
            table = _read(table)
        self._table = {
            pattern: route if isinstance(route, Route) else _route(pattern, route) for pattern, route in table.items()
        }
        for pattern, route in self._table.items():
            if route.priority not in (None, *PRIORITIES) or route.key not in (None, *KEYS):
                raise ConfigError(
                    f"route {pattern!r}: priority is one of {', '.join(PRIORITIES)}; key one of {', '.join(KEYS)}"
                )
        self._found: dict[str, Route] = {}

    def of(self, type: str) -> Route:
        """What the table says about a type."""
        found = self._found.get(type)
        if found is None:
            fitting = [route for pattern, route in self._table.items() if matches(pattern, type)]
            found = Route(*(next((one for one in values if one is not None), None) for values in zip(*fitting, strict=True)))
            if len(self._found) < 10_000:
                self._found[type] = found
        return found

    def applied(self, event: Event, *, prioritized: bool) -> Event:
        """The event with its route's priority (unless `prioritized`: it has one of its own) and partition key."""
        if not self._table:
            return event
        route = self.of(event.type)
        changes: dict[str, Any] = {}
        if route.priority is not None and not prioritized:
            changes["priority"] = route.priority
        if route.key is not None and event.partition_key is None:
            changes["partition_key"] = _key(event, route.key)
        return msgspec.structs.replace(event, **changes) if changes else event


class Sampling:
    """Which events are kept. Events of one request are kept or left out together: the choice hangs on the request's id, else
    on the event's.

    Args:
        table: pattern → share from 0 to 1; or the text form of `CHRONICLE_JOURNAL_SAMPLE`. The first that fits counts.
    """

    def __init__(self, table: Mapping[str, float] | str = "") -> None:
        if isinstance(table, str):
            words = [word.partition("=") for word in table.split()]
            try:
                table = {pattern: float(share) for pattern, _, share in words}
            except ValueError:
                raise ConfigError("sample: write patterns and their shares, as `http.**=0.1 log.debug=0`") from None
        if not all(0 <= share <= 1 for share in table.values()):
            raise ConfigError("sample: a share is a number from 0 to 1")
        self._table = dict(table)
        self._found: dict[str, float] = {}

    def keeps(self, event: Event) -> bool:
        """Whether this event stays."""
        if not self._table:
            return True
        share = self._found.get(event.type)
        if share is None:
            share = next((share for pattern, share in self._table.items() if matches(pattern, event.type)), 1.0)
            if len(self._found) < 10_000:
                self._found[event.type] = share
        return share >= 1 or zlib.crc32((event.request_id or event.id).encode()) < share * 2**32


def _key(event: Event, name: str) -> str | None:
    if name == "actor":
        return event.actor.id if isinstance(event.actor, Actor) else event.actor
    if name == "resource":
        return f"{event.resource_type}:{event.resource_id}" if event.resource_type and event.resource_id else None
    found: str | None = getattr(event, name)
    return found


def _read(text: str) -> dict[str, Mapping[str, Any]]:
    table: dict[str, Mapping[str, Any]] = {}
    for line in text.split(";"):
        pattern, *words = line.split() or [""]
        if pattern:
            table[pattern] = dict(word.partition("=")[::2] for word in words)
    return table


def _route(pattern: str, said: Mapping[str, Any]) -> Route:
    if not said or said.keys() - set(Route._fields):
        raise ConfigError(f"route {pattern!r}: write {', '.join(f'{name}=…' for name in Route._fields)}, as many as needed")
    return Route(**said)
