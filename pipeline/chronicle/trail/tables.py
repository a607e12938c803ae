"""Which tables the trail knows, and which of them a person means by a name or a part of one."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from clickhouse_connect.driver.client import Client

from chronicle.errors import ChronicleError
from chronicle.trail.reading import rows

CANDIDATES_MAX = 8
"""How many names an error lists."""


@dataclass(frozen=True, slots=True, order=True)
class TableName:
    """One captured table."""

    source: str
    schema: str
    table: str

    def __str__(self) -> str:
        return f"{self.source}.{self.schema}.{self.table}"


def known(client: Client, database: str, *, source: str | None = None) -> list[TableName]:
    """All tables with a change, by name."""
    sql = """
        SELECT source, schema, table FROM {database:Identifier}.changes
        WHERE {source:String} = '' OR source = {source:String} GROUP BY source, schema, table ORDER BY ALL
    """
    found = rows(client, sql, {"database": database, "source": source or ""})
    return [TableName(row["source"], row["schema"], row["table"]) for row in found]


def resolve(text: str, tables: Sequence[TableName]) -> TableName:
    """The table whose full name is `text`, or the only one whose name ends with it (`customers`, `public.customers`).

    Raises:
        ChronicleError: none does (the nearest names are listed) or several do (all are listed).
    """
    matching = [name for name in tables if str(name) == text] or [name for name in tables if str(name).endswith(f".{text}")]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise ChronicleError(f"say which table: {_listed([str(name) for name in matching])}")
    if not tables:
        raise ChronicleError("start `chronicle worker` and write something to a captured table: the trail is empty")
    raise ChronicleError(f"{_nearest(text, tables)}: no changes of a table {text!r}")


def _nearest(text: str, tables: Sequence[TableName]) -> str:
    by_suffix = {spelling: str(name) for name in tables for spelling in (name.table, f"{name.schema}.{name.table}", str(name))}
    near = list(dict.fromkeys(by_suffix[match] for match in difflib.get_close_matches(text, by_suffix, CANDIDATES_MAX, 0.5)))
    return f"did you mean {_listed(near)}" if near else f"name one of {_listed([str(name) for name in tables])}"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - CANDIDATES_MAX
    return ", ".join(names[:CANDIDATES_MAX]) + (f" and {more} more" if more > 0 else "")
