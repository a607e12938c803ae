"""Dead letters of the embedded mode: their bytes are kept, whatever is in them, until they are elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("chdb")

from chronicle.embedded.chdb_client import ChdbClient
from chronicle.embedded.letters import LetterSink
from chronicle.errors import TransientError
from chronicle.model.batch import Batch
from chronicle.model.columns import CHANGES, TRANSACTIONS, empty
from chronicle.model.dead_letters import DeadLetter, Reason, Stage
from chronicle.sinks.clickhouse_errors import translated

BYTES = bytes(range(256))


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChdbClient]:
    """A store of its own."""
    made = ChdbClient(tmp_path_factory.mktemp("letters") / "chdb")
    yield made
    made.close()


def letter(offset: int, key: bytes | None, value: bytes | None, topic: str = "chronicle.events") -> DeadLetter:
    """One failed record."""
    return DeadLetter(topic, 0, offset, 1_700_000_000_000 + offset, key, value, (), Stage.DECODE, Reason.NOT_AN_EVENT, "why")


def batch(*letters: DeadLetter) -> Batch:
    """A batch of nothing else."""
    return Batch(empty(CHANGES), (), empty(TRANSACTIONS), letters)


def test_bytes_come_back_as_they_were_until_they_are_forgotten(client: ChdbClient) -> None:
    """All of them, nothing, and no value; twice written is once kept."""
    sink = LetterSink(client, "default")
    sink.prepare()
    sink.prepare()
    letters = (letter(7, BYTES, BYTES[::-1]), letter(8, None, None), letter(9, b"", b""), letter(1, b"k", b"v", "other"))
    sink.write(batch(*letters))
    sink.write(batch(*letters[:2]))
    sink.write(batch())
    kept = {chunk.topic: chunk for chunk in sink.chunks()}
    assert list(kept["chronicle.events"].offsets) == [7, 8, 9]
    assert list(kept["chronicle.events"].keys) == [BYTES, None, b""]
    assert list(kept["chronicle.events"].values) == [BYTES[::-1], None, b""]
    assert list(kept["chronicle.events"].timestamps_ms) == [1_700_000_000_000 + offset for offset in (7, 8, 9)]
    sink.forget("chronicle.events", 0, [7, 9])
    left = {chunk.topic: list(chunk.offsets) for chunk in sink.chunks()}
    assert left == {"chronicle.events": [8], "other": [1]}


def test_a_full_disk_is_waited_for_and_ends_nothing(client: ChdbClient) -> None:
    """The engine repeats what the world does wrong, and ends at anything else: letters are no reason to end."""
    client.command("CREATE DATABASE full")
    sink = LetterSink(client, "full", translated=translated)
    sink.prepare()
    client.command(f"ALTER TABLE full.dead_letter_records MODIFY SETTING min_free_disk_bytes_to_perform_insert = {2**60}")
    with pytest.raises(TransientError, match="NOT_ENOUGH_SPACE"):
        sink.write(batch(letter(1, b"k", b"v")))
    client.command("ALTER TABLE full.dead_letter_records RESET SETTING min_free_disk_bytes_to_perform_insert")
    sink.write(batch(letter(1, b"k", b"v")))
    assert [list(chunk.values) for chunk in sink.chunks()] == [[b"v"]]
