"""Wiring: what a worker is built from, and how often it is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import SecretStr

from chronicle.capture import sources
from chronicle.config import ClickHouse, Connect, Registry, Settings, Worker
from chronicle.errors import ConfigError
from chronicle.observe import Metrics
from chronicle.wiring import build_worker
from chronicle.worker.topics import wanted

NOWHERE = "http://localhost:1"
ROOT = Path(__file__).parents[2]


def settings(**worker: object) -> Settings:
    """All services away: a worker is built all the same, and waits for them."""
    return Settings(
        registry=Registry(url=NOWHERE),
        clickhouse=ClickHouse(url=NOWHERE),
        connect=Connect(url=NOWHERE, directory=ROOT / "connectors"),
        worker=Worker.model_validate(worker),
        identity_key=SecretStr("ab" * 32),
    )


def test_the_source_files_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read twice may differ, when a file is written in between."""
    read: list[Path] = []
    original = sources.load_sources

    def counting(directory: Path) -> Mapping[str, sources.Source]:
        read.append(directory)
        return original(directory)

    monkeypatch.setattr(sources, "load_sources", counting)
    job = build_worker(settings(), Metrics())
    assert read == [ROOT / "connectors"]
    assert set(job.sources) == {"shop", "hiring"}


def test_a_deployment_may_have_events_alone(tmp_path: Path) -> None:
    """No source file: what applications say is read, and its topic must be there."""
    (tmp_path / "connectors").mkdir()
    alone = settings().model_copy(update={"connect": Connect(url=NOWHERE, directory=tmp_path / "connectors")})
    job = build_worker(alone, Metrics())
    assert (job.sources, job.events_topic) == ((), "chronicle.events")
    assert "chronicle.events" in job.needed_topics
    with pytest.raises(ConfigError, match=r"no file in .* for shop; there are events"):
        build_worker(alone.model_copy(update={"worker": Worker(sources=("shop",))}), Metrics())


@pytest.mark.parametrize(
    ("named", "sources_", "events"),
    [
        ((), ("hiring", "shop"), True),
        (("shop",), ("shop",), False),
        (("events",), (), True),
        (("shop", "events"), ("shop",), True),
    ],
)
def test_events_are_read_by_all_workers_that_are_not_limited_to_others(
    named: tuple[str, ...], sources_: tuple[str, ...], events: bool
) -> None:
    """`events` stands among the sources' names; a worker that does not read them does not need their topic."""
    job = build_worker(settings(sources=named), Metrics())
    assert (job.sources, job.events_topic is not None, "chronicle.events" in job.needed_topics) == (sources_, events, events)
    names = ["chronicle.events", "chronicle.events.web", "shop.public.t", "hiring.x.y", "chronicle.retry", "other"]
    found = wanted(names, job.sources, "chronicle.retry", job.events_topic)
    assert set(found) == {
        "chronicle.retry",
        *(["chronicle.events", "chronicle.events.web"] if events else []),
        *(name for name in names if name.partition(".")[0] in sources_),
    }


def test_a_named_source_must_have_a_file() -> None:
    """Those that there are, are named."""
    assert build_worker(settings(sources=("hiring",)), Metrics()).sources == ("hiring",)
    with pytest.raises(ConfigError, match=r"no file in .* for nosuch; there are hiring, shop, events"):
        build_worker(settings(sources=("nosuch",)), Metrics())
