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


def test_a_named_source_must_have_a_file() -> None:
    """Those that there are, are named."""
    assert build_worker(settings(sources=("hiring",)), Metrics()).sources == ("hiring",)
    with pytest.raises(ConfigError, match=r"no file in .* for nosuch; there are hiring, shop"):
        build_worker(settings(sources=("nosuch",)), Metrics())
