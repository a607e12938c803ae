"""The step that heeds what transactions asked of the trail (`stages.requests`), and leaves their summaries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache

import polars as pl
from prometheus_client.core import CounterMetricFamily, Metric

from chronicle.engine import Failed
from chronicle.model.batch import Batch
from chronicle.policy.file import Policy
from chronicle.policy.rules import Images
from chronicle.stages.attribute import KEY
from chronicle.stages.requests import ended, granted, summaries
from chronicle.worker.follower import Follower


class Requesting:
    """An `engine.Step`, after reference data and before processors. A collector of Prometheus metrics, too.

    The summary of a transaction that is left out is made where its END is read. For that its context is needed, so with a
    policy that allows to leave out, a batch also waits for the contexts of the transactions that end in it.
    """

    name = "requests"

    def __init__(self, follower: Follower, policy: Policy, *, wait_ms: int) -> None:
        self._follower, self._wait_s = follower, wait_ms / 1000
        self._allowed, self._hash = policy.requests, policy.hash
        self._rows = dict.fromkeys(("unaudited", "snapshots", "refused"), 0)

        @cache
        def reduces(source: str, schema: str, table: str) -> bool:
            return policy.table(source, schema, table, (), ()).images is Images.CHANGED

        self._reduces = reduces

    def __call__(self, batch: Batch) -> tuple[Batch, Sequence[Failed]]:
        """As `engine.Step`; the batch may have events more than there were records. Raises TransientError when contexts are
        missing and the broker or the registry is away."""
        events = batch.events
        if self._allowed.without_audit and len(batch.transactions):
            made = self._summaries(batch.transactions)
            if len(made):
                events = pl.concat([events, made]) if len(events) else made
        found = granted(batch.changes, self._allowed, reduces=self._reduces)
        for name, rows in found.rows.items():
            self._rows[name] += rows
        return replace(batch, changes=found.changes, events=events), ()

    def _summaries(self, transactions: pl.DataFrame) -> pl.DataFrame:
        ends = ended(transactions)
        wanted = {(source, epoch, id_): ms for source, epoch, id_, ms in ends.select(*KEY, "ms").iter_rows()}
        contexts, _ = self._follower.wait(wanted, self._wait_s)
        return summaries(ends, contexts, self._allowed, self._hash)

    def collect(self) -> Iterator[Metric]:
        """Called by Prometheus' registry."""
        counted = CounterMetricFamily(
            "chronicle_audit_requests",
            "Changes whose transaction asked for something: left out, kept whole, or refused, as the policy does not allow it.",
            labels=["outcome"],
        )
        for outcome, rows in self._rows.items():
            counted.add_metric([outcome], rows)
        yield counted
