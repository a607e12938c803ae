"""Receive: records of routes' topics become a batch again, for workers of a role: an `engine.Path` without schemas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import polars as pl

from chronicle.codec import audit_reading
from chronicle.model.batch import Batch
from chronicle.model.chunk import Chunk
from chronicle.model.columns import TRANSACTIONS, empty
from chronicle.model.dead_letters import DeadLetter, Reason, Stage

_PLACE = ("topic", "partition", "offset")


class Receiving:
    """What was sanitized, attributed and routed is taken as it is; there are no mirror rows and no transactions.

    `topic`, `partition` and `offset` of a change are where it was read here: the route's topic, not the raw one.
    """

    def schema_ids(self, chunks: Sequence[Chunk]) -> frozenset[int]:  # noqa: ARG002 (the protocol's)
        """None: audit records are JSON."""
        return frozenset()

    def run(self, chunks: Sequence[Chunk], schemas: Mapping[int, str | None], now_us: int) -> Batch:  # noqa: ARG002
        """Each record is a change, a dead letter (`not_decodable`), or left out: tombstones, and changes that come again in
        the batch (rule `repeated`; the latest processing stays)."""
        places = [(chunk, index) for chunk in chunks for index in range(len(chunk))]
        told = [(chunk, index) for chunk, index in places if chunk.values[index] is not None]
        left_out = Counter((chunk.topic, "tombstone") for chunk, index in places if chunk.values[index] is None)
        read = audit_reading.changes([chunk.values[index] for chunk, index in told])
        where = [told[row] for row in read.rows]
        changes = read.changes.with_columns(
            pl.Series("topic", [chunk.topic for chunk, _ in where], dtype=pl.String),
            pl.Series("partition", [chunk.partition for chunk, _ in where], dtype=pl.UInt32),
            pl.Series("offset", [chunk.offsets[index] for chunk, index in where], dtype=pl.UInt64),
        )
        once = _once(changes)
        left_out.update((topic, "repeated") for topic in changes.join(once, on=_PLACE, how="anti")["topic"])
        letters = tuple(_letter(*told[row]) for row in read.unreadable)
        return Batch(once, (), empty(TRANSACTIONS), letters, dict(left_out))


def _once(changes: pl.DataFrame) -> pl.DataFrame:
    """Each change once, in its latest processing, where it came first."""
    if changes["event_id"].n_unique() == len(changes):
        return changes
    latest = changes.sort("processed_at", maintain_order=True).unique("event_id", keep="last", maintain_order=True)
    first = changes.select("event_id").with_row_index("_at").unique("event_id", keep="first")
    return latest.join(first, on="event_id", how="left").sort("_at").drop("_at")


def _letter(chunk: Chunk, index: int) -> DeadLetter:
    return DeadLetter(
        topic=chunk.topic,
        partition=chunk.partition,
        offset=chunk.offsets[index],
        timestamp_ms=chunk.timestamps_ms[index],
        key=chunk.keys[index],
        value=chunk.values[index],
        headers=chunk.headers[index],
        stage=Stage.DECODE,
        reason=Reason.NOT_DECODABLE,
        detail="no audit record of a change",
    )
