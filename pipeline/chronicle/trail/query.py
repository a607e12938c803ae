"""Free SQL on the trail and the mirrors, read-only and bounded, for `chronicle sql`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from chronicle.errors import ChronicleError, ConfigError, TransientError
from chronicle.trail.reading import AUTHENTICATION, OVERLOADED, error_code, plain, translated

READONLY, SYNTAX = (164, 392), 62
"""ClickHouse's codes: not allowed in read-only mode; not SQL."""
ABOUT_THE_TEXT = (16, 36, 42, 43, 44, 46, 47, 48, 53, 60, 62, 63, 81, 184, 207, 215, 352, 386, 403, 456)
"""Codes whose message speaks of the query's own text. Others (a value that cannot be parsed …) may quote a row."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query gave: columns, rows (times are aware), and whether rows beyond the limit were left out."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    """ClickHouse's names of the columns' types."""
    rows: tuple[tuple[Any, ...], ...]
    cut: bool


def run(client: Client, sql: str, *, limit: int, timeout_s: int) -> Answer:
    """Run one statement that can only read, for at most `timeout_s` seconds and `limit` rows.

    ClickHouse itself refuses everything else (`readonly=2`, which the statement cannot take back).

    Raises:
        TransientError: ClickHouse is away, or the query took too much time or memory.
        ConfigError: there is no query.
        ChronicleError: it is not a query, or ClickHouse refuses it; the message holds ClickHouse's own words
            where they are about the query.
    """
    settings = {
        "readonly": 2,
        "max_execution_time": timeout_s,
        "max_result_rows": limit + 1,
        "result_overflow_mode": "break",
        "cancel_http_readonly_queries_on_client_close": 1,  # Ctrl-C ends it there, too
    }
    text = sql.strip().rstrip(";")
    if not text:
        raise ConfigError('write a query, such as "SHOW TABLES FROM mirror": there is none')
    try:
        result = client.query(text, settings=settings)
    except ClickHouseError as error:
        raise _explained(error) from None
    found = tuple(tuple(map(plain, row)) for row in result.result_rows[: limit + 1])
    types = tuple(each.name for each in result.column_types)
    return Answer(tuple(result.column_names), types, found[:limit], len(found) > limit)


def _explained(error: ClickHouseError) -> ChronicleError:
    code = error_code(error)
    known = translated(error)
    if code in READONLY:
        return ChronicleError("ask with SELECT, SHOW, DESCRIBE or EXPLAIN: `chronicle sql` only reads")
    if code in OVERLOADED:
        return TransientError(f"ask for less, or allow longer (--timeout): ClickHouse ran out of time or memory ({code})")
    if isinstance(known, TransientError) or code in AUTHENTICATION:
        return known
    if code == SYNTAX and re.search(r"failed at position \d+ \(FORMAT\)", str(error)):  # the client's, after one in the query
        return ChronicleError("leave FORMAT out: `chronicle sql` has --json and --csv")
    said = _words(str(error), code)
    hint = "correct the SQL" if code == SYNTAX else "correct the query (see `SHOW TABLES FROM mirror`, `DESCRIBE TABLE …`)"
    return ChronicleError(f"{hint}\n{said}")


def _words(text: str, code: int | None) -> str:
    """ClickHouse's own words where they are about the query's text, else the error's name alone."""
    name = re.search(r"\(([A-Z][A-Z_0-9]{3,})\)", text)
    if code not in ABOUT_THE_TEXT:
        return name[1] if name else f"code {code}"
    said = re.search(r"DB::Exception: (.*)", text.split("\n", 1)[0])
    return re.sub(r"\s*\(version [^)]*\)\)?|\s*\(for url .*\)$", "", said[1] if said else text).strip()
