"""Structured logs and Prometheus metrics: wrapped around the stages, not written inside them. Never a row value.

`/healthz` answers 200 while the event loop turns, `/readyz` 200 while partitions are assigned and no retry is declared
(else 503 and the reason), `/metrics` Prometheus' text.
"""

from __future__ import annotations

import io
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, TextIO, cast

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from chronicle.errors import ChronicleError, ConfigError

if TYPE_CHECKING:
    from chronicle.engine import Outcome
    from chronicle.model.batch import Batch

LATENCY_BUCKETS_S = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0, 86400.0)
BATCH_BUCKETS = (1, 10, 100, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000)
STAGE_BUCKETS_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 60.0)
REPEATED_AFTER_S = 30.0
"""A line of another library that says the same comes again after this time."""
WARNINGS_REMEMBERED = 10_000


class _Stderr(io.TextIOBase):
    """Standard error as it is now: whoever replaces `sys.stderr` for a while also gets the log lines, and no closed file."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def configure_logging(level: str) -> None:
    """Log events to standard error: for a person when it is a terminal, else one JSON object a line.

    Other libraries' log lines (Faust, aiokafka) come out in the same form, from WARNING on.
    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _safe_exception,
    ]
    stream = _Stderr()
    person = sys.stderr.isatty()
    renderer: Any = structlog.dev.ConsoleRenderer() if person else structlog.processors.JSONRenderer()
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, stream)),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    handler.addFilter(_Seldom())
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler], force=True)


class _Seldom(logging.Filter):
    """Other libraries' lines of one kind come once in a while: aiokafka writes a hundred a second while the broker is away."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this line is written."""
        kind, now = (record.name, str(record.msg)), time.monotonic()
        if now - self._said.get(kind, -REPEATED_AFTER_S) < REPEATED_AFTER_S:
            return False
        if len(self._said) >= WARNINGS_REMEMBERED:
            self._said.clear()
        self._said[kind] = now
        return True


def explain(error: BaseException) -> dict[str, str]:
    """An exception as log fields. Chronicle's own texts are safe to show; of any other only its class and where it was."""
    if isinstance(error, ChronicleError):
        return {"error": type(error).__name__, "reason": str(error)}
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    return {
        "error": type(error).__name__,
        "reason": "a bug in Chronicle (its message is withheld: it could hold data)",
        "where": " < ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in reversed(frames)),
    }


def _safe_exception(_logger: Any, _name: str, event: Any) -> Any:
    """Replace tracebacks, whose messages could hold a row value, by classes and places."""
    info = event.pop("exc_info", None)
    error = sys.exc_info()[1] if info is True else info[1] if isinstance(info, tuple) else info
    if isinstance(error, BaseException):
        event.update({f"exception_{name}": text for name, text in explain(error).items()})
    return event


class Latency:
    """A histogram per source that takes a whole batch at once."""

    def __init__(self, name: str, text: str) -> None:
        self._name, self._text = name, text
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}

    def add(self, source: str, counts: Iterable[int], total: float) -> None:
        """`counts`: one per bucket of `LATENCY_BUCKETS_S`, and one for what is above the last."""
        known = self._counts.setdefault(source, [0] * (len(LATENCY_BUCKETS_S) + 1))
        for index, count in enumerate(counts):
            known[index] += count
        self._sums[source] = self._sums.get(source, 0.0) + total

    def collect(self) -> Iterator[Metric]:
        """Called by Prometheus' registry."""
        family = HistogramMetricFamily(self._name, self._text, labels=["source"])
        for source, counts in list(self._counts.items()):
            buckets, seen = [], 0
            for bound, count in zip([*map(str, LATENCY_BUCKETS_S), "+Inf"], list(counts), strict=True):
                seen += count
                buckets.append((bound, seen))
            family.add_metric([source], buckets=buckets, sum_value=self._sums[source])
        yield family


