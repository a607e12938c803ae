"""The seam where ClickHouse's errors become Chronicle's: by code, with every text that could hold a value left behind."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from clickhouse_connect.driver.exceptions import ClickHouseError
from urllib3.exceptions import HTTPError

from chronicle.errors import ChronicleError, ConfigError, SinkRejected, StopWorker, TransientError
from chronicle.refusals import untrusted

# Names and numbers: ClickHouse's src/Common/ErrorCodes.cpp.
TRANSIENT: dict[int, str] = {
    3: "UNEXPECTED_END_OF_FILE", 74: "CANNOT_READ_FROM_FILE_DESCRIPTOR", 75: "CANNOT_WRITE_TO_FILE_DESCRIPTOR",
    76: "CANNOT_OPEN_FILE", 95: "CANNOT_READ_FROM_SOCKET", 96: "CANNOT_WRITE_TO_SOCKET", 159: "TIMEOUT_EXCEEDED",
    160: "TOO_SLOW", 173: "CANNOT_ALLOCATE_MEMORY", 198: "DNS_ERROR", 201: "QUOTA_EXCEEDED",
    202: "TOO_MANY_SIMULTANEOUS_QUERIES", 203: "NO_FREE_CONNECTION", 209: "SOCKET_TIMEOUT", 210: "NETWORK_ERROR",
    218: "TABLE_IS_DROPPED", 225: "NO_ZOOKEEPER", 236: "ABORTED", 241: "MEMORY_LIMIT_EXCEEDED", 242: "TABLE_IS_READ_ONLY",
    243: "NOT_ENOUGH_SPACE", 244: "UNEXPECTED_ZOOKEEPER_ERROR", 252: "TOO_MANY_PARTS", 254: "NO_ACTIVE_REPLICAS",
    279: "ALL_CONNECTION_TRIES_FAILED", 285: "TOO_FEW_LIVE_REPLICAS", 286: "UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE",
    289: "REPLICA_IS_NOT_IN_QUORUM", 319: "UNKNOWN_STATUS_OF_INSERT", 341: "UNFINISHED",
    394: "QUERY_WAS_CANCELLED", 425: "SYSTEM_ERROR", 439: "CANNOT_SCHEDULE_TASK", 473: "DEADLOCK_AVOIDED",
    517: "CANNOT_ASSIGN_ALTER", 529: "NOT_A_LEADER",
    692: "TOO_MANY_MUTATIONS", 735: "QUERY_WAS_CANCELLED_BY_CLIENT", 745: "SERVER_OVERLOADED", 999: "KEEPER_EXCEPTION",
}  # fmt: skip
DATA: dict[int, str] = {
    6: "CANNOT_PARSE_TEXT", 25: "CANNOT_PARSE_ESCAPE_SEQUENCE", 26: "CANNOT_PARSE_QUOTED_STRING",
    27: "CANNOT_PARSE_INPUT_ASSERTION_FAILED", 32: "ATTEMPT_TO_READ_AFTER_EOF", 33: "CANNOT_READ_ALL_DATA",
    38: "CANNOT_PARSE_DATE", 41: "CANNOT_PARSE_DATETIME", 43: "ILLEGAL_TYPE_OF_ARGUMENT", 44: "ILLEGAL_COLUMN",
    50: "UNKNOWN_TYPE", 53: "TYPE_MISMATCH", 69: "ARGUMENT_OUT_OF_BOUND",
    70: "CANNOT_CONVERT_TYPE", 72: "CANNOT_PARSE_NUMBER", 117: "INCORRECT_DATA", 128: "TOO_LARGE_ARRAY_SIZE",
    131: "TOO_LARGE_STRING_SIZE", 190: "SIZES_OF_ARRAYS_DONT_MATCH", 321: "VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE",
    306: "TOO_DEEP_RECURSION", 349: "CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN", 376: "CANNOT_PARSE_UUID", 407: "DECIMAL_OVERFLOW",
    467: "CANNOT_PARSE_BOOL", 469: "VIOLATED_CONSTRAINT", 636: "CANNOT_EXTRACT_TABLE_STRUCTURE", 675: "CANNOT_PARSE_IPV4",
    676: "CANNOT_PARSE_IPV6", 691: "UNKNOWN_ELEMENT_OF_ENUM",
}  # fmt: skip
CONFIG: dict[int, str] = {
    115: "UNKNOWN_SETTING", 164: "READONLY", 192: "UNKNOWN_USER", 193: "WRONG_PASSWORD", 194: "REQUIRED_PASSWORD",
    195: "IP_ADDRESS_NOT_ALLOWED", 497: "ACCESS_DENIED", 516: "AUTHENTICATION_FAILED",
}  # fmt: skip
SCHEMA: dict[int, str] = {
    8: "THERE_IS_NO_COLUMN", 10: "NOT_FOUND_COLUMN_IN_BLOCK", 16: "NO_SUCH_COLUMN_IN_TABLE", 47: "UNKNOWN_IDENTIFIER",
    60: "UNKNOWN_TABLE", 81: "UNKNOWN_DATABASE",
}  # fmt: skip
"""The tables are not what this process thinks: setup was not run, or another process changed a mirror."""
_ACCESS_DENIED = 497
_RIGHT = re.compile(r"to have the grant (?P<right>[A-Z][A-Z ,]*(?:\([\w., ]*\))? ON [\w.*`]+)")
"""Names of rights and tables: no value can stand there."""
_BUSY_HTTP = ("status 429", "status 502", "status 503", "status 504")


class SchemaMismatch(ConfigError):
    """A table or column that should be there is not. For a mirror: look again and repeat; otherwise the operator's."""


