"""One batch to the transport, and what becomes of each event in it: confirmed, refused, dropped, or to be sent again."""

from __future__ import annotations

import time

from chronicle.errors import ChronicleError
from chronicle.journal.breaker import Breaker
from chronicle.journal.limits import Bucket
from chronicle.journal.receipt import PublishDropped, PublishRefused, Receipt
from chronicle.journal.transports import TransportAway

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

    from chronicle.journal.counting import Counting
    from chronicle.journal.lane import Lane
    from chronicle.journal.outgoing import Outgoing
    from chronicle.journal.settings import Settings
    from chronicle.journal.spilling import Spilling
    from chronicle.journal.transports import Transport


class Delivery:
    """Of all threads of one sender. `lane` is where a batch comes from; None: from the spill.

    Args:
        stop: set when the sender ends: nothing is waited for any more.
    """

    def __init__(
        self,
        transport: Transport,
        settings: Settings,
        counting: Counting,
        spilling: Spilling | None,
        stop: threading.Event,
    ) -> None:
        self._transport = transport
        self._counting = counting
        self._spilling = spilling
        self._stop = stop
        self.breaker = Breaker(
            failures=settings.breaker_failures, reset_s=settings.breaker_reset_s, reset_max_s=settings.breaker_reset_max_s
        )
        rate = settings.rate_limit
        self._bucket = Bucket(rate, settings.burst or rate) if rate else None
        self.arrived: set[str] = set()
        """Events that arrived although they are in the spill."""
        self.on_sent: Callable[[float, int], object] | None = None
        """Told of each batch that was sent: seconds, events."""

    def permitted(self) -> bool:
        """By the rate limit; with a spill everything is, and waits for its turn."""
        return self._bucket is None or self._spilling is not None or self._bucket.taken()

    def pace(self, count: int) -> None:
        """Wait for the turn of so many events, where the rate is limited and a spill keeps them meanwhile."""
        if self._bucket is not None and self._spilling is not None:
            self._stop.wait(self._bucket.owed_s(count))

    def await_breaker(self) -> bool:
        """Until the transport may be tried; False: the sender ends."""
        while wait := self.breaker.wait_s():
            if self._stop.wait(wait):
                return False
        return not self._stop.is_set()

    def sent(self, batch: list[Outgoing], lane: Lane | None) -> list[Outgoing]:
        """Send once; returns what has to be sent again."""
        began = time.monotonic()
        try:
            results = self._transport.send(batch)
            if len(results) != len(batch):
                raise TypeError("a transport answers for each event")
        except TransportAway as away:
            self.breaker.failed(away.retry_after)
            self._counting.tell(away)
            self._settle([out for at, out in enumerate(batch) if at in away.confirmed], lane)
            return [out for at, out in enumerate(batch) if at not in away.confirmed]
        except OSError as error:
            self.breaker.failed()
            self._counting.tell(TransportAway(f"{self._transport.name}: {type(error).__name__}"))
            return batch
        except BaseException as error:  # noqa: BLE001 (a transport's bug costs the events that cause it, not their neighbours)
            if len(batch) > 1:
                middle = len(batch) // 2
                rest = self.sent(batch[:middle], lane)
                return [*rest, *batch[middle:]] if rest else self.sent(batch[middle:], lane)
            self._refuse(batch[0], f"the transport failed: {type(error).__name__}", lane)
            return []
        self.breaker.succeeded()
        if self.on_sent is not None:
            self.on_sent(time.monotonic() - began, len(batch))
        self._settle([out for out, problem in zip(batch, results, strict=True) if problem is None], lane)
        for out, problem in zip(batch, results, strict=True):
            if problem is not None:
                self._refuse(out, problem, lane)
        return []

    def drop(self, outs: Sequence[Outgoing], why: str) -> None:
        """Nobody has these: counted, told, and whoever waits for one hears of it."""
        self._counting.add("dropped", len(outs))
        for out in outs:
            receipt = out.receipt or Receipt(out.event.id)
            receipt.settle("dropped", why)
            self._counting.tell(PublishDropped(f"an event is dropped: {why}", receipt), out.event)

    def _settle(self, confirmed: Sequence[Outgoing], lane: Lane | None) -> None:
        if lane is not None and lane.lost:
            return
        self._counting.add("confirmed", len(confirmed))
        if lane is None:
            self._counting.add("recovered", len(confirmed))
        self._landed(confirmed, lane)
        for out in confirmed:
            if out.receipt is not None:
                out.receipt.settle("confirmed")

    def _landed(self, outs: Sequence[Outgoing], lane: Lane | None) -> None:
        if lane is not None and lane.arrived(outs):  # they were moved to the spill while they were sent
            self.arrived.update(out.event.id for out in outs)

    def _refuse(self, out: Outgoing, problem: str, lane: Lane | None) -> None:
        if lane is not None and lane.lost:
            return
        self._counting.add("refused")
        self._landed([out], lane)
        if self._spilling is not None:
            try:
                self._spilling.keep_refused(out.spilled(), problem)
            except (ChronicleError, OSError) as error:
                self._counting.tell(error, out.event)
        receipt = out.receipt or Receipt(out.event.id)
        receipt.settle("refused", problem)
        self._counting.tell(PublishRefused(f"the transport refuses an event: {problem}", receipt), out.event)
