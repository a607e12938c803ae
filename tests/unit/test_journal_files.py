"""Events in files: each line whole, rotated, compressed, kept for so long; what was answered survives the process."""

from __future__ import annotations

import gzip
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronicle.errors import ConfigError
from chronicle.events.event import Event, decoded, encoded
from chronicle.journal.outgoing import Outgoing
from chronicle.journal.persistence.files import EventFiles, complete_files, opened, read
from chronicle.journal.transports import TransportAway


def events(count: int, text: str = "") -> list[Outgoing]:
    return [outgoing(number, text) for number in range(count)]


def outgoing(number: int, text: str = "") -> Outgoing:
    event = Event(
        id=f"00000000-0000-4000-8000-{number:012d}",
        type="t.e",
        time="2026-02-01T12:00:00.000000Z",
        source="s",
        description=text,
    )
    return Outgoing(event, encoded(event))


def numbers(directory: Path) -> list[int]:
    return [int(decoded(line).id[-12:]) for line in read(directory)]


def test_what_was_sent_stands_there_line_by_line(tmp_path: Path) -> None:
    """While it is written and after it is complete, in order; a newline in a value breaks no line."""
    files = EventFiles(tmp_path / "new" / "place")
    assert list(files.send(events(3, "a\nb\u2028"))) == [None] * 3
    assert numbers(files.directory) == [0, 1, 2]
    assert not complete_files(files.directory)
    files.close()
    [whole] = complete_files(files.directory)
    assert whole.name.endswith(".ndjson.gz")
    assert gzip.decompress(whole.read_bytes()) == b"".join(one.text + b"\n" for one in events(3, "a\nb\u2028"))
    files.send([outgoing(3)])
    assert numbers(files.directory) == [0, 1, 2, 3]


@given(st.lists(st.lists(st.integers(0, 400), max_size=8), max_size=8), st.integers(1, 1_000), st.booleans())
def test_no_file_is_longer_than_it_may_be(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[int]], limit: int, compress: bool
) -> None:
    """Unless one event alone is; and nothing is lost, doubled or moved by rotation."""
    directory = tmp_path_factory.mktemp("files")
    files = EventFiles(directory, file_bytes_max=limit, compress=compress)
    number, sent = 0, []
    for sizes in batches:
        batch = [outgoing(number + at, "x" * size) for at, size in enumerate(sizes)]
        number += len(batch)
        sent += batch
        files.send(batch)
    files.close()
    assert list(read(directory)) == [one.text for one in sent]
    for path in complete_files(directory):
        whole = gzip.decompress(path.read_bytes()) if compress else path.read_bytes()
        assert len(whole) <= limit or whole.count(b"\n") == 1
    assert {path.suffix for path in directory.iterdir()} <= ({".gz"} if compress else {".ndjson"})


def test_an_old_file_is_completed_at_the_next_event(tmp_path: Path) -> None:
    """An age of nothing: every batch has a file of its own."""
    files = EventFiles(tmp_path, file_age_max_s=0.0)
    for number in range(3):
        files.send([outgoing(number)])
    assert len(complete_files(tmp_path)) == 2
    assert numbers(tmp_path) == [0, 1, 2]


def test_the_oldest_files_go_first(tmp_path: Path) -> None:
    """By count, by bytes, by age; open files stay."""
    files = EventFiles(tmp_path, file_bytes_max=1, keep_files_max=2)
    files.send(events(6))
    assert numbers(tmp_path) == [3, 4, 5]
    size = complete_files(tmp_path)[-1].stat().st_size
    EventFiles(tmp_path, keep_bytes_max=size)
    assert numbers(tmp_path) == [4, 5]
    [kept] = complete_files(tmp_path)
    os.utime(kept, (0, time.time() - 3 * 86_400))
    EventFiles(tmp_path, keep_days_max=4)
    assert numbers(tmp_path) == [4, 5]
    EventFiles(tmp_path, keep_days_max=2)
    assert numbers(tmp_path) == [5]


WRITER = """
import sys
sys.path.insert(0, sys.argv[2])
from tests.unit.test_journal_files import outgoing
from chronicle.journal.persistence.files import EventFiles
files = EventFiles(sys.argv[1], file_bytes_max=3_000)
number = 0
while True:
    batch = [outgoing(number + at, "x" * 50) for at in range(7)]
    files.send(batch)
    number += len(batch)
    print(number, flush=True)
"""


