"""What was published in a test, and how a test asks for it: the fixture `journaled` of `pytest_plugin`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from chronicle.events.event import Actor, Event
from chronicle.journal.patterns import matches

if TYPE_CHECKING:
    from chronicle.journal.journal import Journal
    from chronicle.journal.outgoing import Outgoing
    from chronicle.journal.receipt import Receipt

SHOWN_MAX = 20
VALUE_WIDTH_MAX = 120
ANY: Any = type("_Any", (), {"__repr__": lambda _: "ANY", "__eq__": lambda *_: True, "__hash__": lambda _: 0})()
"""Stands for any value that is there."""
_WANTED = frozenset({*Event.__struct_fields__, "actor_id", "resource", "topic", "key"})


@dataclass(frozen=True, slots=True)
class Published:
    """One event, and how it would have been sent."""

    event: Event
    topic: str | None
    """None: the usual one."""
    key: bytes
    source: str
    """The journal's."""
    in_transaction: bool = False

    def __repr__(self) -> str:
        return _shown(self.event, self.topic)


@dataclass(frozen=True, slots=True)
class Answer:
    """Of a question to `Journaled`: true or false, for `assert`."""

    holds: bool
    found: tuple[Published, ...]
    asked: str
    text: str
    """What there is, and what came nearest. A failed test's report shows it."""

    def __bool__(self) -> bool:
        return self.holds

    def __repr__(self) -> str:
        return f"<{'found' if self.found else 'not found'}: {self.asked}>"


class Journaled:
    """The events of one test, in the order of publication.

    Questions take what an event must have, by field: `type` (a pattern: `security.*`, `**`), `actor` (an id, or a mapping or
    `Actor` of which each part that is said must be so), `resource` (a type, or type and id), `payload` and `tags` (each part
    that is said must be so, at any depth; a list must be as long), `topic`, `partition_key`, `priority`, `key` (text, as it is
    sent), and any other field of an event. A value that can be called is asked about the event's: `lambda text: "x" in text`.
    `ANY` stands for any value but none.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: list[Published] = []
        self._closed = False
        self._failed: Answer | None = None

    def __iter__(self) -> Iterator[Published]:
        return iter(self.events)

    def __len__(self) -> int:
        return len(self.events)

    def __repr__(self) -> str:
        return f"<{len(self)} {'event' if len(self) == 1 else 'events'}>"

    @property
    def report(self) -> str:
        """For a failed test: the last question that did not hold, and all events."""
        about = f"{self._failed.text}\n\n" if self._failed is not None else ""
        return f"{about}{_listed(self.events)}"

    @property
    def events(self) -> tuple[Published, ...]:
        """All of them."""
        with self._lock:
            return tuple(self._events)

    def including(self, **wanted: Any) -> Answer:
        """Whether there is at least one such event."""
        events, found, asked = self.events, self.matching(**wanted), _asked(wanted)
        if found:
            return self._answered(Answer(True, found, asked, _there(asked, found)))
        return self._answered(Answer(False, (), asked, f"There is no {asked}.{_nearest(events, wanted)}"))

    def not_including(self, **wanted: Any) -> Answer:
        """Whether there is no such event."""
        found, asked = self.matching(**wanted), _asked(wanted)
        if found:
            return self._answered(Answer(False, found, asked, _there(asked, found)))
        return self._answered(Answer(True, (), asked, f"There is no {asked}."))

    def _answered(self, answer: Answer) -> Answer:
        self._failed = None if answer else answer
        return answer

    def count(self, **wanted: Any) -> int:
        """How many such events there are; all of them when nothing is said."""
        return len(self.matching(**wanted))

    def matching(self, **wanted: Any) -> tuple[Published, ...]:
        """Such events.

        Raises:
            TypeError: there is no such field: a test that asks for nothing must not pass.
        """
        unknown = sorted(wanted.keys() - _WANTED)
        if unknown:
            raise TypeError(f"an event has no {', '.join(unknown)}: ask for {', '.join(sorted(_WANTED))}")
        return tuple(one for one in self.events if not _differences(one, wanted))

    def clear(self) -> None:
        """Forget what was published so far."""
        with self._lock:
            self._events.clear()

    def take(self, journal: Journal, out: Outgoing, *, in_transaction: bool = False) -> None:
        """The plugin's: an event was published."""
        with self._lock:
            if not self._closed:
                self._events.append(Published(out.event, out.topic, out.key, journal.source, in_transaction))

    def close(self) -> None:
        """The plugin's: the test is over, and threads that it left behind are not heard."""
        with self._lock:
            self._closed = True


def recording(into: Journaled, setattr: Callable[[Any, str, Any], None]) -> None:
    """Have every journal hand its events over instead of sending them; hooks, subscribers, history and counts go on.

    Args:
        into: who gets them.
        setattr: sets an attribute of a class until the test ends.
    """
    from chronicle.journal import outbox
    from chronicle.journal.journal import Journal

    def accept(journal: Journal, out: Outgoing | None, receipt: Receipt, **_: Any) -> Receipt:
        if out is not None:
            into.take(journal, out)
            journal._accepted(out)
            journal.count("confirmed")
            receipt.settle("confirmed")
        return receipt

    async def aaccept(journal: Journal, out: Outgoing | None, receipt: Receipt, **_: Any) -> Receipt:
        return accept(journal, out, receipt)

    def publish(transaction: Any, what: Any = "", /, **fields: Any) -> str | None:
        out = transaction._journal.prepared(what, **fields)
        if out is None:
            return None
        transaction._behind(out.topic)
        into.take(transaction._journal, out, in_transaction=True)
        transaction._journal.count("in_transaction")
        return str(out.event.id)

    setattr(Journal, "_accept", accept)
    setattr(Journal, "_aaccept", aaccept)
    setattr(outbox, "_adder", lambda connection: connection)
    setattr(outbox.TransactionJournal, "publish", publish)


