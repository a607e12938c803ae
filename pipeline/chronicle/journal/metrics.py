"""The journal's figures for Prometheus and OpenTelemetry: read when they are asked for, so that an event costs nothing more."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from chronicle.errors import ConfigError

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Meter, Observation
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

    from chronicle.journal.journal import Journal

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_EVENTS = ("chronicle_journal_events", "Events by what became of them.")
_GAUGES: tuple[tuple[str, str, Callable[[Journal], float]], ...] = (
    ("queued", "Events in memory.", lambda journal: journal.queued),
    ("spilled_now", "Events on the disk that are still to be sent.", lambda journal: journal.spilled[0]),
    ("spill_bytes", "Bytes that the spill holds.", lambda journal: journal.spilled[1]),
    ("breaker_open", "1: the transport is left alone.", lambda journal: float(journal.breaker_open)),
)


def attach(journal: Journal, names: str) -> None:
    """What `CHRONICLE_JOURNAL_METRICS` names.

    Raises:
        ConfigError: there is none of that name, or its library is not installed.
    """
    makers: dict[str, Callable[[Journal], object]] = {"prometheus": prometheus, "opentelemetry": opentelemetry}
    for name in names.split():
        if name not in makers:
            raise ConfigError(f"journal's metrics: choose from {', '.join(makers)}")
        try:
            makers[name](journal)
        except ImportError:
            raise ConfigError(f"install {'prometheus-client' if name == 'prometheus' else 'opentelemetry-api'}") from None


def prometheus(journal: Journal, registry: CollectorRegistry | None = None) -> None:
    """Have a registry collect the journal's figures, labelled with its source. Journals of one source in one registry are
    added up. It collects nothing of a journal that is gone."""
    from prometheus_client import REGISTRY, Histogram

    registry = REGISTRY if registry is None else registry
    found = next((one for one in _collectors if one.registry is registry), None)
    if found is None:
        found = _Collector(registry)
        found.seconds = Histogram(
            "chronicle_journal_send_seconds", "One batch to the transport.", ["source"], buckets=SECONDS, registry=registry
        )
        _collectors.append(found)
        registry.register(found)
    found.journals.add(journal)
    seconds = found.seconds.labels(source=journal.source)
    journal.on_sent(lambda elapsed, _: seconds.observe(elapsed))


class _Collector:
    """Of one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.journals: weakref.WeakSet[Journal] = weakref.WeakSet()
        self.seconds: Any = None

    def describe(self) -> Iterable[Metric]:
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        events: dict[tuple[str, str], float] = {}
        gauges: dict[tuple[str, str], float] = {}
        for journal in list(self.journals):
            for disposition, count in journal.counts.items():
                events[journal.source, disposition] = events.get((journal.source, disposition), 0) + count
            for name, _, read in _GAUGES:
                gauges[name, journal.source] = gauges.get((name, journal.source), 0) + read(journal)
        family = CounterMetricFamily(*_EVENTS, labels=["source", "disposition"])
        for labels, total in events.items():
            family.add_metric(labels, total)
        yield family
        for name, text, _ in _GAUGES:
            gauge = GaugeMetricFamily(f"chronicle_journal_{name}", text, labels=["source"])
            for (which, source), value in gauges.items():
                if which == name:
                    gauge.add_metric([source], value)
            yield gauge


_collectors: list[_Collector] = []


def opentelemetry(journal: Journal, meter: Meter | None = None) -> None:
    """Have a meter observe the journal's figures: `chronicle.journal.events` by disposition, and the gauges."""
    from opentelemetry import metrics

    meter = metrics.get_meter("chronicle.journal") if meter is None else meter
    source = {"source": journal.source}
    journal_of = weakref.ref(journal)

    def events(_: CallbackOptions) -> Iterator[Observation]:
        found = journal_of()
        for name, count in found.counts.items() if found is not None else ():
            yield metrics.Observation(count, {**source, "disposition": name})

    def gauge(read: Callable[[Journal], float]) -> Callable[[CallbackOptions], Iterator[Observation]]:
        def observed(_: CallbackOptions) -> Iterator[Observation]:
            found = journal_of()
            if found is not None:
                yield metrics.Observation(read(found), source)

        return observed

    meter.create_observable_counter("chronicle.journal.events", [events], description=_EVENTS[1])
    for name, text, read in _GAUGES:
        meter.create_observable_gauge(f"chronicle.journal.{name}", [gauge(read)], description=text)
    seconds = meter.create_histogram("chronicle.journal.send", unit="s", description="One batch to the transport.")
    journal.on_sent(lambda elapsed, _: seconds.record(elapsed, source))
