"""A dead letter after its cause is mended: sent back by command, taken in by the running worker, in the trail once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chronicle import dead_letters
from chronicle.dead_letters import Selection
from chronicle.dev.stack import Stack
from tests.stack.debezium_records import register
from tests.stack.test_worker import Deployment
from tests.stack.worker_process import until

pytestmark = pytest.mark.stack

AHEAD = 12
"""How many schemas other tests or connectors may register meanwhile."""


class Site(Deployment):
    """A deployment, and somebody who types commands there."""

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "CHRONICLE_CONFIG": str(self.settings_file)}
        command = [sys.executable, "-m", "chronicle.cli", *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    def lines(self, *words: str) -> list[dict[str, Any]]:
        done = self.run(*words, "--json")
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def schema(self, number: int) -> int:
        """Registers a schema with the table's layout that the registry has not seen; its id."""
        schema = {**self.table.value_schema, "doc": f"{self.name} {number}"}
        return register(self.stack.registry_url, f"{self.name}-{number}", schema)


@pytest.fixture
def site(stack: Stack, unique: str, tmp_path: Path) -> Iterator[Site]:
    """Its own topics, databases and group."""
    made = Site(stack, unique, tmp_path)
    yield made
    made.close()


def test_a_letter_whose_schema_was_registered_late_becomes_its_change_once(site: Site) -> None:
    """Register the schema, replay, the change is there with its own coordinates; another replay and worker change nothing."""
    late = site.schema(0) + AHEAD
    good = [(site.table.key(number), site.change("c", number)) for number in (1, 2, 3)]
    good[1] = (good[1][0], b"\0" + late.to_bytes(4, "big") + good[1][1][5:])
    worker = site.start()
    site.send([*good])
    until(lambda: site.letters() and site.ids() == [1, 3], "the neighbours are in, the letter is out")
    assert site.letters() == [(site.table.topic, 0, 1, "unknown_schema")]

    asked = ("dead-letters", "replay", "--reason", "unknown_schema")
    until(lambda: site.lines(*asked, "--dry-run")[0]["read"] == 1, "the letter is on its topic as well")
    [early] = site.lines(*asked)
    assert (early["read"], early["sent"]) == (1, 1)
    retry = site.settings.kafka.retry_topic
    until(lambda: site.broker.committed(site.name, retry, 1) == {0: 1}, "the worker took the letter in")
    assert site.ids() == [1, 3], "its cause is not mended: it must fail again"
    assert len(site.letters()) == 1, "one record is one letter, however often it fails"

    found = next((found for number in range(1, AHEAD + 1) if (found := site.schema(number)) >= late), 0)
    assert found == late, "the registry left the id out"
    sent = 1

    def replayed() -> bool:
        """Once more; a worker does not ask again at once for an id that the registry did not know."""
        nonlocal sent
        sent += dead_letters.replay(site.settings.kafka, Selection(reason="unknown_schema")).sent
        until(lambda: site.broker.committed(site.name, retry, 1) == {0: sent}, "the worker took it in")
        return site.ids() == [1, 2, 3]

    until(replayed, "the change appears in the running worker", 120)
    [change] = site.lines("changes", "--table", "t", "--key", "2")
    assert (change["topic"], change["partition"], change["offset"]) == (site.table.topic, 0, 1)
    assert change["after"]["email"] == "p2@example.org"
    [letter] = site.lines("dead-letters", "list")
    assert letter["change_since"]
    until(lambda: site.rows(f"SELECT count() FROM {site.mirror()} WHERE id = 2") == [(1,)], "the mirror has it")

    site.lines("dead-letters", "replay")
    until(lambda: site.broker.committed(site.name, retry, 1) == {0: sent + 1}, "the worker took it in again")
    worker.term()
    assert worker.wait() == 0, worker.log_text()[-3000:]
    assert site.drain()["records"] == 0
    assert site.ids() == [1, 2, 3]
    audit = site.broker.read(site.settings.kafka.audit_topic)
    assert len({key for key, _, _ in audit}) == 3, "readers that upsert by key see three changes"
