"""The embedded store's client: parameters are bound, threads do not meet, one process has it, and what returned is kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("chdb")

from chronicle.embedded import chdb_client
from chronicle.embedded.chdb_client import ChdbClient
from chronicle.errors import ConfigError, SinkRejected, TransientError
from chronicle.sinks import arrow
from chronicle.sinks.clickhouse_errors import translated

WRITER = """
import sys
from pathlib import Path
import pyarrow as pa
from chronicle.embedded.chdb_client import ChdbClient
from chronicle.sinks import arrow
client = ChdbClient(Path(sys.argv[1]))
client.command("CREATE TABLE IF NOT EXISTS kept (number UInt64) ENGINE = MergeTree ORDER BY number")
number = client.query("SELECT count() FROM kept").result_rows[0][0]
while True:
    client.raw_insert("", insert_block=arrow.encoded(pa.table({"number": pa.array([number], pa.uint64())}),
                      b"INSERT INTO kept (number) FORMAT Arrow\\n"))
    print(number, flush=True)
    number += 1
"""
HOLDER = """
import sys
from pathlib import Path
from chronicle.embedded.chdb_client import ChdbClient
client = ChdbClient(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
"""
FORKER = HOLDER.replace(
    "print(",
    """
import os
if not os.fork():
    os.read(0, 1)  # outlives its parent
    os._exit(0)
print(""",
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this module's store is."""
    return tmp_path_factory.mktemp("embedded") / "chdb"


@pytest.fixture(scope="module")
def client(home: Path) -> Iterator[ChdbClient]:
    """One store for the tests that need nothing of their own."""
    made = ChdbClient(home)
    made.command("CREATE TABLE numbers (number UInt64, text Nullable(String)) ENGINE = MergeTree ORDER BY number")
    yield made
    made.close()


def rows(numbers: list[int], text: str | None = "x") -> bytes:
    """An insert as the sinks make them."""
    table = pa.table({"number": pa.array(numbers, pa.uint64()), "text": pa.array([text] * len(numbers), pa.string())})
    return arrow.encoded(table, b"INSERT INTO `default`.`numbers` (`number`, `text`) FORMAT Arrow\n")


@given(text=st.text())
def test_a_parameter_comes_back_as_it_was(client: ChdbClient, text: str) -> None:
    """Bound by the engine, whatever is in it: quotes, backslashes, NUL, braces."""
    assert client.query("SELECT {text:String}", parameters={"text": text}).result_rows == [(text,)]


def test_a_parameter_is_never_sql(client: ChdbClient) -> None:
    """It is compared, not run."""
    hostile = "' OR 1 = 1; DROP TABLE numbers --"
    assert client.query("SELECT 1 WHERE 'a' = {text:String}", parameters={"text": hostile}).result_rows == []
    assert client.query("EXISTS TABLE numbers").result_rows == [(1,)]


def test_a_reader_cannot_write(client: ChdbClient) -> None:
    """`readonly` is the engine's."""
    with pytest.raises(DatabaseError) as refused:
        client.query("INSERT INTO numbers (number) VALUES (1)", settings={"readonly": 2})
    assert refused.value.code == 164


def test_a_query_ends_in_time(client: ChdbClient) -> None:
    """`max_execution_time` holds here, too."""
    with pytest.raises(DatabaseError) as refused:
        client.query("SELECT sum(sipHash64(number)) FROM numbers(1000000000000)", settings={"max_execution_time": 1})
    assert refused.value.code == 159


def test_threads_share_a_client(client: ChdbClient) -> None:
    """More of them than there are handles, reading and writing at the same time."""
    before = client.query("SELECT count() FROM numbers").result_rows[0][0]

    def work(number: int) -> int:
        client.raw_insert("", insert_block=rows([number]))
        return int(client.query("SELECT {number:UInt64} * 2", parameters={"number": number}).result_rows[0][0])

    with ThreadPoolExecutor(3 * chdb_client.HANDLES_MAX) as pool:
        assert list(pool.map(work, range(100))) == [2 * number for number in range(100)]
    assert client.query("SELECT count() FROM numbers").result_rows[0][0] == before + 100


def test_a_stream_left_early_gives_its_handle_back(client: ChdbClient) -> None:
    """More often than there are handles."""
    for _ in range(2 * chdb_client.HANDLES_MAX):
        with client.query_row_block_stream("SELECT number AS n FROM numbers(1000000)") as blocks:
            assert blocks.source.column_names == ("n",)
            assert next(iter(blocks))[0] == (0,)


def test_a_refused_value_is_the_datas_and_names_no_value(client: ChdbClient) -> None:
    """chDB's text holds it; ours does not, and the next insert goes through."""
    table = pa.table({"number": ["no such number"]})
    block = arrow.encoded(table, b"INSERT INTO numbers (number) FORMAT Arrow\n")
    with pytest.raises(SinkRejected) as refused, translated("numbers", ["number"]):
        client.raw_insert("", insert_block=block)
    assert "no such number" not in str(refused.value)
    client.raw_insert("", insert_block=rows([1]))


def test_an_insert_by_table_and_columns(client: ChdbClient) -> None:
    """The other way to call it."""
    client.raw_insert("numbers", ["number", "text"], b'{"number": 77777, "text": "\\u0000\'"}', fmt="JSONEachRow")
    assert client.query("SELECT text FROM numbers WHERE number = 77777").result_rows == [("\x00'",)]


@pytest.mark.parametrize("fmt", ["Arrow", "TSV"])
def test_an_insert_that_the_disk_has_no_room_for_does_not_return(client: ChdbClient, fmt: str) -> None:
    """Whoever was told that it is held would have lost it: the engine refuses a part when it is committed."""
    client.command(
        f"CREATE OR REPLACE TABLE full (number UInt64) ENGINE = MergeTree ORDER BY number"
        f" SETTINGS min_free_disk_bytes_to_perform_insert = {2**60}"
    )
    block = {"Arrow": arrow.encoded(pa.table({"number": pa.array([1], pa.uint64())})), "TSV": b"1\n"}[fmt]
    with pytest.raises(TransientError, match="NOT_ENOUGH_SPACE"), translated("full"):
        client.raw_insert("full", ["number"], block, fmt=fmt)
    assert client.query("SELECT count() FROM full").result_rows == [(0,)]


def test_parts_are_on_the_disk_before_an_insert_returns(client: ChdbClient) -> None:
    """chDB's own defaults are for analysis, where a loss of power costs nothing."""
    names = ("fsync_after_insert", "fsync_part_directory", "min_rows_to_fsync_after_merge", "old_parts_lifetime")
    found = dict(client.query("SELECT name, value FROM system.merge_tree_settings").result_rows)
    assert [found[name] for name in names] == ["1", "1", "1", "480"]


def test_a_process_that_is_killed_keeps_what_its_inserts_returned_for(tmp_path: Path) -> None:
    """SIGKILL while it writes, three times; every number it told is there, once."""
    told: list[int] = []
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "chdb")], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        try:
            told += [int(line) for line, _ in zip(writer.stdout, range(15), strict=False)]
        finally:
            os.kill(writer.pid, signal.SIGKILL)
            told += [int(line) for line in writer.communicate()[0].splitlines()]
    code = WRITER.partition("number = ")[0] + "print([row[0] for row in client.query('SELECT number FROM kept').result_rows])"
    shown = subprocess.run([sys.executable, "-c", code, str(tmp_path / "chdb")], capture_output=True, text=True, check=True)
    held = [int(text) for text in shown.stdout.strip("[]\n").split(", ")]
    assert len(told) >= 45
    assert set(told) <= set(held)
    assert len(held) == len(set(held))


