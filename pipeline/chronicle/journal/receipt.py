"""What became of one published event, and waiting for it."""

from __future__ import annotations

import os
import threading
from contextlib import suppress

from chronicle.errors import ChronicleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    Disposition = Literal["queued", "confirmed", "spilled", "sampled", "rate_limited", "dropped", "refused"]


class PublishError(ChronicleError):
    """An event was not confirmed; `receipt` tells which and why."""

    def __init__(self, message: str, receipt: Receipt) -> None:
        super().__init__(message)
        self.receipt = receipt

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self), self.receipt)


class PublishTimeout(PublishError):
    """Not confirmed in time. Where the receipt says `queued` the event is still on its way and may arrive."""


class PublishRefused(PublishError):
    """The transport refuses this event for good."""


class PublishDropped(PublishError):
    """There was no room for the event, or the rate limit left none: nobody has it."""


class JournalClosed(ChronicleError):
    """The journal is closed: it takes no events any more."""


class _Locks:
    """One lock for all receipts, since waiting is rare; a forked child gets a fresh one."""

    def __init__(self) -> None:
        self.waiting = threading.RLock()


_locks = _Locks()
os.register_at_fork(after_in_child=_locks.__init__)  # type: ignore[misc]


class Receipt:
    """Of one event: `id`, and `disposition`, which changes from `queued` to what became of it.

    `confirmed`: the transport has it for good. `spilled`: it is on this machine's disk and will be sent. `sampled`,
    `rate_limited`, `dropped`: left out, and counted. `refused`: by the transport; `problem` says why.
    """

    __slots__ = ("_callbacks", "disposition", "id", "problem")

    def __init__(self, id: str) -> None:
        self.id = id
        self.disposition: Disposition = "queued"
        self.problem: str | None = None
        self._callbacks: list[Callable[[], object]] | None = None

    def __reduce__(self) -> tuple[object, ...]:
        """For another process: what has become of it so far."""
        return _copied, (self.id, self.disposition, self.problem)

    def __repr__(self) -> str:
        return f"Receipt(id={self.id!r}, disposition={self.disposition!r})"

    def settle(self, disposition: Disposition, problem: str | None = None) -> None:
        """The journal's: say what became of it and wake who waits."""
        with _locks.waiting:
            self.disposition = disposition
            self.problem = problem
            callbacks, self._callbacks = self._callbacks, None
        for callback in callbacks or ():
            callback()

    def when_settled(self, callback: Callable[[], object]) -> None:
        """Call it once, in the thread that settles, or here if that has happened already. It must be quick and not raise."""
        with _locks.waiting:
            if self.disposition == "queued":
                self._callbacks = [*(self._callbacks or ()), callback]
                return
        callback()

    def wait(self, timeout: float | None = None) -> Receipt:
        """Until it is no longer queued, at most `timeout` seconds.

        Raises:
            PublishTimeout, PublishRefused, PublishDropped: see there.
        """
        if self.disposition == "queued":
            settled = threading.Event()
            self.when_settled(settled.set)
            settled.wait(timeout)
        return self.judged()

    async def awaited(self, timeout: float | None = None) -> Receipt:
        """`wait`, for a coroutine."""
        if self.disposition == "queued":
            import asyncio

            loop = asyncio.get_running_loop()
            settled = asyncio.Event()

            def wake() -> None:
                with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                    loop.call_soon_threadsafe(settled.set)

            self.when_settled(wake)
            with suppress(TimeoutError):
                await asyncio.wait_for(settled.wait(), timeout)
        return self.judged()

    def judged(self) -> Receipt:
        """Itself, if the event is kept or left out on purpose; else the error."""
        if self.disposition == "queued":
            raise PublishTimeout("not confirmed in time: the event is still queued, and may arrive", self)
        if self.disposition == "refused":
            raise PublishRefused(f"the transport refuses the event: {self.problem}", self)
        if self.disposition in ("dropped", "rate_limited"):
            raise PublishDropped(f"nobody has the event: {self.problem}", self)
        return self


def _copied(id: str, disposition: Disposition, problem: str | None) -> Receipt:
    receipt = Receipt(id)
    receipt.disposition, receipt.problem = disposition, problem
    return receipt
