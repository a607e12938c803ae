"""An event on its way: its one text, its topic and its key."""

from __future__ import annotations

from chronicle.events.event import Actor, Event, decoded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from chronicle.journal.receipt import Receipt


def key_of(event: Event) -> bytes:
    """What keeps events together and in order: the partition key, else the resource, else the actor, else the event alone."""
    actor = event.actor.id if isinstance(event.actor, Actor) else event.actor
    resource = f"{event.resource_type}:{event.resource_id}" if event.resource_type and event.resource_id else None
    return (event.partition_key or resource or actor or event.id).encode()


class Outgoing:
    """What transports and the outbox get: `event` is complete and checked, `text` its JSON, `topic` None for the usual one."""

    __slots__ = ("event", "key", "receipt", "text", "topic")

    def __init__(self, event: Event, text: bytes, topic: str | None = None) -> None:
        self.event = event
        self.text = text
        self.topic = topic
        self.key = key_of(event)
        self.receipt: Receipt | None = None

    def spilled(self) -> bytes:
        """As a record of the spill: the topic in a line of its own, then the text."""
        return (self.topic or "").encode() + b"\n" + self.text

    @classmethod
    def read(cls, record: bytes) -> Outgoing:
        """A record of the spill.

        Raises:
            EventRefused: it is none.
        """
        topic, _, text = record.partition(b"\n")
        return cls(decoded(text), text, topic.decode(errors="replace") or None)
