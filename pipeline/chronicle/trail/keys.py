"""What a person writes for a primary key (`7`, `1,2`, `{"id":7}`) as the key texts that the trail may hold."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from typing import Any

from clickhouse_connect.driver.client import Client

from chronicle.errors import ChronicleError
from chronicle.trail.reading import rows
from chronicle.trail.tables import TableName

SAMPLED_ROWS = 100_000
"""From how many rows the shapes of a table's key are learnt; they lie in order of a hash, so this is a fair sample."""
COMPONENTS_MAX = 10
"""Key columns for which both spellings (number, text) are tried."""


def shapes(client: Client, database: str, table: TableName) -> list[tuple[str, ...]]:
    """The names of the key's columns, in key order; more than one shape when the table's key was changed."""
    sql = """
        SELECT DISTINCT JSONExtractKeys(key) AS names FROM (
            SELECT key FROM {database:Identifier}.changes
            WHERE source = {source:String} AND schema = {schema:String} AND table = {table:String} AND key != ''
            LIMIT {sampled:UInt64}
        ) ORDER BY names
    """
    named = {"source": table.source, "schema": table.schema, "table": table.table}
    found = rows(client, sql, {"database": database, "sampled": SAMPLED_ROWS, **named})
    return [tuple(row["names"]) for row in found if row["names"]]


def texts(written: str, key_shapes: Sequence[tuple[str, ...]]) -> list[str]:
    """Every canonical key text that `written` can mean under these shapes.

    A bare value is tried as a number and as a text, since a person does not write the quotes. A JSON object or array is
    taken as it is, an object in any order of columns.

    Raises:
        ChronicleError: the table has no key, or `written` does not fit any shape; the message names the columns.
    """
    if not key_shapes:
        raise ChronicleError("ask with `chronicle changes --table …` instead: this table has no primary key")
    found = [text for names in key_shapes for values in _spellings(written.strip(), names) for text in [_text(names, values)]]
    if not found:
        wanted = " or ".join(",".join(names).upper() for names in key_shapes)
        raise ChronicleError(f"write the key as {wanted} or as JSON ({_example(key_shapes[0])}): this one does not fit")
    return list(dict.fromkeys(found))


def _spellings(written: str, names: tuple[str, ...]) -> list[tuple[Any, ...]]:
    parsed = _json(written)
    if isinstance(parsed, dict):
        return [tuple(parsed[name] for name in names)] if set(parsed) == set(names) else []
    if isinstance(parsed, list):
        return [tuple(parsed)] if len(parsed) == len(names) else []
    parts = [written] if len(names) == 1 else [part.strip() for part in written.split(",")]
    if len(parts) != len(names) or len(names) > COMPONENTS_MAX:
        return []
    return list(itertools.product(*(_readings(part) for part in parts)))


def _readings(part: str) -> list[Any]:
    """A text that looks like a number or a truth value may be one."""
    if part in ("true", "false"):
        return [part == "true", part]
    if re.fullmatch(r'".*"', part) and isinstance(text := _json(part), str):
        return [text]
    return [int(part), part] if re.fullmatch(r"-?(0|[1-9]\d{0,38})", part) else [part]


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _text(names: tuple[str, ...], values: tuple[Any, ...]) -> str:
    return json.dumps(dict(zip(names, values, strict=True)), ensure_ascii=False, separators=(",", ":"))


def _example(names: tuple[str, ...]) -> str:
    return "{" + ",".join(f'"{name}":…' for name in names) + "}"
