"""Gather: what the place and the headers of each record say, as columns; and the transaction records of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from chronicle.codec import headers
from chronicle.codec.transaction import MARKERS
from chronicle.model.chunk import SourceSpec
from chronicle.model.columns import MICROS, TRANSACTIONS, empty
from chronicle.stages.decode import Indexes, Records


@dataclass(frozen=True, slots=True)
class Facts:
    """By record index: what no decoding is needed for."""

    specs: tuple[SourceSpec, ...]
    """By topic index."""
    epoch: Indexes
    old_keys: dict[int, str] = field(repr=False)
    """Record index → key before a primary-key change."""


def facts(records: Records, specs: Sequence[SourceSpec]) -> Facts:
    """Read the headers and match topics with sources (`specs`: one per topic)."""
    read, of_record = headers.read_all(records.headers)
    of_topic = np.asarray([spec.epoch for spec in specs], np.int64)
    told = np.asarray([-1 if one.epoch is None else one.epoch for one in read], np.int64)
    if not len(records):
        return Facts(tuple(specs), np.zeros(0, np.int64), {})
    which = np.asarray(of_record, np.int64)
    epoch = told[which]
    epoch = np.where(epoch < 0, of_topic[records.topic], epoch)
    moved = np.asarray([one.old_key is not None for one in read], np.bool_)
    old_keys = {int(index): read[of_record[index]].old_key or "" for index in np.flatnonzero(moved[which])}
    return Facts(tuple(specs), epoch, old_keys)


def place(records: Records, found: Facts, rows: Indexes) -> list[pl.Series]:
    """Columns of these records that follow from where they are: source, epoch, topic, partition, offset, received_ms."""
    topic = records.topic[rows]
    codes = pl.Series(topic)
    return [
        pl.Series("source", [spec.name for spec in found.specs], dtype=pl.String).gather(codes),
        pl.Series("epoch", found.epoch[rows].astype(np.uint8)),
        pl.Series("topic", records.topics, dtype=pl.String).gather(codes),
        pl.Series("partition", records.partition[rows].astype(np.uint32)),
        pl.Series("offset", records.offset[rows].astype(np.uint64)),
        pl.Series("received_ms", records.timestamp_ms[rows]),
    ]


class Transactions:
    """Collects a batch's BEGIN, END and context records."""

    def __init__(self, records: Records, found: Facts, now_us: int) -> None:
        self._records, self._facts, self._now_us = records, found, now_us
        self._rows: list[Indexes] = []
        self._markers: list[pl.DataFrame] = []
        self._contexts: list[tuple[int, str, int, str, str]] = []

    def add_markers(self, rows: Indexes, frame: pl.DataFrame) -> None:
        """BEGIN and END: `frame` has the columns `MARKERS`, one row per record index in `rows`."""
        self._rows.append(rows)
        self._markers.append(frame)

    def add_context(self, row: int, transaction_id: str, occurred_us: int, context: str, rung: str) -> None:
        """A context out of the record with this index."""
        self._contexts.append((row, transaction_id, occurred_us, context, rung))

    def frame(self) -> pl.DataFrame:
        """Rows of `TRANSACTIONS`, in the order of the records."""
        if not self._markers and not self._contexts:
            return empty(TRANSACTIONS)
        text = pl.lit(None, pl.String)
        parts = [one.with_columns(text.alias("context"), text.alias("rung")) for one in self._markers]
        rows = list(self._rows)
        if self._contexts:
            rows.append(np.asarray([one[0] for one in self._contexts], np.int64))
            parts.append(self._context_frame(list(parts[0].columns) if parts else [*MARKERS, "context", "rung"]))
        indexes = np.concatenate(rows)
        order = np.argsort(indexes, kind="stable")
        return (
            pl.concat(parts)
            .hstack(place(self._records, self._facts, indexes))
            .with_columns(
                pl.col("occurred_us").cast(MICROS).alias("occurred_at"),
                pl.lit(self._now_us, pl.Int64).cast(MICROS).alias("processed_at"),
            )
            .select(one.name for one in TRANSACTIONS)[order]
        )

    def _context_frame(self, columns: list[str]) -> pl.DataFrame:
        _, ids, times, contexts, rungs = zip(*self._contexts, strict=True)
        count = len(self._contexts)
        return pl.DataFrame(
            {
                "transaction_id": ids,
                "kind": ["context"] * count,
                "occurred_us": times,
                "event_count": [None] * count,
                "tables": [None] * count,
                "context": contexts,
                "rung": rungs,
            },
            schema={**MARKERS, "context": pl.String, "rung": pl.String},
        ).select(columns)
