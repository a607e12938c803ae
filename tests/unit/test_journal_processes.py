"""The journal in real processes: forked, killed, ended without a word, and what an import costs."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from chronicle.journal import Journal
from chronicle.journal.composing import new_id
from chronicle.journal.outgoing import Outgoing
from chronicle.journal.spill import Spill
from chronicle.journal.spilling import Spilling
from chronicle.journal.transports import TransportAway


class File:
    """A transport that appends texts to a file, each line by one write: processes may share it."""

    name = "file"
    durable = True

    def __init__(self, path: Path) -> None:
        self.path = path

    def send(self, batch: Sequence[Outgoing]) -> Sequence[str | None]:
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for out in batch:
            os.write(fd, out.text + b"\n")
        os.close(fd)
        return [None] * len(batch)

    def close(self) -> None:
        pass


class Away:
    """A transport that is never there."""

    name = "away"
    durable = True

    def send(self, batch: Sequence[Outgoing]) -> Sequence[str | None]:
        raise TransportAway("never there")

    def close(self) -> None:
        pass


def arrived(path: Path) -> list[dict[str, object]]:
    return [json.loads(line)["payload"] for line in path.read_text().splitlines()]


def test_a_forked_child_sends_its_own_events_only(tmp_path: Path) -> None:
    """The parent's queue, spill and threads stay the parent's: each event arrives once, and both go on."""
    path = tmp_path / "events"
    journal = Journal(source="test", transport=File(path), spill=str(tmp_path / "spill"), linger_ms=200.0, workers=2)
    for n in range(20):
        journal.publish("a.b", payload={"who": "parent", "n": n})
    children = []
    for child in range(3):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                assert journal.counts["accepted"] == 0
                assert journal.history(access="child") == []
                for n in range(10):
                    journal.publish("a.b", payload={"who": f"child {child}", "n": n})
                journal.close()
                code = 0 if journal.counts["confirmed"] == 11 else 2
            finally:
                os._exit(code)
        children.append(pid)
    for n in range(20, 40):
        journal.publish("a.b", payload={"who": "parent", "n": n})
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
    journal.close()
    found = [one for one in arrived(path) if "who" in one]
    assert [one["n"] for one in found if one["who"] == "parent"] == list(range(40))
    for child in range(3):
        assert [one["n"] for one in found if one["who"] == f"child {child}"] == list(range(10))
    assert len(found) == 70


def test_a_forked_child_has_a_part_of_the_spill_of_its_own(tmp_path: Path) -> None:
    """What parent and child spill is all there, once, and neither holds the other's lock."""
    journal = Journal(source="test", transport=Away(), spill=str(tmp_path), on_error=lambda *_: None)
    journal.publish_sync("a.b", payload={"who": "parent", "n": 0})
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            journal.publish_sync("a.b", payload={"who": "child", "n": 0})
            code = 0 if journal.spilled[0] == 1 else 2
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    journal.publish_sync("a.b", payload={"who": "parent", "n": 1})
    journal.close()
    path = tmp_path / "events"
    following = Journal(source="test", transport=File(path), spill=str(tmp_path))
    following.recover(30)
    following.close()
    assert sorted((str(one["who"]), one["n"]) for one in arrived(path)) == [("child", 0), ("parent", 0), ("parent", 1)]


def _publish_and_return(journal: Journal) -> None:
    journal.publish("a.b", payload={"who": "worker"})


@pytest.mark.parametrize("kind", ["fork", "spawn"])
def test_a_process_of_multiprocessing_sends_what_it_queued(tmp_path: Path, kind: str) -> None:
    """It ends without `atexit`, and its events arrive nevertheless."""
    path = tmp_path / "events"
    forked = Journal(source="test", transport=File(path), linger_ms=300.0)
    process: multiprocessing.process.BaseProcess
    if kind == "fork":
        process = multiprocessing.get_context("fork").Process(target=_publish_and_return, args=(forked,))
    else:
        process = multiprocessing.get_context("spawn").Process(target=_publish_in_a_new_process, args=(path,))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert arrived(path) == [{"who": "worker"}]
    forked.close()