def test_a_killed_process_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    """kill -9 at any moment, rotation and compression included; the next process completes what was open, in order."""
    root = Path(__file__).parents[2]
    chance = random.Random(7)
    for round_ in range(6):
        directory = tmp_path / str(round_)
        with subprocess.Popen([sys.executable, "-c", WRITER, str(directory), str(root)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            answered = 0
            for _ in range(chance.randint(1, 60)):
                answered = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            answered = int((process.stdout.read().split() or [b"%d" % answered])[-1])
        EventFiles(directory).close()
        found = numbers(directory)
        assert found == list(range(len(found)))
        assert len(found) >= answered
        assert not list(directory.glob("*.open.*"))


@given(st.integers(0, 700))
def test_a_torn_line_is_cut(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    """A file that ends anywhere in a line is completed with its whole lines."""
    directory = tmp_path_factory.mktemp("torn")
    text = b"".join(one.text + b"\n" for one in events(4))[:cut]
    (directory / "events-20260101T000000.000000Z-1-000001.open.ndjson").write_bytes(text)
    EventFiles(directory)
    assert numbers(directory) == list(range(text.count(b"\n")))
    assert len(complete_files(directory)) == (1 if b"\n" in text else 0)


def test_a_part_left_by_a_crash_is_made_anew(tmp_path: Path) -> None:
    """Compressed halfway, or whole with the original still there: read once."""
    lines = b"".join(one.text + b"\n" for one in events(3))
    (tmp_path / "events-20260101T000000.000000Z-1-000001.open.ndjson").write_bytes(lines)
    (tmp_path / "events-20260101T000000.000000Z-1-000001.ndjson.gz.part").write_bytes(gzip.compress(lines)[:20])
    (tmp_path / "events-20260102T000000.000000Z-1-000002.open.ndjson").write_bytes(lines)
    (tmp_path / "events-20260102T000000.000000Z-1-000002.ndjson.gz").write_bytes(gzip.compress(lines))
    EventFiles(tmp_path)
    assert numbers(tmp_path) == [0, 1, 2, 0, 1, 2]
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".gz", ".gz"]


def test_a_file_that_is_being_written_is_left_to_its_writer(tmp_path: Path) -> None:
    """Two writers in one directory, as two processes are: neither takes the other's file."""
    first = EventFiles(tmp_path)
    first.send([outgoing(0)])
    second = EventFiles(tmp_path)
    second.send([outgoing(1)])
    second.close()
    first.send([outgoing(2)])
    first.close()
    assert sorted(numbers(tmp_path)) == [0, 1, 2]
    assert len(complete_files(tmp_path)) == 2


def test_threads_share_a_writer(tmp_path: Path) -> None:
    """Each batch stands together; nothing is lost while files rotate."""
    files = EventFiles(tmp_path, file_bytes_max=2_000)

    def write(first: int) -> None:
        for at in range(20):
            files.send([outgoing(first + at * 2), outgoing(first + at * 2 + 1)])

    threads = [threading.Thread(target=write, args=(number * 1_000,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    files.close()
    assert sorted(numbers(tmp_path)) == [number * 1_000 + at for number in range(4) for at in range(40)]


def _child(files: EventFiles) -> None:
    files.forked()
    files.send([outgoing(1)])
    files.close()


def test_a_forked_child_writes_a_file_of_its_own(tmp_path: Path) -> None:
    """And the parent goes on in its own."""
    files = EventFiles(tmp_path)
    files.send([outgoing(0)])
    child = multiprocessing.get_context("fork").Process(target=_child, args=(files,))
    child.start()
    child.join()
    assert child.exitcode == 0
    files.send([outgoing(2)])
    files.close()
    assert sorted(numbers(tmp_path)) == [0, 1, 2]
    assert len(complete_files(tmp_path)) == 2


def test_a_full_disk_is_away_and_leaves_no_half_line(tmp_path: Path) -> None:
    """The limit of a file's size stands for the disk's: the batch is refused for now, and goes through when there is room."""
    program = f"""
import resource, signal, sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from tests.unit.test_journal_files import outgoing, numbers
from chronicle.journal.persistence.files import EventFiles, TransportAway
from pathlib import Path
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
files = EventFiles({str(tmp_path)!r})
files.send([outgoing(0)])
resource.setrlimit(resource.RLIMIT_FSIZE, (300, resource.RLIM_INFINITY))
try:
    files.send([outgoing(at, "x" * 200) for at in range(1, 4)])
except TransportAway as error:
    assert "x" * 200 not in str(error)
else:
    raise AssertionError
assert numbers(Path({str(tmp_path)!r})) == [0]
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
files.send([outgoing(at, "x" * 200) for at in range(1, 4)])
files.close()
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    assert numbers(tmp_path) == [0, 1, 2, 3]


def test_a_directory_that_cannot_be_is_told_at_once(tmp_path: Path) -> None:
    """A file stands where it should be."""
    (tmp_path / "x").write_text("")
    with pytest.raises(ConfigError, match="directory that can be written"):
        EventFiles(tmp_path / "x")


def test_a_url_names_files(tmp_path: Path) -> None:
    """With limits; anything else is refused."""
    made = opened(f"file://{tmp_path}/a%20b?file_bytes_max=1&compress=0", None)
    made.send(events(2))
    assert made.directory == tmp_path / "a b"
    assert [path.suffix for path in complete_files(made.directory)] == [".ndjson"]
    for wrong in ("file://", f"file://{tmp_path}?colour=1", f"file://{tmp_path}?keep_days_max=x", "file://host/x"):
        with pytest.raises(ConfigError):
            opened(wrong, None)


def test_a_removed_directory_is_away(tmp_path: Path) -> None:
    """What an operator does while it runs is no crash: the batch waits."""
    files = EventFiles(tmp_path / "x", file_bytes_max=1)
    files.send([outgoing(0)])
    for path in (tmp_path / "x").iterdir():
        path.unlink()
    (tmp_path / "x").rmdir()
    with pytest.raises(TransportAway):
        files.send([outgoing(1)])
    (tmp_path / "x").mkdir()
    batch: Sequence[Outgoing] = [outgoing(1)]
    files.send(batch)
    assert numbers(tmp_path / "x") == [1]
