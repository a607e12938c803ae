"""Metrics that processors declare: counters, gauges and histograms, exported on `/metrics`.

Declared at module level and named in `@processor(metrics=[…])`. Inside a processor an increment counts when the whole
batch has been through all processors; so a processor that raises counts nothing. Beyond that it is at least once: a batch
that comes again (a crash before its acknowledgement, a dead letter sent back) is counted again. `changes` in ClickHouse is
exact; these are for dashboards and alarms.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from chronicle.errors import ConfigError
from chronicle.processors import running
from chronicle.processors.faults import ProcessorFault

if TYPE_CHECKING:
    from prometheus_client.core import Metric as Family

PREFIX = "chronicle_processor_"
SERIES_MAX = 100
"""Label sets of one metric; what comes after them is counted under `other`."""
OTHER = "other"
LABEL_CHARS_MAX = 80
BUCKETS = (0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 50.0, 100.0, 500.0, 1_000.0)
_NAME = re.compile(r"[a-z][a-z0-9_]{0,99}")

Labels = tuple[str, ...]


class Metric:
    """What all kinds share: a name, label names, and a bounded number of label sets."""

    def __init__(self, name: str, text: str, labels: Sequence[str] = (), *, series_max: int = SERIES_MAX) -> None:
        """`name`: without the prefix `chronicle_processor_`. `labels`: names; values must be few, and no row's secret.

        Raises:
            ConfigError: a name that Prometheus would not take.
        """
        for one in (name, *labels):
            if not _NAME.fullmatch(one):
                raise ConfigError(f"name the metric {name} and its labels with lower-case letters, digits and _")
        self.name, self.text, self.labels = name, text, tuple(labels)
        self._series_max = series_max
        self._lock = threading.Lock()  # Prometheus scrapes from another thread

    def _named(self, labels: Mapping[str, object] | None) -> Labels:
        given = labels or {}
        if set(given) != set(self.labels):
            raise ProcessorFault(f"metric {self.name} has the labels ({', '.join(self.labels)})")
        return tuple(_text(given[name]) for name in self.labels)

    def _bounded(self, labels: Labels, known: Mapping[Labels, object]) -> Labels:
        if not labels or labels in known or len(known) < self._series_max:
            return labels
        return (OTHER,) * len(labels)

    def families(self) -> Iterator[Family]:
        """Called when Prometheus scrapes."""
        raise NotImplementedError


class Counter(Metric):
    """Something that only rises. Exported as `chronicle_processor_<name>_total`."""

    def __init__(self, name: str, text: str, labels: Sequence[str] = (), *, series_max: int = SERIES_MAX) -> None:
        """As `Metric`."""
        super().__init__(name.removesuffix("_total"), text, labels, series_max=series_max)
        self._values: dict[Labels, float] = {}

    def inc(self, labels: Mapping[str, object] | None = None, n: float = 1) -> None:
        """Add `n` (at least 0) under these label values."""
        named = self._named(labels)
        if not n >= 0:
            raise ProcessorFault(f"metric {self.name} only rises")
        running.later(self, lambda: self._add(named, float(n)))

    def count(self, rows: pl.DataFrame) -> None:
        """Add the number of rows, by the columns of `rows` that are named as the labels; null is an empty label."""
        if not self.labels:
            self.inc(n=len(rows))
            return
        if not set(self.labels) <= set(rows.columns):
            raise ProcessorFault(f"metric {self.name} counts by the columns ({', '.join(self.labels)})")
        for *values, n in rows.group_by(self.labels).len().iter_rows():
            self.inc(dict(zip(self.labels, values, strict=True)), n)

    def _add(self, labels: Labels, n: float) -> None:
        with self._lock:
            labels = self._bounded(labels, self._values)
            self._values[labels] = self._values.get(labels, 0.0) + n

    def value(self, labels: Mapping[str, object] | None = None) -> float:
        """What it stands at, for tests."""
        return self._values.get(self._named(labels), 0.0)

    def families(self) -> Iterator[Family]:
        """As `Metric.families`."""
        from prometheus_client.core import CounterMetricFamily

        family = CounterMetricFamily(PREFIX + self.name, self.text, labels=self.labels)
        with self._lock:
            for labels, value in self._values.items():
                family.add_metric(labels, value)
        yield family


class Gauge(Metric):
    """Something that rises and falls: the last value that was set."""

    def __init__(self, name: str, text: str, labels: Sequence[str] = (), *, series_max: int = SERIES_MAX) -> None:
        """As `Metric`."""
        super().__init__(name, text, labels, series_max=series_max)
        self._values: dict[Labels, float] = {}

    def set(self, value: float, labels: Mapping[str, object] | None = None) -> None:
        """From now on it is `value` under these label values."""
        named = self._named(labels)
        running.later(self, lambda: self._set(named, float(value)))

    def _set(self, labels: Labels, value: float) -> None:
        with self._lock:
            self._values[self._bounded(labels, self._values)] = value

    def value(self, labels: Mapping[str, object] | None = None) -> float | None:
        """What it stands at, for tests."""
        return self._values.get(self._named(labels))

    def families(self) -> Iterator[Family]:
        """As `Metric.families`."""
        from prometheus_client.core import GaugeMetricFamily

        family = GaugeMetricFamily(PREFIX + self.name, self.text, labels=self.labels)
        with self._lock:
            for labels, value in self._values.items():
                family.add_metric(labels, value)
        yield family


class Histogram(Metric):
    """How values are distributed."""

    def __init__(
        self,
        name: str,
        text: str,
        labels: Sequence[str] = (),
        *,
        buckets: Sequence[float] = BUCKETS,
        series_max: int = SERIES_MAX,
    ) -> None:
        """`buckets`: upper bounds, rising; one for all above them is added."""
        super().__init__(name, text, labels, series_max=series_max)
        if not buckets or list(buckets) != sorted(set(buckets)):
            raise ConfigError(f"give the metric {name} buckets that rise")
        self._bounds = tuple(float(one) for one in buckets)
        self._values: dict[Labels, tuple[list[int], float]] = {}

    def observe(self, values: float | pl.Series, labels: Mapping[str, object] | None = None) -> None:
        """Add one value, or all of a column that are not null, under these label values."""
        named = self._named(labels)
        column = values if isinstance(values, pl.Series) else pl.Series([values])
        good = column.cast(pl.Float64).drop_nulls().drop_nans().to_numpy()
        counts = np.bincount(np.searchsorted(self._bounds, good, side="left"), minlength=len(self._bounds) + 1).tolist()
        total = float(good.sum())
        running.later(self, lambda: self._add(named, counts, total))

    def _add(self, labels: Labels, counts: Sequence[int], total: float) -> None:
        with self._lock:
            labels = self._bounded(labels, self._values)
            known, before = self._values.get(labels, ([0] * len(counts), 0.0))
            self._values[labels] = ([a + b for a, b in zip(known, counts, strict=True)], before + total)

    def count(self, labels: Mapping[str, object] | None = None) -> int:
        """How many values there were, for tests."""
        return sum(self._values.get(self._named(labels), ([], 0.0))[0])

    def families(self) -> Iterator[Family]:
        """As `Metric.families`."""
        from prometheus_client.core import HistogramMetricFamily

        family = HistogramMetricFamily(PREFIX + self.name, self.text, labels=self.labels)
        with self._lock:
            for labels, (counts, total) in self._values.items():
                buckets, seen = [], 0
                for bound, count in zip([*map(str, self._bounds), "+Inf"], counts, strict=True):
                    seen += count
                    buckets.append((bound, seen))
                family.add_metric(labels, buckets=buckets, sum_value=total)
        yield family


def _text(value: object) -> str:
    return "" if value is None else str(value)[:LABEL_CHARS_MAX]
