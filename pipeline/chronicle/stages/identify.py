"""Identify: raw columns of all changes of a batch become rows of `model.columns.CHANGES`: who, where in order, when.

Done on the whole batch at once, one frame per family of connectors, because it costs the same for one table as for 200.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import polars as pl

from chronicle.codec.debezium import OPERATIONS, Family
from chronicle.model import identity, position
from chronicle.model.columns import CHANGES, MEANING

_ORDER = [column.name for column in CHANGES if column.name not in MEANING]


def positioned(changes: pl.DataFrame, family: Family) -> pl.DataFrame:
    """With `position_hi` and `position_lo`; null where the source block gives none."""
    return changes.with_columns(
        position.postgres(lsn_known=not changes["lsn"].null_count()) if family is Family.POSTGRES else position.binlog()
    )


@dataclass(frozen=True, slots=True)
class _Case:
    """Rows whose event text is made in one way."""

    applies: pl.Expr
    text: Callable[[], pl.Expr]


_SNAPSHOT, _KEYLESS = pl.col("op") == "r", pl.col("raw_key").is_null()


def _seen_at(family: Family) -> pl.Expr:
    """Where a snapshot row was observed, as the connector wrote it."""
    if family is Family.POSTGRES:
        return pl.coalesce(pl.col("sequence"), pl.col("lsn").cast(pl.String))
    return pl.concat_str(pl.col("file"), pl.lit(":"), pl.col("pos").cast(pl.String))


def _cases(family: Family) -> Sequence[_Case]:
    snapshots = (
        _Case(_SNAPSHOT & _KEYLESS, identity.coordinates_text),
        _Case(_SNAPSHOT & ~_KEYLESS, lambda: identity.snapshot_text(_seen_at(family))),
    )
    if family is Family.BINLOG:
        return (*snapshots, _Case(~_SNAPSHOT, identity.binlog_text))
    ordered = _KEYLESS & (pl.col("op") != "t")
    return (
        *snapshots,
        _Case(~_SNAPSHOT & ordered, lambda: identity.postgres_text(ordered=True)),
        _Case(~_SNAPSHOT & ~ordered, lambda: identity.postgres_text(ordered=False)),
    )


def event_texts(changes: pl.DataFrame, family: Family) -> pl.Series:
    """What each event id is the hash of. Only the kinds of text that occur are built."""
    cases = _cases(family)
    occurs = changes.select(case.applies.any().alias(str(index)) for index, case in enumerate(cases)).row(0)
    used = [case for case, there in zip(cases, occurs, strict=True) if there]
    if not used:
        return pl.Series("text", [], dtype=pl.String)
    text = used[-1].text()
    for case in reversed(used[:-1]):
        text = pl.when(case.applies).then(case.text()).otherwise(text)
    return changes.select(text.alias("text")).to_series()


@dataclass(frozen=True, slots=True)
class Processing:
    """By whom and when a batch is processed."""

    identity_key: bytes = field(repr=False)
    now_us: int
    """Microseconds since 1970."""


def identified(
    changes: pl.DataFrame, family: Family, changed: pl.Series, unavailable: pl.Series, processing: Processing
) -> pl.DataFrame:
    """Rows of `CHANGES` without `MEANING`, in the order of the rows given (which must have passed validation)."""
    identity_key = processing.identity_key
    entities = changes.select(identity.entity_text().alias("text")).to_series()
    previous = changes["raw_previous_key"]
    ids = [
        pl.Series("event_id", identity.event_ids(event_texts(changes, family).to_list(), identity_key), dtype=pl.Binary),
        pl.Series("entity", identity.entities(entities.to_list(), identity_key), dtype=pl.Binary),
        changed.alias("changed"),
        unavailable.alias("unavailable"),
    ]
    if previous.null_count() == len(previous):
        ids.append(pl.Series("previous_entity", [None], dtype=pl.Binary).new_from_index(0, len(changes)))
    else:
        ids.append(_previous_entities(changes, identity_key))
    micros, utc = pl.Datetime("us", "UTC"), pl.Datetime("ms", "UTC")
    return (
        changes.hstack(ids)
        .with_columns(
            pl.col("op").replace_strict(dict(OPERATIONS), return_dtype=pl.String).alias("operation"),
            _transaction_id(family, changes).alias("transaction_id"),
            pl.col("committed_us").cast(micros).alias("committed_at"),
            pl.col("captured_us").cast(micros).alias("captured_at"),
            pl.col("received_ms").cast(utc).alias("received_at"),
            pl.lit(processing.now_us, pl.Int64).cast(micros).alias("processed_at"),
            pl.col("key").fill_null(""),
        )
        .select(_ORDER)
    )


def _previous_entities(changes: pl.DataFrame, identity_key: bytes) -> pl.Series:
    renamed = changes.select("source", "schema", "table", pl.col("raw_previous_key").alias("raw_key"))
    there = renamed["raw_key"].is_not_null()
    texts = renamed.filter(there).select(identity.entity_text().alias("text")).to_series()
    made = iter(identity.entities(texts, identity_key))
    return pl.Series("previous_entity", [next(made) if one else None for one in there], dtype=pl.Binary)


def _transaction_id(family: Family, changes: pl.DataFrame) -> pl.Expr:
    """The id that all rows of a transaction share (fact 3); a snapshot row belongs to none."""
    if family is Family.POSTGRES:
        shared = pl.col("tx_id").cast(pl.String)
        if changes["tx_id"].null_count():
            shared = pl.coalesce(shared, pl.col("transaction").str.extract(r"^([^:]+)", 1))
    else:
        shared = pl.coalesce(pl.col("transaction"), pl.col("gtid"))
    return pl.when(pl.col("op") != "r").then(shared)
