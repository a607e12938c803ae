"""`chronicle events recover` and `refused`: what is left in a spill directory is seen and sent, and none of it is shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from chronicle.cli.events import app
from chronicle.journal import Journal
from chronicle.journal.outgoing import Outgoing
from chronicle.journal.persistence import files
from chronicle.journal.transports import TransportAway


class Picky:
    """Refuses what is `bad`, and is away for the rest."""

    name = "picky"
    durable = True

    def send(self, batch: Sequence[Outgoing]) -> Sequence[str | None]:
        if any(out.event.type != "bad.one" for out in batch):
            raise TransportAway("away")
        return ["payload: not allowed"] * len(batch)

    def close(self) -> None:
        pass


@pytest.fixture
def spill(tmp_path: Path) -> Path:
    """Three refused events, then four that could not be sent."""
    directory = tmp_path / "spill"
    with Journal(source="shop", transport=Picky(), spill=directory, on_error=lambda *_: None) as journal:
        for n in range(3):
            journal.publish("bad.one", payload={"n": n, "note": "hunter2"})
        journal.flush(30)
        for n in range(4):
            journal.publish("order.placed", payload={"n": n, "note": "hunter2"}, resource=("order", 1))
        journal.close(0.1)
    return directory


def arrived(directory: Path) -> list[tuple[str, int]]:
    events = [json.loads(line) for line in files.read(directory)]
    return [(event["type"], event["payload"]["n"]) for event in events]


def test_what_is_left_is_sent_in_order(spill: Path, tmp_path: Path) -> None:
    """Once; a transport that is away is an error, and leaves all as it was."""
    away = CliRunner().invoke(app, ["recover", str(spill), "--to", "http://127.0.0.1:9", "--timeout", "0.5"])
    assert (away.exit_code, away.stdout) == (1, "0 sent, 0 refused, 0 damaged, 4 left\n")
    for sent in (4, 0):
        done = CliRunner().invoke(app, ["recover", str(spill), "--to", f"file://{tmp_path / 'out'}", "--json"])
        assert (done.exit_code, json.loads(done.stdout)) == (0, {"sent": sent, "refused": 0, "damaged": 0, "left": 0})
    assert arrived(tmp_path / "out") == [("order.placed", n) for n in range(4)]


def test_what_was_refused_is_listed_without_its_values(spill: Path) -> None:
    """Id, time, type and the reason."""
    done = CliRunner().invoke(app, ["refused", str(spill)])
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert [line.split("  ")[2:] for line in lines] == [["bad.one", "payload: not allowed"]] * 3
    assert "hunter2" not in done.output
    shown = [json.loads(line) for line in CliRunner().invoke(app, ["refused", str(spill), "--json"]).stdout.splitlines()]
    assert [set(one) for one in shown] == [{"id", "time", "type", "problem"}] * 3


def test_what_was_refused_can_be_sent_again(spill: Path, tmp_path: Path) -> None:
    """With the same ids; then there is nothing left."""
    listed = [line.split()[0] for line in CliRunner().invoke(app, ["refused", str(spill)]).stdout.splitlines()]
    done = CliRunner().invoke(app, ["refused", str(spill), "--again", "--to", f"file://{tmp_path / 'out'}"])
    assert (done.exit_code, done.stdout) == (0, "")
    assert [json.loads(line)["id"] for line in files.read(tmp_path / "out")] == listed
    assert CliRunner().invoke(app, ["refused", str(spill)]).stdout == ""


def test_what_is_refused_again_stays(spill: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them, once."""
    monkeypatch.setattr("chronicle.cli.events_spilled.journal_to", lambda to, key, **more: Journal(transport=Picky(), **more))
    before = CliRunner().invoke(app, ["refused", str(spill)]).stdout
    done = CliRunner().invoke(app, ["refused", str(spill), "--again"])
    assert (done.exit_code, done.stdout) == (1, before)


def test_a_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    """Nothing is made."""
    for name in ("recover", "refused"):
        assert CliRunner().invoke(app, [name, str(tmp_path / "none")]).exit_code == 2
    assert not (tmp_path / "none").exists()
