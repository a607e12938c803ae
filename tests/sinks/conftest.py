"""Sinks on the real services: databases and topics of each test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from clickhouse_connect.driver.client import Client

from chronicle import config
from chronicle.dev.stack import Stack
from chronicle.sinks.clickhouse_client import connect
from chronicle.sinks.migrations import migrate
from tests.sinks.reading import topics

AUDIT_RECORD_BYTES_MAX = 100_000
"""Of the tests' audit topics: small, so that a record can be too large."""


@pytest.fixture
def clickhouse(stack: Stack, unique: str) -> Iterator[config.ClickHouse]:
    """Settings of a database pair with all tables, dropped afterwards."""
    settings = config.ClickHouse(url=stack.clickhouse_url, database=unique, mirror_database=f"{unique}_mirror")
    client = connect(settings)
    migrate(client, settings)
    yield settings
    for database in (settings.database, settings.mirror_database):
        client.command(f"DROP DATABASE IF EXISTS `{database}`")
    client.close()


@pytest.fixture
def store(clickhouse: config.ClickHouse) -> Iterator[Client]:
    """A client to look with."""
    client = connect(clickhouse, database=clickhouse.database)
    yield client
    client.close()


@pytest.fixture
def kafka(stack: Stack, unique: str) -> Iterator[config.Kafka]:
    """Settings with an audit and a dead-letter topic that are there, deleted afterwards."""
    settings = config.Kafka(
        bootstrap_servers=stack.kafka, audit_topic=f"{unique}.audit", audit_partitions=3, dead_letter_topic=f"{unique}.dead"
    )
    audit = topics(
        settings,
        [settings.audit_topic],
        settings.audit_partitions,
        max_message_bytes=str(AUDIT_RECORD_BYTES_MAX),
        cleanup_policy="compact",
    )
    with audit, topics(settings, [settings.dead_letter_topic]):
        yield settings
