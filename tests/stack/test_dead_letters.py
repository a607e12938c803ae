"""Dead letters on the real broker and ClickHouse: listed by metadata, shown on request, sent back exactly as they came."""

from __future__ import annotations

import base64
import json
import os
import pwd
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs miss what it documents
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from typer.testing import CliRunner

from chronicle import dead_letters, setup
from chronicle.cli import dead_letters as dead_letters_cli
from chronicle.config import Settings
from chronicle.dead_letters import Selection
from chronicle.errors import ChronicleError, ConfigError, TransientError
from chronicle.model.batch import Batch
from chronicle.model.chunk import Chunk
from chronicle.model.columns import CHANGES, TRANSACTIONS, empty
from chronicle.model.dead_letters import DeadLetter, Reason, Stage
from chronicle.sinks.clickhouse import ClickHouseSink
from chronicle.sinks.clickhouse_client import connect
from chronicle.sinks.kafka import KafkaSink
from chronicle.trail import letters
from chronicle.worker.replay import restore
from tests.stack.worker_process import Broker

pytestmark = pytest.mark.stack

ROOT = Path(__file__).parents[2]
SECRET = b"\x00\x01clear text of a customer\x1b[31m"
TOPIC = "shop.public.customers"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Topics and tables of this test alone, made by `setup` itself."""
    setup.run(settings)
    return settings


def letter(offset: int, reason: Reason = Reason.WRONG_FRAME, topic: str = TOPIC, value: bytes | None = SECRET) -> DeadLetter:
    """A record that failed, with headers whose values are bytes, empty and absent text."""
    return DeadLetter(
        topic=topic,
        partition=2,
        offset=offset,
        timestamp_ms=1_790_000_000_000 + offset,
        key=b"\x00\xffkey" if offset % 2 else None,
        value=value,
        headers=(("__debezium.newkey", b'{"id":7}'), ("chronicle.epoch", b"3"), ("raw", b"\xff\x00")),
        stage=Stage.DECODE,
        reason=reason,
        detail="first byte is 1",
        schema_id=None,
    )


def sink(settings: Settings, *failed: DeadLetter, at: float | None = None) -> None:
    """Through the product's own sinks: metadata to ClickHouse, bytes to the topic."""
    batch = Batch(empty(CHANGES), (), empty(TRANSACTIONS), tuple(failed))
    moment = time.time() if at is None else at
    clickhouse = ClickHouseSink(settings.clickhouse, clock=lambda: int(moment * 1_000_000_000))
    clickhouse.write(batch)
    clickhouse.close()
    KafkaSink(settings.kafka, clock=lambda: moment).write(batch)


def retried(settings: Settings) -> list[Chunk]:
    """What a worker reads from the retry topic, with its original coordinates."""
    consumer = Consumer({**settings.kafka.client_config(), "group.id": "test", "enable.partition.eof": True})
    consumer.assign([TopicPartition(settings.kafka.retry_topic, 0, 0)])
    found = []
    while True:
        message = consumer.poll(15)
        assert message is not None, "the broker does not answer"
        error = message.error()
        if error is not None:
            assert error.code() == KafkaError._PARTITION_EOF
            break
        found.append(message)
    consumer.close()
    chunk = Chunk(
        topic=settings.kafka.retry_topic,
        partition=0,
        offsets=[message.offset() or 0 for message in found],
        timestamps_ms=[message.timestamp()[1] for message in found],
        keys=[message.key() for message in found],
        values=[message.value() for message in found],
        headers=[tuple(message.headers() or ()) for message in found],  # type: ignore[arg-type]
    )
    return restore([chunk], settings.kafka.retry_topic)[0] if found else []


