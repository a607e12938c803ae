"""No protected value leaves: every protected cell is a canary, and everything that comes out is read back and searched.

20,000 changes by default; 100,000 with CHRONICLE_TEST_LONG=1. Read back: every column of every table of ClickHouse (its query
log included), every topic but the raw ones, retry and dead letters, logs at level debug, metrics, what the commands print.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from traceback import format_exception
from typing import Any

import pytest
from confluent_kafka import Producer
from typer.testing import CliRunner

from chronicle.cli import app
from chronicle.dev.stack import Stack
from chronicle.policy.keyring import Purpose
from chronicle.policy_files import add_key
from chronicle.setup import run as run_setup
from tests.faults.canary import Canaries
from tests.faults.canary_search import Looked, in_clickhouse, in_texts, in_topics
from tests.faults.canary_workload import PROCESSOR, Workload, policy
from tests.stack.test_worker import Deployment
from tests.stack.worker_process import WorkerProcess, probe, until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(1200)]

LONG = bool(os.environ.get("CHRONICLE_TEST_LONG"))
ROWS = 100_000 if LONG else 20_000
LEAKED = 200
"""Changes under a policy that hides too little."""
NEVER = ("raw", "retry", "dead")
"""Kinds of topics that hold what the database wrote."""
DEADLINE_S = 900.0


class Site(Deployment):
    """A deployment whose tables are full of canaries: a stream worker, a route, a role, and somebody who types commands."""

    def __init__(self, stack: Stack, name: str, directory: Path) -> None:
        options = {"record_bytes_max": 100_000, "log_level": "debug", "dead_letter_share_max": 0.9, "batch_rows_max": 10_000}
        super().__init__(stack, name, directory, **options)
        tables = json.dumps(["public.t", "public.keyed", "public.filtered"])
        source = directory / "connectors" / f"{name}.toml"
        source.write_text(source.read_text().replace('tables = ["public.t"]', f"tables = {tables}\nfull_identity = {tables}"))
        for table in ("keyed", "filtered"):
            self.broker.create(f"{name}.public.{table}", 2)
        self.canaries = Canaries(int(name[1:9], 16))
        self.policy = directory / "policy.toml"
        self.policy.write_text(policy(name))
        (directory / "canary_processor.py").write_text(PROCESSOR)
        lines = [
            '[roles.team]\nroutes = ["rows"]\nbatch_wait_ms = 50',
            f'to = "{name}-out"\nprocessors = ["chronicle.examples.compliance"]',
        ]
        with self.settings_file.open("a") as file:
            file.write("\n" + "\n".join(lines) + "\n")
        self.environment = {
            "CHRONICLE_CONFIG": str(self.settings_file),
            "CHRONICLE_POLICY_FILE": str(self.policy),
            "CHRONICLE_KEY_RING_FILE": str(directory / "keys.toml"),
            "CHRONICLE_SCHEMAS_DIR": str(directory / "schemas"),
            "PYTHONPATH": os.pathsep.join([str(directory), os.environ.get("PYTHONPATH", "")]),
        }
        add_key(directory / "keys.toml", "encrypt-1", Purpose.ENCRYPT, datetime.now(UTC))
        run_setup(self._load().model_copy(update={"policy_file": self.policy}))
        self.work = Workload(stack, name, self.canaries)
        self.texts: dict[str, str] = {}
        """What was printed, logged or exposed."""

    def write(self, records: Iterable[tuple[str, bytes, bytes | None]]) -> int:
        """Into the raw topics, in order for each key; returns how many."""
        count = 0
        producer = Producer({"bootstrap.servers": self.stack.kafka, "linger.ms": 20, "message.max.bytes": 20_000_000})
        for topic, key, value in records:
            count += 1
            while True:
                try:
                    producer.produce(topic, value=value, key=key)
                    break
                except BufferError:
                    producer.poll(0.1)
        assert producer.flush(120) == 0
        return count

    def stream(self, name: str) -> str:
        """A worker until it has everything; its log, its summary and its metrics are kept. Returns the metrics."""
        environment = self.environment | {"CHRONICLE_PROCESSORS": json.dumps(["canary_processor"])}
        worker = WorkerProcess(["chronicle.cli", "worker", "--json"], environment, self.directory / f"{name}.log")
        self.workers.append(worker)

        def drained() -> bool:
            assert worker.process.poll() is None, worker.log_text()[-3000:]
            return bool(worker.events("partitions.assigned")) and self.behind() == 0

        until(drained, "everything is processed", DEADLINE_S)
        scraped = [""]

        def scrape() -> bool:
            scraped[0] = probe(self.port, "/metrics")[1]
            return bool(scraped[0])

        until(scrape, "metrics")
        worker.term()
        assert worker.wait() == 0, worker.log_text()[-3000:]
        self.texts |= {f"{name}: metrics": scraped[0], f"{name}: summary": worker.output(), f"{name}: log": worker.log_text()}
        return scraped[0]

    def behind(self) -> int:
        """Records of the raw topics that the worker has not acknowledged."""
        total = 0
        for topic in (*(one.topic for one in (self.work.t, self.work.keyed, self.work.filtered)), f"{self.name}-events"):
            partitions = len(self.broker.admin.list_topics(topic, timeout=30).topics[topic].partitions)
            committed = self.broker.committed(self.name, topic, partitions)
            total += sum(end - max(0, committed[number]) for number, end in self.broker.ends(topic, partitions).items())
        return total

    def role(self, name: str) -> None:
        """The role's worker up to the end of its route."""
        arguments = ["chronicle.cli", "worker", "--role", "team", "--until-drained", "--json"]
        worker = WorkerProcess(arguments, self.environment, self.directory / f"{name}.log")
        self.workers.append(worker)
        assert worker.wait(DEADLINE_S) == 0, worker.log_text()[-3000:]
        self.texts |= {f"{name}: summary": worker.output(), f"{name}: log": worker.log_text()}

    def command(self, *words: str, code: int | None = 0) -> str:
        """What `chronicle …` prints, and the trace of what it does not catch, kept."""
        variables = {name: None for name in os.environ if name.startswith("CHRONICLE_")} | self.environment
        done = CliRunner().invoke(app, words, env=variables)
        trace = "".join(format_exception(done.exception)) if done.exception else ""
        assert code is None or done.exit_code == code, f"{words}: {done.stderr[-2000:]}{trace}"
        self.texts[f"chronicle {' '.join(words)}"] = done.stdout + done.stderr + trace
        return done.stdout

    def commands(self) -> None:
        """Everything that shows something of a change or of a policy."""
        t = self.work.t.topic
        for more in ((), ("--json",)):
            for number in ("0", "1", "2", "4"):
                self.command("history", t, number, "--all", "--stubs", *more)
            self.command("changes", "--source", self.name, "--limit", "2000", *more)
            self.command("changes", "--source", self.name, "--operation", "delete", "--limit", "500", *more)
            self.command("sql", f"SELECT * FROM {self.name}.changes LIMIT 300", *more)
            self.command("policy", "show", t, *more)
            self.command("policy", "check", *more, code=None)
            self.command("policy", "history", *more)
            self.command("policy", "diff", str(self.policy), str(self.open_policy()), "--replay", t, "--last", "2000", *more)
            self.command("dead-letters", "list", "--limit", "1000", *more)
            self.command("dead-letters", "show", *more)
            self.command("dead-letters", "replay", "--dry-run", *more)
            self.command("attribution", "report", "--since", "100000d", *more, code=None)
            self.command("entities", "list", *more)
            self.command("routes", "show", *more)
            self.command("schemas", "history", t, *more)
            self.command("reprocess", t, "--from", "1d", "--dry-run", *more)
        self.command("schemas", "pull", code=None)
        self.command("schemas", "check", code=None)
        self.command("reprocess", self.work.filtered.topic, "--from", "1d")
        self.command("sql", "SELECT throwIf(after != '', after) FROM chronicle.nothing", code=None)

    def open_policy(self) -> Path:
        """The policy that hides too little."""
        path = self.directory / "leaky.toml"
        path.write_text(policy(self.name, leaky=True))
        return path

    def topics(self) -> list[str]:
        """All of this deployment but those that hold what the database wrote."""
        there = [name for name in self.broker.admin.list_topics(timeout=30).topics if name.startswith(self.name)]
        role = f"{self.name}-team."
        closed = {f"{self.name}-dead", f"{self.name}-retry", f"{self.name}-events", f"{role}dead-letters", f"{role}retry"}
        return [name for name in there if not name.startswith(f"{self.name}.") and name not in closed]

    def looked(self) -> tuple[Looked, Looked, dict[str, set[str]]]:
        """ClickHouse, topics, texts."""
        databases = [self.name, f"{self.name}_mirror", "system", "default"]
        tables = in_clickhouse(self.client, databases, self.canaries)
        return tables, in_topics(self.stack.kafka, self.topics(), self.canaries), in_texts(self.texts, self.canaries)


