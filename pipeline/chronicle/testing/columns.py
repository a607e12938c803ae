"""Python values of a test's rows as a connector writes them: Connect's types with Debezium's names, found from the values.

bool → boolean · int → int64 · float → double · str → string · bytes → bytes · Decimal → Decimal · date → Date ·
datetime → MicroTimestamp (without a zone), ZonedTimestamp (with one) · time → MicroTime · UUID → Uuid ·
dict, and lists of dicts or of lists → Json · other lists → array · only None → string
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from chronicle.errors import ConfigError

_EPOCH = datetime(1970, 1, 1)  # of instants without a zone
_DAY_ONE = date(1970, 1, 1)
_DIGITS = "38"
_INT64 = 2**63
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Shape:
    """How the values of a column are written."""

    schema: Mapping[str, Any]
    write: Callable[[Any], Any] = field(compare=False)

    def field(self, name: str) -> dict[str, Any]:
        """Its field in a Connect schema."""
        return {"field": name, "optional": True, **self.schema}


def _same(value: Any) -> Any:
    return value


def _json(value: Any) -> str:
    return msgspec.json.encode(value, order="deterministic").decode()


def _micros(value: datetime) -> int:
    delta = value - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def _zoned(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _of_day(value: time) -> int:
    return ((value.hour * 60 + value.minute) * 60 + value.second) * 1_000_000 + value.microsecond


def _plain(kind: str, name: str | None = None, write: Callable[[Any], Any] = _same) -> Shape:
    return Shape({"type": kind} | ({"name": name} if name else {}), write)


_JSON = _plain("string", "io.debezium.data.Json", _json)
_TEXT = _plain("string")
_SHAPES: Mapping[type, Shape] = {
    bool: _plain("boolean"),
    int: _plain("int64"),
    float: _plain("double"),
    str: _TEXT,
    bytes: _plain("bytes", write=lambda value: base64.b64encode(value).decode()),
    date: _plain("int32", "io.debezium.time.Date", lambda value: (value - _DAY_ONE).days),
    time: _plain("int64", "io.debezium.time.MicroTime", _of_day),
    UUID: _plain("string", "io.debezium.data.Uuid", str),
    dict: _JSON,
}


def shapes(rows: Iterable[Row], table: str) -> dict[str, Shape]:
    """How each column of these rows of one table is written.

    Raises:
        ConfigError: values of one column have different types, or one that no column has.
    """
    values: dict[str, list[Any]] = {}
    for row in rows:
        for name, value in row.items():
            values.setdefault(name, []).append(value)
    return {name: _shape([one for one in found if one is not None], f"{table}.{name}") for name, found in values.items()}


def _shape(values: list[Any], column: str) -> Shape:
    if values and all(isinstance(value, list) for value in values):
        return _array([one for value in values for one in value if one is not None], column)
    found = {(shape.schema["type"], shape.schema.get("name")): shape for shape in (_of(value, column) for value in values)}
    if not found:
        return _TEXT
    if len(found) > 1:
        kinds = sorted({type(value).__name__ for value in values})
        raise ConfigError(f"give {column} values of one type: a column has one, not {' and '.join(kinds)}")
    if any(isinstance(value, Decimal) for value in values):
        return _decimal(max(_scale(value) for value in values))
    return next(iter(found.values()))


def _array(items: list[Any], column: str) -> Shape:
    if any(isinstance(one, dict | list) for one in items):
        return _JSON
    inner = _shape(items, column)
    schema = {"type": "array", "items": {"optional": True, **inner.schema}}
    return Shape(schema, lambda found: [None if one is None else inner.write(one) for one in found])


def _of(value: Any, column: str) -> Shape:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            return _plain("int64", "io.debezium.time.MicroTimestamp", _micros)
        return _plain("string", "io.debezium.time.ZonedTimestamp", _zoned)
    if isinstance(value, Decimal):
        return _decimal(0)
    shape = _SHAPES.get(type(value))
    if shape is None or (type(value) is int and not -_INT64 <= value < _INT64):
        raise ConfigError(f"give {column} a value that a database column can hold, not this {type(value).__name__}")
    return shape


def _scale(value: Decimal) -> int:
    exponent = value.as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def _decimal(scale: int) -> Shape:
    parameters = {"scale": str(scale), "connect.decimal.precision": _DIGITS}
    return Shape({"type": "bytes", "name": "org.apache.kafka.connect.data.Decimal", "parameters": parameters}, _same)