@contextmanager
def translated(what: str, columns: Collection[str] = ()) -> Iterator[None]:
    """Run calls to ClickHouse; `what` and `columns` name the table and its columns in the error.

    Raises:
        TransientError, SinkRejected, SchemaMismatch (a ConfigError), ConfigError: as the code says.
        StopWorker: an error whose meaning is not known; nothing can be decided from it.
    """
    failure: ChronicleError
    try:
        yield
        return
    except ClickHouseError as error:
        failure = _meaning(error, what, columns)
    except (HTTPError, OSError) as error:
        wrong = untrusted(error, "clickhouse")
        failure = wrong or TransientError(f"ClickHouse is not reachable ({type(error).__name__}): {what}")
    raise failure from None  # the library's text may hold row values: no traceback shows it


def _meaning(error: ClickHouseError, what: str, columns: Collection[str]) -> ChronicleError:
    code = getattr(error, "code", None)
    text = str(error)
    if code is None and (wrong := untrusted(error, "clickhouse")):
        return wrong
    if code is None:
        # Without a code it is the transport: connection lost, refused, timed out, or a proxy's answer.
        busy = "HTTP status" not in text or any(status in text for status in _BUSY_HTTP)
        if busy:
            return TransientError(f"ClickHouse is not reachable: {what}")
        return ConfigError(f"set clickhouse.url to ClickHouse's HTTP port: what answers there is not ClickHouse ({what})")
    named = [column for column in columns if f"`{column}`" in text or f" {column}:" in text or f"column {column}" in text]
    where = what if len(named) != 1 else f"{what}, column {named[0]}"
    right = _RIGHT.search(text) if code == _ACCESS_DENIED else None
    for codes, kind, message in _MEANINGS:
        if code in codes:
            lacks = f", lacks {right['right']}" if right else ""
            return kind(f"{message} ({codes[code]}{lacks}): {where}")
    return StopWorker(f"ClickHouse error {code}, of unknown meaning, at {where}: see the server's log")


_MEANINGS: tuple[tuple[dict[int, str], type[ChronicleError], str], ...] = (
    (TRANSIENT, TransientError, "ClickHouse is busy or away"),
    (DATA, SinkRejected, "ClickHouse refuses a value"),
    (SCHEMA, SchemaMismatch, "run `chronicle setup`: ClickHouse lacks a table or column"),
    (CONFIG, ConfigError, "correct clickhouse.username, its password or its grants"),
)
