"""The demo as a user runs it, twice, and then every command that it suggests."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
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

    @property
    def environment(self) -> dict[str, str]:
        """What the demo's hints begin with."""
        settings = {"CHRONICLE_CONFIG": str(self.stack.settings_file), "CHRONICLE_POLICY_FILE": "policy.toml"}
        return {**os.environ, **self.stack.environment, **settings}

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`chronicle …`."""
        return subprocess.run([*COMMAND, *words], cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False)

    @contextmanager
    def started(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """`chronicle …` that goes on, killed in the end if it has not ended."""
        with subprocess.Popen([*COMMAND, *words], cwd=ROOT, env=self.environment, stderr=subprocess.DEVNULL) as process:
            try:
                yield process
            finally:
                process.kill()

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
    """Two runs; before the second, the contract is as a demo leaves it that was interrupted in its story."""
    arguments = ("dev", "demo", "--dir", str(user.stack.directory), "--seconds", "5", "--rate", "20")
    first = user.lines(*arguments)[0]
    contract = Path(first["broken_contract"]["contract"])
    pinned = json.loads(contract.read_text())
    pinned["fields"].append({"name": first["broken_contract"]["column"], "type": "string"})
    contract.write_text(json.dumps(pinned))
    user.stack.stop("worker")
    return [first, user.lines(*arguments)[0]]


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


def test_a_table_that_breaks_its_contract_waits_and_loses_nothing(proofs: list[dict[str, Any]], user: User) -> None:
    """Its changes are dead letters until the contract is corrected; sent back, all arrive, and the worker goes on with it."""
    for proof in proofs:
        told = proof["broken_contract"]
        assert told["written"] == told["sent_back"] == told["arrived"] == len(told["dead_letters"]) == 3
        assert {letter["reason"] for letter in told["dead_letters"]} == {"contract_broken"}
        assert all(told["column"] in letter["detail"] for letter in told["dead_letters"])
    listed = user.lines("dead-letters", "list", "--reason", "contract_broken")
    assert len(listed) >= 6
    assert all(letter["change_since"] for letter in listed)
    done = user.run("schemas", "check", "--dir", str(user.stack.directory / "contracts"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_event_is_on_the_audit_topic_and_in_the_trail_once(proofs: list[dict[str, Any]]) -> None:
    """Those sent and those of committed transactions, of each run; those of transactions that were rolled back nowhere."""
    for proof in proofs:
        assert {one["source"] for one in proof["events"]} == {"shop", "hiring"}
        for one in proof["events"]:
            assert one["equal"] and len(set(one["digests"].values())) == 1, one
            assert one["sent"] and one["in_transactions"] and one["rolled_back"] and not one["lost"], one
            assert one["events"] == one["sent"] + one["in_transactions"]
    digests = [one["digests"]["trail"] for proof in proofs for one in proof["events"]]
    assert len(set(digests)) == len(digests)


def test_one_request_is_told_by_its_events_and_its_changes(proofs: list[dict[str, Any]], user: User) -> None:
    """Login, order and rows stand together by request: one actor, in order of time, the changes of one commit."""
    for proof in proofs:
        shown = proof["request"]
        assert [entry["type"] for entry in shown if entry["kind"] == "event"] == ["security.login", "order.placed"]
        changed = [entry for entry in shown if entry["kind"] == "change"]
        assert {entry["resource_type"] for entry in changed} == {"public.orders", "public.order_items"}
        assert len({entry["time"] for entry in changed}) == 1
        assert [entry["time"] for entry in shown] == sorted(entry["time"] for entry in shown)
        for name in ("request_id", "actor_id", "source"):
            assert len({entry[name] for entry in shown}) == 1
        assert shown[0]["labels"] == ["security"]
    refused = user.lines("events", "tail", "-n", "5", "--no-follow", "--type", "security.**", "--outcome", "failure")
    assert {event["type"] for event in refused} == {"security.permission.denied"}
    assert all(event["payload"]["permission"] for event in refused)


def test_the_service_answers_for_that_request_where_the_demo_says(proofs: list[dict[str, Any]], user: User) -> None:
    """`chronicle api` on the demo's settings, and the address that the demo prints."""
    address = f"http://127.0.0.1:{user.stack.ports.api}"
    with user.started("api") as service:
        deadline = time.monotonic() + 60
        while not _ready(f"{address}/ready"):
            assert service.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
        asked = {"request": proofs[1]["request"][0]["request_id"]}
        answer = httpx.get(f"{address}/events", params=asked, trust_env=False).raise_for_status().json()
        service.terminate()
        assert service.wait(30) == 0
    assert {event["type"] for event in answer["events"]} == {"security.login", "order.placed"}


def test_the_quick_start_on_the_full_stack_runs_as_written(proofs: list[dict[str, Any]], user: User, tmp_path: Path) -> None:
    """The README's lines on the demo's stack, its question, and its answer; only ports and request are this stack's."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Quick start on the full stack\n")[2]
    section = section.partition("\n## ")[0]
    request, ports = f"quick-start-{uuid.uuid4()}", user.stack.ports
    changes = {'"r-1"': f'"{request}"', "'r-1'": f"'{request}'", "28004": str(ports.postgres), "28000": str(ports.kafka)}
    for old, new in changes.items():
        assert old in section
        section = section.replace(old, new)
    [code], [question] = re.findall(r"```python\n(.*?)```", section, re.DOTALL), re.findall(r'`chronicle sql "(.*?)"`', section)
    [printed] = re.findall(r"says\n\n```\n(.*?)```", section, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=user.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    expected, deadline = [line.split() for line in printed.splitlines()], time.monotonic() + 60
    while (found := [line.split() for line in user.run("sql", question).stdout.splitlines()]) != expected:
        assert time.monotonic() < deadline, found


def _ready(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.TransportError:
        return False


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
    assert [entry["previous_key"] for entry in told if entry["previous_key"]] == [{"id": 100_007}]
    over = [entry for entry in told if entry["reason"] == "promotion is over"]
    assert over
    assert {entry["after"]["tier"] for entry in over} == {None}
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
