"""`chronicle policy` as a person uses it, against a real registry that holds schemas of a real connector."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from chronicle.dev.stack import Stack
from tests.unit.envelopes import recorded

ROOT = Path(__file__).parents[2]
SOURCE_FILE = """
template = "postgres"
tables = ["public.customers", "public.orders", "public.keyless"]
full_identity = ["public.customers"]
keyless = ["public.keyless"]
unavailable_value_placeholder = "5c1f7e0d9a3b48628f0e6d7c1b2a3948"
[database]
host = "${env:DB_HOST}"
port = 5432
name = "shop"
user = "capture"
password = "${env:DB_PASSWORD}"
"""
TABLES = ("customers", "orders", "keyless")
Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]


def subjects(source: str) -> dict[str, str]:
    """Subject → schema: those of recorded tables, and what else a registry of Chronicle holds."""
    record = recorded("captured_postgres")
    found: dict[str, str] = {}
    for one in record.records:
        schema, _, table = one.topic.partition(".")[2].partition(".")
        for data, end in ((one.key, "key"), (one.value, "value")):
            if (
                data is not None
                and data[0] == 0
                and (table in TABLES or table == "chronicle_signal" or schema == "transaction")
            ):
                name = f"{source}.{schema}{'.' + table if table else ''}-{end}"
                found.setdefault(name, record.schemas[int.from_bytes(data[1:5], "big")])
    return found


@pytest.fixture
def run(stack: Stack, unique: str, tmp_path: Path) -> Run:
    """`chronicle policy …` in a directory with one source, whose tables the registry knows."""
    (tmp_path / "connectors").mkdir()
    shutil.copytree(ROOT / "connectors" / "templates", tmp_path / "connectors" / "templates")
    (tmp_path / "connectors" / f"{unique}.toml").write_text(SOURCE_FILE)
    (tmp_path / "chronicle.toml").write_text(f'[registry]\nurl = "{stack.registry_url}"\n')
    for subject, schema in subjects(unique).items():
        answer = httpx.post(f"{stack.registry_url}/subjects/{subject}/versions", json={"schema": schema}, timeout=30)
        assert answer.status_code == httpx.codes.OK, answer.text
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CHRONICLE_")}

    def chronicle(*words: str, **settings: str) -> Done:
        return subprocess.run(
            [sys.executable, "-m", "chronicle.cli", "policy", *words],
            cwd=tmp_path,
            env={**clean, **settings},
            capture_output=True,
            text=True,
            check=False,
        )

    return chronicle


def test_a_proposal_passes_its_own_check_and_is_not_overwritten(run: Run, unique: str, tmp_path: Path) -> None:
    """From nothing to a policy: init, keys, check, show."""
    made = run("init")
    assert (made.returncode, made.stdout) == (0, "")
    assert "3 tables" in made.stderr
    text = (tmp_path / "policy.toml").read_text()
    assert f'match = "{unique}.public.customers"' in text
    assert "chronicle_signal" not in text
    assert "# a person's name? clear, if it is a thing's" in text

    again = run("init")
    assert again.returncode == 2
    assert "--force" in again.stderr.splitlines()[0]
    assert run("init", "--force", "--json").stdout.startswith('{"file": "policy.toml", "tables": 3')

    checked = run("check", "--json")
    assert (checked.returncode, json.loads(checked.stdout)["findings"]) == (0, [])
    shown = run("show", f"{unique}.public.customers")
    assert shown.returncode == 0
    assert [line.split()[:2] for line in shown.stdout.splitlines()[1:4]] == [
        ["id", "clear"],
        ["name", "mask"],
        ["note", "redact"],
    ]
    asked = json.loads(run("show", f"{unique}.public.customers", "--json").stdout)
    assert asked["columns"][0] == {
        "column": "id",
        "class": "clear",
        "key": True,
        "detail": "",
        "rule": f"{unique}.public.customers: id",
    }
    assert asked["unclassified"] == []


def test_a_check_fails_on_what_is_unclassified_unknown_or_missing(run: Run, unique: str, tmp_path: Path) -> None:
    """Exit 1, every finding told; without keys where there are none to be had."""
    (tmp_path / "policy.toml").write_text(
        f"""
