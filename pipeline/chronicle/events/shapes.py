"""What a payload may hold: an Avro record schema, read for values as JSON has them.

A field may be absent when it has a default or may be null. Logical types are texts: a timestamp or date ISO 8601 (a timestamp
with its offset, a local one without), a uuid as such, a decimal as such or as a number; bytes are base64. A whole number stands
for a double, never the other way round.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

import msgspec

from chronicle.errors import ChronicleError


class SchemaRefused(ChronicleError, ValueError):
    """The operator: this is no schema of a payload. The message says what to correct."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"correct {name}: {message}")
        self.name = name
        self.problem = message


@dataclass(frozen=True, slots=True)
class Plain:
    """A value without parts."""

    kind: str
    """Avro's name of the type, or of its logical type."""
    symbols: tuple[str, ...] = ()
    """Of an enum."""
    size: int | None = None
    """Bytes of a fixed."""


@dataclass(frozen=True, slots=True)
class Items:
    """An array."""

    of: Shape


@dataclass(frozen=True, slots=True)
class Values:
    """A map."""

    of: Shape


@dataclass(frozen=True, slots=True)
class OneOf:
    """A union."""

    branches: tuple[Shape, ...]


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a record."""

    name: str
    shape: Shape
    required: bool


@dataclass(slots=True, eq=False)
class Fields:
    """A record. Not frozen: one that holds itself is filled after it is named."""

    name: str
    fields: dict[str, Field] = field(default_factory=dict)
    recursive: bool = False


Shape = Plain | Items | Values | OneOf | Fields

_PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
_LOGICAL: Mapping[str, frozenset[str]] = {
    "uuid": frozenset({"string", "fixed"}),
    "decimal": frozenset({"bytes", "fixed"}),
    "date": frozenset({"int"}),
    "time-millis": frozenset({"int"}),
    **dict.fromkeys(("time-micros", "timestamp-millis", "timestamp-micros", "timestamp-nanos"), frozenset({"long"})),
    **dict.fromkeys(("local-timestamp-millis", "local-timestamp-micros", "local-timestamp-nanos"), frozenset({"long"})),
}
"""Logical type → what it may stand on; one that is not here is ignored, as Avro says."""


def record_of(text: str, name: str) -> tuple[Fields, dict[str, Any]]:
    """The record that an Avro schema describes, and the schema as JSON.

    Raises:
        SchemaRefused: it is no Avro schema of a record.
    """
    try:
        schema = msgspec.json.decode(text)
        shape = _Reader().shape(schema, "")
    except (msgspec.DecodeError, UnicodeError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise SchemaRefused(name, f"it is no Avro schema of a record ({type(error).__name__})") from None
    if not isinstance(shape, Fields):
        raise SchemaRefused(name, "it is no Avro schema of a record")
    return shape, schema


class _Reader:
    """One schema being read; named types are known from where they stand on."""

    def __init__(self) -> None:
        self._named: dict[str, Shape] = {}
        self._open: list[Fields] = []

    def shape(self, schema: Any, namespace: str) -> Shape:
        if isinstance(schema, list):
            return OneOf(tuple(self.shape(one, namespace) for one in schema))
        if isinstance(schema, str):
            return Plain(schema) if schema in _PRIMITIVES else self._known(schema, namespace)
        kind = schema["type"]
        if kind in ("record", "enum", "fixed"):
            return self._defined(kind, schema, namespace)
        if kind == "array":
            return Items(self.shape(schema["items"], namespace))
        if kind == "map":
            return Values(self.shape(schema["values"], namespace))
        plain = isinstance(kind, str) and kind in _PRIMITIVES
        return Plain(_logical(schema, kind)) if plain else self.shape(kind, namespace)

    def _defined(self, kind: str, schema: Mapping[str, Any], namespace: str) -> Shape:
        if kind == "record":
            return self._record(schema, namespace)
        if kind == "enum":
            return self._name(schema, namespace, Plain("enum", symbols=tuple(map(str, schema["symbols"]))))
        return self._name(schema, namespace, Plain(_logical(schema, kind), size=int(schema["size"])))

    def _known(self, name: str, namespace: str) -> Shape:
        full = f"{namespace}.{name}" if namespace and "." not in name else name
        found = self._named[full] if full in self._named else self._named[name]
        if isinstance(found, Fields) and found in self._open:
            found.recursive = True
        return found

    def _name(self, schema: Mapping[str, Any], namespace: str, shape: Shape) -> Shape:
        self._named[_full(schema, namespace)] = shape
        return shape

    def _record(self, schema: Mapping[str, Any], namespace: str) -> Fields:
        made = Fields(_full(schema, namespace))
        self._name(schema, namespace, made)
        self._open.append(made)
        space = made.name.rpartition(".")[0]
        for one in schema["fields"]:
            name = one["name"]
            if not isinstance(name, str) or not name or name in made.fields:
                raise ValueError("a field has no name of its own")
            shape = self.shape(one["type"], space)
            made.fields[name] = Field(name, shape, required="default" not in one and not _nullable(shape))
        self._open.pop()
        return made


def _full(schema: Mapping[str, Any], namespace: str) -> str:
    name = schema["name"]
    if not isinstance(name, str) or not name:
        raise ValueError("a type has no name")
    space = schema.get("namespace", namespace)
    return f"{space}.{name}" if space and "." not in name else name


def _logical(schema: Mapping[str, Any], kind: str) -> str:
    logical = schema.get("logicalType")
    return logical if isinstance(logical, str) and kind in _LOGICAL.get(logical, ()) else kind


def _nullable(shape: Shape) -> bool:
    return shape == Plain("null") or (isinstance(shape, OneOf) and any(_nullable(one) for one in shape.branches))


# Looking at values ---------------------------------------------------------------------------------------------------


def marks(record: Fields, value: object, path: str) -> Iterator[str]:
    """What does not fit, by place: `missing:payload.x`, `wrong_type:payload.x.y`, `unknown_fields:payload:2`.

    Places are names of the schema; `[]` stands for an item of a list and a value of a map. Values are as JSON has them.
    """
    if not isinstance(value, dict):
        yield f"wrong_type:{path}"
        return
    for one in record.fields.values():
        if one.name in value:
            yield from _marks(one.shape, value[one.name], f"{path}.{one.name}")
        elif one.required:
            yield f"missing:{path}.{one.name}"
    more = len(value.keys() - record.fields.keys())
    if more:
        yield f"unknown_fields:{path}:{more}"


def _marks(shape: Shape, value: object, path: str) -> Iterator[str]:
    match shape:
        case Plain():
            if not _fits(shape, value):
                yield f"wrong_type:{path}"
        case Fields():
            yield from marks(shape, value, path)
        case OneOf(branches):
            yield from _any_of(branches, value, path)
        case Items(of):
            if isinstance(value, list | tuple):
                for one in value:
                    yield from _marks(of, one, f"{path}[]")
            else:
                yield f"wrong_type:{path}"
        case Values(of):
            if isinstance(value, dict):
                for one in value.values():
                    yield from _marks(of, one, f"{path}[]")
            else:
                yield f"wrong_type:{path}"


def _any_of(branches: tuple[Shape, ...], value: object, path: str) -> Iterator[str]:
    """Marks of the branch of the value's kind that fits best; none of its kind: a wrong type."""
    found = [list(_marks(one, value, path)) for one in branches]
    if all(found):
        of_its_kind = [one for one in found if f"wrong_type:{path}" not in one]
        yield from min(of_its_kind, key=len, default=[f"wrong_type:{path}"])