def _publish_in_a_new_process(path: Path) -> None:
    _publish_and_return(Journal(source="test", transport=File(path), linger_ms=300.0))


def test_a_program_that_ends_sends_what_it_queued(tmp_path: Path) -> None:
    """Without `close`: at exit, and after an error."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path\n"
        "from tests.unit.test_journal_processes import File\n"
        "from chronicle.journal import Journal\n"
        "journal = Journal(transport=File(Path(sys.argv[1])), linger_ms=300.0)\n"
        "for n in range(100): journal.publish('a.b', payload={'n': n})\n"
        "raise SystemExit(3)\n"
    )
    path = tmp_path / "events"
    root = str(Path(__file__).parents[2])
    ended = subprocess.run([sys.executable, "-c", program, str(path), root], timeout=120, check=False)
    assert ended.returncode == 3
    assert [one["n"] for one in arrived(path)] == list(range(100))


PUBLISHER = """
import os, sys
from chronicle.journal import Journal
from chronicle.journal.transports import TransportAway

class Away:
    name, durable = "away", True
    def send(self, batch): raise TransportAway("never there")
    def close(self): pass

journal = Journal(source="test", transport=Away(), spill=sys.argv[1], queue_events=20, on_error=lambda *_: None)
n = int(sys.argv[2])
while True:
    for _ in range(5):
        journal.publish("a.b", payload={"n": n, "sync": False}, partition_key="k")
        n += 1
    journal.publish_sync("a.b", payload={"n": n, "sync": True}, partition_key="k")
    n += 1
    os.write(1, b"%d\\n" % n)
