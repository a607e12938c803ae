"""From what an application says, and what is said around it, to an event that is whole and checked."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypedDict

import msgspec

from chronicle.events.event import OUTCOMES, PRIORITIES, Actor, Event, EventRefused, Outcome, Priority, completed
from chronicle.events.payload import Payload
from chronicle.journal import context

if TYPE_CHECKING:
    from uuid import UUID


class Said(TypedDict, total=False):
    """What may be said of an event as it is published. None says nothing."""

    actor: object
    """Who acts: an id (text, number, UUID), a `chronicle.Actor`, or a mapping of id, type and name."""
    action: str | None
    resource: tuple[str, object] | str | None
    """Its type and its id: `("order", 7)`; or its type alone."""
    outcome: Outcome | None
    description: str | None
    payload: Mapping[str, Any] | Payload | None
    tags: Mapping[str, Any] | None
    time: str | datetime | None
    id: str | UUID | None
    request_id: object
    traceparent: str | None
    reason: object
    ip: object
    session: object
    tenant: object
    partition_key: object
    priority: Priority | None
    topic: str | None
    """For Kafka: another topic than the usual one and the route's."""
    source: str | None


_FIELDS = frozenset(Said.__annotations__)
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}", re.ASCII)
_TEXTS = ("id", "request_id", "traceparent", "reason", "ip", "session", "tenant", "partition_key")
_AS_SAID = frozenset(("action", "outcome", "description", "time", "priority", "source"))
_USUAL = ("priority", "normal")


def composed(what: Event | Payload | str, said: Mapping[str, Any], *, source: str) -> tuple[Event, str | None]:
    """The event, and the topic that is said. What is said here wins over what `context` says; the actor falls back to the
    process, the trace to OpenTelemetry's current span, id and time are made.

    Args:
        what: a type, a payload of the catalogue, or an event, whose own fields count as said here.
        said: fields of `Journal.publish`; None: not said.
        source: for an event that names none.

    Raises:
        EventRefused: it is no event; the message names the field, never a value.
        TypeError: there is no such field.
    """
    if said.keys() - _FIELDS:
        raise TypeError(f"an event has no field {', '.join(sorted(said.keys() - _FIELDS))}; tags go into tags={{…}}")
    around = context.current()
    fields = _of(what)
    fields.update((name, value) for name, value in said.items() if value is not None and name in _AS_SAID)
    for name in _TEXTS:
        value = said.get(name)
        if value is None:
            value = fields.get(name, around.get(name))
        if value is not None:
            fields[name] = _text(name, value)
    who = said.get("actor")
    if who is None:
        who = fields.get("actor", around.get("actor"))
    fields["actor"] = _actor(context.process_actor() if who is None else who)
    fields.update(_resource(said.get("resource")))
    payload = said.get("payload")
    if payload is None:
        payload = fields.get("payload")
    fields["payload"] = payload.fields() if isinstance(payload, Payload) else _plain("payload", payload)
    tags = {**around.get("tags", {}), **fields.get("tags", {}), **(said.get("tags") or {})}
    fields["tags"] = _plain("tags", tags) if tags else {}
    if "traceparent" not in fields and (trace := _trace()):
        fields["traceparent"] = trace
    event = _event(fields)
    topic = said.get("topic")
    if topic is not None and not (isinstance(topic, str) and _TOPIC.fullmatch(topic)):
        raise EventRefused("topic", "give the name of a Kafka topic")
    return completed(event, id=new_id(), time=now(), source=source), topic


def _of(what: Event | Payload | str) -> dict[str, Any]:
    if isinstance(what, str):
        return {"type": what}
    if isinstance(what, Event):
        fields = {name: getattr(what, name) for name in Event.__struct_fields__}
        return {name: value for name, value in fields.items() if value not in (None, "", {}) and (name, value) != _USUAL}
    if isinstance(what, Payload):
        kind = what.KIND
        return {"type": kind.type, "resource_type": kind.resource_type, "action": kind.action, "payload": what.fields()}
    raise EventRefused("type", "give the event's type, an Event, or a payload of the catalogue")


