"""The step that says who did it: contexts of a batch's transactions, by the follower, onto its changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from chronicle.engine import Failed
from chronicle.model.batch import Batch
from chronicle.stages.attribute import attributed, wanted
from chronicle.worker.follower import Follower


class Attributing:
    """An `engine.Step`. Waits for contexts and ENDs, for a bounded time once the follower has read all there is."""

    name = "contexts"

    def __init__(self, follower: Follower, *, wait_ms: int) -> None:
        self._follower, self._wait_s = follower, wait_ms / 1000

    def __call__(self, batch: Batch) -> tuple[Batch, Sequence[Failed]]:
        """As `engine.Step`. Raises TransientError when contexts are missing and the broker or the registry is away."""
        contexts, open_ = self._follower.wait(wanted(batch.changes), self._wait_s)
        return replace(batch, changes=attributed(batch.changes, contexts, open_)), ()
