"""`chronicle events` as a person types it: what is posted is on the topic, what is on the trail is shown, once."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from pydantic import SecretStr

from chronicle.config import ClickHouse
from chronicle.dev.stack import Stack
from chronicle.events.event import decoded
from chronicle.sinks.clickhouse_client import connect
from chronicle.sinks.migrations import migrate
from tests.acceptance.test_cli import COMMAND, Done, chronicle
from tests.stack.worker_process import Broker

SECRET = "Zq7XvKp92LmW"


@pytest.fixture(scope="module")
def settings(stack: Stack) -> Iterator[dict[str, str]]:
    """Of a topic and a trail of this module alone, by environment."""
    name = f"t{secrets.token_hex(4)}x"
    broker = Broker(stack.kafka)
    broker.create(f"{name}.events", 2)
    trail = ClickHouse(
        url=stack.clickhouse_url, password=SecretStr(""), database=f"{name}_trail", mirror_database=f"{name}_mirror"
    )
    client = connect(trail)
    migrate(client, trail)
    yield {
        "CHRONICLE_KAFKA__BOOTSTRAP_SERVERS": stack.kafka,
        "CHRONICLE_KAFKA__EVENTS_TOPIC": f"{name}.events",
        "CHRONICLE_CLICKHOUSE__URL": stack.clickhouse_url,
        "CHRONICLE_CLICKHOUSE__DATABASE": trail.database,
        "CHRONICLE_CLICKHOUSE__MIRROR_DATABASE": trail.mirror_database,
    }
    broker.delete(f"{name}.events")
    for database in (trail.database, trail.mirror_database):
        client.command(f"DROP DATABASE {database}")
    client.close()


@pytest.fixture
def run(settings: dict[str, str], tmp_path: Path) -> Callable[..., Done]:
    return lambda *words, given=None: chronicle("events", *words, cwd=tmp_path, given=given, **settings)


@pytest.fixture
def sent(stack: Stack, settings: dict[str, str]) -> Callable[[], list[tuple[bytes | None, dict[str, Any]]]]:
    """What is on the topic now: key, event."""
    broker = Broker(stack.kafka)

    def read() -> list[tuple[bytes | None, dict[str, Any]]]:
        return [(key, json.loads(value or b"")) for key, value, _ in broker.read(settings["CHRONICLE_KAFKA__EVENTS_TOPIC"])]

    return read


@pytest.fixture
def client(settings: dict[str, str]) -> Iterator[Client]:
    made = connect(ClickHouse(url=settings["CHRONICLE_CLICKHOUSE__URL"], password=SecretStr("")))
    yield made
    made.close()


def insert(client: Client, settings: dict[str, str], **given: Any) -> str:
    """One event of the trail; its id."""
    now = datetime.now(UTC)
    facts: dict[str, Any] = {"event_id": uuid.uuid4(), "type": "t.e", "time": now, "source": "shop", "priority": "normal"}
    facts |= {"labels": [], "violations": [], "policy": "", "topic": "e", "partition": 0, "offset": 0}
    facts |= {"received_at": now, "processed_at": now, **given}
    client.insert(
        "events", [list(facts.values())], column_names=list(facts), database=settings["CHRONICLE_CLICKHOUSE__DATABASE"]
    )
    return str(facts["event_id"])


def test_a_posted_event_is_on_the_topic(run: Callable[..., Done], sent: Any) -> None:
    """All it says, under its key, with secrets hidden; its id and what became of it are told."""
    done = run(
        *("post", "--type", "report.read", "--actor", "ann", "--actor-type", "user", "--resource", "report:7", "--outcome"),
        *("success", "--payload", f'{{"pages": 3, "password": "{SECRET}"}}', "--tag", "region=eu", "--tag", "a=b=c"),
        *("--tenant", "acme", "--request", "r-1", "--reason", "audit", "--priority", "high", "--source", "shop", "--json"),
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["type"], told["disposition"]) == ("report.read", "confirmed")
    [(key, event)] = [(key, event) for key, event in sent() if event["id"] == told["id"]]
    assert key == b"report:7"
    assert (event["actor"], event["resource_type"], event["resource_id"]) == ({"id": "ann", "type": "user"}, "report", "7")
    assert (event["payload"], event["tags"]) == ({"pages": 3, "password": "[FILTERED]"}, {"region": "eu", "a": "b=c"})
    assert (event["tenant"], event["priority"], event["source"]) == ("acme", "high", "shop")


def test_a_file_of_events_is_posted_line_by_line(run: Callable[..., Done], sent: Any, tmp_path: Path) -> None:
    """From standard input and from a file; wrong lines are named without a value, and the others are sent."""
    ids = [str(uuid.uuid4()) for _ in range(3)]
    lines = [json.dumps({"id": id_, "type": "a.b", "source": "shop"}) for id_ in ids]
    text = f'{lines[0]}\n{{"type": "{SECRET}!"}}\n\n{lines[1]}\nnot json {SECRET}\n{lines[2]}'
    (tmp_path / "events.ndjson").write_text(text)
    for done in (run("post", given=text), run("post", "-", given=text), run("post", "events.ndjson", "--json")):
        assert done.returncode == 1
        assert done.stdout.count("confirmed") == 3
        assert "line 2: type: " in done.stderr
        assert "line 5: not JSON" in done.stderr
        assert done.stderr.splitlines()[-1] == "error: correct 2 lines named above: 3 events were posted"
        assert SECRET not in done.stderr + done.stdout
    assert {id_: [event["id"] for _, event in sent()].count(id_) for id_ in ids} == dict.fromkeys(ids, 3)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("post", "--type", f"{SECRET} x"), 1, "error: type: "),
        (("post", "--action", "read"), 1, "error: type: name it"),
        (("post", "--type", "a.b", "--payload", "[1]"), 2, "error: write --payload as a JSON object"),
        (("post", "--type", "a.b", "--tag", "x"), 2, "error: write --tag name=value"),
        (("post", "--type", "a.b", "--actor-name", "Ann"), 2, "error: add --actor"),
        (("post", "x.ndjson", "--type", "a.b"), 2, "error: give either a file"),
        (("post", "nowhere.ndjson"), 2, "error: name a file that can be read"),
        (("post", "--type", "a.b", "--to", "gopher://x"), 2, "error: a journal's transport begins with"),
        (("post", "--type", "a.b", "--outcome", "x"), 1, "error: outcome: choose one of"),
        (("post", "--type", "a.b", "--strict"), 1, "error: type"),
        (("post", "--type", "a.b", "--to", "http://127.0.0.1:9", "--timeout", "0.5"), 1, "error: look whether"),
        (("tail", "--outcome", "x"), 2, "error: choose an --outcome"),
        (("flood", "0"), 2, "error: "),
    ],
)
def test_what_is_wrong_is_told(run: Callable[..., Done], words: tuple[str, ...], code: int, says: str) -> None:
    """With the fix, without the value."""
    done = run(*words)
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr
    assert SECRET not in done.stderr


def test_a_flood_is_confirmed_whole(run: Callable[..., Done], sent: Any) -> None:
    """So many events, each once, all of them events; the rate is told. The same seed says the same things."""
    before = len(sent())
    done = run("flood", "3000", "--seed", "7", "--workers", "2", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["events"] == 3_000
    assert told["events_per_s"] > 0
    events = (
        [event for _, event in sent()][before:] if before == 0 else [event for _, event in sent() if event["source"] == "flood"]
    )
    assert len(events) == len({event["id"] for event in events}) == 3_000
    assert all(decoded(json.dumps(event)).type for event in events)
    assert len({event["type"] for event in events}) > 5


def test_the_newest_events_are_shown(run: Callable[..., Done], client: Client, settings: dict[str, str]) -> None:
    """The newest last, by filters, as a line for people or as JSON; values cannot steer the terminal."""
    source = f"s{secrets.token_hex(4)}"
    now = datetime.now(UTC)
    ids = [
        insert(
            client,
            settings,
            source=source,
            type=("auth.login", "auth.token.issued", "order.placed")[number % 3],
            time=now - timedelta(minutes=10 - number),
            actor_id=f"user:{number}",
            actor_name="Ann\x1b[31m",
            resource_type="order",
            resource_id=str(number),
            outcome=("success", "failure")[number % 2],
            payload=json.dumps({"n": number}),
            tags=json.dumps({"region": "eu", "n": number % 2}),
        )
        for number in range(6)
    ]
    base = ("tail", "--no-follow", "--source", source)

    def found(*words: str) -> list[str]:
        done = run(*base, *words, "--json")
        assert done.returncode == 0, done.stderr
        return [json.loads(line)["event_id"] for line in done.stdout.splitlines()]

    assert found() == ids
    assert found("-n", "2") == ids[-2:]
    assert found("-n", "0") == []
    assert found("--type", "auth.*") == [ids[0], ids[3]]
    assert found("--type", "auth.**") == [ids[0], ids[1], ids[3], ids[4]]
    assert found("--type", "auth.login", "--type", "order.*") == [ids[0], ids[2], ids[3], ids[5]]
    assert found("--outcome", "failure", "--resource", "order:3") == [ids[3]]
    assert found("--resource", "order", "--actor", "user:2") == [ids[2]]
    assert found("--tag", "region=eu", "--tag", "n=1") == ids[1::2]
    assert found("--tag", "region=' OR 1=1 --") == []
    shown = run(*base, "-n", "1").stdout
    assert f"{source}  order.placed  by Ann\\u001b[31m  order:5  failure" in shown
    assert '{"n":5}' in shown
    assert "\x1b" not in shown


def test_what_comes_in_is_shown_once(client: Client, settings: dict[str, str], tmp_path: Path) -> None:
    """Also what is older than what was shown, and what is written again by a reprocessing; Ctrl-C ends it."""
    source = f"s{secrets.token_hex(4)}"
    old = insert(client, settings, source=source)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CHRONICLE_")}
    words = [COMMAND, "events", "tail", "-n", "1", "--source", source, "--interval", "0.1", "--json"]
    with subprocess.Popen(words, cwd=tmp_path, env={**clean, **settings}, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        new = []
        for number in range(5):
            given = {"time": datetime.now(UTC) - timedelta(days=number)}
            new.append(insert(client, settings, source=source, **given))
            insert(client, settings, source=source, event_id=uuid.UUID(old))
            lines.append(process.stdout.readline())
        new.append(insert(client, settings, source=source))  # nothing comes between it and what was before
        lines.append(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(20) == 0
    assert [json.loads(line)["event_id"] for line in lines] == [old, *new]
    assert rest == ""
