"""`chronicle run` with CHRONICLE_TRANSPORT=memory on a real ClickHouse: service and pipeline in one process, and no broker."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chronicle.config import Settings
from chronicle.sinks.clickhouse_client import connect
from tests.acceptance.embedded_process import COMMAND, Embedded, environment

pytestmark = pytest.mark.stack

LOGIN: dict[str, Any] = {"type": "security.login", "source": "shop", "actor": "ann", "payload": {"method": "passkey"}}
POLICY = """
[defaults]
unclassified = "deadletter"

[[events]]
match = "**"
columns = { "payload.method" = "clear" }
"""


@pytest.fixture
def names(settings: Settings, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """The environment: a database of the test's own, and nobody at the broker's and the registry's addresses."""
    (tmp_path / "policy.toml").write_text(POLICY)
    yield {
        "CHRONICLE_TRANSPORT": "memory",
        "CHRONICLE_CLICKHOUSE__URL": settings.clickhouse.url,
        "CHRONICLE_CLICKHOUSE__DATABASE": settings.clickhouse.database,
        "CHRONICLE_CLICKHOUSE__MIRROR_DATABASE": settings.clickhouse.mirror_database,
        "CHRONICLE_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "CHRONICLE_REGISTRY__URL": "http://127.0.0.1:1",
    }


def refused(home: Path, *words: str, **names: str) -> tuple[int, str]:
    """Exit code and first line of a command that does not go on."""
    done = subprocess.run(
        [COMMAND, *words], cwd=home, env=environment(**names), capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode, next((line for line in done.stderr.splitlines() if not line.startswith("{")), "")


def test_what_is_posted_is_read_and_survives_a_restart_and_a_kill(
    names: dict[str, Any], settings: Settings, tmp_path: Path
) -> None:
    """POST, GET, SIGKILL, again, GET: the same, once; another process on the same database neither hides nor replaces anything,
    also of what could not be processed. Nothing was prepared: the first start makes tables and key."""
    ids = [str(uuid.uuid4()) for _ in range(20)]
    with Embedded(tmp_path, server=True, **names) as first:
        assert [line.split()[1] for line in first.said if line.startswith("made ")] == [".chronicle/identity.key:"]
        assert first.post(LOGIN | {"id": ids[0]})["durability"] == "confirmed"
        first.post(*(LOGIN | {"id": id_} for id_ in ids[1:]))
        first.post(LOGIN | {"payload": {"nobody": "classified"}})
        [event] = first.get("/events", id=ids[0])["events"]
        assert (event["actor_id"], event["payload"]) == ("ann", {"method": "passkey"})
        assert sorted(first.event_ids()) == sorted(ids)
        first.kill()
    with Embedded(tmp_path, server=True, **names) as again, Embedded(tmp_path, server=True, **names) as other:
        assert not [line for line in again.said if line.startswith("made ")]
        assert sorted(again.event_ids()) == sorted(ids)
        again.post(LOGIN | {"id": ids[0], "time": event["time"]})
        for one in (again, other):
            one.post(LOGIN | {"payload": {"nobody": "classified"}})
        more = other.post(LOGIN)["id"]
        assert sorted(again.event_ids()) == sorted([*ids, more])
        assert again.get("/ready") == {"status": "ready"}
        assert (again.stop(), other.stop()) == (0, 0)
    with connect(settings.clickhouse, database=settings.clickhouse.database) as client:
        assert client.query("SELECT count(), uniqExact(topic) FROM dead_letters FINAL").result_rows == [(3, 3)]
        assert client.query("SELECT count() FROM dead_letter_records FINAL").result_rows == [(3,)]
    (tmp_path / "policy.toml").write_text(POLICY.replace("payload.method", "payload.*"))
    with Embedded(tmp_path, "--replay", server=True, **names) as replayed:
        assert any(line.startswith("replayed: 3 records went through, 0 did not") for line in replayed.said)
        assert len(replayed.event_ids()) == len(ids) + 4


def test_the_service_reads_by_the_user_who_can_do_nothing_else(
    names: dict[str, Any], settings: Settings, tmp_path: Path
) -> None:
    """As `chronicle api` does; the pipeline writes by its own."""
    with Embedded(tmp_path, server=True, **names, CHRONICLE_API__CLICKHOUSE_USERNAME="chronicle_reader") as process:
        id_ = process.post(LOGIN)["id"]
        assert process.event_ids() == [id_]
        assert process.get("/actors/ann/activity")["activity"][0]["event_id"] == id_
    with connect(settings.clickhouse) as client:
        client.command("SYSTEM FLUSH LOGS")
        sql = (
            "SELECT DISTINCT user FROM system.query_log WHERE query_kind = 'Select' AND has(tables, {name:String}) AND type = 2"
        )
        tables = {"name": f"{settings.clickhouse.database}.events"}
        assert client.query(f"{sql} AND query LIKE '%_sort%'", tables).result_rows == [("chronicle_reader",)]


def test_what_is_missing_is_said(names: dict[str, Any], settings: Settings, tmp_path: Path) -> None:
    """Exit code 2 and what to change; a trail whose key is gone gets no other one."""
    for words in (("api",), ("worker",)):
        code, line = refused(tmp_path, *words, **names)
        assert (code, line.startswith("error: start `chronicle run` instead")) == (2, True)
    assert refused(tmp_path, "run", "--workers", "2", **names)[0] == 2
    code, line = refused(tmp_path, "events", "post", "--type", "a.b", **names)
    assert (code, line.startswith("error: add --to http://")) == (2, True), line
    code, line = refused(tmp_path, "run", **{**names, "CHRONICLE_CLICKHOUSE__URL": "http://127.0.0.1:1"})
    assert (code, "ClickHouse" in line) == (1, True), line
    prepared = subprocess.run(
        [COMMAND, "setup", "--json"], cwd=tmp_path, env=environment(**names), capture_output=True, text=True, check=True
    )
    assert {step["kind"] for step in json.loads(prepared.stdout)} == {"key", "table"}
    with Embedded(tmp_path, server=True, **names) as process:
        process.post(LOGIN)
    (tmp_path / ".chronicle" / "identity.key").unlink()
    code, line = refused(tmp_path, "run", "--port", "0", **names)
    assert (code, line.startswith("error: restore the identity key to .chronicle/identity.key")) == (2, True), line
    (tmp_path / "policy.toml").unlink()
    code, line = refused(tmp_path, "run", "--port", "0", **names, CHRONICLE_IDENTITY_KEY="00" * 32)
    assert (code, line.startswith("error: write a policy first")) == (2, True), line
