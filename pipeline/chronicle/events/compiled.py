"""A payload's shape as a msgspec type: it takes nothing that the shape does not, in a hundredth of the time.

What it refuses is looked at again by `shapes.marks`, which has the last word and names the places.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, time
from typing import Annotated, Any, Literal, Union
from uuid import UUID

import msgspec

from chronicle.events.shapes import Field, Fields, Items, OneOf, Plain, Shape, Values

_TYPES: Mapping[str, Any] = {
    "null": None,
    "boolean": bool,
    "int": Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)],
    "long": Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)],
    "float": float,
    "double": float,
    "string": str,
    "uuid": UUID,
    "date": date,
    **dict.fromkeys(("time-millis", "time-micros"), Annotated[time, msgspec.Meta(tz=False)]),
    **dict.fromkeys(("timestamp-millis", "timestamp-micros", "timestamp-nanos"), Annotated[datetime, msgspec.Meta(tz=True)]),
    **dict.fromkeys(
        ("local-timestamp-millis", "local-timestamp-micros", "local-timestamp-nanos"),
        Annotated[datetime, msgspec.Meta(tz=False)],
    ),
}


class _Inexpressible(Exception):
    """No msgspec type says this."""


def type_of(record: Fields) -> type[msgspec.Struct] | None:
    """The Struct that takes what this record takes, unknown fields refused; None: there is none (records that hold
    themselves, unions of two texts, bytes, decimals).
    """
    try:
        made = _struct(record)
        msgspec.json.Decoder(made)
    except (_Inexpressible, TypeError, NotImplementedError):
        return None
    return made


def _struct(record: Fields) -> type[msgspec.Struct]:
    if record.recursive:
        raise _Inexpressible
    # names of Python's own for the fields: an Avro name may be a word of the language
    fields = [_field(f"f{at}", one) for at, one in enumerate(record.fields.values())]
    rename = {f"f{at}": name for at, name in enumerate(record.fields)}
    return msgspec.defstruct("Payload", fields, rename=rename, forbid_unknown_fields=True, kw_only=True, gc=False)


def _field(name: str, field: Field) -> tuple[str, Any] | tuple[str, Any, Any]:
    kind = _type(field.shape)
    return (name, kind) if field.required else (name, kind, None)


def _type(shape: Shape) -> Any:
    match shape:
        case Plain("enum", symbols):
            return Literal[symbols]
        case Plain(kind):
            if kind not in _TYPES:
                raise _Inexpressible
            return _TYPES[kind]
        case Items(of):
            return list[_type(of)]  # type: ignore[misc]  # a type that is made here
        case Values(of):
            return dict[str, _type(of)]  # type: ignore[misc]
        case OneOf(branches):
            return Union[tuple(_type(one) for one in branches)]  # noqa: UP007  # a type that is made here
        case Fields():
            return _struct(shape)
