"""Who acts and on whose behalf, for every event of a block: kept in `contextvars`, so by task and by thread.

    with actor("ann"), tagged(request_id="r-1", campaign="spring"):
        tag(order=7)
        journal.publish("order.placed")

What is said is copied, never changed in place: a task or thread started inside a block inherits it, and what it adds to it is
seen by nobody else. asyncio carries it over by itself, and so does `asyncio.to_thread`; an executor's threads need `carried`.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from contextvars import ContextVar, copy_context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextvars import Token
    from types import TracebackType
    from typing import Any, ParamSpec, TypeVar

    _P = ParamSpec("_P")
    _R = TypeVar("_R")

ENVELOPE = ("actor", "request_id", "traceparent", "reason", "ip", "session", "tenant")
"""What `tagged` sets as the event's own field; every other name is a tag."""

_said: ContextVar[Mapping[str, Any]] = ContextVar("chronicle.journal.context")
_NOTHING: Mapping[str, Any] = {}


def current() -> Mapping[str, Any]:
    """What is said here: fields of `ENVELOPE`, and `tags`. Not to be changed; values are as they were given."""
    return _said.get(_NOTHING)


class tagged:  # noqa: N801  # a context manager, named as it reads
    """The block's events have these fields (`ENVELOPE`) and tags; what an outer block said stays, unless said again.

    The values are checked when an event is published: text, whole numbers, UUIDs and addresses for fields, JSON for tags.
    None says nothing. One object belongs to one task or thread; there it may be entered again.
    """

    __slots__ = ("_fields", "_tokens")

    def __init__(self, **fields: object) -> None:
        self._fields = fields
        self._tokens: list[Token[Mapping[str, Any]]] = []

    def __enter__(self) -> None:
        self._tokens.append(_said.set(_joined(current(), self._fields)))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        mine = self._tokens.pop()
        with suppress(ValueError):  # left in another context than entered, as web frameworks' generators are: it ends too
            _said.reset(mine)


class actor(tagged):  # noqa: N801
    """The block's events are done by this actor: an id (text, number, UUID), a `chronicle.Actor`, or an event's actor."""

    __slots__ = ()

    def __init__(self, who: object, *, type: str | None = None, name: str | None = None) -> None:
        super().__init__(actor=who if type is None and name is None else {"id": who, "type": type, "name": name})


def tag(**fields: object) -> None:
    """Add to what is said from here on, to the end of the innermost block (outside of any: of the task or thread).

    The same names as `tagged`.
    """
    _said.set(_joined(current(), fields))


def carried(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """The function with what is said here and now, for an executor: `pool.submit(carried(work), 7)`.

    Each call runs in a copy of its own, so that calls may run at the same time.
    """
    context = copy_context()

    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        return context.copy().run(function, *args, **kwargs)

    return run


def _joined(outer: Mapping[str, Any], fields: Mapping[str, object]) -> Mapping[str, Any]:
    both = dict(outer)
    tags = {name: value for name, value in fields.items() if name not in ENVELOPE and value is not None}
    both.update((name, value) for name, value in fields.items() if name in ENVELOPE and value is not None)
    if tags:
        both["tags"] = {**outer.get("tags", {}), **tags}
    return both


_process: dict[str, str] = {}


def process_actor() -> Mapping[str, str]:
    """Who acts when nobody is named: the operating system's user, through this program."""
    if not _process:
        program = _program()
        _process.update(id=f"{_user()}@{program}", type="process", name=program)
    return _process


def _user() -> str:
    try:
        import pwd

        return pwd.getpwuid(os.geteuid()).pw_name
    except (ImportError, KeyError, AttributeError):  # no such user, as in a container; or no such system
        return os.environ.get("USERNAME") or str(getattr(os, "geteuid", lambda: "unknown")())


def _program() -> str:
    path = sys.argv[0] if getattr(sys, "argv", None) else ""
    directory, name = os.path.split(path)
    if name == "__main__.py":  # python -m package
        name = os.path.split(directory)[1]
    return name if name and name not in ("-c", "-m", "-") else "python"
