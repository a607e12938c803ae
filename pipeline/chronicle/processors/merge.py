"""What several processors add to the rows of one batch, put together in columns: `extra`, `labels` and `tags`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from chronicle.processors import texts
from chronicle.processors.frame import EXTRA, TAGS
from chronicle.stages.attribute import normalised

Rows = npt.NDArray[np.int64]
"""Indexes of rows of a batch, rising."""


@dataclass(frozen=True, slots=True)
class Output:
    """The columns that one processor adds to some rows."""

    rows: Rows
    columns: pl.DataFrame = field(repr=False)
    """One row for each of `rows`."""


def placed(whole: pl.Series, rows: Rows, values: pl.Series) -> pl.Series:
    """The column with other values at these rows."""
    if len(rows) == len(whole):
        return values.alias(whole.name)
    at = np.arange(len(whole))
    at[rows] = len(whole) + np.arange(len(rows))
    return pl.concat([whole, values.cast(whole.dtype)]).gather(pl.Series(at)).alias(whole.name)


def earlier(outputs: Sequence[Output], rows: Rows, length: int) -> pl.DataFrame:
    """What the processors before have added to these rows, as columns `extra.<name>`; of one name the last that says it."""
    found: dict[str, pl.Series] = {}
    for output in outputs:
        at = _places(output, length)[rows]
        if (at < 0).all():
            continue
        index = pl.Series(at).set(pl.Series(at < 0), None)
        for column in output.columns.select(pl.all().gather(index)):
            name = f"{EXTRA}{column.name}"
            before = found.get(name)
            if before is not None and before.dtype == column.dtype:
                found[name] = column.zip_with(pl.Series(at >= 0), before).alias(name)
            else:
                found[name] = column.alias(name)
    return pl.DataFrame(list(found.values()))


def extras(outputs: Sequence[Output], length: int) -> pl.Series:
    """One JSON object for each row that a processor added something to, else null."""
    mask = np.zeros(length, np.uint64)
    places = []
    for bit, output in enumerate(outputs):
        if output.columns.width:
            mask[output.rows] |= np.uint64(1 << bit)
        places.append(_places(output, length))
    result = pl.Series("extra", [None], dtype=pl.String).new_from_index(0, length)
    for signature in np.unique(mask[mask > 0]).tolist():  # the processors that a row has been through: few combinations
        rows = np.flatnonzero(mask == signature)
        members: dict[str, pl.Series] = {}
        for bit, output in enumerate(outputs):
            if signature >> bit & 1:
                at = places[bit][rows]
                whole = len(at) == len(output.rows)
                chosen = output.columns if whole else output.columns.select(pl.all().gather(pl.Series(at)))
                members |= {column.name: column for column in chosen}
        result = placed(result, rows, texts.objects(pl.DataFrame(list(members.values()))))
    return result


def _places(output: Output, length: int) -> Rows:
    at = np.full(length, -1, np.int64)
    at[output.rows] = np.arange(len(output.rows))
    return at


def labels(before: pl.Series, after: pl.Series) -> pl.Series:
    """The labels of both, each once: what the policy says stays."""
    both = pl.DataFrame([before.alias("a"), after.alias("b")])
    joined = pl.concat_list("a", pl.col("b").fill_null([])).list.drop_nulls().list.unique(maintain_order=True)
    return both.select(joined.alias("labels")).to_series()


def tags(before: pl.Series, added: Sequence[pl.Series]) -> pl.Series:
    """The tags (JSON objects) with those of the columns `tags.<name>` that are not null; each distinct combination once."""
    names = [column.name.removeprefix(TAGS) for column in added]
    both = pl.DataFrame([before.alias("before"), *added])
    some = both.select(pl.any_horizontal(pl.col(both.columns[1:]).is_not_null())).to_series()
    distinct = both.filter(some).unique()
    made = [_with_tags(text, dict(zip(names, values, strict=True))) for text, *values in distinct.iter_rows()]
    lookup = distinct.with_columns(pl.Series("made", made, dtype=pl.String))
    found = both.join(lookup, on=both.columns, how="left", nulls_equal=True, maintain_order="left")
    return found.select(pl.coalesce("made", "before").alias("tags")).to_series()


def _with_tags(text: str | None, added: dict[str, str | None]) -> str | None:
    known: dict[str, Any] = msgspec.json.decode(text) if text else {}
    return normalised({"tags": {**known, **{name: value for name, value in added.items() if value is not None}}}).tags
