"""Brings one column's value to one comparable form, wherever it was read: truth, database, image, mirror, audit record."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import struct
from collections.abc import Iterable, Mapping
from decimal import Context, Decimal
from typing import Any

from tests.faults.catalog import Column, Table

FILTERED = "[FILTERED]"
_EPOCH = dt.datetime(1970, 1, 1)
_MICROSECOND = dt.timedelta(microseconds=1)
_DIGITS = Context(prec=100)

Row = dict[str, Any]


def parse(text: str) -> Any:
    """JSON with every digit of its numbers: a number with a point or an exponent stays its text as a Decimal."""
    return json.loads(text, parse_float=Decimal)


def _instant(value: Any) -> int:
    """Microseconds since 1970 of an ISO text, with `T` or a blank, with or without a zone; or of a number's text."""
    text = str(value).replace(" ", "T")
    if text.lstrip("-").isdigit():
        return int(text)
    moment = dt.datetime.fromisoformat(text)
    if moment.tzinfo is not None:
        moment = (moment - (moment.utcoffset() or dt.timedelta())).replace(tzinfo=None)
    return (moment - _EPOCH) // _MICROSECOND


def _time(value: Any) -> int:
    """Microseconds of an `HH:MM:SS[.ffffff]` text."""
    hours, minutes, seconds = str(value).split(":")
    return int((int(hours) * 3600 + int(minutes) * 60 + Decimal(seconds)) * 1_000_000)


def _float(value: Any, single: bool) -> float | str:
    number = float(value)
    if number != number:
        return "NaN"
    if single and abs(number) != float("inf"):
        number = struct.unpack("f", struct.pack("f", number))[0]
    return number + 0.0 if number else 0.0  # -0.0 and 0.0 are one value here


def _json(value: Any) -> str:
    document = parse(value) if isinstance(value, str) else value
    return json.dumps(document, sort_keys=True, separators=(",", ":"), default=lambda number: format(number.normalize(), "f"))


def loose_json(text: str) -> str:
    """A document as ClickHouse's JSON type can give it back: numbers as texts, no members that are null or empty."""

    def loose(value: Any) -> Any:
        if isinstance(value, dict):
            members = {name: loose(member) for name, member in value.items()}
            return {name: member for name, member in members.items() if member is not None and member not in ({}, [])}
        if isinstance(value, list):
            return [loose(member) for member in value]
        return value if value is None or isinstance(value, bool | str) else format(Decimal(value), "f")

    return json.dumps(loose(parse(text)), sort_keys=True)


def _bytes(value: Any) -> str:
    """Base64 of Postgres' `\\x…` text, MariaDB's `hex:…` text (written so by the triggers), bytes, or base64 itself."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    for mark in ("\\x", "hex:"):  # neither can be in base64
        if value.startswith(mark):
            return base64.b64encode(bytes.fromhex(value.removeprefix(mark))).decode()
    return str(value)


def plain(column: Column, value: Any, *, exact: bool = False, kind: str | None = None) -> Any:
    """The comparable form of a value as JSON (or a client) gave it; None stays None.

    `exact`: a decimal's digits count as they stand (images promise the scale), else it is brought to its scale first.
    """
    if value is None:
        return None
    match kind or column.kind:
        case "int":
            return int(value)
        case "decimal":
            number = Decimal(str(value))
            return format(number if exact else number.quantize(Decimal(1).scaleb(-column.scale), context=_DIGITS), "f")
        case "float":
            return _float(value, False)
        case "float4":
            return _float(value, True)
        case "bool":
            return value in (True, 1, "1", "true")
        case "bytes":
            return _bytes(value)
        case "date":
            return str(value)[:10]
        case "time":
            return _time(value)
        case "timestamp" | "timestamptz":
            return _instant(value)
        case "uuid":
            return str(value).lower()
        case "json":
            return _json(value)
        case "array":
            return tuple(plain(column, item, exact=exact, kind=column.element) for item in value)
        case _:
            return str(value)


def row(table: Table, values: Mapping[str, Any], *, exact: bool = False) -> Row:
    """A whole row; a secret value becomes what an image shows of it; columns the table does not have are kept as they are."""
    result: Row = {}
    for name, value in values.items():
        column = table.columns.get(name)
        if column is None:
            result[name] = value
        elif column.secret:
            result[name] = None if value is None else FILTERED
        else:
            result[name] = plain(column, value, exact=exact)
    return result


def key_of(table: Table, values: Mapping[str, Any]) -> tuple[Any, ...]:
    """The primary key's values in key order; empty for a table without one."""
    return tuple(values[name] for name in table.key)


def final(values: Row) -> Row:
    """A row as the digests see it: NULL and absent are one (a column may be younger than the row), secrets are left out."""
    return {name: value for name, value in sorted(values.items()) if value is not None and value != FILTERED}


def digest(rows: Iterable[Row]) -> str:
    """One digest of a set of rows, whatever their order."""
    lines = sorted(json.dumps(values, sort_keys=True, default=str) for values in rows)
    state = hashlib.blake2b(digest_size=12)
    for line in lines:
        state.update(line.encode())
        state.update(b"\n")
    return state.hexdigest()