"""


def test_a_killed_application_loses_nothing_that_was_confirmed(tmp_path: Path) -> None:
    """SIGKILL at random moments, with the transport away: whatever `publish_sync` returned for is sent by the next process,
    once and in order, and so is all that was published before it."""
    chance = random.Random(3)
    acknowledged = 0
    ranges: list[tuple[int, int]] = []
    for _ in range(3):
        start = acknowledged + 1_000
        process = subprocess.Popen(
            [sys.executable, "-c", PUBLISHER, str(tmp_path / "spill"), str(start)], stdout=subprocess.PIPE, bufsize=0
        )
        assert process.stdout is not None
        said = b""
        wanted = chance.randint(1, 20)
        while said.count(b"\n") < wanted:
            said += process.stdout.read(chance.randint(1, 32)) or pytest.fail("the publisher ended")
        process.send_signal(signal.SIGKILL)
        said += process.stdout.read()
        process.wait()
        process.stdout.close()
        acknowledged = int(said[: said.rindex(b"\n")].split(b"\n")[-1])
        ranges.append((start, acknowledged))
    path = tmp_path / "events"
    journal = Journal(source="test", transport=File(path), spill=str(tmp_path / "spill"))
    journal.recover(60)
    journal.close()
    found = [int(str(one["n"])) for one in arrived(path)]
    assert found == sorted(set(found)), "in order, none twice"
    for start, end in ranges:
        assert set(range(start, end)) <= set(found)
    spilling = Spilling(tmp_path / "spill", bytes_max=1 << 20)
    assert spilling.own.count == 0
    spilling.close()
    Spill(tmp_path / "spill" / "0").close()


FORBIDDEN = {
    *("polars", "numpy", "pyarrow", "faust", "asyncio", "ssl", "socket", "http.client", "email", "urllib.request"),
    *("concurrent.futures", "logging", "subprocess", "confluent_kafka", "prometheus_client", "opentelemetry"),
    *("pydantic", "structlog", "typer", "cryptography", "dataclasses", "inspect", "msgspec", "typing"),
}


def test_an_import_is_light() -> None:
    """`from chronicle.journal import Journal, actor, tagged, tag` loads neither msgspec nor anything heavy of the library."""
    program = "import sys; before = set(sys.modules)\nfrom chronicle.journal import Journal, actor, tagged, tag\n"
    program += "print(*sorted(set(sys.modules) - before))"
    loaded = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import sys; sys.path[:0] = {[str(Path(__file__).parents[2] / 'pipeline')]}\n{program}",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout.split()
    assert set(loaded) & FORBIDDEN == set()
    assert {name for name in loaded if name.startswith("chronicle")} <= {
        "chronicle",
        "chronicle.errors",
        "chronicle.journal",
        "chronicle.journal.context",
        "chronicle.journal.counting",
        "chronicle.journal.journal",
        "chronicle.journal.receipt",
        "chronicle.journal.threads",
    }


def test_publishing_loads_only_msgspec_beyond_the_standard_library() -> None:
    """To memory; each transport loads its own."""
    program = (
        "import sys\nfrom chronicle.journal import Journal\n"
        "journal = Journal(transport='memory://'); journal.publish_sync('a.b'); journal.close()\n"
        "print(*sorted(sys.modules))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    ).stdout.split()
    heavy = FORBIDDEN - {"dataclasses", "inspect", "msgspec", "typing"}
    assert "msgspec" in loaded
    assert {name.partition(".")[0] for name in loaded} & heavy == set()


def test_a_forked_child_makes_other_ids(tmp_path: Path) -> None:
    """Two processes that came from one never give two events one id."""
    path = tmp_path / "ids"
    mine = {new_id() for _ in range(50)}
    pid = os.fork()
    if pid == 0:
        try:
            path.write_text("\n".join(new_id() for _ in range(600)))
        finally:
            os._exit(0)
    mine |= {new_id() for _ in range(600)}
    os.waitpid(pid, 0)
    theirs = set(path.read_text().split("\n"))
    assert len(theirs) == 600
    assert {one[14:] for one in theirs}.isdisjoint(one[14:] for one in mine), "not even but for the time in them"


class Flapping(File):
    """Away every third time."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.calls = 0

    def send(self, batch: Sequence[Outgoing]) -> Sequence[str | None]:
        self.calls += 1
        if self.calls % 3 == 0:
            raise TransportAway("every third time")
        return super().send(batch)


def test_forks_while_threads_publish_hang_nowhere(tmp_path: Path) -> None:
    """Whatever locks the parent's threads hold at that moment; each event of parent and children arrives once."""
    path = tmp_path / "events"
    journal = Journal(
        source="test",
        transport=Flapping(path),
        spill=str(tmp_path / "spill"),
        queue_events=10,
        batch_events=4,
        workers=2,
        breaker_reset_s=0.001,
        breaker_reset_max_s=0.002,
        on_error=lambda *_: None,
    )
    journal.subscribe("**", lambda event: None)
    stop = threading.Event()
    published = [0, 0, 0]

    def publish(number: int) -> None:
        while not stop.is_set():
            journal.publish("a.b", payload={"who": f"thread {number}", "n": published[number]}, partition_key=f"k{number}")
            published[number] += 1

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for child in range(12):
        pid = os.fork()
        if pid == 0:
            try:
                signal.alarm(60)  # a child that hangs is killed, and its events are missed
                for n in range(5):
                    journal.publish("a.b", payload={"who": f"child {child}", "n": n}, partition_key="c")
                journal.recover(30)
                journal.close()
            finally:
                os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    stop.set()
    for thread in threads:
        thread.join()
    assert journal.flush(60)
    journal.recover(60)
    journal.close(60)
    found: dict[str, list[int]] = {}
    for one in arrived(path):
        found.setdefault(str(one["who"]), []).append(int(str(one["n"])))
    assert {f"child {child}": list(range(5)) for child in range(12)}.items() <= found.items()
    for number, count in enumerate(published):
        assert found.get(f"thread {number}", []) == list(range(count))
