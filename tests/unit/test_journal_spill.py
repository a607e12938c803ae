"""The spill: what was kept comes out once, in order, whatever happens to the process or to the file's end."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronicle.journal import spill as spill_module
from chronicle.journal.spill import Spill, SpillFull, SpillLocked

RECORDS = st.lists(st.binary(max_size=60) | st.just(b"\xc7SPL" * 9), min_size=1, max_size=12)


def everything(spill: Spill) -> list[bytes]:
    return [record for _, records in spill.read() for record in records]


def drained(spill: Spill) -> list[bytes]:
    found: list[bytes] = []
    for position, records in spill.read(records_max=3):
        found += records
        spill.forget(position)
    return found


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.spill"))


@given(appends=st.lists(RECORDS, max_size=6), segment_bytes=st.integers(1, 400), records_max=st.integers(1, 20))
def test_what_was_kept_comes_out_in_order(appends: list[list[bytes]], segment_bytes: int, records_max: int) -> None:
    """For any records and any size of segments, also after opening again; nothing is left once all is forgotten."""
    with tempfile.TemporaryDirectory() as name:
        first = Spill(name, segment_bytes=segment_bytes)
        for records in appends:
            first.append(records)
        first.close()
        spill = Spill(name, segment_bytes=segment_bytes)
        expected = [record for records in appends for record in records]
        assert spill.count == len(expected)
        pieces = list(spill.read(records_max=records_max))
        assert [record for _, records in pieces for record in records] == expected
        assert all(len(records) <= records_max for _, records in pieces)
        assert drained(spill) == expected
        assert (spill.count, everything(spill), spill.damaged) == (0, [], 0)
        spill.append([b"next"])
        spill.close()
        again = Spill(name, segment_bytes=segment_bytes)
        assert everything(again) == [b"next"]
        again.close()


@given(records=RECORDS, data=st.data())
def test_a_file_cut_at_any_byte_gives_its_whole_records(records: list[bytes], data: st.DataObject) -> None:
    """A torn tail is cut; what comes after it is kept and read."""
    with tempfile.TemporaryDirectory() as name:
        first = Spill(name)
        first.append(records)
        first.close()
        path = segments(Path(name))[0]
        size = path.stat().st_size
        cut = data.draw(st.integers(0, size))
        os.truncate(path, cut)
        whole, at = 0, 0
        for record in records:
            at += 20 + len(record)
            whole += at <= cut
        spill = Spill(name)
        assert everything(spill) == records[:whole]
        spill.append([b"later"])
        assert everything(spill) == [*records[:whole], b"later"]
        spill.close()
        again = Spill(name)
        assert drained(again) == [*records[:whole], b"later"]
        again.close()


@given(records=RECORDS, tail=st.binary(max_size=80))
def test_rubbish_at_the_end_is_no_record(records: list[bytes], tail: bytes) -> None:
    """Whatever a crash left behind the last whole record."""
    with tempfile.TemporaryDirectory() as name:
        first = Spill(name)
        first.append(records)
        first.close()
        with segments(Path(name))[0].open("ab") as file:
            file.write(tail)
        spill = Spill(name)
        assert everything(spill) == records
        spill.close()


@given(position=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_a_damaged_record_is_passed_over_and_counted(position: int, flip: int) -> None:
    """One byte of a segment in the middle is wrong: its record is lost, its neighbours are not, and nobody waits for it."""
    with tempfile.TemporaryDirectory() as name:
        records = [b"record %d" % n for n in range(10)]
        spill = Spill(name, segment_bytes=100)
        for record in records:
            spill.append([record])
        paths = segments(Path(name))
        path = paths[position % len(paths)]
        text = bytearray(path.read_bytes())
        text[position % len(text)] ^= flip
        path.write_bytes(text)
        found = drained(spill)
        assert spill.count == 0
        assert spill.damaged == 1
        assert len(found) == 9
        assert found == [record for record in records if record in found]
        spill.close()


def test_a_segment_that_vanished_is_counted(tmp_path: Path) -> None:
    """Nobody waits for what somebody deleted, and it is said how much it was."""
    spill = Spill(tmp_path, segment_bytes=1)
    spill.append([b"a", b"b"])
    spill.append([b"c"])
    segments(tmp_path)[0].unlink()
    assert drained(spill) == [b"c"]
    assert (spill.count, spill.damaged) == (0, 2)
    spill.close()


@pytest.mark.parametrize("left", [b"", b"7", b"7 7", b"x y\n", b"\xff\xff"])
def test_without_a_cursor_that_can_be_trusted_records_come_again(tmp_path: Path, left: bytes) -> None:
    """Twice is harmless, lost is not."""
    first = Spill(tmp_path)
    first.append([b"a", b"b", b"c"])
    (position, _), *_ = first.read(records_max=1)
    first.forget(position)
    first.close()
    (tmp_path / "forgotten").write_bytes(left)
    spill = Spill(tmp_path)
    assert drained(spill) == [b"a", b"b", b"c"]
    spill.close()


def test_forgotten_records_never_come_again(tmp_path: Path) -> None:
    """Neither in this process nor in the next one; forgetting less than before changes nothing."""
    first = Spill(tmp_path)
    first.append([b"a", b"b", b"c"])
    positions = [position for position, _ in first.read(records_max=1)]
    first.forget(positions[1])
    first.forget(positions[0])
    assert everything(first) == [b"c"]
    first.close()
    spill = Spill(tmp_path)
    assert everything(spill) == [b"c"]
    spill.close()


def test_space_comes_free_when_records_are_forgotten(tmp_path: Path) -> None:
    """A full spill refuses whole appends, keeps what it has, and takes more when there is room."""
    spill = Spill(tmp_path, bytes_max=1_000, segment_bytes=100)
    taken = 0
    while True:
        try:
            spill.append([b"x" * 50, b"y" * 50])
        except SpillFull:
            break
        taken += 2
    assert taken == 14
    assert spill.count == taken
    assert spill.bytes <= 1_000
    drained(spill)
    spill.append([b"x" * 50])
    assert everything(spill) == [b"x" * 50]
    assert len(segments(tmp_path)) == 1
    with pytest.raises(SpillFull):
        spill.append([b"x" * 1_000])
    spill.close()


def test_one_process_has_the_directory(tmp_path: Path) -> None:
    """A second one is refused until the first lets go."""
    spill = Spill(tmp_path)
    with pytest.raises(SpillLocked):
        Spill(tmp_path)
    spill.close()
    with pytest.raises(SpillLocked):
        spill.append([b"late"])
    Spill(tmp_path).close()


def _in_a_child(spill: Spill, results: multiprocessing.Queue[str]) -> None:
    try:
        spill.append([b"child"])
    except SpillLocked:
        results.put("refused")
    spill.close()


def test_a_forked_child_cannot_write_into_its_parents_spill(tmp_path: Path) -> None:
    """It is refused, and letting go of its copy leaves the parent's lock and records alone."""
    spill = Spill(tmp_path)
    spill.append([b"parent"])
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue[str] = context.Queue()
    child = context.Process(target=_in_a_child, args=(spill, results))
    child.start()
    assert results.get(timeout=30) == "refused"
    child.join(30)
    with pytest.raises(SpillLocked):
        Spill(tmp_path)
    spill.append([b"parent again"])
    assert everything(spill) == [b"parent", b"parent again"]
    spill.close()


