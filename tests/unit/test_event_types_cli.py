"""`chronicle schemas` for event types, as a person or a CI uses it: a process in a directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

RECORD = {
    "type": "record",
    "name": "read",
    "version": 2,
    "fields": [{"name": "page", "type": "int", "chronicle.class": "token"}],
}


def run(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CHRONICLE_")}
    command = [sys.executable, "-m", "chronicle.cli", "schemas", *words]
    return subprocess.run(command, cwd=directory, env=clean, capture_output=True, text=True, check=False)


def events(directory: Path) -> Path:
    found = directory / "schemas" / "events"
    (found / "history").mkdir(parents=True)
    (found / "report.read.avsc").write_text(json.dumps(RECORD))
    return found


def test_types_are_shown_with_their_classes(tmp_path: Path) -> None:
    """The shipped ones and the directory's own; one that there is not is exit 2 and the fix."""
    events(tmp_path)
    told = json.loads(run(tmp_path, "events", "--json").stdout)["types"]
    assert {"type": "report.read", "version": 2, "fields": {"page": "token"}} in told
    assert len(told) > 40
    one = run(tmp_path, "events", "auth.login")
    assert one.returncode == 0 and "username token" in one.stdout and "report.read" not in one.stdout
    none = run(tmp_path, "events", "secretvalue")
    assert none.returncode == 2 and "schemas/events/<type>.avsc" in none.stderr and "secretvalue" not in none.stderr


def test_a_ci_is_told_of_versions_and_examples_that_do_not_fit(tmp_path: Path) -> None:
    """Without a registry; exit 1 until it is right."""
    directory = events(tmp_path)
    (directory / "report.read.example.json").write_text('{"page": "secretvalue"}')
    old = {**RECORD, "version": 1, "fields": [{"name": "page", "type": "string"}]}
    (directory / "history" / "report.read.v1.avsc").write_text(json.dumps(old))
    wrong = run(tmp_path, "check", "--no-registry", "--json")
    assert wrong.returncode == 1 and "secretvalue" not in wrong.stdout
    said = json.loads(wrong.stdout)
    assert [(one["subject"], one["column"], one["what"]) for one in said["breaks"]] == [
        ("report.read", "page", "it was string, now int")
    ]
    assert [one["what"] for one in said["mismatches"]] == ["wrong_type:payload.page by report.read.avsc"]
    (directory / "history" / "report.read.v1.avsc").unlink()
    (directory / "report.read.example.json").write_text('{"page": 3}')
    right = run(tmp_path, "check", "--no-registry")
    assert right.returncode == 0 and "1 examples: 0 do not fit" in right.stderr
    (directory / "report.read.avsc").write_text("{")
    assert run(tmp_path, "check", "--no-registry").returncode == 2
