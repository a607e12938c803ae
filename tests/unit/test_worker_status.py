"""What a worker says about itself, when its watchdog bites, which topics it wants, and what its logs may show."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request

import pytest

from chronicle.errors import ConfigError, StopWorker, TransientError
from chronicle.observe import HttpServer, Metrics, explain
from chronicle.worker.failpoint import Failpoint
from chronicle.worker.ledger import Ledger, Partition
from chronicle.worker.status import Status
from chronicle.worker.topics import wanted
from chronicle.worker.watchdog import Watchdog

P: Partition = ("shop.public.t", 0)


def test_ready_means_assigned_and_no_declared_retry() -> None:
    """Each state has its own words."""
    status = Status()
    assert status.not_ready() == "no partitions assigned yet"
    status.assigned(3)
    assert status.not_ready() is None
    status.retrying("clickhouse", TransientError("away"))
    assert "waiting for clickhouse" in str(status.not_ready())
    status.recovered("clickhouse")
    assert status.not_ready() is None
    status.unassigned()
    assert status.not_ready() is not None
    status.fail(StopWorker("x"))
    assert status.not_ready() == "failed: StopWorker"


def test_the_first_failure_is_kept() -> None:
    """What follows from it must not hide it."""
    status = Status()
    first = StopWorker("first")
    status.fail(first)
    status.fail(StopWorker("second"))
    assert status.failure is first
    assert status.stopping.is_set()


def watchdog(status: Status, ledger: Ledger, end: int | Exception, timeout_s: float = 0.0) -> Watchdog:
    def ends(partitions: list[Partition]) -> dict[Partition, int]:
        if isinstance(end, Exception):
            raise end
        return dict.fromkeys(partitions, end)

    return Watchdog(status, ledger, ends, lambda _reason: None, stall_timeout_s=timeout_s)


def test_the_watchdog_bites_on_lag_without_progress() -> None:
    """And only then: not without lag, not during a declared retry, not while the broker is away, not too early."""
    status, ledger = Status(), Ledger()
    ledger.begin(P, 5, 5)
    status.assigned(1)
    assert watchdog(status, ledger, 5).judge() is None
    assert watchdog(status, ledger, 9).judge() == "4 records behind and no progress"
    assert watchdog(status, ledger, TransientError("away")).judge() is None
    assert watchdog(status, ledger, 9, timeout_s=1000).judge() is None
    status.retrying("clickhouse", TransientError("away"))
    assert watchdog(status, ledger, 9).judge() is None


def test_a_stalled_process_is_ended_even_when_its_loop_is_blocked() -> None:
    """The watchdog is a thread of its own."""
    status, ledger = Status(), Ledger()
    ledger.begin(P, 0, 0)
    status.assigned(1)
    reasons: list[str] = []
    dog = Watchdog(status, ledger, lambda _: {P: 1}, reasons.append, stall_timeout_s=0.01)
    dog.start()
    dog.join(10)
    assert reasons == ["1 records behind and no progress"]


def test_topics_are_wanted_by_prefix_and_dot() -> None:
    """A source's name that begins like another's, the connector's own topics and Chronicle's are not taken."""
    names = [
        "shop.public.t", "shop.transaction", "shop.public.signal", "shop", "shopping.public.t", "chronicle.retry",
        "chronicle.audit", "chronicle.signals.shop", "__debezium-heartbeat.shop", "chronicle.events", "chronicle.events.web",
        "chronicle.eventsource",
    ]  # fmt: skip
    assert wanted(names, ["shop"], "chronicle.retry", "chronicle.events") == (
        "chronicle.events",
        "chronicle.events.web",
        "chronicle.retry",
        "shop.public.signal",
        "shop.public.t",
        "shop.transaction",
    )


def test_a_bug_is_explained_without_its_message() -> None:
    """A library's exception may quote a row value."""
    try:
        int("4111-1111-1111-1111")
    except ValueError as error:
        fields = explain(error)
    assert "4111" not in json.dumps(fields)
    assert (fields["error"], "test_worker_status.py" in fields["where"]) == ("ValueError", True)


def test_logged_exceptions_hold_no_values() -> None:
    """Neither Chronicle's log events nor other libraries' tracebacks show an exception's message."""
    code = """
import logging, structlog
from chronicle.observe import configure_logging
configure_logging("info")
try:
    int("secret-value")
except ValueError:
    structlog.get_logger().exception("ours")
    logging.getLogger("faust").exception("theirs")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert [event["event"] for event in events] == ["ours", "theirs"]
    assert all(event["exception_error"] == "ValueError" for event in events)
    assert "secret-value" not in done.stderr


def test_a_taken_port_is_the_operators() -> None:
    """The message names the setting."""
    first = HttpServer("127.0.0.1", 0, Metrics(), lambda: None, lambda: "not yet")
    with pytest.raises(ConfigError, match=r"worker\.http_port"):
        HttpServer("127.0.0.1", first.port, Metrics(), lambda: None, lambda: None)
    with urllib.request.urlopen(f"http://127.0.0.1:{first.port}/healthz", timeout=5) as answer:
        assert answer.read() == b"ok\n"
    first.close()


def test_latency_is_a_histogram_per_source() -> None:
    """Buckets are cumulative in the text that Prometheus reads."""
    from prometheus_client import generate_latest

    from chronicle.observe import LATENCY_BUCKETS_S

    metrics = Metrics()
    metrics.latency.add("shop", [1, 2, *[0] * (len(LATENCY_BUCKETS_S) - 1)], 0.3)
    text = generate_latest(metrics.registry).decode()
    assert 'chronicle_commit_to_queryable_seconds_bucket{le="0.05",source="shop"} 1.0' in text
    assert 'chronicle_commit_to_queryable_seconds_bucket{le="+Inf",source="shop"} 3.0' in text
    assert 'chronicle_commit_to_queryable_seconds_count{source="shop"} 3.0' in text


def test_an_unknown_failpoint_is_refused() -> None:
    """A misspelt failpoint would make a kill test pass without a kill."""
    for wrong in ("before_sink", "before_ack:x"):
        with pytest.raises(ConfigError):
            Failpoint(wrong)
    Failpoint("")("before_ack")
    Failpoint("before_ack:2")("before_sinks")