@pytest.fixture
def site(stack: Stack, unique: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.chdir(tmp_path)
    made = Site(stack, unique, tmp_path)
    yield made
    made.close()


def test_no_canary_is_found_where_values_are_protected_and_a_planted_one_is_found_everywhere(site: Site) -> None:
    """Zero hits in all that came out; then columns are opened on purpose, and the same search finds them in every place."""
    work = site.work
    site.broker.create(f"{site.name}.transaction")
    sent = site.write(work.changes(ROWS))
    sent += site.write(work.poison())
    sent += site.write(work.later(site.stack, 50, ROWS))
    sent += site.write(work.events(ROWS // 20))
    site.broker.produce(f"{site.name}.transaction", list(work.contexts()))
    metrics = site.stream("worker")
    site.role("role")
    site.commands()
    _assert_the_workload_was_whole(site, metrics, sent)

    tables, topics, texts = site.looked()
    assert tables.found == {}
    assert topics.found == {}
    assert texts == {}
    assert tables.count > ROWS and topics.count > ROWS, "all of it was looked at"
    assert "query_log" not in tables.unread and len(tables.unread) < 10

    _plant(site)
    tables, topics, texts = site.looked()
    name = site.name
    plain = {"text", "number", "time of day"}
    assert tables.found[f"{name}.changes"] >= plain
    mirror = next(place for place in tables.found if place.startswith(f"{name}_mirror.") and place.endswith("__t"))
    assert tables.found[mirror] >= plain
    assert tables.found["system.query_log"] >= {"text", "hex"}
    assert tables.found[f"{name}.planted"] == {"base64, 1 bytes after a start"}
    for topic in (f"{name}-audit", f"{name}-rows", f"{name}-out"):
        assert topics.found[topic] >= plain, topic
    assert topics.found[f"{name}-entities"] == {"text"}, "a record's header"
    assert {place for place in texts if place.split()[1:2] == ["history"]}
    assert {place for place in texts if place.split()[1:2] == ["sql"]}


def _assert_the_workload_was_whole(site: Site, metrics: str, sent: int) -> None:
    """Every kind of thing happened: otherwise there was nothing to find."""
    name = site.name
    stubs = dict(site.rows(f"SELECT stub, count() FROM {name}.changes FINAL GROUP BY stub"))
    assert stubs[""] > ROWS * 0.6 and stubs["filtered"] and stubs["ignored"], stubs
    assert site.rows(f"SELECT uniqExact(event_id), uniqExact(type) FROM {name}.events") == [(ROWS // 20, 2)]
    reasons = dict(site.rows(f"SELECT reason, count() FROM {name}.dead_letters FINAL GROUP BY reason"))
    assert {
        "wrong_frame",
        "unknown_schema",
        "not_an_envelope",
        "too_large",
        "rule_broken",
        "processor_failed",
        "not_an_event",
    } <= set(reasons), reasons
    told = site.rows(f"SELECT countIf(attribution = 'message'), countIf(has(labels, 'touched')) FROM {name}.changes FINAL")
    assert all(count > 0 for count in told[0]), told
    [(encrypted, tokens, filtered)] = site.rows(
        f"SELECT countIf(position(after, 'e1.') > 0), countIf(position(after, '\"t1.') > 0), "
        f"countIf(position(after, '[FILTERED]') > 0) FROM {name}.changes FINAL"
    )
    assert min(encrypted, tokens, filtered) > ROWS * 0.4
    assert "chronicle_processor_canary_rows" in metrics
    assert len(site.broker.read(f"{name}-dead")) >= 10
    assert sent > ROWS


def _plant(site: Site) -> None:
    """Leaks on purpose: columns opened by the policy, a query, a table with base64, a header; and the commands once more."""
    name, canaries = site.name, site.canaries
    site.policy.write_text(policy(name, leaky=True))
    shutil.rmtree(site.directory / "schemas")  # contracts of the newest schemas: the first ones break them
    site.write(site.work.changes(LEAKED))
    site.stream("leaky worker")
    site.role("leaky role")
    site.command("history", site.work.t.topic, "0", "--json")
    site.command("sql", f"SELECT * FROM {name}.changes ORDER BY inserted_at DESC LIMIT 50")
    needles = {one.name: one.text for one in canaries.needles}
    site.client.query(f"SELECT '{needles['text']}', '{needles['hex']}'")
    shifted = needles["base64, 1 bytes after a start"]
    site.client.command(f"CREATE TABLE {name}.planted (m Map(String, Array(String))) ENGINE = MergeTree ORDER BY tuple()")
    # put together there, so that the statement's text is no find of its own
    site.client.command(f"INSERT INTO {name}.planted SELECT map('k', [reverse('{shifted[::-1]}')])")
    producer = Producer({"bootstrap.servers": site.stack.kafka})
    headers: Any = [("h", needles["text"].encode())]
    producer.produce(f"{name}-entities", value=b"{}", key=b"row:1", headers=headers)
    assert producer.flush(30) == 0