@pytest.fixture
def cli(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Run a command as a user does, with settings from a file."""
    file = tmp_path / "chronicle.toml"
    kafka, clickhouse = settings.kafka, settings.clickhouse
    file.write_text(
        f'[kafka]\nbootstrap_servers = "{kafka.bootstrap_servers}"\naudit_topic = "{kafka.audit_topic}"\n'
        f'dead_letter_topic = "{kafka.dead_letter_topic}"\nretry_topic = "{kafka.retry_topic}"\n'
        f'events_topic = "{kafka.events_topic}"\n'
        f'[clickhouse]\nurl = "{clickhouse.url}"\ndatabase = "{clickhouse.database}"\n'
    )
    monkeypatch.setenv("CHRONICLE_CONFIG", str(file))

    def run(*words: str) -> tuple[int, str, str]:
        result = CliRunner().invoke(dead_letters_cli.app, words)
        return result.exit_code, result.stdout, result.stderr

    return run


def test_a_replayed_record_is_what_it_was(settings: Settings) -> None:
    """Key, bytes, headers, coordinates and time come back to the worker unchanged, Chronicle's own headers do not."""
    originals = [letter(1), letter(2), letter(3, value=None)]
    sink(settings, *originals)
    done = dead_letters.replay(settings.kafka, Selection())
    assert (done.read, done.chosen, done.sent) == (3, 3, 3)
    [chunk] = retried(settings)
    assert (chunk.topic, chunk.partition, list(chunk.offsets)) == (TOPIC, 2, [1, 2, 3])
    assert list(chunk.timestamps_ms) == [original.timestamp_ms for original in originals]
    assert list(chunk.keys) == [original.key for original in originals]
    assert list(chunk.values) == [original.value for original in originals]
    assert list(chunk.headers) == [original.headers for original in originals]


def test_a_record_with_two_letters_is_sent_once(settings: Settings) -> None:
    """It failed, was sent back and failed again: one record all the same."""
    sink(settings, letter(1), letter(2))
    sink(settings, letter(1, Reason.NOT_DECODABLE))
    done = dead_letters.replay(settings.kafka, Selection())
    assert (done.read, done.chosen, done.sent) == (3, 2, 2)


def test_only_the_chosen_are_sent_and_a_dry_run_sends_none(settings: Settings) -> None:
    """By reason, topic, source and time; a dry run counts the same and sends nothing."""
    sink(settings, letter(1), letter(2, Reason.UNKNOWN_SCHEMA), letter(3, topic="hiring.hiring.candidates"))
    assert dead_letters.replay(settings.kafka, Selection(reason="unknown_schema"), dry_run=True).by_reason == {
        "unknown_schema": 1
    }
    assert dead_letters.replay(settings.kafka, Selection(source="hiring"), dry_run=True).chosen == 1
    assert dead_letters.replay(settings.kafka, Selection(source="hirin"), dry_run=True).chosen == 0
    later = Selection(since=datetime.now(UTC) + timedelta(hours=1))
    assert dead_letters.replay(settings.kafka, later, dry_run=True).read == 0
    assert retried(settings) == []
    assert dead_letters.replay(settings.kafka, Selection(topic=TOPIC, reason="wrong_frame")).sent == 1
    assert [list(chunk.offsets) for chunk in retried(settings)] == [[1]]


def test_an_empty_topic_and_an_absent_one_are_told_apart(settings: Settings) -> None:
    """Nothing to do is fine; a topic that is not there is a matter of `chronicle setup`."""
    assert dead_letters.replay(settings.kafka, Selection()).read == 0
    absent = settings.kafka.model_copy(update={"dead_letter_topic": "nowhere"})
    with pytest.raises(ConfigError, match="chronicle setup"):
        dead_letters.replay(absent, Selection())


def test_a_broker_that_is_away_says_so(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a stack trace, after a bounded time."""
    monkeypatch.setattr(dead_letters, "TIMEOUT_S", 2.0)
    with pytest.raises(TransientError, match="bootstrap_servers"):
        dead_letters.replay(settings.kafka.model_copy(update={"bootstrap_servers": "127.0.0.1:9"}), Selection())


def test_a_listing_tells_where_and_why_and_never_what(settings: Settings, cli: Callable[..., tuple[int, str, str]]) -> None:
    """Table and JSON hold coordinates, reason and counts, and no byte of the record."""
    sink(settings, letter(1), letter(3), letter(2, Reason.UNKNOWN_SCHEMA), at=time.time() - 7200)
    sink(settings, letter(4))
    code, shown, aside = cli("list")
    assert code == 0, aside
    assert "4 in all: 3 wrong_frame, 1 unknown_schema" in shown
    code, told, _ = cli("list", "--reason", "wrong_frame", "--source", "shop", "--since", "1h", "--json")
    [only] = [json.loads(line) for line in told.splitlines()]
    assert (only["topic"], only["partition"], only["offset"], only["change_since"]) == (TOPIC, 2, 4, False)
    assert (only["key_bytes"], only["value_bytes"]) == (None, len(SECRET))
    assert "customer" not in shown.replace(TOPIC, "") + told.replace(TOPIC, "")
    assert cli("list", "--topic", "other")[2].strip() == "no dead letters match"


def readings(settings: Settings) -> list[dict[str, Any]]:
    """What the audit topic says about who looked, each checked against the published schema."""
    schema = json.loads((ROOT / "schemas" / "access-record.schema.json").read_text(encoding="utf-8"))
    found = []
    for key, value, _ in Broker(settings.kafka.bootstrap_servers).read(settings.kafka.audit_topic):
        record = json.loads(value or b"")
        jsonschema.validate(record, schema)
        assert record["core"]["metadata"]["uid"].encode() == key
        assert SECRET not in (value or b"")
        found.append(record["core"])
    return found


def test_a_reading_is_on_the_audit_topic_before_the_bytes_are_shown(
    settings: Settings, cli: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One record each time, with the system's user and not the one that the environment names; none without `--raw`."""
    monkeypatch.setenv("LOGNAME", "somebody else")
    sink(settings, letter(5))
    cli("show", TOPIC, "2", "5")
    assert readings(settings) == []
    assert cli("show", TOPIC, "2", "5", "--raw")[0] == cli("show", "--raw", "--json")[0] == 0
    first, second = readings(settings)
    assert first["metadata"]["uid"] != second["metadata"]["uid"]
    for core in (first, second):
        assert core["actor"]["user"] == {"name": pwd.getpwuid(os.getuid()).pw_name, "uid": str(os.getuid())}
        assert core["src_endpoint"]["hostname"] == socket.gethostname()
        assert core["databucket"]["name"] == settings.kafka.dead_letter_topic
        assert [core["unmapped"][name] for name in ("topic", "partition", "offset")] == [TOPIC, 2, 5]
        assert abs(core["time"] / 1000 - time.time()) < 600


def test_nothing_is_shown_when_the_reading_cannot_be_recorded(
    settings: Settings, cli: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    """An audit topic that takes no record, and none at all: exit 1, no output, and the error says both why and what to do."""
    sink(settings, letter(5))
    resource = ConfigResource(
        ResourceType.TOPIC,
        settings.kafka.audit_topic,
        incremental_configs=[ConfigEntry("max.message.bytes", "100", incremental_operation=AlterConfigOpType.SET)],
    )
    admin = AdminClient(settings.kafka.client_config())
    admin.incremental_alter_configs([resource])[resource].result(30)
    shown = [cli("show", TOPIC, "2", "5", "--raw")]
    file = tmp_path / "chronicle.toml"
    file.write_text(file.read_text().replace(settings.kafka.audit_topic, "nowhere"))
    shown += [cli("show", TOPIC, "2", "5", "--raw", *more) for more in ((), ("--json",))]
    for code, out, aside in shown:
        assert (code, out) == (1, ""), aside
        assert aside.startswith("error: run `chronicle setup`"), aside
        assert "nothing is shown, because the reading could not be recorded on" in aside
        assert "raw_read" not in aside
    assert readings(settings) == []


def test_a_letter_shows_its_bytes_only_on_request_and_that_is_logged(
    settings: Settings, cli: Callable[..., tuple[int, str, str]]
) -> None:
    """`--raw` gives the original bytes, harmless to a terminal, and leaves one structured line on standard error."""
    sink(settings, letter(5))
    code, shown, aside = cli("show", TOPIC, "2", "5")
    assert code == 0, aside
    assert "wrong_frame" in shown
    assert "clear text" not in shown
    assert "raw_read" not in aside
    code, shown, aside = cli("show", TOPIC, "2", "5", "--raw")
    assert code == 0, aside
    assert "clear text of" in "".join(line[60:] for line in shown.splitlines())
    assert "\x1b" not in shown
    event = json.loads(aside)
    assert (event["event"], event["topic"], event["partition"], event["offset"]) == ("dead_letter.raw_read", TOPIC, 2, 5)
    assert event["user"]
    assert "clear text" not in aside
    told = json.loads(cli("show", TOPIC, "2", "5", "--raw", "--json")[1])
    assert base64.b64decode(told["raw"]["value"]) == SECRET
    assert [name for name, _ in told["raw"]["headers"]] == ["__debezium.newkey", "chronicle.epoch", "raw"]


def test_a_letter_that_is_not_there_says_where_to_look(cli: Callable[..., tuple[int, str, str]]) -> None:
    """With and without `--raw`."""
    for words in (("show", TOPIC, "0", "1"), ("show", TOPIC, "0", "1", "--raw")):
        code, shown, aside = cli(*words)
        assert (code, shown) == (1, "")
        assert "chronicle dead-letters list" in aside


def test_a_replay_by_command_says_what_it_did(settings: Settings, cli: Callable[..., tuple[int, str, str]]) -> None:
    """In words and as JSON; repeating it is allowed and sends the same again."""
    sink(settings, letter(1), letter(2, Reason.UNKNOWN_SCHEMA))
    assert (
        "2 dead letters read, 1 would be sent: 1 unknown_schema" in cli("replay", "--reason", "unknown_schema", "--dry-run")[1]
    )
    for _ in range(2):
        told = json.loads(cli("replay", "--json")[1])
        assert told == {
            "read": 2,
            "chosen": 2,
            "sent": 2,
            "by_reason": {"unknown_schema": 1, "wrong_frame": 1},
            "dry_run": False,
        }
    [chunk] = retried(settings)
    assert list(chunk.offsets) == [1, 1, 2, 2]


def test_a_letter_whose_change_is_in_the_trail_is_marked(settings: Settings) -> None:
    """Coordinates that a change has now were processed since, by a replay."""
    sink(settings, letter(1), letter(2))
    client = connect(settings.clickhouse)
    now = datetime.now(UTC)
    row = {"source": "shop", "topic": TOPIC, "partition": 2, "offset": 2, "committed_at": now, "processed_at": now}
    client.insert("changes", [list(row.values())], column_names=list(row), database=settings.clickhouse.database)
    found = letters.letters(client, settings.clickhouse.database, letters.Filters(), limit=10)
    assert [(one.offset, one.change_since) for one in found] == [(1, False), (2, True)]
    client.close()


def test_the_bytes_of_an_unknown_letter_are_not_found(settings: Settings) -> None:
    """Coordinates must match exactly."""
    sink(settings, letter(1))
    assert dead_letters.find(settings.kafka, TOPIC, 2, 1).value == SECRET
    with pytest.raises(ChronicleError, match="holds no letter"):
        dead_letters.find(settings.kafka, TOPIC, 3, 1)
