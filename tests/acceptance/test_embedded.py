"""All of Chronicle in one process: what was answered is kept, whatever happens to the process; nothing else is needed."""

from __future__ import annotations

import json
import random
import subprocess
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("chdb")

from tests.acceptance.embedded_process import COMMAND, Embedded, environment

LOGIN: dict[str, Any] = {
    "type": "security.login",
    "source": "shop",
    "actor": {"id": "ann", "type": "user"},
    "outcome": "success",
    "description": 'ünïcode \u0000 and "quotes"',
    "payload": {"method": "passkey", "password": "hunter2-canary", "nested": {"a": [1, None, "x"]}},
    "tags": {"region": "eu"},
    "request_id": "r-1",
}


def told(done: subprocess.CompletedProcess[str]) -> str:
    """What a command wrote for a person."""
    return done.stderr


def chronicle(*words: str, home: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Another command on the embedded store."""
    own = {
        "CHRONICLE_STORE": "chdb",
        "CHRONICLE_CHDB_PATH": str(home / "data" / "chdb"),
        "CHRONICLE_POLICY_FILE": str(home / "data" / "policy.toml"),
    }
    return subprocess.run(
        [COMMAND, *words],
        cwd=home,
        env=environment(**own, **settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_what_is_posted_is_read_and_survives_a_restart(tmp_path: Path) -> None:
    """POST, GET, SIGTERM (exit 0), again, GET: the same; the policy made at the first start hides what looks secret."""
    with Embedded(tmp_path) as first:
        made = [line for line in first.said if line.startswith("made ")]
        assert [Path(line.split()[1].rstrip(":")).name for line in made] == ["identity.key", "keys.toml", "policy.toml"]
        answer = first.post(LOGIN)
        assert answer["durability"] == "confirmed"
        [event] = first.get("/events", actor="ann")["events"]
        assert event["event_id"] == answer["id"]
        assert (event["type"], event["outcome"], event["request_id"]) == ("security.login", "success", "r-1")
        assert event["payload"] == {"method": "passkey", "nested": {"a": [1, None, "x"]}, "password": "[FILTERED]"}
        assert event["description"] == LOGIN["description"]
        assert first.stop() == 0
    with Embedded(tmp_path) as second:
        assert not [line for line in second.said if line.startswith("made ")]
        assert second.get("/events", actor="ann")["events"] == [event]
        second.post(LOGIN | {"id": answer["id"], "time": event["time"]})
        assert second.event_ids() == [answer["id"]]
    assert b"hunter2-canary" not in b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


def test_a_kill_loses_nothing_that_was_answered_and_doubles_nothing(tmp_path: Path) -> None:
    """Four clients post singles and batches; SIGKILL at a random moment, three times; every id that was answered is there."""
    answered: set[str] = set()
    guard = threading.Lock()
    chance = random.Random(7)

    def client(url: str) -> None:
        with httpx.Client(base_url=url, timeout=30) as http:
            while True:
                ids = [str(uuid.uuid4()) for _ in range(chance.choice((1, 1, 7, 40)))]
                try:
                    answer = http.post("/events", json=[LOGIN | {"id": one} for one in ids])
                except httpx.HTTPError:
                    return
                assert answer.status_code == 202, answer.text
                with guard:
                    answered.update(ids)

    for _ in range(3):
        with Embedded(tmp_path) as embedded:
            before = len(answered)
            clients = [threading.Thread(target=client, args=(embedded.url,)) for _ in range(4)]
            for one in clients:
                one.start()
            enough, end = before + chance.randrange(100, 600), time.monotonic() + 60
            while len(answered) < enough:
                assert time.monotonic() < end
                time.sleep(0.005)
            embedded.kill()
            for one in clients:
                one.join(60)
    with Embedded(tmp_path) as embedded:
        held = embedded.event_ids()
        assert len(held) == len(set(held))
        assert answered <= set(held)
        assert len(answered) > 300


def test_a_stop_finishes_what_is_under_way(tmp_path: Path) -> None:
    """SIGTERM while clients post: every request is either answered 202 and kept, or not answered with 202."""
    answered: set[str] = set()

    def client(url: str) -> None:
        with httpx.Client(base_url=url, timeout=30) as http:
            while True:
                one = str(uuid.uuid4())
                try:
                    answer = http.post("/events", json=LOGIN | {"id": one})
                except httpx.HTTPError:
                    return
                if answer.status_code != 202:
                    assert answer.status_code == 503, answer.text
                    return
                answered.add(one)

    with Embedded(tmp_path) as embedded:
        clients = [threading.Thread(target=client, args=(embedded.url,)) for _ in range(8)]
        for one in clients:
            one.start()
        end = time.monotonic() + 60
        while len(answered) < 50:
            assert time.monotonic() < end
            time.sleep(0.005)
        assert embedded.stop() == 0
        for one in clients:
            one.join(60)
    with Embedded(tmp_path) as embedded:
        assert answered <= set(embedded.event_ids())


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Home of a process that took two events and has ended; while it ran, nobody else got at its store."""
    home = tmp_path_factory.mktemp("ended")
    with Embedded(home) as embedded:
        embedded.post(LOGIN, LOGIN | {"type": "security.logout"})
        for words in (("run", "--embedded", "--dir", str(embedded.data), "--port", "0"), ("changes",), ("keys", "list")):
            refused = chronicle(*words, home=home)
            assert refused.returncode == 2, told(refused)
            assert f"stop process {embedded.process.pid}, or ask it over HTTP" in told(refused)
            assert "Traceback" not in told(refused)
        assert embedded.get("/actors/ann/activity")
        [read] = embedded.get("/events", type="chronicle.history.read")["events"]
        assert read["source"] == "chronicle"
    return home


def test_one_process_at_a_time_has_the_store_and_then_another(ended: Path) -> None:
    """A second one, and any other command, was told which process to stop or ask (see `ended`); now `chronicle sql` reads."""
    query = "SELECT kind, type, actor_id, request_id FROM chronicle.audit_trail WHERE source = 'shop' ORDER BY type"
    shown = chronicle("sql", query, "--json", home=ended)
    assert shown.returncode == 0, told(shown)
    rows = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [row["type"] for row in rows] == ["security.login", "security.logout"]
    assert {(row["kind"], row["actor_id"], row["request_id"]) for row in rows} == {("event", "ann", "r-1")}


def test_reading_a_history_is_an_event_here_too(ended: Path) -> None:
    """Who asked for an actor's activity is on the trail, after the process has ended as well."""
    shown = chronicle("sql", "SELECT type FROM chronicle.events WHERE source = 'chronicle'", "--json", home=ended)
    assert [json.loads(line) for line in shown.stdout.splitlines()] == [{"type": "chronicle.history.read"}]


def test_a_key_closes_the_door(ended: Path) -> None:
    """Made in the embedded store while no process has it; then nobody without it gets in."""
    made = chronicle("keys", "create", "--name", "the shop", "--role", "ingest", "--json", home=ended)
    assert made.returncode == 0, told(made)
    text = json.loads(made.stdout)["key"]
    with Embedded(ended) as embedded:
        assert embedded.http.post("/events", json=LOGIN).status_code == 401
        assert embedded.http.get("/events").status_code == 401
        embedded.post(LOGIN, Authorization=f"Bearer {text}")
        assert embedded.http.get("/events", headers={"Authorization": f"Bearer {text}"}).status_code == 403
    assert text.encode() not in b"".join(file.read_bytes() for file in ended.rglob("*") if file.is_file())


def test_reference_data_is_kept_and_the_last_word_counts(tmp_path: Path) -> None:
    """Put, put again, delete, put: over restarts and a kill."""
    with Embedded(tmp_path) as embedded:
        for name in ("Acme", "Acme Corp"):
            answer = embedded.http.post("/entities", json={"id": "org:acme", "name": name, "metadata": {"tier": "gold"}})
            assert answer.is_success, answer.text
        assert embedded.http.post("/entities", json={"id": "org:other", "name": "Other"}).is_success
        embedded.kill()
    with Embedded(tmp_path) as embedded:
        assert embedded.get("/entities/org:acme")["name"] == "Acme Corp"
        assert embedded.http.delete("/entities/org:acme").is_success
        embedded.get("/entities/org:acme", status=404)
    with Embedded(tmp_path) as embedded:
        embedded.get("/entities/org:acme", status=404)
        assert embedded.http.post("/entities", json={"id": "org:acme", "name": "New"}).is_success
        assert embedded.get("/entities/org:acme")["name"] == "New"
        assert embedded.get("/entities/org:other")["name"] == "Other"


def test_a_store_in_memory_is_gone_with_its_process(tmp_path: Path) -> None:
    """`CHRONICLE_STORE=memory`: for trying things; nothing is written but keys and policy."""
    with Embedded(tmp_path, CHRONICLE_STORE="memory") as embedded:
        embedded.post(LOGIN)
        assert len(embedded.event_ids()) == 1
    assert sorted(file.name for file in (tmp_path / "data").iterdir()) == ["identity.key", "keys.toml", "policy.toml"]
    with Embedded(tmp_path, CHRONICLE_STORE="memory") as embedded:
        assert embedded.event_ids() == []


def test_a_broken_policy_is_refused_before_anything_listens(tmp_path: Path) -> None:
    """Exit 2, with what to correct."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "policy.toml").write_text("[[events]]\nmatch = 7\n")
    refused = chronicle("run", "--embedded", "--dir", str(tmp_path / "data"), "--port", "0", home=tmp_path)
    assert refused.returncode == 2
    assert "policy.toml" in told(refused)
    assert "Traceback" not in told(refused)


@pytest.mark.parametrize(
    ("words", "settings", "why"),
    [
        (("--dir", "x"), {}, "add --embedded"),
        (("--replay",), {}, "add --embedded"),
        (("--embedded", "--workers", "2"), {}, "leave out --workers"),
        ((), {"CHRONICLE_STORE": "chdb"}, 'set transport to "memory"'),
    ],
)
def test_words_that_do_not_fit_together_are_told_so(
    tmp_path: Path, words: tuple[str, ...], settings: dict[str, str], why: str
) -> None:
    """Exit 2 before anything starts."""
    done = subprocess.run(
        [COMMAND, "run", *words],
        cwd=tmp_path,
        env=environment(**settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert why in told(done)


def test_what_could_not_be_processed_is_kept_and_processed_again(tmp_path: Path) -> None:
    """A policy that sends events of a type to the dead letters is corrected; `--replay` brings them in, once."""
    (tmp_path / "data").mkdir()
    policy = tmp_path / "data" / "policy.toml"
    policy.write_text('[defaults]\nunclassified = "deadletter"\n')
    with Embedded(tmp_path) as embedded:
        answer = embedded.post(LOGIN)
        assert embedded.event_ids() == []
    policy.write_text('[[events]]\nmatch = "**"\n[events.columns]\n"payload.*" = "clear"\n')
    with Embedded(tmp_path, "--replay") as embedded:
        assert "replayed: 1 records went through, 0 did not\n" in embedded.said
        assert embedded.event_ids() == [answer["id"]]
    with Embedded(tmp_path, "--replay") as embedded:
        assert "replayed: 0 records went through, 0 did not\n" in embedded.said
        assert embedded.event_ids() == [answer["id"]]