def _resource(said: object) -> dict[str, str]:
    if said is None:
        return {}
    if not isinstance(said, tuple):
        return {"resource_type": _text("resource", said)}
    if len(said) != 2:
        raise EventRefused("resource", "give its type and its id")
    return {name: _text("resource", part) for name, part in zip(("resource_type", "resource_id"), said, strict=True)}


def _event(fields: dict[str, Any]) -> Event:
    when = fields.get("time")
    if isinstance(when, datetime):
        if when.tzinfo is None:
            raise EventRefused("time", "give the time with its zone")
        fields["time"] = when.isoformat()
    for name, value in fields.items():
        if name not in ("actor", "payload", "tags") and not isinstance(value, str):
            raise EventRefused(name, "give text")
    if fields.get("outcome", "unknown") not in OUTCOMES:
        raise EventRefused("outcome", f"choose one of {', '.join(OUTCOMES)}")
    if fields.get("priority", "normal") not in PRIORITIES:
        raise EventRefused("priority", f"choose one of {', '.join(PRIORITIES)}")
    return Event(**fields)


def _plain(name: str, value: object) -> Any:
    """As JSON has it, and a copy: what the application does to its own objects afterwards changes no event."""
    try:
        plain = msgspec.to_builtins(value, str_keys=True)
    except Exception:  # noqa: BLE001 (objects of the application may raise anything as they are read, values in its text)
        raise EventRefused(name, "holds what JSON has not") from None
    if plain is not None and not isinstance(plain, dict):
        raise EventRefused(name, "give names and their values")
    return plain


def _text(name: str, value: object) -> str:
    if isinstance(value, str):
        return str(value)
    if (isinstance(value, int) and not isinstance(value, bool)) or type(value).__module__ in ("uuid", "ipaddress"):
        return str(value)
    raise EventRefused(name, "give text, a whole number, a UUID or an address")


def _actor(who: object) -> Actor | str:
    if isinstance(who, str):
        return who
    if isinstance(who, Mapping):
        parts = {"id": who.get("id"), "type": who.get("type"), "name": who.get("name")}
    elif hasattr(who, "id") and hasattr(who, "type") and hasattr(who, "name"):
        parts = {"id": who.id, "type": who.type, "name": who.name}
    else:
        return _text("actor", who)
    if parts["id"] is None:
        raise EventRefused("actor", "give the actor an id: None names nobody")
    texts = {name: None if value is None else _text("actor", value) for name, value in parts.items()}
    return Actor(id=texts["id"] or "", type=texts["type"], name=texts["name"])


def _trace() -> str | None:
    """OpenTelemetry's current span, where the application uses it: it is not imported for this."""
    module = sys.modules.get("opentelemetry.trace")
    if module is None:
        return None
    span = module.get_current_span().get_span_context()
    if not span.is_valid:
        return None
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{int(span.trace_flags):02x}"


CHANCES = 256
_chances: list[int] = []
os.register_at_fork(after_in_child=_chances.clear)


def new_id() -> str:
    """A UUID of version 7: they sort by time."""
    try:
        chance = _chances.pop()
    except IndexError:
        many = os.urandom(10 * CHANCES)  # asking the system for each is what an id would cost most
        _chances.extend(int.from_bytes(many[at : at + 10], "big") for at in range(0, len(many), 10))
        chance = _chances.pop()
    whole = (time.time_ns() // 1_000_000 & (1 << 48) - 1) << 80 | 7 << 76 | (chance >> 64 & 0xFFF) << 64
    text = f"{whole | 2 << 62 | chance & (1 << 62) - 1:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def now() -> str:
    """In UTC, to the microsecond."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds // 1_000:06d}Z"
