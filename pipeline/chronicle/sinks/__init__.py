"""Where results go. Adding a sink: its file, a line in `wiring.sinks`, a row in `tests/sinks/test_contract.py`."""

from __future__ import annotations

from typing import Protocol

from chronicle.model.batch import Batch


class Sink(Protocol):
    """What the engine calls, from one thread at a time."""

    name: str
    """Short and fixed: a metric label (`clickhouse`, `kafka`, `memory`)."""

    def write(self, batch: Batch) -> None:
        """Hold all of the batch, durably, or raise. May be called again with the same batch or with parts of it.

        Raises:
            TransientError: the service is away or busy; the same call is repeated later.
            SinkRejected: some row can never be held; the engine narrows it down by calling with halves.
        """

    def close(self) -> None:
        """Give back connections; nothing that `write` returned for is lost by it."""
