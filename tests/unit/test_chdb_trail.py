"""The reading commands answer over chDB as over a server: the same tests, with the store in this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from clickhouse_connect.driver.client import Client

pytest.importorskip("chdb")

from chronicle import config
from chronicle.sinks.clickhouse_client import connect
from chronicle.sinks.migrations import migrate
from tests.stack import test_trail as laws

cli = laws.cli
globals().update({name: law for name, law in vars(laws).items() if name.startswith("test_")})


@pytest.fixture(scope="module")
def engine() -> Iterator[Client]:
    """Keeps the store, which is in memory, from test to test."""
    client = connect(config.Settings(store="memory").clickhouse)
    yield client
    client.close()


@pytest.fixture
def trail(engine: Client, unique: str) -> Iterator[laws.Trail]:
    """An empty trail."""
    names = config.ClickHouse(database=f"{unique}_trail", mirror_database=f"{unique}_mirror")
    settings = config.Settings(store="memory", clickhouse=names).clickhouse
    migrate(engine, settings)
    yield laws.Trail(engine, settings)
    for database in (settings.database, settings.mirror_database):
        engine.command(f"DROP DATABASE {database}")
