"""What processors say besides their frame: alerts and metrics."""

from __future__ import annotations

import re

import polars as pl
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from chronicle.model.alerts import ALERTS
from chronicle.processors import Counter, Gauge, Histogram, ProcessorFault, alerts
from chronicle.processors.metrics import OTHER
from chronicle.processors.step import Processing
from chronicle.sinks import arrow
from chronicle.sinks.alerts import alerts as alerts_table
from chronicle.sinks.memory import MemorySink
from chronicle.sinks.migrations import migrations
from chronicle.testing import run
from tests.unit.processing import ORDERS, PEOPLE, alarmed, made, order, person, raises

# Alerts ----------------------------------------------------------------------------------------------------------------


def test_an_alert_links_to_its_change_and_has_what_was_declared() -> None:
    """Row by row."""
    outcome = run([person(1), order(2)], processors=[alarmed()], now_us=5)
    assert outcome.alerts["event_id"].to_list() == outcome.changes["event_id"].to_list()
    assert outcome.alerts["entity"].to_list() == outcome.changes["entity"].to_list()
    assert outcome.alerts["title"].to_list() == ["row 1 by ann", "row 2 by (unknown)"]
    assert outcome.alerts["extra"].to_list() == ['{"id":1}', '{"id":2}']
    assert outcome.alerts["processor"].to_list() == ["alarm", "alarm"]
    assert outcome.alerts["raised_at"].to_physical().to_list() == [5, 5]
    assert outcome.alerts.columns == [spec.name for spec in ALERTS]


def test_the_same_alert_again_is_the_same() -> None:
    """By rule and change, on every run; another rule is another alert."""
    first, again, other = (
        run([person(1)], processors=[alarmed(rule=rule)], now_us=at) for rule, at in (("r", 1), ("r", 2), ("s", 2))
    )
    assert first.alerts["alert_id"].to_list() == again.alerts["alert_id"].to_list() != other.alerts["alert_id"].to_list()
    sink = MemorySink()
    for outcome in (again, first, other):
        sink.write(outcome)
    assert sorted((one["rule"], one["raised_at"].microsecond) for one in sink.alerts.values()) == [("r", 2), ("s", 2)]


def test_an_alert_about_a_subject_is_one_however_many_rows() -> None:
    """Of two batches, too: a transaction that is read in two parts is one transaction."""
    one = alarmed(subject=["actor_id"], title="t", extra=[])
    both, part = run([person(1), person(2)], processors=[one]), run([person(3)], processors=[one])
    assert len(both.alerts) == 1
    assert both.alerts["alert_id"].to_list() == part.alerts["alert_id"].to_list()


def test_an_alert_of_a_row_that_failed_later_waits_for_its_replay() -> None:
    """It would link to nothing."""
    outcome = run([person(1), order(1)], processors=[alarmed(), made(raises, name="bad", tables=ORDERS)], raising=False)
    assert outcome.alerts["table"].to_list() == ["people"]


def test_alerts_go_with_their_rows_when_a_batch_is_split() -> None:
    """A sink that refuses a row gets parts of the batch; each alert is in one of them."""
    outcome = run([person(n) for n in range(4)], processors=[alarmed()])
    parts = [outcome.select(0, 1), outcome.select(1, 4)]
    assert [part.alerts["event_id"].to_list() for part in parts] == [part.changes["event_id"].to_list() for part in parts]


def test_the_table_of_alerts_is_the_models_column_table() -> None:
    """Name by name, type by type, in order; and the frame has a form in Arrow for each."""
    (migration,) = [each for each in migrations() if each.name.endswith("_alerts")]
    found = re.findall(r"^    `(\w+)` (.+?),?$", migration.statements[0], re.MULTILINE)
    assert found == [
        *((spec.name, spec.clickhouse) for spec in ALERTS),
        ("inserted_at", "DateTime64(6, 'UTC') DEFAULT now64(6)"),
    ]
    table = alerts_table(run([person(1)], processors=[alarmed()]).alerts)
    assert set(table.schema.names) == {spec.name for spec in ALERTS}
    assert len(arrow.encoded(table)) > 0


def test_an_alert_outside_of_a_processor_is_refused() -> None:
    """It would be lost."""
    with pytest.raises(ProcessorFault, match="while it runs"):
        alerts.raise_(rule="r", severity="low", title="t", changes=run([person(1)]).changes)


# Metrics ---------------------------------------------------------------------------------------------------------------


def scraped(step: Processing) -> str:
    registry = CollectorRegistry()
    registry.register(step)
    return generate_latest(registry).decode()


def test_declared_metrics_are_exported_with_those_of_the_step() -> None:
    """Counters, gauges and histograms under one prefix."""
    total = Counter("orders_total", "Orders.", ["operation"])
    size = Histogram("size", "x", buckets=(1, 10))
    last = Gauge("last", "x")

    def measure(changes: pl.DataFrame) -> pl.DataFrame:
        total.count(changes)
        size.observe(pl.Series([0.5, 1.0, 5.0, 50.0, None]))
        last.set(3)
        alerts.raise_(rule="r", severity="low", title="t", changes=changes.head(1))
        return changes

    step = Processing([made(measure, metrics=[total, size, last]), made(raises, name="bad", tables=PEOPLE)])
    step(run([order(1), order(2), person(1)]))
    text = scraped(step)
    for line in (
        'chronicle_processor_orders_total{operation="create"} 3.0',
        'chronicle_processor_size_bucket{le="1.0"} 2.0',
        'chronicle_processor_size_bucket{le="+Inf"} 4.0',
        "chronicle_processor_size_sum 56.5",
        "chronicle_processor_last 3.0",
        'chronicle_processor_seconds_count{processor="p"} 1.0',
        'chronicle_processor_rows_total{outcome="processed",processor="p"} 3.0',
        'chronicle_processor_rows_total{outcome="failed",processor="bad"} 1.0',
        'chronicle_processor_alerts_total{rule="r",severity="low"} 1.0',
    ):
        assert line in text, text


def test_label_sets_are_bounded() -> None:
    """A label that turns out to be an id must not fill the memory of Prometheus."""
    total = Counter("bounded", "x", ["id"], series_max=2)
    for number in range(5):
        total.inc({"id": number})
    total.inc({"id": 0})
    assert [total.value({"id": one}) for one in (0, 1, 2, OTHER)] == [2, 1, 0, 3]


def test_a_metric_needs_its_labels() -> None:
    """All of them, and no other."""
    total = Counter("labelled", "x", ["a"])
    for labels in (None, {}, {"b": "x"}, {"a": "x", "b": "x"}):
        with pytest.raises(ProcessorFault, match="has the labels"):
            total.inc(labels)
