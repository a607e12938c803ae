"""`chronicle setup` on the real services: makes everything once, puts right what differs, contradicts nothing."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import fastavro
import httpx
import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs miss what it documents
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from chronicle import config, setup
from chronicle.errors import ConfigError, TransientError
from chronicle.sinks.clickhouse import ClickHouseSink
from chronicle.sinks.clickhouse_client import connect
from tests.sinks import batches

pytestmark = pytest.mark.stack


@pytest.fixture
def settings(settings: config.Settings, tmp_path: Path) -> config.Settings:
    """Keys in a directory that is not there yet."""
    return settings.model_copy(update={"identity_key_file": tmp_path / "deep" / "identity.key"})


def test_setup_makes_everything_once_and_the_second_run_changes_nothing(settings: config.Settings) -> None:
    """Key, topics, tables, subjects; reported one by one."""
    reported: list[setup.Step] = []
    first = setup.run(settings, reported.append)
    assert reported == first
    assert {step.kind for step in first} == {"key", "topic", "table", "subject"}
    assert {step.action for step in first if step.kind != "subject"} == {"created"}
    key = setup.identity_key(settings)
    second = setup.run(settings)
    assert {step.action for step in second} == {"present"}
    assert [step.name for step in second] == [step.name for step in first]
    assert setup.identity_key(settings) == key
    assert len(key) == 32
    assert stat.S_IMODE(settings.identity_key_file.stat().st_mode) == 0o600


def test_topics_are_as_the_design_wants_them_and_a_drifted_setting_is_put_right(settings: config.Settings) -> None:
    """Compaction of the audit topic, 30 days and larger records for dead letters."""
    setup.run(settings)
    admin = AdminClient(settings.kafka.client_config())

    def described(topic: str) -> dict[str, str]:
        resource = ConfigResource(ResourceType.TOPIC, topic)
        entries = admin.describe_configs([resource], request_timeout=30)[resource].result()
        return {name: entry.value for name, entry in entries.items()}

    assert described(settings.kafka.audit_topic)["cleanup.policy"] == "compact"
    dead = settings.kafka.dead_letter_topic
    assert int(described(dead)["retention.ms"]) == 30 * 24 * 3600 * 1000
    assert int(described(dead)["max.message.bytes"]) > 12 * 1024 * 1024
    entry = ConfigEntry("retention.ms", "1000", incremental_operation=AlterConfigOpType.SET)
    change = ConfigResource(ResourceType.TOPIC, dead, incremental_configs=[entry])
    admin.incremental_alter_configs([change], request_timeout=30)[change].result()
    (step,) = [step for step in setup.run(settings) if step.name == dead]
    assert step.action == "changed"
    assert int(described(dead)["retention.ms"]) == 30 * 24 * 3600 * 1000


def test_another_audit_partition_count_is_refused(settings: config.Settings) -> None:
    """It is fixed for the life of the topic."""
    setup.run(settings)
    kafka = settings.kafka.model_copy(update={"audit_partitions": settings.kafka.audit_partitions + 1})
    with pytest.raises(ConfigError, match="audit_partitions"):
        setup.run(settings.model_copy(update={"kafka": kafka}))


def test_a_table_file_that_changed_after_it_was_applied_is_refused(settings: config.Settings) -> None:
    """Changes belong in a new file: the recorded hash says what the tables are made of."""
    setup.run(settings)
    client = connect(settings.clickhouse, database=settings.clickhouse.database)
    client.command("INSERT INTO migrations (name, hash) VALUES ('0001_changes', 'another')")
    client.close()
    with pytest.raises(ConfigError, match="0001_changes"):
        setup.run(settings)


def test_an_identity_key_is_never_overwritten(settings: config.Settings) -> None:
    """A broken one is the operator's to restore: a new one would give every change another id."""
    path = settings.identity_key_file
    path.parent.mkdir(parents=True)
    path.write_text("not a key")
    with pytest.raises(ConfigError) as refusal:
        setup.run(settings)
    assert "not a key" not in str(refusal.value)
    assert path.read_text() == "not a key"
    assert list(path.parent.iterdir()) == [path]