class Attributed:
    """By table: how many changes say who did them. Snapshot rows are nobody's doing and do not count."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], dict[str, int]] = {}

    def add(self, source: str, table: str, attribution: str, rows: int) -> None:
        """Rows of one table with one attribution."""
        known = self._counts.setdefault((source, table), {})
        known[attribution] = known.get(attribution, 0) + rows

    def collect(self) -> Iterator[Metric]:
        """Called by Prometheus' registry."""
        by_rung = CounterMetricFamily(
            "chronicle_attribution", "Changes by what says who did them.", labels=["source", "table", "attribution"]
        )
        ratio = GaugeMetricFamily(
            "chronicle_attributed_ratio", "Share of changes since the start that say who did them.", labels=["source", "table"]
        )
        for (source, table), counts in list(self._counts.items()):
            for attribution, rows in list(counts.items()):
                by_rung.add_metric([source, table, attribution], rows)
            said = sum(rows for attribution, rows in counts.items() if attribution not in ("none", "pending"))
            ratio.add_metric([source, table], said / sum(counts.values()))
        yield by_rung
        yield ratio


class Gauges:
    """Values that are asked for when Prometheus scrapes."""

    def __init__(self) -> None:
        self.lag: Callable[[], Iterable[tuple[str, int, int]]] = lambda: ()
        """(topic, partition, records behind)"""
        self.loss: Callable[[], Mapping[str, float]] = dict
        """topic → seconds until retention deletes the oldest unprocessed record"""
        self.retries: Callable[[], Mapping[str, float]] = dict
        """service → seconds since its declared retry began"""
        self.attempts: Callable[[], Mapping[str, int]] = dict
        """service → failed attempts since the start"""
        self.ready: Callable[[], bool] = lambda: False

    def collect(self) -> Iterator[Metric]:
        """Called by Prometheus' registry."""
        lag = GaugeMetricFamily("chronicle_lag_records", "Records not yet acknowledged.", labels=["topic", "partition"])
        for topic, partition, behind in self.lag():
            lag.add_metric([topic, str(partition)], behind)
        yield lag
        loss = GaugeMetricFamily(
            "chronicle_seconds_until_loss",
            "Retention of a raw topic minus age of its oldest unprocessed record.",
            labels=["topic"],
        )
        for topic, seconds in self.loss().items():
            loss.add_metric([topic], seconds)
        yield loss
        retries = GaugeMetricFamily("chronicle_retrying_seconds", "Age of a declared retry.", labels=["service"])
        for service, seconds in self.retries().items():
            retries.add_metric([service], seconds)
        yield retries
        attempts = GaugeMetricFamily("chronicle_retries_total", "Failed attempts since the start.", labels=["service"])
        for service, count in self.attempts().items():
            attempts.add_metric([service], count)
        yield attempts
        yield GaugeMetricFamily("chronicle_ready", "1 when /readyz answers 200.", value=float(self.ready()))


