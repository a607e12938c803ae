"""What the payloads of shipped event types have in common: each is a msgspec Struct that knows its type."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, Self

import msgspec


class Kind(NamedTuple):
    """An event type: what is done to what, and which version of its payload this is."""

    type: str
    """`<resource_type>.<action>`."""
    resource_type: str
    action: str
    version: int = 1

    @classmethod
    def of(cls, type: str, version: int = 1) -> Self:
        """The kind of a type: its last word is the action."""
        resource_type, _, action = type.rpartition(".")
        return cls(type, resource_type, action, version)


class Payload(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The payload of one type. No field holds a secret: of a token or statement there is a fingerprint, of a value its kind.

    A field of a later version has a default, so that what was written before can be read.
    """

    KIND: ClassVar[Kind]

    def fields(self) -> dict[str, Any]:
        """As an event's payload: what is not said is absent, times are ISO 8601."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found


def said(description: str, example: object, proposed: str = "clear") -> msgspec.Meta:
    """About one field: what it says, an example of it, and the class that a policy gives it unless a rule says otherwise."""
    return msgspec.Meta(description=description, examples=[example], extra={"class": proposed})
