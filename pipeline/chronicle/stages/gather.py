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
        self._frames: list[pl.DataFrame] = []

    def add_markers(self, rows: Indexes, frame: pl.DataFrame) -> None:
        """BEGIN and END: `frame` has the columns `MARKERS`, one row per record index in `rows`."""
        text = pl.lit(None, pl.String)
        self._add(rows, frame.with_columns(text.alias("context"), text.alias("rung")))

    def add_contexts(self, rows: Indexes, frame: pl.DataFrame, rung: str) -> None:
        """Contexts: `frame` has the columns transaction_id, occurred_us and context, one row per record index in `rows`."""
        count, tables = pl.lit(None, MARKERS["event_count"]), pl.lit(None, MARKERS["tables"])
        kind = pl.lit("context").alias("kind")
        self._add(
            rows, frame.with_columns(kind, count.alias("event_count"), tables.alias("tables"), pl.lit(rung).alias("rung"))
        )

    def _add(self, rows: Indexes, frame: pl.DataFrame) -> None:
        self._rows.append(rows)
        self._frames.append(frame.select(*MARKERS, "context", "rung"))

    def frame(self) -> pl.DataFrame:
        """Rows of `TRANSACTIONS`, in the order of the records."""
        if not self._frames:
            return empty(TRANSACTIONS)
        indexes = np.concatenate(self._rows)
        order = np.argsort(indexes, kind="stable")
        return (
            pl.concat(self._frames)
            .hstack(place(self._records, self._facts, indexes))
            .with_columns(
                pl.col("occurred_us").cast(MICROS).alias("occurred_at"),
                pl.lit(self._now_us, pl.Int64).cast(MICROS).alias("processed_at"),
            )
            .select(one.name for one in TRANSACTIONS)[order]
        )
