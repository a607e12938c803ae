"""Routes and the workers of a role on the real stack: broker, ClickHouse and a real HTTP endpoint."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from chronicle.dev.stack import Stack
from chronicle.setup import run as run_setup
from tests.sinks.endpoint import OK, SECRET, Answer, Endpoint, Posted
from tests.stack.test_worker import Deployment
from tests.stack.worker_process import WorkerProcess, probe, until

pytestmark = pytest.mark.stack

POLICY = """
[defaults]
ignore = []
[[tables]]
match = "**"
columns = {{ "*" = "clear" }}
[[routes]]
name = "rows"
match = "*.public.t.#"
where = "id >= 10"
to = "{name}-rows"
"""
PROCESSOR = """
import polars as pl
from chronicle.processors import alerts, processor

@processor(tables="*.public.t", extra={"seen": pl.Boolean})
def watch(changes: pl.DataFrame) -> pl.DataFrame:
    alerts.raise_(rule="gone", severity="high", title="a row was deleted", changes=changes.filter(operation="delete"))
    return changes.with_columns(seen=pl.lit(True))
"""


class Site:
    """A deployment with a route, a role on it, and the endpoint that the role delivers to."""

    def __init__(self, stack: Stack, name: str, directory: Path, **role: Any) -> None:
        self.endpoint = Endpoint()
        self.deployment = made = Deployment(stack, name, directory)
        self.group, self.topic = f"{name}-security", f"{name}-rows"
        (directory / "policy.toml").write_text(POLICY.format(name=name))
        (directory / "my_security.py").write_text(PROCESSOR)
        sections: dict[str, dict[str, Any]] = {
            "roles.security": {"routes": ["rows"], "batch_wait_ms": 50, **role},
            "roles.security.webhook": {"url": self.endpoint.url, "secret": SECRET, "allow_private": True, "timeout_s": 5},
            "roles.security.archive": {"url": str(directory / "archive")},
        }
        lines: list[str] = []
        for section, values in sections.items():
            lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
        with made.settings_file.open("a") as file:
            file.write("\n" + "\n".join(lines))
        self.environment = {
            "CHRONICLE_CONFIG": str(made.settings_file),
            "CHRONICLE_POLICY_FILE": str(directory / "policy.toml"),
            "PYTHONPATH": os.pathsep.join([str(directory), os.environ.get("PYTHONPATH", "")]),
        }
        self.settings = made._load().model_copy(update={"policy_file": directory / "policy.toml"})
        run_setup(self.settings)

    def role(self, *arguments: str) -> WorkerProcess:
        """A worker of the role."""
        made = self.deployment
        log = made.directory / f"role{len(made.workers)}.log"
        worker = WorkerProcess(["chronicle.cli", "worker", "--role", "security", *arguments], self.environment, log)
        made.workers.append(worker)
        return worker

    def drain(self) -> dict[str, Any]:
        """A worker of the role that ends at the end of its topics; its summary."""
        worker = self.role("--until-drained", "--json")
        assert worker.wait() == 0, worker.log_text()[-3000:]
        summary: dict[str, Any] = json.loads(worker.output())
        return summary

    def command(self, *words: str) -> Any:
        """What `chronicle …` prints, as JSON."""
        [told] = self.lines(*words)
        return told

    def lines(self, *words: str) -> list[Any]:
        """The same, of a command that prints a document a line."""
        run = [sys.executable, "-m", "chronicle.cli", *words]
        done = subprocess.run(run, env={**os.environ, **self.environment}, capture_output=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr.decode()
        return list(map(json.loads, done.stdout.splitlines()))

    def stream(self) -> None:
        """A stream worker up to the end of the raw topics."""
        made = self.deployment
        environment = self.environment | {"CHRONICLE_WORKER__HTTP_PORT": "0"}
        worker = WorkerProcess(["chronicle.cli", "worker", "--until-drained"], environment, made.directory / "stream.log")
        made.workers.append(worker)
        assert worker.wait() == 0, worker.log_text()[-3000:]

    def delivered(self) -> list[int]:
        """Ids of the rows that the endpoint was sent, in order."""
        return [record["core"]["unmapped"]["key"]["id"] for record in self.endpoint.records]

    def archived(self) -> pl.DataFrame:
        """As readers see it."""
        place = self.deployment.directory / "archive"
        return pl.scan_parquet(f"{place}/**/*.parquet").sort("processed_at").unique("event_id", keep="last").collect()

    def close(self) -> None:
        self.endpoint.close()
        self.deployment.close()


@pytest.fixture
def site(stack: Stack, unique: str, tmp_path: Path) -> Iterator[Site]:
    """With a webhook and an archive."""
    made = Site(stack, unique, tmp_path)
    yield made
    made.close()


@pytest.fixture
def processing(stack: Stack, unique: str, tmp_path: Path) -> Iterator[Site]:
    """With a processor and a topic as well."""
    made = Site(stack, unique, tmp_path, processors=["my_security"], to=f"{unique}-out")
    yield made
    made.close()


def test_a_role_delivers_what_its_route_takes_and_never_writes_changes(processing: Site) -> None:
    """From the raw topic through the worker, the route and the role's processor to endpoint, archive, topic and alerts."""
    site, made = processing, processing.deployment
    made.create(40)
    made.send([(made.table.key(12), made.change("d", 12)), (made.table.key(12), None)])
    site.stream()
    before = made.rows(f"SELECT count(), max(processed_at) FROM {made.name}.changes")
    summary = site.drain()
    expected = sorted([*range(10, 40), 12])
    assert sorted(site.delivered()) == expected
    assert summary["changes"] == {"create": 30, "delete": 1} and not summary["dead_letters"]
    assert {record["core"]["unmapped"]["extra"]["seen"] for record in site.endpoint.records} == {True}
    archived = site.archived()
    assert sorted(json.loads(key)["id"] for key in archived["key"]) == expected
    out = made.broker.read(f"{made.name}-out")
    assert {key for key, _, _ in out} == {event.encode() for event in archived["event_id"]}
    alerts = made.rows(f"SELECT rule, severity, operation FROM {made.name}.alerts FINAL")
    assert alerts == [("gone", "high", "delete")]
    assert made.rows(f"SELECT count(), max(processed_at) FROM {made.name}.changes") == before
    assert site.drain()["records"] == 0
    assert sorted(site.delivered()) == expected


