"""Receive: records of routes' topics become a batch again, for workers of a role: an `engine.Path` without schemas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import polars as pl

from chronicle.codec import audit_events_reading, audit_reading
from chronicle.model.batch import Batch
from chronicle.model.chunk import Chunk
from chronicle.model.columns import TRANSACTIONS, empty
from chronicle.model.dead_letters import DeadLetter, Reason, Stage
from chronicle.model.event_columns import IDENTITY, NO_EVENTS

_PLACE = ("topic", "partition", "offset")
_CHANGE = (pl.col("event_id"),)
_EVENT = tuple(pl.col(name).fill_null("") if name == "tenant" else pl.col(name) for name in IDENTITY)
_Place = tuple[Chunk, int]


class Receiving:
    """What was sanitized, attributed and routed is taken as it is; there are no mirror rows and no transactions.

    `topic`, `partition` and `offset` of a change or an event are where it was read here: the route's topic, not the raw one.
    """

    def schema_ids(self, chunks: Sequence[Chunk]) -> frozenset[int]:  # noqa: ARG002 (the protocol's)
        """None: audit records are JSON."""
        return frozenset()

    def run(self, chunks: Sequence[Chunk], schemas: Mapping[int, str | None], now_us: int) -> Batch:  # noqa: ARG002
        """Each record is a change, an event, a dead letter (`not_decodable`), or left out: tombstones, and what comes again in
        the batch (rule `repeated`; the latest processing stays)."""
        left_out: Counter[tuple[str, str]] = Counter()
        places: list[_Place] = []
        values: list[bytes] = []
        for chunk in chunks:
            for index, value in enumerate(chunk.values):
                if value is None:
                    left_out[chunk.topic, "tombstone"] += 1
                else:
                    places.append((chunk, index))
                    values.append(value)
        maybe = [at for at, value in enumerate(values) if audit_events_reading.maybe(value)]
        others, events = list(range(len(values))), NO_EVENTS
        if maybe:
            found = audit_events_reading.events([values[at] for at in maybe])
            are = {maybe[row] for row in found.rows}
            events = _placed(found.events, [places[maybe[row]] for row in found.rows])
            others = [at for at in others if at not in are]
        read = audit_reading.changes([values[at] for at in others])
        changes = _placed(read.changes, [places[others[row]] for row in read.rows])
        once, told = _once(changes, _CHANGE), _once(events, _EVENT)
        for all_, kept in ((changes, once), (events, told)):
            if len(all_) > len(kept):
                left_out.update((topic, "repeated") for topic in all_.join(kept, on=_PLACE, how="anti")["topic"])
        letters = tuple(_letter(*places[others[row]]) for row in read.unreadable)
        return Batch(once, (), empty(TRANSACTIONS), letters, dict(left_out), events=told)


def _placed(rows: pl.DataFrame, where: Sequence[_Place]) -> pl.DataFrame:
    return rows.with_columns(
        pl.Series("topic", [chunk.topic for chunk, _ in where], dtype=pl.String),
        pl.Series("partition", [chunk.partition for chunk, _ in where], dtype=pl.UInt32),
        pl.Series("offset", [chunk.offsets[index] for chunk, index in where], dtype=pl.UInt64),
    )


def _once(rows: pl.DataFrame, identity: Sequence[pl.Expr]) -> pl.DataFrame:
    """Each change or event once, in its latest processing, where it came first."""
    names = [f"_identity_{at}" for at in range(len(identity))]
    named = rows.with_columns(part.alias(name) for part, name in zip(identity, names, strict=True))
    if not named.select(names).is_duplicated().any():
        return rows
    latest = named.sort("processed_at", maintain_order=True).unique(names, keep="last", maintain_order=True)
    first = named.select(names).with_row_index("_at").unique(names, keep="first")
    return latest.join(first, on=names, how="left").sort("_at").drop("_at", *names)


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
        detail="no audit record of a change or an event",
    )
