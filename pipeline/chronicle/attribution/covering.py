"""Putting something in front of one object's methods for a time, and remembering which connections are watched."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from weakref import WeakKeyDictionary

from chronicle.attribution.statements import Dialect
from chronicle.attribution.watching import Block, Watch

Leave = Callable[[], None]
"""Ends a block; called once."""
Attach = Callable[[Any, Watch, ExitStack], None]
"""Makes a connection heed its watch; what it changes is put back by the stack."""


class Watches:
    """The watches of one driver's connections. A connection is attached while at least one block is open on it."""

    def __init__(self, attach: Attach) -> None:
        self._attach = attach
        self._open: WeakKeyDictionary[Any, tuple[Watch, ExitStack]] = WeakKeyDictionary()

    def enter(self, connection: Any, dialect: Dialect, block: Block) -> Leave:
        """Begin a block on a connection.

        Raises:
            AttributionError, ContextRefused: as `Watch.enter`; nothing has begun then.
        """
        watch, undo = self._open.get(connection) or (Watch(dialect), ExitStack())
        voice = watch.enter(block)
        if connection not in self._open:
            self._open[connection] = (watch, undo)
            try:
                self._attach(connection, watch, undo)
            except BaseException:
                self._open.pop(connection, None)
                undo.close()
                raise

        def leave() -> None:
            watch.leave(voice)
            if not watch.voices:
                self._open.pop(connection, None)
                undo.close()

        return leave

    def of(self, connection: Any) -> Watch | None:
        """Its watch; None: no block is open on it."""
        found = self._open.get(connection)
        return None if found is None else found[0]


def cover(target: Any, name: str, instead: Callable[..., Any], undo: ExitStack) -> None:
    """Give this one object another method, until `undo`."""
    earlier = target.__dict__.get(name)  # somebody else's cover
    setattr(target, name, instead)
    if earlier is None:
        undo.callback(delattr, target, name)
    else:
        undo.callback(setattr, target, name, earlier)


def note(target: Any, names: tuple[str, ...], watch: Watch, undo: ExitStack) -> None:
    """Let the watch forget around these methods, which begin or end transactions."""

    def noted(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            watch.forget()
            try:
                return method(*args, **kwargs)
            finally:
                watch.forget()

        return call

    for name in names:
        cover(target, name, noted(getattr(target, name)), undo)