def test_what_a_role_cannot_read_or_deliver_is_its_own_dead_letter_and_can_be_sent_back(site: Site) -> None:
    """Neighbours go through; the dead letters are in the role's topic, listed in ClickHouse, and its retry topic brings them
    back."""
    made, poison = site.deployment, [True]
    site.endpoint.answer = lambda posted: (422, {}) if poison and b'"id":25' in posted.body else OK
    made.create(40)
    site.stream()
    made.broker.produce(site.topic, [b"junk"])
    summary = site.drain()
    assert summary["dead_letters"] == {"not_decodable": 1, "value_refused": 1}
    assert sorted(site.delivered()) == [n for n in range(10, 40) if n != 25]
    assert sorted(json.loads(key)["id"] for key in site.archived()["key"]) == [n for n in range(10, 40) if n != 25]
    letters = made.broker.read(f"{site.group}.dead-letters")
    assert {headers["chronicle.original.topic"] for _, _, headers in letters} == {site.topic.encode()}
    listed = site.lines("dead-letters", "list", "--topic", site.topic, "--json")
    assert sorted((one["topic"], one["reason"]) for one in listed) == [
        (site.topic, "not_decodable"),
        (site.topic, "value_refused"),
    ]
    junk = next(one for one in listed if one["reason"] == "not_decodable")
    place = [str(junk[name]) for name in ("topic", "partition", "offset")]
    shown = site.command("dead-letters", "show", *place, "--raw", "--role", "security", "--json")
    assert base64.b64decode(shown["raw"]["value"]) == b"junk"
    poison.clear()
    sent = site.command("dead-letters", "replay", "--role", "security", "--reason", "value_refused", "--json")
    assert sent == {"read": 2, "chosen": 1, "sent": 1, "by_reason": {"value_refused": 1}, "dry_run": False}
    site.drain()
    assert sorted(site.delivered()) == list(range(10, 40))
    assert len(site.archived()) == 30


