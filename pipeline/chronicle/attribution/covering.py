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


class _Cover:
    """A method in front of another; once it is lifted, only a way to that one."""

    __slots__ = ("below", "earlier", "instead", "lifted")

    def __init__(self, instead: Callable[..., Any], below: Callable[..., Any], earlier: Any) -> None:
        self.instead, self.below, self.earlier = instead, below, earlier
        self.lifted = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return (self.below if self.lifted else self.instead)(*args, **kwargs)


def cover(target: Any, name: str, instead: Callable[..., Any], undo: ExitStack) -> None:
    """Give this one object another method, until `undo`. Covers of one method may be undone in any order."""
    earlier = target.__dict__.get(name)  # somebody else's cover
    covering = _Cover(instead, getattr(target, name), earlier)
    setattr(target, name, covering)

    def lift() -> None:
        covering.lifted = True
        top = target.__dict__.get(name)
        while isinstance(top, _Cover) and top.lifted:
            top = top.earlier
            if top is None:
                delattr(target, name)
            else:
                setattr(target, name, top)

    undo.callback(lift)


def note(target: Any, names: tuple[str, ...], watch: Watch, undo: ExitStack) -> None:
    """Let the watch forget around these methods, which begin or end transactions; after a commit only, because what others
    write directly before it (the journal's outbox) is of the transaction that has been told."""

    def noted(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if name != "commit":
                watch.forget()
            try:
                return method(*args, **kwargs)
            finally:
                watch.forget()

        return call

    for name in names:
        cover(target, name, noted(name, getattr(target, name)), undo)
