"""The engine's step `processors`: a batch through the user's processors, before routes and sinks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import polars as pl

from chronicle.engine import Failed
from chronicle.model.batch import Batch
from chronicle.model.dead_letters import Reason, Stage
from chronicle.processors.metrics import Counter, Histogram
from chronicle.processors.registry import PROCESSORS_MAX, Processor, checked
from chronicle.processors.run import ProcessorResult, Watch, run_processors, unwatched

if TYPE_CHECKING:
    from prometheus_client.core import Metric as Family

DROPPED = "dropped"
"""In the column `stub` of rows that a processor left out."""
_LISTS = ("changed", "unavailable", "labels", "violations")
_BUCKETS_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 60.0)


class Processing:
    """An `engine.Step`. One batch at a time, from one thread; scraped from another (`collect`)."""

    name = "processors"

    def __init__(
        self,
        processors: Sequence[Processor],
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        watch: Watch = unwatched,
    ) -> None:
        """`now_us`: microseconds since 1970, for the alerts. `watch`: is told of exceptions (their texts may hold values).

        Raises:
            ConfigError: the processors do not go together.
        """
        self._processors = checked(processors)
        self._now_us, self._watch = now_us, watch
        self.seconds = Histogram(
            "seconds", "Time of a batch in a processor.", ["processor"], buckets=_BUCKETS_S, series_max=PROCESSORS_MAX
        )
        self.rows = Counter(
            "rows", "Changes by what a processor did with them.", ["processor", "outcome"], series_max=PROCESSORS_MAX * 3
        )
        self.alerts = Counter("alerts", "Alerts raised.", ["rule", "severity"])

    def __call__(self, batch: Batch) -> tuple[Batch, Sequence[Failed]]:
        """As `engine.Step`. The batch has `extra`, `labels`, `tags` and `alerts`, stubs for dropped rows, and no granted
        values any more; what counts of metrics counts when this returns.

        Raises:
            StopWorker: a processor failed that is declared so.
            TransientError: what a processor needs is away.
        """
        if not self._processors or not len(batch.changes):
            return replace(batch, granted={}), ()
        result = run_processors(self._processors, batch.changes, self._now_us(), batch.granted, self._watch)
        changes = batch.changes.with_columns(result.extra, result.labels, result.tags)
        failed = [
            Failed(row, Stage.PROCESS, Reason.PROCESSOR_FAILED, one.detail)
            for one in result.failed.values()
            for row in one.rows
        ]
        self._count(result)
        alerts = pl.concat([batch.alerts, result.alerts]) if len(batch.alerts) else result.alerts
        return replace(batch, changes=_without(changes, result.dropped), alerts=alerts, granted={}), failed

    def granted(self, source: str, schema: str, table: str) -> tuple[str, ...]:
        """Columns of a table that some processor sees in clear: what the path has to put into `Batch.granted`."""
        return tuple(dict.fromkeys(name for one in self._processors for name in one.granted(source, schema, table)))

    def collect(self) -> Iterator[Family]:
        """Called by Prometheus' registry, with which this is registered as a collector."""
        declared = dict.fromkeys(metric for one in self._processors for metric in sorted(one.metrics, key=lambda it: it.name))
        for metric in (self.seconds, self.rows, self.alerts, *declared):
            yield from metric.families()

    def _count(self, result: ProcessorResult) -> None:
        result.count()
        for name, seconds in result.seconds.items():
            self.seconds.observe(seconds, {"processor": name})
        for name, given in result.given.items():
            bad = len(result.failed[name].rows) if name in result.failed else 0
            self.rows.inc({"processor": name, "outcome": "failed" if bad else "processed"}, bad or given)
        for rule, severity, n in result.alerts.group_by("rule", "severity").len().iter_rows():
            self.alerts.inc({"rule": rule, "severity": severity}, n)


def _without(changes: pl.DataFrame, rows: Sequence[int]) -> pl.DataFrame:
    """These rows as stubs: what is needed for a transaction's counts stays, what the row held does not."""
    if not rows:
        return changes
    mark = pl.Series([False]).new_from_index(0, len(changes)).scatter(list(rows), True)
    kept = ~pl.lit(mark)
    images = [pl.when(kept).then(pl.col(name)).alias(name) for name in ("before", "after", "enriched", "extra")]
    lists = [pl.when(kept).then(pl.col(name)).otherwise(pl.lit([], pl.List(pl.String))).alias(name) for name in _LISTS]
    stub = pl.when(kept).then(pl.col("stub")).otherwise(pl.lit(DROPPED)).alias("stub")
    return changes.with_columns(*images, *lists, stub)
