"""Celery: who asked for a task is who acts in it. The publishing side sends its context along, the worker takes it up.

The context travels in the message's header `chronicle`, through the built-in protection as an event would. Whoever can write to
the broker can write it: trust it as you trust the tasks themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from chronicle.events.event import Actor, Event, EventRefused, completed, encoded
from chronicle.journal import context
from chronicle.journal.protection import DEFAULT

HEADER = "chronicle"
_FIELDS = ("actor", "request_id", "traceparent", "reason", "ip", "session", "tenant", "tags")
_HEADER_BYTES_MAX = 16 * 1024
_ANY_ID, _ANY_TIME = "00000000-0000-4000-8000-000000000000", "2026-01-01T00:00:00Z"
_BLOCK = "_chronicle_block"


class Carried(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A context on its way to a worker."""

    actor: Actor | str | None = None
    request_id: str | None = None
    traceparent: str | None = None
    reason: str | None = None
    ip: str | None = None
    session: str | None = None
    tenant: str | None = None
    tags: dict[str, Any] = {}


def install(*, tags: Callable[[Any], Mapping[str, Any]] | None = None) -> Callable[[], None]:
    """Connect to Celery's signals, in the processes that publish and in the workers; returns what undoes it. May be repeated.

    In a task the tags `task` and `task_id` are set as well, and the request id, where none was sent, is the task's id.

    Args:
        tags: further tags of a task, from the task (`task.request` is its request).
    """
    from celery import signals  # type: ignore[import-untyped]

    def publishing(headers: dict[str, Any] | None = None, **_: Any) -> None:
        if headers is not None and (said := carried(context.current())):
            headers[HEADER] = said

    def starting(task_id: str, task: Any, **_: Any) -> None:
        said = received(task.request.get(HEADER) or (task.request.headers or {}).get(HEADER))
        mine = {"task": task.name, "task_id": task_id, **(tags(task) if tags is not None else {})}
        request_id = said.pop("request_id", None) or context.current().get("request_id") or task_id
        block = context.tagged(**{**said.pop("tags", {}), **mine, **said, "request_id": request_id})
        block.__enter__()
        setattr(task.request, _BLOCK, block)

    def ended(task: Any, **_: Any) -> None:
        block = getattr(task.request, _BLOCK, None)
        if block is not None:
            setattr(task.request, _BLOCK, None)
            block.__exit__(None, None, None)

    connected = (
        (signals.before_task_publish, publishing, "chronicle.publishing"),
        (signals.task_prerun, starting, "chronicle.starting"),
        (signals.task_postrun, ended, "chronicle.ended"),
    )
    for signal, function, name in connected:
        signal.disconnect(dispatch_uid=name)
        signal.connect(function, weak=False, dispatch_uid=name)

    def undo() -> None:
        for signal, _, name in connected:
            signal.disconnect(dispatch_uid=name)

    return undo


def carried(said: Mapping[str, Any]) -> dict[str, Any] | None:
    """The context as a header has it; None: there is nothing to say, or it is too long to be sent along."""
    known = {name: said[name] for name in _FIELDS if said.get(name)}
    if not known:
        return None
    try:
        known = {
            name: value if name == "tags" else _actor(value) if name == "actor" else str(value) for name, value in known.items()
        }
        safe = DEFAULT(Event(**known))
        plain = msgspec.to_builtins(Carried(**{name: getattr(safe, name) for name in known}))
        whole = len(msgspec.json.encode(plain)) <= _HEADER_BYTES_MAX
    except (EventRefused, TypeError, ValueError):
        return None
    return plain if whole else None


def _actor(who: Any) -> Actor | str:
    """However the application names it: `chronicle.Actor`, an event's, a mapping, or an id."""
    if isinstance(who, Mapping):
        return Actor(**{name: str(value) for name, value in who.items() if value is not None})
    if hasattr(who, "id"):
        return _actor({"id": who.id, "type": who.type, "name": who.name})
    return str(who)


def received(header: Any) -> dict[str, Any]:
    """The context that a header says; nothing where it says none that an event could have."""
    try:
        found = msgspec.convert(header, Carried)
        said = {name: value for name in _FIELDS if (value := getattr(found, name))}
        encoded(completed(Event(type="chronicle.carried", **said), id=_ANY_ID, time=_ANY_TIME, source="chronicle"))
    except (msgspec.ValidationError, EventRefused):
        return {}
    return said
