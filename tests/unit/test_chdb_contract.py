"""The laws of the ClickHouse sink and its mirrors hold over chDB, too: the same tests, with the store in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from chronicle import config
from chronicle.sinks.clickhouse_client import connect
from chronicle.sinks.migrations import Applied, check, migrate
from tests.sinks import test_contract as contract
from tests.sinks import test_mirror as mirrors
from tests.sinks import test_unavailable as unavailable

pytest.importorskip("chdb")

customers, sink, mirror = mirrors.customers, mirrors.sink, unavailable.mirror
globals().update(
    {name: law for laws in (contract, mirrors, unavailable) for name, law in vars(laws).items() if name.startswith("test_")}
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for this module: opening the engine takes longer than a test."""
    return tmp_path_factory.mktemp("embedded") / "chdb"


@pytest.fixture(scope="module")
def engine(home: Path) -> Iterator[Client]:
    """Keeps the engine open from test to test."""
    client = connect(config.Settings(store="chdb", chdb_path=home).clickhouse)
    yield client
    client.close()


@pytest.fixture
def clickhouse(engine: Client, home: Path, unique: str) -> Iterator[config.ClickHouse]:
    """As the stack's: settings of a database pair with all tables, dropped afterwards."""
    settings = config.Settings(
        store="chdb", chdb_path=home, clickhouse=config.ClickHouse(database=unique, mirror_database=f"{unique}_mirror")
    ).clickhouse
    migrate(engine, settings)
    yield settings
    for database in (settings.database, settings.mirror_database):
        engine.command(f"DROP DATABASE IF EXISTS `{database}`")


@pytest.fixture
def store(clickhouse: config.ClickHouse) -> Iterator[Client]:
    """A client to look with."""
    client = connect(clickhouse, database=clickhouse.database)
    yield client
    client.close()


@pytest.fixture
def subject(request: pytest.FixtureRequest) -> Iterator[contract.Subject]:
    """The ClickHouse sink over chDB."""
    made = contract._clickhouse(request)
    yield made
    made.sink.close()


@pytest.fixture
def refusing(subject: contract.Subject) -> contract.Subject:
    """It may refuse a row."""
    return subject


def test_every_migration_is_applied_once(engine: Client, clickhouse: config.ClickHouse) -> None:
    """A second setup finds all of them, and so does a worker's check."""
    again = migrate(engine, clickhouse)
    assert again
    assert {one.action for one in again} == {"present"}
    assert all(isinstance(one, Applied) for one in again)
    check(engine, clickhouse)
