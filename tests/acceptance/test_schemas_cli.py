"""`chronicle schemas` as a person uses it, against a real registry that holds schemas of a real connector."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from chronicle.dev.stack import Stack
from tests.acceptance.test_policy_cli import ROOT, SOURCE_FILE, subjects

RUN = "from chronicle import cli; cli.GROUPS.setdefault('schemas', ('schemas', 'Contracts.')); cli.main()"
Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]


def register(stack: Stack, subject: str, schema: str) -> None:
    answer = httpx.post(f"{stack.registry_url}/subjects/{subject}/versions", json={"schema": schema}, timeout=30)
    assert answer.status_code == httpx.codes.OK, answer.text


@pytest.fixture
def run(stack: Stack, unique: str, tmp_path: Path) -> Run:
    """`chronicle schemas …` in a directory with one source, whose tables the registry knows."""
    (tmp_path / "connectors").mkdir()
    shutil.copytree(ROOT / "connectors" / "templates", tmp_path / "connectors" / "templates")
    (tmp_path / "connectors" / f"{unique}.toml").write_text(SOURCE_FILE)
    (tmp_path / "chronicle.toml").write_text(f'[registry]\nurl = "{stack.registry_url}"\n')
    for subject, schema in subjects(unique).items():
        register(stack, subject, schema)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CHRONICLE_")}

    def chronicle(*words: str) -> Done:
        return subprocess.run(
            [sys.executable, "-c", RUN, "schemas", *words], cwd=tmp_path, env=clean, capture_output=True, text=True, check=False
        )

    return chronicle


def changed(unique: str) -> str:
    """The customers' schema after a migration: a column gone, one of another type, one more."""
    schema = json.loads(subjects(unique)[f"{unique}.public.customers-value"])
    row = schema["fields"][0]["type"][1]
    kept = [one for one in row["fields"] if one["name"] != "note"]
    row["fields"] = [{**one, "type": "string"} if one["name"] == "id" else one for one in kept]
    row["fields"].append({"name": "more", "type": ["null", "int"], "default": None})
    return json.dumps(schema)


def test_contracts_are_taken_kept_and_broken(run: Run, stack: Stack, unique: str, tmp_path: Path) -> None:
    """pull, a migration, check, diff, history: the way of a contract, with exit codes for a CI."""
    table, subject = f"{unique}.public.customers", f"{unique}.public.customers-value"
    pulled = run("pull", "--json")
    assert pulled.returncode == 0, pulled.stderr
    files = {Path(one["file"]).name: one["action"] for one in json.loads(pulled.stdout)["contracts"]}
    assert files == {f"{unique}.public.{name}-value.avsc": "written" for name in ("customers", "orders", "keyless")}
    assert {one["action"] for one in json.loads(run("pull", "--json").stdout)["contracts"]} == {"present"}
    good = run("check")
    assert good.returncode == 0 and "3 contracts: 0 broken" in good.stderr

    register(stack, subject, changed(unique))
    broken = run("check", "--json")
    assert broken.returncode == 1
    told = {one["column"]: one for one in json.loads(broken.stdout)["breaks"]}
    assert {column: one["what"] for column, one in told.items()} == {
        "id": "it is string, the contract says long",
        "note": "it is gone",
    }
    assert {one["subject"] for one in told.values()} == {subject}
    assert "→" in run("check").stdout
    kept = run("pull", table)
    assert kept.returncode == 0 and kept.stdout.startswith("kept") and "--force" in kept.stdout
    assert run("pull", table, "--force").stdout.startswith("written")
    assert run("check").returncode == 0

    columns = {one["column"]: one["how"] for one in json.loads(run("diff", table, "--json").stdout)["columns"]}
    assert columns == {"note": "removed", "id": "changed", "more": "added"}
    assert "string, nullable" in run("diff", subject, "2", "1").stdout
    steps = json.loads(run("history", table, "--json").stdout)["versions"]
    assert [one["version"] for one in steps] == [1, 2] and len(steps[1]["changes"]) == 3
    assert "~ id long → string" in run("history", table).stdout


def test_examples_are_checked_without_a_registry(run: Run, unique: str, tmp_path: Path) -> None:
    """In a CI that has none: examples only; a value of the example is not shown."""
    assert run("pull", f"{unique}.public.customers").returncode == 0
    (tmp_path / "schemas" / f"{unique}.public.customers-value.example.json").write_text('{"id": "secretvalue"}')
    done = run("check", "--no-registry")
    assert done.returncode == 1
    assert "does not fit" in done.stdout and "secretvalue" not in done.stdout + done.stderr


def test_wrong_names_are_told_with_the_right_ones(run: Run, unique: str, tmp_path: Path) -> None:
    """Exit 2, and what there is; nothing is written."""
    wrong = run("history", f"{unique}.public.customer")
    assert wrong.returncode == 2 and f"did you mean {unique}.public.customers?" in wrong.stderr
    assert run("pull", f"{unique}.public.nothing").returncode == 2
    assert "there are 1" in run("diff", f"{unique}.public.customers", "7", "8").stderr
    assert not (tmp_path / "schemas").exists()


def test_a_contract_without_its_subject_is_a_break(run: Run, unique: str, tmp_path: Path) -> None:
    """A table that is not captured any more keeps no promise."""
    assert run("pull", f"{unique}.public.customers").returncode == 0
    file = tmp_path / "schemas" / f"{unique}.public.customers-value.avsc"
    file.rename(file.with_name(f"{unique}.public.gone-value.avsc"))
    done = run("check")
    assert done.returncode == 1 and "no such subject" in done.stdout
