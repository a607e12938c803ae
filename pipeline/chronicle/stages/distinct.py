"""Work on the distinct values of a column, and put what came of it where the values were."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
import pyarrow as pa

from chronicle.codec.diff import Indexes

Change = Callable[[pl.Series], pl.Series]
"""From distinct texts (no nulls) to what stands for them, in the same order."""


def over_distinct(texts: pl.Series, change: Change) -> pl.Series:
    """Call `change` once with the distinct values of a String column; null stays null."""
    encoded = texts.to_arrow()
    if not pa.types.is_large_string(encoded.type):
        encoded = encoded.cast(pa.large_string())
    encoded = encoded.dictionary_encode()
    values = pl.Series(texts.name, encoded.dictionary, dtype=pl.String)
    return change(values).gather(pl.Series(encoded.indices)).alias(texts.name)


def over_rows(texts: pl.Series, rows: Indexes, change: Change) -> pl.Series:
    """Call `change` with the values in these rows; the others stay as they are."""
    if not len(rows):
        return texts
    at = np.arange(len(texts), dtype=np.int64)
    at[rows] = np.arange(len(texts), len(texts) + len(rows), dtype=np.int64)
    return pl.concat([texts, change(texts.gather(pl.Series(rows))).alias(texts.name)]).gather(pl.Series(at))
