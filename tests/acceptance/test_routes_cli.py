"""`chronicle routes` as a person uses it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

POLICY = """
[[routes]]
name = "deletes"
match = "#.delete"
to = "deletes"
[[routes]]
name = "people"
match = ["hiring.*.people.#", "shop.public.customers.*"]
where = "tier = 'gold'"
labels = "identity_change"
sample = 0.25
to = "people"
dead_letters = "people.dead"
format = "cloudevents"
"""
SETTINGS = """
[roles.security]
routes = ["deletes"]
to = "seen"
"""
Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """`chronicle routes …` in a directory with a policy and a role."""
    (tmp_path / "policy.toml").write_text(POLICY)
    (tmp_path / "chronicle.toml").write_text(SETTINGS)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CHRONICLE_")}

    def routes(*words: str) -> Done:
        return subprocess.run(
            [sys.executable, "-m", "chronicle.cli", "routes", *words],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip

    return routes


def test_show_names_every_route_with_what_it_takes_and_who_reads_it(run: Run) -> None:
    """As a table and as JSON."""
    shown = run("show")
    assert shown.returncode == 0
    for text in (
        "deletes",
        "#.delete",
        "people",
        "hiring.*.people.#",
        "where tier = 'gold'",
        "25.00%",
        "cloudevents",
        "security",
    ):
        assert text in shown.stdout
    deletes, people = json.loads(run("show", "--json").stdout)
    assert (deletes["roles"], deletes["to"], deletes["where"]) == (["security"], "deletes", None)
    assert people == {
        "name": "people", "match": ["hiring.*.people.#", "shop.public.customers.*"], "to": "people", "format": "cloudevents",
        "where": "tier = 'gold'", "labels": ["identity_change"], "sample": 0.25, "where_deletes": False,
        "dead_letters": "people.dead", "roles": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("event", "names"),
    [
        ("shop.public.customers.delete", ["deletes", "people"]),
        ("shop.public.orders.delete", ["deletes"]),
        ("hiring.public.people.update", ["people"]),
    ],
)
def test_an_event_type_is_tested(run: Run, event: str, names: list[str]) -> None:
    """Which routes take it."""
    done = run("test", event, "--json")
    assert done.returncode == 0
    assert [route["name"] for route in json.loads(done.stdout)["routes"]] == names
    assert all(name in run("test", event).stdout for name in names)


def test_an_event_type_that_no_route_takes_is_exit_1(run: Run) -> None:
    """For scripts; and it says that nothing is lost."""
    done = run("test", "shop.public.orders.create")
    assert (done.returncode, done.stdout) == (1, "")
    assert "audit topic" in done.stderr
    assert json.loads(run("test", "shop.public.orders.create", "--json").stdout)["routes"] == []


def test_a_mistake_in_the_policy_is_exit_2(run: Run, tmp_path: Path) -> None:
    """With its line."""
    (tmp_path / "policy.toml").write_text(POLICY.replace("hiring.*", "hiring..*"))
    done = run("show")
    assert done.returncode == 2
    assert "line" in done.stderr and "words with dots" in done.stderr


def test_a_role_that_is_not_there_is_exit_2(run: Run, tmp_path: Path) -> None:
    """And the ones that are there are named."""
    environment = {**os.environ, "CHRONICLE_CONFIG": str(tmp_path / "chronicle.toml")}
    done = subprocess.run(
        [sys.executable, "-m", "chronicle.cli", "worker", "--role", "safety"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert "security" in done.stderr
