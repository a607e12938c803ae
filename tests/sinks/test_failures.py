"""What a sink says when the world or the settings are wrong, on the real services."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from importlib.metadata import version

import pytest
from pydantic import SecretStr

from chronicle import config
from chronicle.errors import ConfigError, TransientError
from chronicle.sinks import migrations
from chronicle.sinks.clickhouse import ClickHouseSink, connect
from chronicle.sinks.kafka import KafkaSink
from tests.sinks import batches
from tests.sinks.reading import records

pytestmark = pytest.mark.stack


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that nobody listens on while the test runs."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield int(taken.getsockname()[1])


def test_a_clickhouse_that_is_away_is_waited_for(closed_port: int) -> None:
    """The world's fault: the same call is repeated later, and constructing the sink does not fail."""
    sink = ClickHouseSink(config.ClickHouse(url=f"http://127.0.0.1:{closed_port}"))
    with pytest.raises(TransientError):
        sink.write(batches.plain("shop", 1))
    sink.close()


def test_absent_tables_are_the_operators(clickhouse: config.ClickHouse) -> None:
    """Before a worker starts and at a write, with the fix in the message."""
    absent = clickhouse.model_copy(update={"database": f"{clickhouse.database}_absent"})
    sink = ClickHouseSink(absent)
    with pytest.raises(ConfigError, match="chronicle setup"):
        sink.write(batches.batch([batches.change("shop", 1)]))
    sink.close()
    client = connect(absent)
    with pytest.raises(ConfigError, match="chronicle setup"):
        migrations.check(client, absent)
    migrations.check(client, clickhouse)
    client.close()


def test_a_wrong_password_is_the_operators_and_stays_out_of_the_message(clickhouse: config.ClickHouse) -> None:
    """Exit 2, not an endless retry."""
    wrong = clickhouse.model_copy(update={"username": "nobody", "password": SecretStr("hunter2-secret")})
    with pytest.raises(ConfigError) as refusal:
        connect(wrong)
    assert "hunter2" not in str(refusal.value)


def test_a_table_dropped_under_the_sink_is_the_operators(clickhouse: config.ClickHouse) -> None:
    """Data is not acknowledged into nowhere."""
    sink = ClickHouseSink(clickhouse)
    sink.write(batches.batch([batches.change("shop", 1)]))
    client = connect(clickhouse, database=clickhouse.database)
    client.command("DROP TABLE changes")
    client.close()
    with pytest.raises(ConfigError, match="chronicle setup"):
        sink.write(batches.batch([batches.change("shop", 2)]))
    sink.close()


def test_a_broker_that_is_away_is_waited_for(closed_port: int) -> None:
    """The world's fault."""
    sink = KafkaSink(config.Kafka(bootstrap_servers=f"127.0.0.1:{closed_port}"))
    with pytest.raises(TransientError):
        sink.write(batches.batch([batches.change("shop", 1)]))
    sink.close()


def test_an_audit_topic_with_other_partitions_is_refused(kafka: config.Kafka) -> None:
    """A row's records would be torn apart over partitions."""
    sink = KafkaSink(kafka.model_copy(update={"audit_partitions": kafka.audit_partitions + 1}))
    with pytest.raises(ConfigError, match="audit_partitions"):
        sink.write(batches.batch([batches.change("shop", 1)]))
    sink.close()


def test_an_absent_topic_is_the_operators(kafka: config.Kafka) -> None:
    """`chronicle setup` makes it; nothing is created by writing."""
    sink = KafkaSink(kafka.model_copy(update={"audit_topic": f"{kafka.audit_topic}.absent"}))
    with pytest.raises(ConfigError, match="chronicle setup"):
        sink.write(batches.batch([batches.change("shop", 1)]))
    sink.close()


def test_all_records_of_a_row_are_in_one_partition_in_their_order(kafka: config.Kafka) -> None:
    """Partition by entity, keys by event id, order as written."""
    sink = KafkaSink(kafka)
    changes = [batches.change("shop", at, key=at % 7, operation="update") for at in range(70)]
    sink.write(batches.batch(changes))
    sink.close()
    places: dict[str, set[int]] = {}
    order: dict[str, list[int]] = {}
    expected = {str(batches.digest("event", "shop", "customers", at).hex()): at for at in range(70)}
    for message in records(kafka, kafka.audit_topic):
        at = expected.pop((message.key() or b"").decode().replace("-", ""))
        places.setdefault(str(at % 7), set()).add(message.partition() or 0)
        order.setdefault(str(at % 7), []).append(at)
    assert not expected
    assert all(len(found) == 1 for found in places.values())
    assert len(set.union(*places.values())) > 1
    assert all(found == sorted(found) for found in order.values())


def test_a_dead_letter_keeps_its_bytes_and_says_why_and_where(kafka: config.Kafka) -> None:
    """Original key, value and headers, behind Chronicle's own headers as UTF-8 text."""
    letter = batches.dead_letter("shop", 5)
    sink = KafkaSink(kafka, clock=lambda: 1_769_903_999.5)
    sink.write(batches.batch(dead_letters=[letter]))
    sink.close()
    (message,) = records(kafka, kafka.dead_letter_topic)
    assert (message.key(), message.value()) == (letter.key, letter.value)
    headers = [(str(header[0]), header[1]) for header in list(message.headers() or [])]
    own = dict(headers[:-2])
    assert headers[-2:] == list(letter.headers)
    assert own == {
        "chronicle.dead-letter.reason": b"not_decodable",
        "chronicle.dead-letter.stage": b"decode",
        "chronicle.dead-letter.detail": b"truncated datum",
        "chronicle.dead-letter.schema-id": b"7",
        "chronicle.dead-letter.at": b"2026-01-31T23:59:59.500+00:00",
        "chronicle.dead-letter.version": version("chronicle").encode(),
        "chronicle.original.topic": b"shop.public.customers",
        "chronicle.original.partition": b"0",
        "chronicle.original.offset": b"5",
        "chronicle.original.timestamp": str(letter.timestamp_ms).encode(),
    }


def test_every_kafka_client_gets_the_security_settings() -> None:
    """SASL and TLS come from configuration from the first day."""
    secure = config.Kafka(
        security_protocol="SASL_SSL", sasl_mechanism="SCRAM-SHA-512", sasl_username="u", sasl_password=SecretStr("p")
    )
    found = secure.client_config()
    assert {name: found[name] for name in ("security.protocol", "sasl.mechanism", "sasl.username", "sasl.password")} == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "u",
        "sasl.password": "p",
    }