def _differences(one: Published, wanted: Mapping[str, Any]) -> dict[str, str]:
    """Field → what is otherwise."""
    told = {}
    for name, expected in wanted.items():
        actual = _value(one, name)
        if name == "type" and isinstance(expected, str):
            fits = matches(expected, actual)
        elif name == "resource" and isinstance(expected, str):
            fits = one.event.resource_type == expected
        else:
            fits = _fits(_plain(expected), actual)
        if not fits:
            told[name] = f"wanted {_short(expected)}, found {_short(actual)}"
    return told


def _value(one: Published, name: str) -> Any:
    event = one.event
    if name == "topic":
        return one.topic
    if name == "key":
        return one.key.decode()
    if name == "resource":
        return [event.resource_type, event.resource_id]
    actor = event.actor
    if name == "actor_id":
        return actor.id if isinstance(actor, Actor) else actor
    if name == "actor":
        return {"id": actor.id, "type": actor.type, "name": actor.name} if isinstance(actor, Actor) else actor
    return getattr(event, name)


def _plain(expected: Any) -> Any:
    """An expectation as JSON has values: `("order", 7)`, UUIDs, dates, enums, Structs; functions and ANY stay."""
    if isinstance(expected, Mapping):
        return {str(name): _plain(value) for name, value in expected.items()}
    if isinstance(expected, list | tuple):
        return [_plain(value) for value in expected]
    if expected is ANY or callable(expected):
        return expected
    if all(hasattr(expected, name) for name in ("id", "type", "name")):
        return {name: value for name in ("id", "type", "name") if (value := getattr(expected, name)) is not None}
    try:
        return msgspec.to_builtins(expected)
    except TypeError:
        return expected


def _fits(expected: Any, actual: Any) -> bool:
    if expected is ANY or callable(expected):
        return actual is not None and (expected is ANY or bool(expected(actual)))
    if isinstance(expected, dict):
        return _fits_object(expected, actual)
    if isinstance(expected, list):
        return (
            isinstance(actual, list)
            and len(expected) == len(actual)
            and all(_fits(one, other) for one, other in zip(expected, actual, strict=True))
        )
    if isinstance(actual, dict):  # an actor asked for by its id
        return actual.keys() == {"id", "type", "name"} and str(expected) == actual["id"]
    if isinstance(actual, str) and isinstance(expected, int) and not isinstance(expected, bool):
        return str(expected) == actual
    return bool(expected == actual) and isinstance(expected, bool) == isinstance(actual, bool)


def _fits_object(expected: dict[str, Any], actual: Any) -> bool:
    if isinstance(actual, str):  # an actor that is its id alone
        return expected == {"id": actual}
    return isinstance(actual, dict) and all(name in actual and _fits(value, actual[name]) for name, value in expected.items())


def _nearest(events: tuple[Published, ...], wanted: Mapping[str, Any]) -> str:
    """The event that differs least, and in what; of those alike the last."""
    if not events or not wanted:
        return ""
    differences = [(one, _differences(one, wanted)) for one in reversed(events)]
    best, told = min(differences, key=lambda pair: (len(pair[1]), "type" in pair[1]))
    if len(told) == len(wanted) > 1:
        return ""
    lines = "\n".join(f"    {name}: {difference}" for name, difference in told.items())
    return f"\nNearest: {best!r}\n{lines}"


def _there(asked: str, found: tuple[Published, ...]) -> str:
    return f"There is an {asked}:\n" + "\n".join(f"    {one!r}" for one in found)


def _asked(wanted: Mapping[str, Any]) -> str:
    said = ", ".join(f"{name}={_short(value)}" for name, value in wanted.items())
    return f"event with {said}" if said else "event"


def _listed(events: tuple[Published, ...]) -> str:
    if not events:
        return "Nothing was published."
    shown = events[-SHOWN_MAX:]
    more = "" if len(shown) == len(events) else f"\n    … and {len(events) - len(shown)} before"
    return f"Published ({len(events)}):{more}" + "".join(f"\n    {one!r}" for one in shown)


def _shown(event: Event, topic: str | None) -> str:
    who = event.actor.id if isinstance(event.actor, Actor) else event.actor
    said: dict[str, Any] = {"actor": who}
    if event.resource_type:
        said["resource"] = (event.resource_type, event.resource_id) if event.resource_id else event.resource_type
    said |= {
        name: getattr(event, name) for name in ("outcome", "description", "payload", "request_id", "partition_key", "tenant")
    }
    said |= {"tags": event.tags or None, "priority": None if event.priority == "normal" else event.priority, "topic": topic}
    return f"{event.type}({', '.join(f'{name}={_short(value)}' for name, value in said.items() if value is not None)})"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= VALUE_WIDTH_MAX else f"{text[:VALUE_WIDTH_MAX]}…"
