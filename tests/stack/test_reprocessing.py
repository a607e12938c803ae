"""A column that was too open, made right: policy, reprocess, what is left behind, and how the difference is seen before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chronicle.dev.stack import Stack
from tests.stack.test_context_follower import Source
from tests.stack.test_worker import Deployment

pytestmark = pytest.mark.stack

OPEN = """
[defaults]
ignore = []
[[tables]]
match = "**"
columns = { "*" = "clear" }
"""
STRICT = """
# tightened: nobody needs the address, and the domain of small rows is nobody's business
[defaults]
ignore = []
[[tables]]
match = "**"
where = "id < 8"
columns = { "*" = "clear", email = "token", note = "redact" }
"""
CANARY = "CANARY-7f3a"


class Site(Deployment):
    """A deployment under a policy of its own, and somebody who types commands there."""

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "chronicle.cli", *words]
        return subprocess.run(command, env=self.environment(), capture_output=True, text=True, check=False)

    def environment(self) -> dict[str, str]:
        return {**os.environ, "CHRONICLE_CONFIG": str(self.settings_file), "CHRONICLE_POLICY_FILE": str(self.policy)}

    @property
    def policy(self) -> Path:
        return self.directory / "policy.toml"

    def told(self, *words: str) -> dict[str, Any]:
        done = self.run(*words, "--json")
        assert done.returncode == 0, done.stderr
        assert CANARY not in done.stdout + done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def audit(self) -> dict[bytes | None, bytes | None]:
        """What a compacted audit topic holds: the last record of each key."""
        return {key: value for key, value, _ in self.broker.read(self.settings.kafka.audit_topic)}


@pytest.fixture
def site(stack: Stack, unique: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Ten rows, written by a worker under the open policy."""
    made = Site(stack, unique, tmp_path)
    monkeypatch.setenv("CHRONICLE_POLICY_FILE", str(made.policy))
    made.policy.write_text(OPEN)
    for number in range(10):
        made.send([(made.table.key(number), made.change("c", number, note=f"{CANARY} {number}"))], number % 2)
    assert made.drain()["changes"] == {"create": 10}
    yield made
    made.close()


def test_a_tightened_column_is_hidden_everywhere_but_where_the_command_says(site: Site) -> None:
    """ClickHouse, audit topic and mirror follow; what stays is named with the statements that remove it, which work."""
    topic, name = site.table.topic, site.name
    site.policy.write_text(STRICT)
    offsets = site.broker.committed(name, topic, 2)

    rehearsed = site.told("reprocess", topic, "--from", "1d", "--dry-run")
    assert (rehearsed["records"], rehearsed["changes"], rehearsed["stubs"]) == (10, {"create": 8}, {"filtered": 2})
    assert rehearsed["older_rows"]["within"] == 10
    assert site.rows(f"SELECT count() FROM {name}.changes FINAL WHERE after LIKE '%{CANARY}%'") == [(10,)], (
        "nothing was written"
    )

    done = site.told("reprocess", topic, "--from", "1d")
    assert (done["records"], done["changes"], done["stubs"], done["retracted"]) == (10, {"create": 8}, {"filtered": 2}, 2)
    assert done["older_rows"] == {"within": 0, "outside": 0, "oldest": None, "statement": None}
    assert site.rows(f"SELECT count(), uniqExact(policy) FROM {name}.changes FINAL") == [(10, 1)]
    assert site.rows(f"SELECT count() FROM {name}.changes FINAL WHERE after LIKE '%{CANARY}%' OR after LIKE '%@%'") == [(0,)]
    audit = site.audit()
    assert len(audit) == 10
    assert sum(value is None for value in audit.values()) == 2, "what is left out is taken back"
    assert not any(CANARY.encode() in value for value in audit.values() if value)
    assert site.broker.committed(name, topic, 2) == offsets

    left = {one["column"]: one for one in done["mirror_columns"]}
    assert {column: (one["how"], one["now"]) for column, one in left.items()} == {
        "email": ("clear", "token default"),
        "note": ("clear", "redact"),
    }
    for one in left.values():
        for statement in one["statements"]:
            site.client.command(statement)
    columns = {row[0] for row in site.rows(f"SELECT name FROM system.columns WHERE database = '{name}_mirror'")}
    assert "email__token_default" in columns
    assert not {"email", "note"} & columns
    assert site.rows(f"SELECT count(), countIf(startsWith(email__token_default, 't1.')) FROM {site.mirror()}") == [(8, 8)]
    for statement in done["merges"]:
        site.client.command(statement)
    every = f"SELECT count(), countIf(after LIKE '%{CANARY}%') FROM {name}.changes"
    assert site.rows(every) == [(10, 0)], "no earlier version is left"
    assert done["raw_topic_clear_until"], "the raw topic still has them, and says until when"

    again = site.told("reprocess", topic, "--from", "1d")
    assert (again["records"], again["mirror_columns"]) == (10, [])
    assert site.ids() == list(range(10))


def test_only_the_time_that_was_asked_for_is_processed_again(site: Site) -> None:
    """The rest is counted, so that nobody takes it for done."""
    site.policy.write_text(STRICT)
    done = site.told("reprocess", site.table.topic, "--from", "1d", "--to", "12h")
    assert (done["records"], done["partitions"]) == (0, [])
    assert (done["older_rows"]["within"], done["older_rows"]["outside"]) == (0, 10)
    assert done["older_rows"]["oldest"]