def _fits(shape: Plain, value: object) -> bool:
    return _CHECKS[shape.kind](shape, value)


def _whole(bits: int) -> Callable[[Plain, object], bool]:
    most = 2 ** (bits - 1)
    return lambda _, value: isinstance(value, int) and not isinstance(value, bool) and -most <= value < most


def _number(_: Plain, value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def _text_of(read: Callable[[str], object]) -> Callable[[Plain, object], bool]:
    def fits(_: Plain, value: object) -> bool:
        if not isinstance(value, str):
            return False
        try:
            return bool(read(value))
        except (ValueError, OverflowError, InvalidOperation, msgspec.ValidationError):
            return False

    return fits


def _time(kind: Any, *, zoned: bool | None) -> Callable[[Plain, object], bool]:
    def read(text: str) -> bool:
        at = msgspec.convert(text, kind)
        return zoned is None or (at.tzinfo is not None) is zoned

    return _text_of(read)


def _bytes(shape: Plain, value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        found = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return False
    return shape.size is None or len(found) == shape.size


_decimal = _text_of(lambda text: msgspec.convert(text, Decimal).is_finite())
_zoned, _local, _clock = _time(datetime, zoned=True), _time(datetime, zoned=False), _time(time, zoned=False)
_CHECKS: Mapping[str, Callable[[Plain, object], bool]] = {
    "null": lambda _, value: value is None,
    "boolean": lambda _, value: isinstance(value, bool),
    "int": _whole(32),
    "long": _whole(64),
    "float": _number,
    "double": _number,
    "string": lambda _, value: isinstance(value, str),
    "enum": lambda shape, value: isinstance(value, str) and value in shape.symbols,
    "bytes": _bytes,
    "fixed": _bytes,
    "uuid": _text_of(lambda text: msgspec.convert(text, UUID) is not None),
    "decimal": lambda shape, value: _number(shape, value) or _decimal(shape, value),
    "date": _time(date, zoned=None),
    **dict.fromkeys(("time-millis", "time-micros"), _clock),
    **dict.fromkeys(("timestamp-millis", "timestamp-micros", "timestamp-nanos"), _zoned),
    **dict.fromkeys(("local-timestamp-millis", "local-timestamp-micros", "local-timestamp-nanos"), _local),
}
