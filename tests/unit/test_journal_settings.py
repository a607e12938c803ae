"""The journal's settings and figures: one table, one reader, and counts that monitoring can read."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry

from chronicle.errors import ConfigError
from chronicle.journal import Journal, metrics
from chronicle.journal import settings as settings_module
from chronicle.journal.settings import PREFIX, Settings, read


def test_every_setting_is_in_the_table() -> None:
    """And nothing else; defaults are the ones it names."""
    rows = dict(re.findall(r"^\| `CHRONICLE_JOURNAL_(\w+)` \| ([^|]+) \|", settings_module.__doc__ or "", re.MULTILINE))
    assert rows.keys() == {one.name.upper() for one in fields(Settings)}
    for one in fields(Settings):
        said = rows[one.name.upper()].strip().split(":")[0]
        if said.startswith("`"):
            kind = type(one.default)
            assert read({PREFIX + one.name.upper(): said.strip("`")}) == Settings(), (one.name, kind)


def test_an_argument_wins_over_the_environment() -> None:
    """And the environment over the default; None is not given."""
    environment = {PREFIX + "WORKERS": " 3 ", PREFIX + "COMPRESS": "off", PREFIX + "TIMEOUT_S": "2.5", "OTHER": "x"}
    assert read(environment, workers=None) == Settings(workers=3, compress=False, timeout_s=2.5)
    assert read(environment, workers=4).workers == 4


@given(st.sampled_from([one.name for one in fields(Settings)]), st.text(max_size=20).filter(lambda text: "\0" not in text))
def test_a_value_is_taken_or_refused_without_being_repeated(name: str, text: str) -> None:
    """Whatever stands in the environment."""
    try:
        read({PREFIX + name.upper(): text})
    except ConfigError as error:
        assert f"{PREFIX}{name.upper()}" in str(error)
        if len(text) > 2 and text not in PREFIX + name.upper():
            assert text not in str(error).replace("a whole number", "").replace("a number", "").replace("or more", "")


def test_secrets_are_not_shown() -> None:
    """Neither the key nor Kafka's settings."""
    assert "hunter2" not in repr(Settings(key="hunter2", kafka="sasl.password=hunter2"))


READERS = {
    "settings.py",
    "context.py",  # the operating system's user
    "naming.py",  # the commit, as build systems name it
    "pytest_plugin.py",  # sets what tests use
}


def test_one_module_reads_the_settings() -> None:
    """No other of the package looks at the environment for anything of the journal's."""
    folder = Path(settings_module.__file__).parent
    found = {path.name for path in folder.rglob("*.py") if re.search(r"os\.environ|getenv|import environ", path.read_text())}
    assert found <= READERS
    assert "settings.py" in found


def test_prometheus_reads_the_counts() -> None:
    """By disposition and source, with the gauges; two journals of one source are added up; a journal that is gone is not."""
    registry = CollectorRegistry()
    first, second = (Journal(source="shop", transport="memory://") for _ in range(2))
    for journal in (first, second):
        metrics.prometheus(journal, registry)
        journal.publish_sync("a.b")
        journal.flush(10)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, {"source": "shop", **labels})

    assert value("chronicle_journal_events_total", disposition="confirmed") == 2
    assert value("chronicle_journal_events_total", disposition="dropped") == 0
    assert value("chronicle_journal_queued") == 0
    assert value("chronicle_journal_breaker_open") == 0
    assert value("chronicle_journal_send_seconds_count") == 2
    for journal in (first, second):
        journal.close()


def test_opentelemetry_reads_the_counts() -> None:
    """The same figures, by a meter."""
    reader = InMemoryMetricReader()
    meter = MeterProvider(metric_readers=[reader]).get_meter("test")
    journal = Journal(source="shop", transport="memory://")
    metrics.opentelemetry(journal, meter)
    journal.publish_sync("a.b")
    journal.close()
    data = reader.get_metrics_data()
    assert data is not None
    points = {
        (metric.name, point.attributes.get("disposition") if point.attributes else None): point
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    }
    assert getattr(points["chronicle.journal.events", "confirmed"], "value", None) == 1
    assert getattr(points["chronicle.journal.queued", None], "value", None) == 0
    assert getattr(points["chronicle.journal.send", None], "count", None) == 1


def test_metrics_are_named_in_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """And attached to the default registry."""
    from prometheus_client import REGISTRY

    monkeypatch.setenv("CHRONICLE_JOURNAL_METRICS", "prometheus opentelemetry")
    journal = Journal(source="settings-test", transport="memory://")
    journal.publish_sync("a.b")
    labels = {"source": "settings-test", "disposition": "accepted"}
    assert REGISTRY.get_sample_value("chronicle_journal_events_total", labels) == 1
    journal.close()
