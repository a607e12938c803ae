"""Records that could not be processed, kept with their bytes in the embedded store: there is no topic that would have them."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from chronicle.model.chunk import Chunk

if TYPE_CHECKING:
    from chronicle.model.batch import Batch
    from chronicle.model.dead_letters import DeadLetter

AT_ONCE_MAX = 1_000
"""Records of one chunk that is processed again."""


class Client(Protocol):
    """What is needed of `ChdbClient`, or of clickhouse-connect's client."""

    def query(self, query: str, parameters: dict[str, Any] | None = None) -> Any:
        """Run a SELECT."""

    def command(self, cmd: str, parameters: dict[str, Any] | None = None, *, settings: dict[str, Any] | None = None) -> Any:
        """Run a statement."""

    def raw_insert(self, table: str, column_names: Sequence[str], insert_block: bytes, *, fmt: str) -> Any:
        """Insert a block."""


class LetterSink:
    """Implements `sinks.Sink` for the bytes of dead letters; a letter that comes again replaces itself."""

    name = "letters"

    def __init__(
        self,
        client: Client,
        database: str,
        *,
        translated: Callable[[str], AbstractContextManager[None]] = lambda _what: nullcontext(),
    ) -> None:
        """`client` stays its owner's. `translated`: within it the store's errors become Chronicle's, as
        `sinks.clickhouse_errors.translated`: a disk that is full for a while ends nothing.
        """
        self._client, self._translated = client, translated
        self._table = f"`{database}`.dead_letter_records"

    def prepare(self) -> None:
        """Make its table unless it is there."""
        self._client.command(
            f"CREATE TABLE IF NOT EXISTS {self._table}"
            " (topic LowCardinality(String), partition UInt32, offset UInt64, timestamp_ms Int64,"
            " key Nullable(String), value Nullable(String), failed_at DateTime64(6, 'UTC') DEFAULT now64(6))"
            " ENGINE = ReplacingMergeTree(failed_at) ORDER BY (topic, partition, offset)"
        )

    def write(self, batch: Batch) -> None:
        """As `Sink.write`."""
        if batch.dead_letters:
            columns = _columns(batch.dead_letters)
            with self._translated("dead_letter_records"):
                self._client.raw_insert(self._table, columns.schema.names, _encoded(columns), fmt="Arrow")

    def close(self) -> None:
        """Nothing is its own."""

    def chunks(self) -> list[Chunk]:
        """What is kept, to be processed again, oldest first, at most `AT_ONCE_MAX` in each."""
        query = f"SELECT topic, partition, offset, timestamp_ms, hex(key), hex(value) FROM {self._table} FINAL ORDER BY topic, partition, offset"  # noqa: S608, E501
        places: dict[tuple[str, int], list[Any]] = {}
        for topic, partition, *rest in self._client.query(query).result_rows:
            places.setdefault((topic, partition), []).append(rest)
        return [
            _chunk(topic, partition, rows[at : at + AT_ONCE_MAX])
            for (topic, partition), rows in places.items()
            for at in range(0, len(rows), AT_ONCE_MAX)
        ]

    def forget(self, topic: str, partition: int, offsets: Sequence[int]) -> None:
        """Drop those that are elsewhere now."""
        self._client.command(
            f"ALTER TABLE {self._table} DELETE WHERE topic = {{topic:String}} AND partition = {{partition:UInt32}}"
            " AND has({offsets:Array(UInt64)}, offset)",
            {"topic": topic, "partition": partition, "offsets": list(offsets)},
            settings={"mutations_sync": 2},
        )


def _chunk(topic: str, partition: int, rows: Sequence[tuple[int, int, str | None, str | None]]) -> Chunk:
    return Chunk(
        topic=topic,
        partition=partition,
        offsets=[offset for offset, _, _, _ in rows],
        timestamps_ms=[timestamp for _, timestamp, _, _ in rows],
        keys=[None if key is None else bytes.fromhex(key) for _, _, key, _ in rows],
        values=[None if value is None else bytes.fromhex(value) for _, _, _, value in rows],
        headers=[()] * len(rows),
    )


def _columns(letters: Sequence[DeadLetter]) -> Any:
    return pa.table(
        {
            "topic": [one.topic for one in letters],
            "partition": pa.array([one.partition for one in letters], pa.uint32()),
            "offset": pa.array([one.offset for one in letters], pa.uint64()),
            "timestamp_ms": pa.array([one.timestamp_ms for one in letters], pa.int64()),
            "key": pa.array([one.key for one in letters], pa.binary()),
            "value": pa.array([one.value for one in letters], pa.binary()),
        }
    )


def _encoded(table: Any) -> bytes:
    buffer = io.BytesIO()
    with pa.ipc.new_file(buffer, table.schema) as writer:
        writer.write_table(table)
    return buffer.getvalue()
