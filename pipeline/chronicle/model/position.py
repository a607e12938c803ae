"""Where a change stands in its source's order: 128 bits in two halves, the only order there is.

- Postgres: `seq0 << 64 | lsn << 1 | streamed`, seq0 being the last commit's LSN from `source.sequence` (fact 1: the LSN
  alone orders by write, not by commit). `streamed` is 0 for snapshot rows, so that a snapshot loses a tie.
- MySQL, MariaDB: `file number << 64 | pos << 20 | row`.

The top 8 bits are the source's epoch. Positions compare only within one source.
"""

from __future__ import annotations

import polars as pl

EPOCH_SHIFT = 56
ROW_BITS = 20
_ROW_MAX = (1 << ROW_BITS) - 1
_POS_MAX = (1 << 64 - ROW_BITS) - 1


def sequence_commit() -> pl.Expr:
    """seq0 of `sequence` (`["123","456"]`, or `[null,"456"]` before the first commit) as UInt64; null when absent."""
    return pl.col("sequence").str.extract(r'^\["(\d+)"', 1).cast(pl.UInt64, strict=False)


def sequence_lsn() -> pl.Expr:
    """The second element of `sequence` as UInt64: what `lsn` would say where it is null (incremental snapshots)."""
    return pl.col("sequence").str.extract(r'"(\d+)"\]$', 1).cast(pl.UInt64, strict=False)


def binlog_number() -> pl.Expr:
    """The number of a binlog file (`mysql-bin.000003` → 3) as UInt64; null when the name has none."""
    return pl.col("file").str.extract(r"\.(\d+)$", 1).cast(pl.UInt64, strict=False)


def postgres(*, lsn_known: bool = False) -> tuple[pl.Expr, pl.Expr]:
    """(`position_hi`, `position_lo`) from the columns epoch, sequence, lsn and op; null where there is no LSN at all.

    `lsn_known`: no `lsn` is null, so that the sequence need not be asked for it.
    """
    plain = pl.col("lsn").cast(pl.UInt64, strict=False)
    lsn = plain if lsn_known else pl.coalesce(plain, sequence_lsn())
    streamed = (pl.col("op") != "r").cast(pl.UInt64)
    return _upper(pl.coalesce(sequence_commit(), lsn)), (lsn * 2 + streamed).alias("position_lo")


def binlog() -> tuple[pl.Expr, pl.Expr]:
    """(`position_hi`, `position_lo`) from the columns epoch, file, pos and row; null where file or pos is not usable.

    A row number beyond 20 bits is cut to the largest: order within that one binlog event is lost, nothing else.
    """
    row = pl.col("row").cast(pl.UInt64, strict=False).fill_null(0).clip(upper_bound=_ROW_MAX)
    pos = pl.when(pl.col("pos").is_between(0, _POS_MAX)).then(pl.col("pos")).cast(pl.UInt64)
    return _upper(binlog_number()), (pos * (1 << ROW_BITS) + row).alias("position_lo")


def _upper(number: pl.Expr) -> pl.Expr:
    return (number + pl.col("epoch").cast(pl.UInt64) * (1 << EPOCH_SHIFT)).alias("position_hi")


def parse(text: str) -> tuple[int, int]:
    """(`position_hi`, `position_lo`) of a position written as a decimal string, as JSON carries it.

    Raises:
        ValueError: not a number of at most 128 bits.
    """
    value = int(text)
    if not 0 <= value < 1 << 128:
        raise ValueError("a position has 128 bits")
    return value >> 64, value & ((1 << 64) - 1)
