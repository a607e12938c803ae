"""One seam between the trail and clickhouse-connect: run a query, get plain values, translate the library's errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, OperationalError

from chronicle.errors import ChronicleError, ConfigError, TransientError

UNKNOWN_TABLE, UNKNOWN_DATABASE = 60, 81
AUTHENTICATION = (192, 193, 194, 516)
OVERLOADED = (158, 159, 160, 202, 209, 210, 241, 307, 396, 439)
"""Too many rows, timeout, too slow, too many queries, socket timeout, network error, memory limit, too many bytes or rows of a
result, no thread."""

LIMITS: Mapping[str, Any] = {"max_execution_time": 60, "readonly": 2}
"""Of every query of the trail: it can only read, and it ends."""


def rows(client: Client, sql: str, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """Run one SELECT and return its rows by column name; DateTime64 values are aware and in UTC.

    Raises:
        ConfigError: the trail's tables are not there, or the user may not read them.
        TransientError: ClickHouse is away or busy.
        ChronicleError: ClickHouse refuses the query for another reason (its code and first sentence are named).
    """
    try:
        result = client.query(sql, parameters=dict(parameters or {}), settings=dict(LIMITS))
    except ClickHouseError as error:
        raise translated(error) from None
    names = result.column_names
    return [{name: plain(value) for name, value in zip(names, row, strict=True)} for row in result.result_rows]


def error_code(error: ClickHouseError) -> int | None:
    """ClickHouse's numeric code, or None when no server answered."""
    found = re.search(r"(?:code:?|Code:)\s*(\d+)", str(error), re.IGNORECASE)
    return int(found[1]) if found else None


def translated(error: ClickHouseError) -> ChronicleError:
    """The library's error as one of Chronicle's, with the fix first; the server's own text is left out."""
    code = error_code(error)
    if code is None and isinstance(error, OperationalError):
        return TransientError("start ClickHouse or correct clickhouse.url: no answer from it")
    if code in (UNKNOWN_TABLE, UNKNOWN_DATABASE):
        return ConfigError("run `chronicle setup`: the trail's tables are not in ClickHouse")
    if code in AUTHENTICATION:
        return ConfigError("correct clickhouse.username and clickhouse.password: ClickHouse refuses this user")
    if code in OVERLOADED:
        return TransientError(f"ask for less (--since, --limit) or try again: ClickHouse ran out of time or memory ({code})")
    return ChronicleError(f"ClickHouse refuses the query (code {code})")


def micros(at: datetime) -> int:
    """Microseconds since 1970, for `fromUnixTimestamp64Micro`: the only exact way to bind an instant."""
    delta = at.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def plain(value: Any) -> Any:
    """A value as the trail gives it: a time without a zone is in UTC."""
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.tzinfo is None else value
