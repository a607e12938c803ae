"""Images: the canonical JSON text of a row, whatever its columns are."""

from __future__ import annotations

import json
from itertools import product

import polars as pl
import pytest

from chronicle.codec import types
from chronicle.codec.columns import Column
from tests.unit.codec_events import image


@pytest.mark.parametrize("kinds", [kinds for count in range(5) for kinds in product("if", repeat=count)], ids="".join)
def test_an_image_is_the_same_text_however_its_columns_are_spliced(kinds: tuple[str, ...]) -> None:
    """Floats stand alone between runs of other columns: first, last, next to each other, or all there is."""
    dtypes = {"i": pl.Int64(), "f": pl.Float64()}
    values: dict[str, int | float] = {f"c{at}": at if kind == "i" else at + 0.5 for at, kind in enumerate(kinds)}
    columns = [Column(name, dtypes[kind]) for name, kind in zip(values, kinds, strict=True)]
    frame = pl.DataFrame({"there": [True]} | {name: [value] for name, value in values.items()})
    fields = [(column, pl.col(column.name)) for column in columns]
    assert frame.select(types.object_text(fields)).item() == json.dumps(values, separators=(",", ":"))
    if columns:
        row, nowhere = pl.struct(*values), {columns[-1].name: pl.lit(False)}
        assert frame.select(image(row, columns, unavailable=nowhere)).item() == json.dumps(values, separators=(",", ":"))
