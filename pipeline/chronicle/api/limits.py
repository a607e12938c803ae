"""What one caller may ask of the service: sizes of a request, and a rate per key."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

BUCKETS_MAX = 10_000
"""Callers that are remembered; whoever was quiet longest is forgotten first, with a full bucket."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of one POST."""

    body_bytes_max: int
    """As it is on the wire."""
    inflated_bytes_max: int
    """After gzip or zstd."""
    batch_max: int
    """Events."""


class Rate:
    """A bucket of tokens per caller: `per_s` flow in, `burst` fit. 0 per second: no limit."""

    def __init__(self, per_s: float, burst: float, clock: Callable[[], float]) -> None:
        """`clock`: monotonic seconds."""
        self._per_s, self._burst, self._clock = per_s, burst, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, caller: str, cost: float = 1.0) -> float:
        """Take `cost` tokens and return 0, or take none and return after how many seconds there are enough.

        A cost above the burst is let through when the bucket is full, which then is in debt: a batch is not refused for ever.
        """
        if not self._per_s:
            return 0.0
        now = self._clock()
        left, at = self._buckets.pop(caller, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._per_s)
        wanted = min(cost, self._burst)
        enough = left >= wanted
        self._buckets[caller] = (left - cost if enough else left, now)
        if len(self._buckets) > BUCKETS_MAX:
            self._buckets.popitem(last=False)
        return 0.0 if enough else (wanted - left) / self._per_s
