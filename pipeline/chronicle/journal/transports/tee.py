"""Several transports that each get every event."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from chronicle.journal.transports import Transport, TransportAway

if TYPE_CHECKING:
    from chronicle.journal.outgoing import Outgoing

REMEMBERED_MAX = 100_000


class Tee:
    """An event is confirmed when all have confirmed it, and refused when one of them refuses it.

    While one is away the events wait for it; the others have theirs already and are not sent them again (by this process:
    after a restart they may be).
    """

    def __init__(self, *transports: Transport) -> None:
        self.transports = transports
        self.name = "tee"
        self.durable = any(one.durable for one in transports)
        self._lock = threading.Lock()
        self._results: list[dict[str, str | None]] = [{} for _ in transports]
        """What each said about events that another one did not take yet."""

    def send(self, batch: Sequence[Outgoing]) -> Sequence[str | None]:
        """To each in turn; all are tried, also when one is away."""
        away: TransportAway | None = None
        for transport, known in zip(self.transports, self._results, strict=True):
            with self._lock:
                rest = [out for out in batch if out.event.id not in known]
            try:
                said = dict(zip((out.event.id for out in rest), transport.send(rest) if rest else (), strict=True))
            except TransportAway as error:
                away = error
                said = {rest[at].event.id: None for at in error.confirmed}
            except OSError as error:
                away = TransportAway(f"{transport.name}: {type(error).__name__}")
                said = {}
            with self._lock:
                known.update(said)
                while len(known) > REMEMBERED_MAX:
                    del known[next(iter(known))]
        with self._lock:
            everywhere = [at for at, out in enumerate(batch) if all(out.event.id in known for known in self._results)]
            results: list[str | None] = [None] * len(batch)
            for at in everywhere:
                said_of = [known.get(batch[at].event.id) for known in self._results]
                results[at] = next((problem for problem in said_of if problem is not None), None)
            settled = everywhere if away is None else [at for at in everywhere if results[at] is None]
            for at in settled:
                for known in self._results:
                    known.pop(batch[at].event.id, None)
        if away is not None:
            raise TransportAway(str(away), retry_after=away.retry_after, confirmed=settled)
        return results

    def close(self) -> None:
        """All of them."""
        for transport in self.transports:
            transport.close()

    def forked(self) -> None:
        """All of them."""
        self._lock = threading.Lock()
        self._results = [{} for _ in self.transports]
        for transport in self.transports:
            getattr(transport, "forked", lambda: None)()