def test_threads_share_the_spill(tmp_path: Path) -> None:
    """Each thread's records are all there, in that thread's order, while another one drains."""
    spill = Spill(tmp_path, segment_bytes=2_000)

    def write(thread: int) -> None:
        for n in range(50):
            spill.append([b"%d %d" % (thread, n), b"%d %d+" % (thread, n)])

    threads = [threading.Thread(target=write, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    found: list[bytes] = []
    deadline = time.monotonic() + 60
    while len(found) < 600 and time.monotonic() < deadline:
        found += drained(spill)
    for thread in threads:
        thread.join()
    found += drained(spill)
    for n in range(6):
        mine = [record for record in found if record.startswith(b"%d " % n)]
        assert mine == [text for i in range(50) for text in (b"%d %d" % (n, i), b"%d %d+" % (n, i))]
    spill.close()


def test_a_failed_disk_keeps_nothing_of_what_it_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller is told; what was kept before and after is there, what was refused is not, also after opening again."""
    spill = Spill(tmp_path)
    spill.append([b"before"])
    healthy = spill_module._ended_at_the_disk

    def failing(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(spill_module, "_ended_at_the_disk", failing)
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output"):
            spill.append([b"refused"])
    assert everything(spill) == [b"before"]
    monkeypatch.setattr(spill_module, "_ended_at_the_disk", healthy)
    spill.append([b"after"])
    assert everything(spill) == [b"before", b"after"]
    spill.close()
    again = Spill(tmp_path)
    assert everything(again) == [b"before", b"after"]
    again.close()


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    """Records may be personal."""
    spill = Spill(tmp_path / "spill")
    spill.append([b"ann"])
    assert (tmp_path / "spill").stat().st_mode & 0o077 == 0
    assert segments(tmp_path / "spill")[0].stat().st_mode & 0o077 == 0
    spill.close()


WRITER = """
import os, sys
from chronicle.journal.spill import Spill
spill = Spill(sys.argv[1], segment_bytes=3000)
n = int(sys.argv[2])
while True:
    size = 1 + n % 7
    spill.append([b"%d" % (n + i) + b"." * (n % 90) for i in range(size)])
    n += size
    os.write(1, b"%d\\n" % n)
"""


def test_a_killed_process_loses_nothing_it_had_acknowledged(tmp_path: Path) -> None:
    """SIGKILL at random moments, each time opened again and partly drained: each acknowledged record comes out, in order, and
    none twice after it was forgotten."""
    chance = random.Random(5)
    found: list[int] = []
    acknowledged = 0
    for _ in range(8):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(acknowledged)], stdout=subprocess.PIPE, bufsize=0
        )
        assert writer.stdout is not None
        wanted = chance.randint(1, 60)
        said = b""
        while said.count(b"\n") < wanted:
            said += writer.stdout.read(chance.randint(1, 64)) or pytest.fail("the writer ended")
        writer.send_signal(signal.SIGKILL)
        said += writer.stdout.read()
        writer.wait()
        writer.stdout.close()
        acknowledged = int(said[: said.rindex(b"\n")].split(b"\n")[-1])
        spill = Spill(tmp_path)
        pieces = list(spill.read(records_max=20))
        whole = [int(record.partition(b".")[0]) for _, records in pieces for record in records]
        assert not whole or whole[0] == len(found)
        assert len(found) + len(whole) >= acknowledged
        for position, records in pieces[: chance.randint(0, len(pieces))]:
            spill.forget(position)
            found += [int(record.partition(b".")[0]) for record in records]
        acknowledged = len(found) + spill.count  # a record that was on the disk before the kill is as good as acknowledged
        spill.close()
    spill = Spill(tmp_path)
    found += [int(record.partition(b".")[0]) for record in drained(spill)]
    assert found == list(range(acknowledged))
    spill.close()