def test_a_trail_with_changes_gets_no_other_key(settings: config.Settings) -> None:
    """Setup in another directory, or after a lost key, would otherwise double the trail with the next replay."""
    setup.run(settings)
    client = connect(settings.clickhouse, database=settings.clickhouse.database)
    client.command("INSERT INTO changes (source, committed_at) VALUES ('shop', now64(6))")
    client.close()
    settings.identity_key_file.unlink()
    with pytest.raises(ConfigError, match="restore the identity key"):
        setup.run(settings)
    assert not settings.identity_key_file.exists()


def test_a_registry_that_is_away_can_be_tried_again(settings: config.Settings) -> None:
    """What was made before stays."""
    away = settings.model_copy(update={"registry": config.Registry(url="http://127.0.0.1:9/apis/ccompat/v7")})
    with pytest.raises(TransientError):
        setup.run(away)
    assert {step.action for step in setup.run(settings) if step.kind != "subject"} == {"present"}


def test_the_registry_serves_the_published_schemas(settings: config.Settings) -> None:
    """An application finds there what `schemas/` holds."""
    setup.run(settings)
    for subject, file in setup.SUBJECTS.items():
        served = httpx.get(f"{settings.registry.url}/subjects/{subject}/versions/latest").json()["schema"]
        assert fastavro.schema.fingerprint(fastavro.schema.to_parsing_canonical_form(json.loads(served)), "SHA-256") == (
            fastavro.schema.fingerprint(
                fastavro.schema.to_parsing_canonical_form(json.loads(setup.schema_text(file))), "SHA-256"
            )
        )


def test_a_transactions_row_fits_the_published_transaction_schema(settings: config.Settings) -> None:
    """What the view says is what the schema promises."""
    setup.run(settings)
    sink = ClickHouseSink(settings.clickhouse)
    records = [
        batches.transaction_record("shop", "1", 1, "begin"),
        batches.context("shop", "1", 2),
        batches.transaction_record("shop", "1", 3, "end", event_count=1, tables=[{"table": "public.customers", "count": 1}]),
        batches.transaction_record("shop", "2", 4, "begin"),
    ]
    sink.write(batches.batch([batches.change("shop", 1, transaction_id="1")], records=records))
    sink.close()
    client = connect(settings.clickhouse, database=settings.clickhouse.database)
    rows = list(client.query("SELECT * FROM transaction_status ORDER BY transaction_id").named_results())
    client.close()
    text = json.loads(setup.schema_text("transaction.avsc"))
    schema = fastavro.parse_schema(text)
    assert [row["status"] for row in rows] == ["complete", "open"]
    for row in rows:
        assert fastavro.validate(row, schema, strict=True)
        assert list(row) == [field["name"] for field in text["fields"]]


def test_the_command_prints_what_it_did_and_exits_with_what_is_wrong(settings: config.Settings, tmp_path: Path) -> None:
    """JSON on standard output; 2 and the fix when settings are wrong."""
    kafka, clickhouse = settings.kafka, settings.clickhouse
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CHRONICLE_")} | {
        "CHRONICLE_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "CHRONICLE_KAFKA__AUDIT_TOPIC": kafka.audit_topic,
        "CHRONICLE_KAFKA__DEAD_LETTER_TOPIC": kafka.dead_letter_topic,
        "CHRONICLE_KAFKA__RETRY_TOPIC": kafka.retry_topic,
        "CHRONICLE_KAFKA__ENTITIES_TOPIC": kafka.entities_topic,
        "CHRONICLE_KAFKA__EVENTS_TOPIC": kafka.events_topic,
        "CHRONICLE_REGISTRY__URL": settings.registry.url,
        "CHRONICLE_CLICKHOUSE__URL": clickhouse.url,
        "CHRONICLE_CLICKHOUSE__DATABASE": clickhouse.database,
        "CHRONICLE_CLICKHOUSE__MIRROR_DATABASE": clickhouse.mirror_database,
        "CHRONICLE_IDENTITY_KEY_FILE": str(settings.identity_key_file),
    }

    def run(**more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "chronicle.cli.setup", "--json"]
        return subprocess.run(command, env=environment | more, cwd=tmp_path, capture_output=True, text=True, check=False)

    good = run()
    assert good.returncode == 0, good.stderr
    assert {step["kind"] for step in json.loads(good.stdout)} == {"key", "topic", "table", "subject"}
    bad = run(CHRONICLE_KAFKA__AUDIT_PARTITIONS="5")
    assert bad.returncode == 2
    assert "audit_partitions" in bad.stderr
    assert bad.stdout == ""