def test_records_that_are_dead_letters_now_leave_their_rows_and_a_statement(site: Site) -> None:
    """No new row replaces the old one: the command says so, and what deletes it."""
    site.policy.write_text('[defaults]\nunclassified = "deadletter"\n[[tables]]\nmatch = "**"\ncolumns = { id = "clear" }\n')
    done = site.told("reprocess", site.table.topic, "--from", "1d")
    assert (done["changes"], done["dead_letters"]) == ({}, {"unclassified": 10})
    assert done["older_rows"]["within"] == 10
    site.client.command(done["older_rows"]["statement"], settings={"mutations_sync": 1})
    assert site.ids() == []


def test_every_policy_that_rows_were_written_under_is_kept(site: Site) -> None:
    """By the worker and by a reprocessing, once each, with the number of its rows and its text."""
    site.policy.write_text(STRICT)
    before = json.loads(site.run("policy", "history", "--json").stdout)
    assert (before["rows"], before["name"]) == (10, str(site.policy))
    site.told("reprocess", site.table.topic, "--from", "1d")
    site.told("reprocess", site.table.topic, "--from", "1d")
    lines = [json.loads(line) for line in site.run("policy", "history", "--json").stdout.splitlines()]
    assert [one["rows"] for one in lines] == [10, 0]
    assert lines[1]["hash"] == before["hash"]
    assert site.run("policy", "history", lines[0]["hash"]).stdout == STRICT
    assert site.run("policy", "history", "0" * 16).returncode == 1


def test_two_policies_are_compared_over_recorded_changes(site: Site) -> None:
    """Files, or what the trail keeps; counts and masked samples, no clear value; the exit code is for a CI."""
    strict = site.directory / "strict.toml"
    strict.write_text(STRICT)
    kept = json.loads(site.run("policy", "history", "--json").stdout)["hash"]
    found = site.told("policy", "diff", kept, str(strict), "--replay", site.table.topic, "--last", "100")
    [table] = [one for one in found["tables"] if one["table"] == site.table.topic]
    assert {one["column"]: (one["old"], one["new"]) for one in table["columns"]} == {
        "email": ("clear", "token default"),
        "note": ("clear", "redact"),
    }
    replay = found["replay"]
    assert replay["records"] == 10
    [seen] = replay["tables"]
    assert seen["stubs"] == [{"old": "", "new": "filtered", "changes": 2}]
    assert {one["column"]: one["changes"] for one in seen["columns"]} == {"email": 8, "note": 8}
    samples = {one["column"]: one["samples"][0] for one in seen["columns"]}
    assert samples["email"]["old"] == "…rg"
    assert samples["email"]["new"].startswith("t1.")

    shown = site.run("policy", "diff", str(site.policy), str(strict), "--replay", site.table.topic, "--exit-code")
    assert shown.returncode == 1
    assert "token default" in shown.stdout
    assert CANARY not in shown.stdout + shown.stderr
    assert "example.org" not in shown.stdout + shown.stderr
    same = site.run("policy", "diff", str(site.policy), str(site.policy), "--exit-code")
    assert (same.returncode, same.stdout) == (0, "")


def test_routes_are_not_fed_again_and_the_command_says_so(site: Site) -> None:
    """Which topics hold what they were sent, and until when; the other table's route is not among them."""
    routed, topic = f"{site.name}-rows", site.table.topic
    site.policy.write_text(
        STRICT
        + f'[[routes]]\nname = "rows"\nmatch = ["*.public.t.#"]\nto = "{routed}"\n'
        + f'[[routes]]\nname = "others"\nmatch = ["*.public.other.#"]\nto = "{site.name}-others"\n'
    )
    site.broker.create(routed)
    done = site.told("reprocess", topic, "--from", "1d")
    [told] = done["routes_not_fed"]
    assert (told["route"], told["topic"], bool(told["until"])) == ("rows", routed, True)
    assert site.broker.read(routed) == []
    text = site.run("reprocess", topic, "--from", "1d", "--dry-run").stdout
    assert f"{routed} (route rows) keeps what it was sent until about" in text


def test_who_did_it_is_asked_again(site: Site) -> None:
    """A context that was written since is found, as the worker would find it."""
    first = site.rows(f"SELECT min(toUInt64(transaction_id)) FROM {site.name}.changes FINAL")[0][0]
    source = Source(site.stack, site.name)
    source.create()
    source.send(*source.whole(first, "ada"), *source.whole(first + 10, None))
    site.policy.write_text(STRICT)
    done = site.told("reprocess", site.table.topic, "--from", "1d")
    assert done["attribution"]["message"] == 1
    found = site.rows(f"SELECT actor_id, attribution FROM {site.name}.changes FINAL ORDER BY position LIMIT 2")
    assert found == [("ada", "message"), (None, "none")]
    assert b'"ada"' in b"".join(value for value in site.audit().values() if value)


def test_a_table_that_is_not_captured_is_named_as_the_mistake(site: Site) -> None:
    """Misconfigured, before anything is read."""
    done = site.run("reprocess", "nowhere.public.t", "--from", "1d")
    assert done.returncode == 2
    assert "source.schema.table" in done.stderr.splitlines()[0]
    done = site.run("reprocess", f"{site.name}.public.absent", "--from", "1d")
    assert done.returncode == 2
