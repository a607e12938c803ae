"""What the service counts; label values are words of this module, never of a request."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.process_collector import ProcessCollector

BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0)
SAMPLE_S = 5.0
"""How often a process that shares its metrics with others writes its gauges down."""


class ApiMetrics:
    """All metrics of one process that serves HTTP; `shared`: of all processes of the service, whichever is asked.

    Shared ones are kept by prometheus_client in the directory that its own variable PROMETHEUS_MULTIPROC_DIR names.
    """

    def __init__(self, *, shared: bool = False) -> None:
        self._shared = shared
        self.registry = CollectorRegistry()
        registry = None if shared else self.registry
        self._requests = Histogram(
            "chronicle_api_request_seconds",
            "Time from a request's head to its answer's end.",
            ["endpoint", "status"],
            buckets=BUCKETS_S,
            registry=registry,
        )
        self._events = Counter(
            "chronicle_api_events", "Events handed in, by what became of them.", ["disposition"], registry=registry
        )
        self._children: dict[tuple[str, int], Histogram] = {}
        self._dispositions = {
            name: self._events.labels(name) for name in ("confirmed", "spilled", "refused", "unavailable", "rate_limited")
        }
        self.gauges: dict[str, tuple[str, Callable[[], float]]] = {}
        """Name → text and value, asked for at each scrape."""
        self._sampled: dict[str, Gauge] = {}
        if shared:
            MultiProcessCollector(self.registry)  # type: ignore[no-untyped-call]
        else:
            ProcessCollector(registry=self.registry)
            self.registry.register(self)

    def served(self, endpoint: str, status: int, seconds: float) -> None:
        """One request. `endpoint`: a route's own text."""
        child = self._children.get((endpoint, status))
        if child is None:
            child = self._children[endpoint, status] = self._requests.labels(endpoint, str(status))
        child.observe(seconds)

    def events(self, disposition: str, count: int) -> None:
        """Events of one request."""
        if count:
            self._dispositions[disposition].inc(count)

    def collect(self) -> Iterator[Metric]:
        """Called by Prometheus' registry."""
        for name, (text, value) in list(self.gauges.items()):
            yield GaugeMetricFamily(name, text, value=value())

    def sample(self) -> None:
        """Write the gauges down for whichever process is asked; called every `SAMPLE_S`."""
        if not self._shared:
            return
        for name, (text, value) in list(self.gauges.items()):
            if name not in self._sampled:
                self._sampled[name] = Gauge(name, text, registry=None, multiprocess_mode="livesum")
            self._sampled[name].set(value())

    def text(self) -> bytes:
        """As Prometheus reads it."""
        self.sample()
        return generate_latest(self.registry)
