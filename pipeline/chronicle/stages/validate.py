"""Validate: the envelope's contract, the key's presence, a usable position and a bounded size, for all changes at once.

A record that breaks the contract becomes a dead letter with its reason; its neighbours go through. Nothing here reads a
row's content: details are written from the names of what is missing.

Sizes are bounded here, before any sink: what Kafka refuses when ClickHouse holds it already would be in two places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from chronicle.codec.debezium import OPERATIONS
from chronicle.codec.diff import NameLists
from chronicle.codec.times import YEARS_US, from_millis
from chronicle.model.dead_letters import Reason
from chronicle.model.position import EPOCH_SHIFT

MARGIN_BYTES = 1024 * 1024
"""Of an audit record, for all in it that has a bound of its own (times, numbers, the names of topic and source), and for
what Kafka puts around it."""
_REPEATED = 24
"""Names and transaction ids stand in an audit record four times at most, and escaping makes a byte six at most."""
_ESCAPED = 6


@dataclass(frozen=True, slots=True)
class Rule:
    """One clause of the contract: where `broken` is true the record fails for `reason`."""

    reason: Reason
    detail: str
    broken: pl.Expr


def _op(*codes: str) -> pl.Expr:
    return pl.col("op").is_in(codes)


def _shown(name: str) -> pl.Expr:
    return pl.col(name).is_between(*YEARS_US)


_HI, _LO, _EPOCH = pl.col("position_hi"), pl.col("position_lo"), pl.col("epoch").cast(pl.UInt64)

RULES: Sequence[Rule] = (
    Rule(Reason.BAD_ENVELOPE, "op is none of c, u, d, r, t", ~_op(*OPERATIONS).fill_null(False)),
    Rule(
        Reason.BAD_ENVELOPE,
        "the source block names no connector, schema or table",
        pl.any_horizontal(pl.col("connector", "schema", "table").is_null()),
    ),
    Rule(Reason.BAD_ENVELOPE, "a create, update or snapshot without after", _op("c", "u", "r") & ~pl.col("has_after")),
    Rule(Reason.BAD_ENVELOPE, "a delete without before", _op("d") & ~pl.col("has_before") & pl.col("raw_key").is_not_null()),
    Rule(Reason.BAD_ENVELOPE, "the source block has no commit time", pl.col("committed_us").is_null()),
    Rule(
        Reason.BAD_ENVELOPE,
        "time out of range: committed, captured or received outside the years 1 to 9999",
        ~pl.all_horizontal(
            _shown("committed_us"), _shown("captured_us"), from_millis(pl.col("received_ms")).is_between(*YEARS_US)
        ),
    ),
    Rule(
        Reason.MISSING_KEY,
        "no key: if the table has no primary key, declare it under `keyless` in the source file",
        pl.col("keyed") & pl.col("raw_key").is_null() & ~_op("t"),
    ),
    Rule(Reason.BAD_POSITION, "the source block has no usable position", _HI.is_null() | _LO.is_null()),
    Rule(Reason.BAD_POSITION, "the position does not fit its 56 bits", (_HI // (1 << EPOCH_SHIFT)) != _EPOCH),
    Rule(Reason.TOO_LARGE, "the change as JSON is larger than the audit topic takes", pl.col("too_large")),
)
"""In this order; the first broken one is the record's reason. Columns: `codec.debezium.core_schema`, raw_key, keyed,
epoch, position_hi, position_lo, too_large."""


def audit_bytes(changes: pl.DataFrame, names: Sequence[NameLists]) -> npt.NDArray[np.int64]:
    """What each change's audit record may have in bytes, without what `MARGIN_BYTES` covers.

    A bound, not the size: it follows from the change alone, and is never too low. `names`: the lists of column names that
    belong to the changes.
    """
    once = [pl.col(name).str.len_bytes() for name in ("before", "after", "key", "previous_key")]
    repeated = [pl.col(name).str.len_bytes() for name in _NAMES if name in changes.columns]
    size = changes.select(pl.sum_horizontal(*once) + pl.sum_horizontal(*repeated).cast(pl.UInt64) * _REPEATED).to_series()
    return sum((_listed_bytes(one) for one in names), size.to_numpy().astype(np.int64))


_NAMES = ("connector", "schema", "table", "transaction", "gtid")


def _listed_bytes(names: NameLists) -> npt.NDArray[np.int64]:
    sizes = [_ESCAPED * len("".join(one).encode()) + 3 * len(one) for one in names.lists]
    return np.asarray(sizes, np.int64)[names.of_row]


def broken_rules(changes: pl.DataFrame) -> pl.Series:
    """For each row 0, or 1 + the index of the first of `RULES` that it breaks."""
    code = pl.lit(0, pl.UInt8)
    for index in reversed(range(len(RULES))):
        code = pl.when(RULES[index].broken.fill_null(False)).then(pl.lit(index + 1, pl.UInt8)).otherwise(code)
    return changes.select(code.alias("rule")).to_series()