def test_an_endpoint_that_is_away_is_waited_for_and_a_killed_role_loses_nothing(site: Site) -> None:
    """Not ready and alive meanwhile, nothing acknowledged; another process delivers what the killed one had."""
    made, away = site.deployment, [True]

    def answer(_posted: Posted) -> Answer:
        return (503, {}) if away else OK

    site.endpoint.answer = answer
    made.create(40)
    site.stream()
    first = site.role()
    port = int(str(first.until_event("http.listening")["port"]))
    until(lambda: "webhook" in probe(port, "/readyz")[1], "the declared retry")
    assert probe(port, "/healthz")[0] == 200
    first.kill()
    second = site.role()
    port = int(str(second.until_event("http.listening")["port"]))
    until(lambda: "webhook" in probe(port, "/readyz")[1], "the declared retry of the second", 90)
    away.clear()
    until(lambda: set(site.delivered()) == set(range(10, 40)), "delivery", 90)
    until(lambda: probe(port, "/readyz")[0] == 200, "readiness")
    metrics = probe(port, "/metrics")[1]
    assert 'chronicle_retries_total{service="webhook"}' in metrics
    second.term()
    assert second.wait() == 0
    assert sorted(site.delivered()) == list(range(10, 40))
    assert site.drain()["records"] == 0


def test_instances_share_the_work_come_back_when_killed_and_stop_together(site: Site) -> None:
    """Under one parent; nothing is lost."""
    made = site.deployment
    made.create(40)
    site.stream()
    parent = site.role("--instances", "2")
    until(lambda: len(parent.events("partitions.assigned")) >= 2, "both assigned", 90)
    until(lambda: set(site.delivered()) == set(range(10, 40)), "delivery", 90)
    pids = [int(str(event["pid"])) for event in parent.events("instance.started")]
    os.kill(pids[0], signal.SIGKILL)
    until(lambda: len(parent.events("instance.started")) == 3, "a new start")
    died = parent.until_event("instance.died")
    assert died["code"] == -signal.SIGKILL
    made.create(20, first=100)
    site.stream()
    until(lambda: set(site.delivered()) == {*range(10, 40), *range(100, 120)}, "delivery after the kill", 90)
    children = [int(str(event["pid"])) for event in parent.events("instance.started")][1:]
    parent.term()
    assert parent.wait() == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)


def test_orphans_end(site: Site) -> None:
    """A parent that was killed leaves nobody behind."""
    parent = site.role("--instances", "2")
    until(lambda: len(parent.events("role.started")) == 2, "both started", 90)
    children = [int(str(event["pid"])) for event in parent.events("instance.started")]
    parent.kill()
    until(lambda: not any(_alive(pid) for pid in children), "the end of both")


def _alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_a_misconfigured_role_ends_all_instances_with_2(site: Site) -> None:
    """With the fix in the message."""
    with site.deployment.settings_file.open("a") as file:
        file.write('\n[roles.other]\nroutes = ["no-such"]\nto = "x"\n')
    worker = WorkerProcess(
        ["chronicle.cli", "worker", "--role", "other"], site.environment, site.deployment.directory / "other.log"
    )
    assert worker.wait() == 2
    assert "no route no-such" in worker.log_text()
    site.deployment.broker.delete(site.topic)
    supervised = site.role("--instances", "2")
    assert supervised.wait() == 2
    assert "chronicle setup" in supervised.log_text()


def test_records_deleted_before_a_role_read_them_are_an_alarm(site: Site) -> None:
    """Retention overtook it: it stops, and goes on when that is accepted."""
    made = site.deployment
    made.create(40)
    site.stream()
    site.drain()
    made.create(20, first=100)
    site.stream()
    ends = made.broker.ends(site.topic, 4)
    for partition, end in ends.items():
        made.broker.delete_before(site.topic, partition, end)
    behind = site.role("--until-drained")
    assert behind.wait() == 1
    assert "--accept-gap" in behind.log_text()
    accepting = site.role("--until-drained", "--accept-gap")
    assert accepting.wait() == 0, accepting.log_text()[-2000:]
    assert accepting.events("gap.accepted")