def test_a_second_process_is_refused_and_told_which_one_has_it(tmp_path: Path) -> None:
    """And let in when the first one has ended, however it ended."""
    place = tmp_path / "chdb"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    try:
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(ConfigError, match=f"^stop process {holder.pid}, or ask it over HTTP"):
            ChdbClient(place)
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.communicate()
    code = HOLDER.replace("sys.stdin.read()", "")
    assert subprocess.run([sys.executable, "-c", code, str(place)], capture_output=True, check=True).stdout == b"open\n"


def test_a_child_of_a_process_that_was_killed_does_not_keep_its_store(tmp_path: Path) -> None:
    """A fork shares its parent's locks; the application must be able to start again beside what its last run left."""
    place, (reading, writing) = tmp_path / "chdb", os.pipe()
    holder = subprocess.Popen([sys.executable, "-c", FORKER, str(place)], stdin=reading, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(ConfigError, match=f"^stop process {holder.pid}, or ask it over HTTP"):
            ChdbClient(place)
        holder.kill()
        holder.wait()
        code = HOLDER.replace("sys.stdin.read()", "")
        assert subprocess.run([sys.executable, "-c", code, str(place)], capture_output=True, check=True).stdout == b"open\n"
    finally:
        holder.kill()
        os.close(writing)  # ends the child
        os.close(reading)
        holder.communicate()


def test_another_store_in_the_same_process_is_refused(client: ChdbClient, tmp_path: Path) -> None:
    """chDB has one engine; the first one goes on, and the refused place is not left locked."""
    with pytest.raises(ConfigError, match="one embedded store per process"):
        ChdbClient(tmp_path / "other")
    assert client.query("SELECT 1").result_rows == [(1,)]
    code = HOLDER.replace("sys.stdin.read()", "")
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "other")], capture_output=True, check=True)


def test_clients_of_one_store_see_the_same(client: ChdbClient, home: Path) -> None:
    """By whatever name they call its directory; closing one leaves the others."""
    link = home.parent / "link"
    link.symlink_to(home)
    client.raw_insert("", insert_block=rows([4711]))
    other = ChdbClient(link)
    assert other.query("SELECT count() FROM numbers WHERE number = 4711").result_rows == [(1,)]
    other.close()
    other.close()
    assert client.query("SELECT count() FROM numbers WHERE number = 4711").result_rows == [(1,)]


def test_a_directory_that_cannot_be_written_is_the_operators(tmp_path: Path) -> None:
    """Not a traceback."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="writable directory"):
        ChdbClient(tmp_path / "file" / "chdb")


def test_a_path_that_chdb_would_read_as_options_is_refused(tmp_path: Path) -> None:
    """`a?b` is a directory of that name, not an option."""
    with pytest.raises(ConfigError, match="choose a directory without"):
        ChdbClient(tmp_path / "a?b")


def test_a_handle_is_waited_for_and_not_forever(client: ChdbClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them are taken by slow readers."""
    from chronicle.errors import TransientError

    monkeypatch.setattr(chdb_client, "WAIT_S", 0.05)
    release = threading.Event()
    ready = threading.Barrier(chdb_client.HANDLES_MAX + 1)

    def hold() -> None:
        with client.query_row_block_stream("SELECT 1"):
            ready.wait(30)
            release.wait(30)

    threads = [threading.Thread(target=hold) for _ in range(chdb_client.HANDLES_MAX)]
    for thread in threads:
        thread.start()
    ready.wait(30)
    with pytest.raises(TransientError, match="busy"):
        client.query("SELECT 1")
    release.set()
    for thread in threads:
        thread.join(30)
    assert client.query("SELECT 1").result_rows == [(1,)]