[domains.person]
key = "token-2026"
[[tables]]
match = "{unique}.**"
columns = {{ id = "clear", naem = "mask", credit = {{ class = "generalize", to = "domain" }} }}
[[tables]]
match = "{unique}.public.custmers"
"""
    )
    failed = run("check", "--json")
    found = json.loads(failed.stdout)
    assert failed.returncode == 1
    assert found["errors"] == len(found["findings"])
    assert "chronicle policy keys new token-2026 --purpose token" in {one["fix"] for one in found["findings"]}
    kinds = {one["kind"] for one in found["findings"]}
    assert kinds == {"unclassified", "no column", "no table", "missing key", "type"}
    assert f"{unique}.public.keyless: b" in {one["where"] for one in found["findings"]}
    table = run("check", "--no-keys")
    assert table.returncode == 1
    assert "missing key" not in table.stdout
    assert "did you mean name?" in table.stdout


def test_keys_are_made_and_listed_and_never_shown(run: Run, tmp_path: Path) -> None:
    """A file for its owner only; what is made is found by the check."""
    ring = tmp_path / ".chronicle" / "keys.toml"
    outputs = [
        run("keys", "new", "token-2026", "--purpose", "token"),
        run("keys", "new", "enc-1", "--purpose", "encrypt", "--json"),
        run("keys", "list"),
        run("keys", "list", "--json"),
    ]
    assert [one.returncode for one in outputs] == [0, 0, 0, 0]
    assert stat.S_IMODE(ring.stat().st_mode) == 0o600
    assert [path.name for path in ring.parent.iterdir()] == ["keys.toml"]
    secrets = [line.split('"')[1] for line in ring.read_text().splitlines() if line.startswith("secret")]
    assert [len(one) for one in secrets] == [64, 128]
    for secret in secrets:
        assert not any(secret[:8] in one.stdout + one.stderr for one in outputs)
    assert {(one["id"], one["purpose"], one["newest"]) for one in json.loads(outputs[3].stdout)} == {
        ("token-2026", "token", True),
        ("enc-1", "encrypt", True),
    }
    twice = run("keys", "new", "token-2026", "--purpose", "token")
    assert twice.returncode == 2
    assert "another id" in twice.stderr
    assert len(ring.read_text()) > 0
    assert [line.split('"')[1] for line in ring.read_text().splitlines() if line.startswith("secret")] == secrets


@pytest.mark.parametrize(
    ("words", "code", "first"),
    [
        (("check",), 2, "error: write a policy first, as with `chronicle policy init`: there is no policy.toml"),
        (("show", "nosuch.public.t"), 2, "error: write a policy first"),
        (("check", "--policy", "bad.toml"), 2, "error: correct 2 mistakes in bad.toml:"),
        (("keys", "new", "a b", "--purpose", "token"), 2, "error: write a key's id with letters"),
        (("keys", "new", "a", "--purpose", "sign"), 2, "error: invalid value for '--purpose'"),
        (("keys", "list", "--key-ring", "bad-keys.toml"), 2, "error: correct 2 mistakes in bad-keys.toml:"),
    ],
)
def test_what_is_wrong_is_said_first(run: Run, tmp_path: Path, words: tuple[str, ...], code: int, first: str) -> None:
    """With its exit code, and never with a secret that is there."""
    (tmp_path / "bad.toml").write_text("[default]\n[[tables]]\ncolumns = {}\n")
    (tmp_path / "bad-keys.toml").write_text('[keys.k]\npurpose = "geheim"\nsecret = "geheim"\ncreated = 2026-11-01\n')
    done = run(*words)
    assert done.returncode == code
    assert done.stderr.startswith(first)
    assert "geheim" not in done.stderr + done.stdout


def test_a_registry_that_is_away_is_not_taken_for_an_empty_one(run: Run, tmp_path: Path) -> None:
    """Exit 1, and nothing is written."""
    done = run("init", CHRONICLE_REGISTRY__URL="http://localhost:1")
    assert done.returncode == 1
    assert "the registry does not answer" in done.stderr
    assert not (tmp_path / "policy.toml").exists()
