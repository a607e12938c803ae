"""The gauges of a worker say what its ledger, its status and its engine say at the time of the question."""

from __future__ import annotations

from typing import Any, cast

from prometheus_client import CollectorRegistry, generate_latest

from chronicle.engine import Engine, Flood
from chronicle.errors import TransientError
from chronicle.observe import Gauges
from chronicle.stages.receive import Receiving
from chronicle.worker.gauges import wire
from chronicle.worker.ledger import Ledger, Partition
from chronicle.worker.roles import NoSchemas
from chronicle.worker.status import Status


def test_the_gauges_follow_what_they_are_wired_to() -> None:
    """Lag counts from the first record that is not acknowledged, of partitions whose end is known, and is never negative."""
    gauges, status, ledger = Gauges(), Status(), Ledger()
    ends: dict[Partition, int] = {}
    engine = Engine(Receiving(), NoSchemas(), (), watch=status, flood=Flood(0.5, 100))
    engine.retries["registry"] += 3
    wire(gauges, status, engine, ledger, lambda: ends)
    registry = CollectorRegistry()
    registry.register(cast("Any", gauges))

    def told() -> str:
        return generate_latest(registry).decode()

    assert list(gauges.lag()) == []
    for partition in range(3):
        ledger.begin(("shop.public.t", partition), 10, None)
    ends.update({("shop.public.t", 0): 25, ("shop.public.t", 1): 4})
    assert sorted(gauges.lag()) == [("shop.public.t", 0, 15), ("shop.public.t", 1, 0)]
    ends = {("shop.public.t", 2): 11}
    assert list(gauges.lag()) == [("shop.public.t", 2, 1)], "the newest answer counts"
    assert 'chronicle_retries_total{service="registry"} 3.0' in told()
    assert "chronicle_ready 0.0" in told()
    status.retrying("clickhouse", TransientError("away"))
    assert 'chronicle_retrying_seconds{service="clickhouse"}' in told()
    status.recovered("clickhouse")
    assert 'service="clickhouse"' not in told()
