"""The demo as a user runs it, twice, and then every command that it suggests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chronicle import config
from chronicle.capture.apply import Deployment, delete
from chronicle.capture.connect import ConnectClient
from chronicle.capture.sources import load_sources
from chronicle.dev.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-c", "from chronicle.cli import main; main()")


class User:
    """Somebody at a shell in the repository, with the demo's stack."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`chronicle …`."""
        settings = {"CHRONICLE_CONFIG": str(self.stack.settings_file), "CHRONICLE_POLICY_FILE": "policy.toml"}
        environment = {**os.environ, **self.stack.environment, **settings}
        return subprocess.run([*COMMAND, *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    def lines(self, *words: str) -> list[dict[str, Any]]:
        """JSON lines of a command that must succeed."""
        done = self.run(*words, "--json")
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def user(stack: Stack) -> Iterator[User]:
    """The demo's own databases, connectors and worker in the session's stack; gone afterwards, but for the trail."""
    yield User(stack)
    os.environ["CHRONICLE_CONFIG"] = str(stack.settings_file)
    try:
        settings = config.load()
    finally:
        del os.environ["CHRONICLE_CONFIG"]
    stack.stop("worker")
    deployment = Deployment(ConnectClient(settings.connect), settings.kafka, settings.registry, stack.environment)
    for source in load_sources(ROOT / "connectors").values():
        delete(source, deployment, drop=True)


@pytest.fixture(scope="module")
def proofs(user: User) -> list[dict[str, Any]]:
    """Two runs, one after the other."""
    arguments = ("dev", "demo", "--dir", str(user.stack.directory), "--seconds", "5", "--rate", "20")
    return [user.lines(*arguments)[0] for _ in range(2)]


def test_the_demo_finds_everything_equal_twice(proofs: list[dict[str, Any]]) -> None:
    """Source, mirror and audit topic agree on every row of all six tables, also when the second run adds to the first."""
    for proof in proofs:
        assert proof["problems"] == []
        assert len(proof["tables"]) == 6
        for table in proof["tables"]:
            assert len(set(table["digests"].values())) == 1, table
            assert len(set(table["hidden_digests"].values())) == 1, table
        assert proof["attribution"]["shop"]["message"] and proof["attribution"]["hiring"]["comment"]
        assert {"hired", "offer"} <= {row["stage"] for row in proof["funnel"]}
        assert proof["labels"]["identity_change"] and proof["left_out_by_policy"]["ignored"]
    first, second = (sum(sum(table["changes"].values()) for table in proof["tables"]) for proof in proofs)
    assert second > first


def test_the_demo_measures_every_source(proofs: list[dict[str, Any]]) -> None:
    """Nearly every committed transaction was seen to become queryable, none before it was committed."""
    for proof in proofs:
        assert {one["source"] for one in proof["commit_to_queryable_ms"]} == {"shop", "hiring"}
        assert sum(one["measured"] for one in proof["commit_to_queryable_ms"]) > 0.9 * proof["transactions"]["committed"]
        for one in proof["commit_to_queryable_ms"]:
            assert 0 <= one["p50"] <= one["p99"] <= one["max"]


def test_the_planted_record_is_the_only_dead_letter(proofs: list[dict[str, Any]], user: User) -> None:
    """One a run, with its reason; sent back, it fails again and nothing is doubled."""
    found = user.lines("dead-letters", "list", "--topic", "shop.public.customers")
    assert len(found) >= 2
    assert {one["reason"] for one in found} == {"wrong_frame"}
    [replayed] = user.lines("dead-letters", "replay", "--reason", "wrong_frame")
    assert replayed["sent"] == len(found)
    place = [str(found[0][name]) for name in ("topic", "partition", "offset")]
    [shown] = user.lines("dead-letters", "show", *place, "--raw")
    assert shown["reason"] == "wrong_frame"


def test_the_history_of_the_star_tells_its_story(proofs: list[dict[str, Any]], user: User) -> None:
    """Imported under another key, renumbered, edited: with who and why, filtered where it must be."""
    told = user.lines("history", "customers", "7")
    assert told[0]["operation"] == "create"
    assert told[0]["key"] == {"id": 100_007}
    assert told[0]["actor"]["id"] == "migration"
    assert told[1]["previous_key"] == {"id": 100_007}
    columns = {column["column"]: column for entry in told for column in entry["columns"]}
    assert columns["tier"]["after"] is None
    assert "crypt$" not in json.dumps(told)
    done = user.run("history", "shop.public.customers", "7")
    assert "key change 100007 → 7  by alice@example.org (customer keeps the old number 7)" in done.stdout


def test_the_commands_that_the_demo_suggests_work(proofs: list[dict[str, Any]], user: User) -> None:
    """What a newcomer copies from the screen."""
    deleted = user.lines("changes", "--source", "hiring", "--operation", "delete", "--since", "1h", "--limit", "100000")
    assert {one["operation"] for one in deleted} == {"delete"}
    by_table = {table["table"]: table["changes"] for table in proofs[1]["tables"]}
    assert len(deleted) == sum(by_table[table].get("delete", 0) for table in by_table if table.startswith("hiring."))
    tiers = user.lines("sql", "SELECT tier, count() AS n FROM mirror.shop__public__customers__current GROUP BY tier")
    assert sum(row["n"] for row in tiers) == next(
        one["rows"] for one in proofs[1]["tables"] if one["table"].endswith("customers")
    )
    for words in (("connectors", "status"), ("dev", "status", "--dir", str(user.stack.directory))):
        done = user.run(*words)
        assert done.returncode == 0, done.stdout + done.stderr