class Metrics:
    """All metrics of one worker process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.gauges = Gauges()
        self.latency = Latency("chronicle_commit_to_queryable_seconds", "Commit in the database to readable in ClickHouse.")
        self.registry.register(self.gauges)
        self.registry.register(self.latency)
        self.attributed = Attributed()
        self.registry.register(self.attributed)
        self._unknown = Counter(
            "chronicle_unknown_entities",
            "Changes that name an entity which the reference data does not have.",
            ["table", "into"],
            registry=self.registry,
        )
        self._unclassified = Counter(
            "chronicle_unclassified_values",
            "Values hidden because the policy does not name their column.",
            ["table"],
            registry=self.registry,
        )
        self._in = Counter("chronicle_records_in", "Records taken from Kafka.", registry=self.registry)
        self._rows = Counter(
            "chronicle_rows",
            "Records by what became of them.",
            ["source", "table", "operation", "disposition"],
            registry=self.registry,
        )
        self._dead = Counter("chronicle_dead_letters", "Dead letters.", ["topic", "stage", "reason"], registry=self.registry)
        self._warnings = Counter(
            "chronicle_warnings", "Warnings for the operator; each is logged once.", registry=self.registry
        )
        self._batch = Histogram("chronicle_batch_rows", "Records per batch.", buckets=BATCH_BUCKETS, registry=self.registry)
        self._stage = Histogram(
            "chronicle_stage_seconds", "Time of a batch in a stage.", ["stage"], buckets=STAGE_BUCKETS_S, registry=self.registry
        )
        self._warned: set[str] = set()
        self._log = structlog.get_logger("chronicle.worker")

    def observe(self, outcome: Outcome) -> None:
        """Count one batch that every sink holds."""
        import polars as pl

        batch = outcome.batch
        self._in.inc(outcome.rows)
        self._batch.observe(outcome.rows)
        for stage, seconds in outcome.stages_s.items():
            self._stage.labels(stage).observe(seconds)
        changes = batch.changes
        if len(changes):
            counted = changes.group_by("source", "schema", "table", "operation", "stub", "attribution").len()
            for source, schema, table, operation, stub, attribution, count in counted.rows():
                self._rows.labels(source, f"{schema}.{table}", operation, stub or "sunk").inc(count)
                if operation != "snapshot":
                    self.attributed.add(source, f"{schema}.{table}", attribution, count)
            self._observe_latency(changes.filter(pl.col("operation") != "snapshot"), outcome.queryable_us)
        self._observe_said(batch)
        for letter in batch.dead_letters:
            self._rows.labels("", letter.topic, "", "dead_letter").inc()
            self._dead.labels(letter.topic, letter.stage.value, letter.reason.value).inc()
        for (topic, rule), count in batch.left_out.items():
            self._rows.labels("", topic, "", rule).inc(count)
        for table, count in batch.unclassified.items():
            self._unclassified.labels(table).inc(count)
        for (table, into), count in batch.unknown_entities.items():
            self._unknown.labels(table, into).inc(count)
        for warning in batch.warnings:
            self.warn(warning)

    def _observe_said(self, batch: Batch) -> None:
        """Contexts, their transactions, and events."""
        if len(batch.transactions):
            for source, kind, count in batch.transactions.group_by("source", "kind").len().rows():
                self._rows.labels(source, "transaction", kind, "sunk").inc(count)
        if len(batch.events):  # by topic: an application names its source as it likes
            for topic, count in batch.events["topic"].value_counts().rows():
                self._rows.labels("", topic, "event", "sunk").inc(count)

    def _observe_latency(self, changes: Any, queryable_us: int) -> None:
        import numpy as np

        edges = np.array([-np.inf, *LATENCY_BUCKETS_S, np.inf])
        for (source,), part in changes.group_by("source"):
            seconds = (queryable_us - part["committed_at"].to_physical().to_numpy()) / 1e6
            counts, _ = np.histogram(seconds, edges)
            self.latency.add(str(source), counts.tolist(), float(seconds.sum()))

    def warn(self, text: str) -> None:
        """Log a warning for the operator the first time it comes."""
        self._warnings.inc()
        if text not in self._warned and len(self._warned) < WARNINGS_REMEMBERED:
            self._warned.add(text)
            self._log.warning("operator.warning", text=text)


class HttpServer:
    """`/healthz`, `/readyz` and `/metrics`, in threads of their own: they answer while the event loop is busy."""

    def __init__(
        self, host: str, port: int, metrics: Metrics, not_alive: Callable[[], str | None], not_ready: Callable[[], str | None]
    ) -> None:
        """Port 0 takes a free one; see `port`.

        Raises:
            ConfigError: the port is taken.
        """
        answers: dict[str, Callable[[], tuple[int, str, bytes]]] = {
            "/healthz": lambda: _probe(not_alive()),
            "/readyz": lambda: _probe(not_ready()),
            "/metrics": lambda: (200, "text/plain; version=0.0.4; charset=utf-8", generate_latest(metrics.registry)),
        }

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer = answers.get(self.path.partition("?")[0])
                status, kind, body = answer() if answer else (404, "text/plain", b"/healthz, /readyz, /metrics\n")
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Silent: a probe every second is not news."""

        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except OSError as error:
            raise ConfigError(f"choose another worker.http_port: {host}:{port} cannot be opened ({error.strerror})") from None
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)


def _probe(problem: str | None) -> tuple[int, str, bytes]:
    return (503, "text/plain", f"{problem}\n".encode()) if problem else (200, "text/plain", b"ok\n")
