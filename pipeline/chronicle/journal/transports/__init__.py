"""Transports: what takes events out of the process. One protocol, and a table of those that a URL can name."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from chronicle.errors import ConfigError, TransientError

if TYPE_CHECKING:
    from chronicle.journal.outgoing import Outgoing
    from chronicle.journal.settings import Settings

SCHEMES = {
    "http": "chronicle.journal.transports.http:opened",
    "https": "chronicle.journal.transports.http:opened",
    "kafka": "chronicle.journal.transports.kafka:opened",
    "memory": "chronicle.journal.transports.memory:opened",
    "embedded": "chronicle.wiring_embedded:transport",
    "file": "chronicle.journal.persistence.files:opened",
}
"""By the URL's scheme: `module:function` of (url, settings), which gives the transport."""


class TransportAway(TransientError):
    """Nobody took these events, for now: they are kept and sent again.

    Args:
        message: without values.
        retry_after: the other side asks for so many seconds.
        confirmed: indexes of those in the batch that did arrive.
    """

    def __init__(self, message: str, *, retry_after: float | None = None, confirmed: Collection[int] = ()) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.confirmed = frozenset(confirmed)


@runtime_checkable
class Transport(Protocol):
    """Several threads may call `send` at once. A batch may come again, whole or in part: events are the same by their id.

    `forked()`, where a transport has it, is called in a forked child before anything else: let go of what is the parent's.
    """

    name: str
    durable: bool
    """What it confirms is on a disk, or with somebody who has it on one."""

    def send(self, batch: Sequence[Outgoing]) -> Sequence[str | None]:
        """Deliver these in their order and wait for the confirmation.

        Returns:
            For each: None (confirmed), or why it is refused for good, without values.

        Raises:
            TransportAway: see there. An `OSError` counts as one.
        """

    def close(self) -> None:
        """Let go of connections. `send` may be running in another thread, and may fail then."""


def opened(url: str, settings: Settings) -> Transport:
    """The transport that a URL names, or several with spaces between: then each gets every event.

    Raises:
        ConfigError: there is none of this name, or it lacks something.
    """
    urls = url.split()
    if not urls:
        raise ConfigError("say where events go: Journal(transport=…) or CHRONICLE_JOURNAL_TRANSPORT, as http://localhost:8080")
    if len(urls) > 1:
        from chronicle.journal.transports.tee import Tee

        return Tee(*(opened(one, settings) for one in urls))
    scheme = url.partition("://")[0]
    if scheme not in SCHEMES:
        raise ConfigError(f"a journal's transport begins with one of {', '.join(f'{name}://' for name in SCHEMES)}")
    from importlib import import_module

    module, _, function = SCHEMES[scheme].partition(":")
    made: Transport = getattr(import_module(module), function)(url, settings)
    return made
