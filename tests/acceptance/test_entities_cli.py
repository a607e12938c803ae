"""`chronicle entities` as a person types it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chronicle.dev.stack import Stack
from tests.acceptance.test_cli import Done, at_a_terminal, chronicle
from tests.stack.worker_process import Broker

SECRET = "sesame-4711"


@pytest.fixture(scope="module")
def topic(stack: Stack) -> Iterator[dict[str, str]]:
    """Settings, by environment, of a topic of this module alone."""
    import secrets

    name = f"t{secrets.token_hex(4)}.entities"
    broker = Broker(stack.kafka)
    broker.create(name, cleanup_policy="compact")
    yield {"CHRONICLE_KAFKA__BOOTSTRAP_SERVERS": stack.kafka, "CHRONICLE_KAFKA__ENTITIES_TOPIC": name}
    broker.delete(name)


@pytest.fixture
def run(topic: dict[str, str], tmp_path: Path) -> Callable[..., Done]:
    return lambda *words: chronicle("entities", *words, cwd=tmp_path, **topic)


def told(done: Done) -> list[dict[str, object]]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_an_entity_is_put_got_listed_and_deleted(run: Callable[..., Done]) -> None:
    """Each command sees what the one before it confirmed; what is gone ends with 1."""
    acme = {"id": "org:acme", "name": "Acme Corp", "metadata": {"tier": "enterprise"}}
    done = run("put", "org:acme", "--name", "Acme Corp", "--metadata", '{"tier":"enterprise"}')
    assert (done.returncode, done.stdout) == (0, 'put "org:acme"\n')
    assert told(run("put", "person:[b]7[/b]", "--name", "[red]Ada", "--json")) == [
        {"id": "person:[b]7[/b]", "name": "[red]Ada", "metadata": {}}
    ]
    assert told(run("get", "org:acme", "--json")) == [acme]
    assert "Acme Corp" in run("get", "org:acme").stdout
    assert told(run("list", "--prefix", "org:", "--json")) == [acme]
    shown = run("list").stdout
    assert '{"tier":"enterprise"}' in shown
    assert "[red]Ada" in shown
    assert told(run("delete", "org:acme", "--json")) == [{"id": "org:acme", "deleted": True}]
    for gone in (run("get", "org:acme"), run("delete", "org:acme")):
        assert (gone.returncode, gone.stdout) == (1, "")
        assert gone.stderr.startswith("error: look with `chronicle entities list`")
    none = run("list", "--prefix", "org:")
    assert (none.returncode, none.stdout, none.stderr) == (0, "", "no entities with this prefix\n")


def test_a_file_is_loaded_whole_or_not_at_all(run: Callable[..., Done], tmp_path: Path) -> None:
    """Every bad line is named; a dry run and a bad file send nothing."""
    good, bad = tmp_path / "good.csv", tmp_path / "bad.ndjson"
    good.write_text("id,name,city\nfile:1,One,Turin\nfile:2,Two,\n")
    bad.write_text(f'{{"id":"file:3","name":"n"}}\n{{"id":"{SECRET}","name":"n"}}\n{SECRET}\n')
    assert told(run("load", str(good), "--dry-run", "--json")) == [{"entities": 2, "sent": 0, "dry_run": True}]
    refused = run("load", str(bad))
    assert refused.returncode == 2
    assert [line.split(":")[0] for line in refused.stderr.splitlines()] == ["error", "line 2", "line 3"]
    assert SECRET not in refused.stderr + refused.stdout
    assert told(run("list", "--prefix", "file:", "--json")) == []
    assert run("load", str(good)).stdout == "2 entities put\n"
    assert told(run("list", "--prefix", "file:", "--json")) == [
        {"id": "file:1", "name": "One", "metadata": {"city": "Turin"}},
        {"id": "file:2", "name": "Two", "metadata": {}},
    ]


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        (("put", "acme", "--name", "n"), "write id as kind:value"),
        (("put", "org:acme", "--name", ""), "give name a text"),
        (("put", "org:acme", "--name", "n", "--metadata", f"[{SECRET}]"), "give metadata a JSON object"),
        (("put", "org:acme"), "missing option '--name'"),
        (("get", "acme"), "write id as kind:value"),
        (("load", "gone.csv"), "name a file that can be read"),
        (("load", "gone"), "name the --format"),
        (("load", "gone", "--format", "xml"), "choose a --format from ndjson, json, csv"),
    ],
)
def test_a_wrong_word_ends_with_2_and_the_fix(words: tuple[str, ...], fix: str, tmp_path: Path) -> None:
    """Before any service is asked."""
    done = chronicle("entities", *words, cwd=tmp_path, CHRONICLE_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {fix}")
    assert SECRET not in done.stderr


def test_a_broker_that_is_away_is_named(tmp_path: Path) -> None:
    """With what to do, and 1: it may pass."""
    done = chronicle("entities", "list", cwd=tmp_path, CHRONICLE_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1")
    assert done.returncode == 1
    assert "broker" in done.stderr.splitlines()[0]


def test_a_small_screen_cuts_nothing_off(run: Callable[..., Done], topic: dict[str, str], tmp_path: Path) -> None:
    """Long names fold, or come row by row."""
    import os

    name = "A name that is longer than a small screen is wide, and has an end: here"
    assert run("put", "long:1", "--name", name).returncode == 0
    clean = {key: value for key, value in os.environ.items() if not key.startswith("CHRONICLE_")}
    screen = at_a_terminal("entities", "list", "--prefix", "long:", columns=40, environment={**clean, **topic})
    assert screen.returncode == 0
    assert " ".join(name.split()[-3:]) in " ".join(screen.stdout.split())
