"""The Avro schema of a payload's Struct: what `schemas/events/<type>.avsc` says of a shipped type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import inspect

from chronicle.events.payload import Payload

CLASS = "chronicle.class"
"""Property of a field: the class that a policy gives it unless one of its own rules says otherwise."""
VERSION = "version"
"""Property of a type's record."""

_PLAIN: Mapping[type[inspect.Type], Any] = {
    inspect.BoolType: "boolean",
    inspect.IntType: "long",
    inspect.FloatType: "double",
    inspect.StrType: "string",
    inspect.NoneType: "null",
    inspect.DateTimeType: {"type": "long", "logicalType": "timestamp-micros"},
    inspect.UUIDType: {"type": "string", "logicalType": "uuid"},
}


def avro_of(payload: type[Payload]) -> dict[str, Any]:
    """The Avro record of a payload: named as its type is, one field for each of the Struct's.

    A time is a timestamp here and ISO 8601 in JSON. A field that may be absent has null as its default.

    Raises:
        TypeError: a field's type is not made for a payload.
    """
    info = inspect.type_info(payload)
    if not isinstance(info, inspect.StructType):
        raise TypeError(f"{payload.__name__} is no Struct")
    kind = payload.KIND
    return {
        "type": "record",
        "name": kind.action,
        "namespace": kind.resource_type,
        VERSION: kind.version,
        "doc": (payload.__doc__ or "").strip(),
        "fields": [_field(one) for one in info.fields],
    }


def example_of(payload: type[Payload]) -> dict[str, Any]:
    """A payload of this type, made of its fields' examples."""
    info = inspect.type_info(payload)
    fields = info.fields if isinstance(info, inspect.StructType) else ()
    return {one.encode_name: _about(one)[1] for one in fields}


def _field(field: inspect.Field) -> dict[str, Any]:
    description, _, proposed = _about(field)
    kind = field.type.type if isinstance(field.type, inspect.Metadata) else field.type
    made: dict[str, Any] = {"name": field.encode_name, "type": _type(kind, nullable=not field.required)}
    if not field.required:
        if field.default is not None:
            raise TypeError(f"{field.encode_name}: what is not said is absent, its default is None")
        made["default"] = None
    return {**made, "doc": description, CLASS: proposed}


def _about(field: inspect.Field) -> tuple[str, Any, str]:
    if not isinstance(field.type, inspect.Metadata):
        raise TypeError(f"{field.encode_name}: say what it is, with `said`")
    told = field.type.extra_json_schema or {}
    return told["description"], told["examples"][0], (field.type.extra or {})["class"]


def _type(kind: inspect.Type, *, nullable: bool = False) -> Any:
    if isinstance(kind, inspect.UnionType):
        branches = [_type(one) for one in kind.types if not isinstance(one, inspect.NoneType)]
        return ["null", *branches] if nullable or kind.includes_none else branches
    if isinstance(kind, inspect.ListType):
        return {"type": "array", "items": _type(kind.item_type)}
    if isinstance(kind, inspect.DictType) and isinstance(kind.key_type, inspect.StrType):
        return {"type": "map", "values": _type(kind.value_type)}
    if type(kind) not in _PLAIN:
        raise TypeError(f"{type(kind).__name__} is not made for a payload")
    return _PLAIN[type(kind)]


def written(schema: Mapping[str, Any]) -> str:
    """A schema or example as a file has it."""
    return msgspec.json.format(msgspec.json.encode(schema), indent=2).decode() + "\n"
