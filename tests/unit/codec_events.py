"""The captured events of `tests/data/events`, grouped by writer schema, for the tests of the codec."""

from __future__ import annotations

import base64
import gzip
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl

from chronicle.codec.columns import Column
from chronicle.codec.types import object_text

DIRECTORY = Path(__file__).parents[1] / "data" / "events"
DATABASES = ("postgres", "mysql")


def image(row: pl.Expr, columns: Sequence[Column], **options: Mapping[str, pl.Expr]) -> pl.Expr:
    """The text of a row (a struct expression), its columns in order of their names; null where the struct is null."""
    fields = [(column, row.struct.field(column.name)) for column in sorted(columns, key=lambda one: one.name)]
    return pl.when(row.is_not_null()).then(object_text(fields, **options))


@dataclass(frozen=True)
class Pair:
    """One key or value in both encodings."""

    avro: bytes
    json: bytes


@lru_cache
def events(database: str) -> tuple[dict[int, str], list[dict[str, Any]]]:
    """Avro schemas by id, and the records in the order in which they were captured."""
    with gzip.open(DIRECTORY / f"{database}.jsonl.gz", "rt", encoding="utf-8") as lines:
        first, *records = (json.loads(line) for line in lines)
    return {int(id_): text for id_, text in first["schemas"].items()}, records


@lru_cache
def pairs(database: str) -> dict[int, list[Pair]]:
    """All keys and values by their writer schema."""
    found = defaultdict(list)
    for record in events(database)[1]:
        for part in ("key", "value"):
            if record[part] is not None:
                data = base64.b64decode(record[part])
                found[int.from_bytes(data[1:5], "big")].append(Pair(data, record[f"{part}_json"].encode()))
    return dict(found)
