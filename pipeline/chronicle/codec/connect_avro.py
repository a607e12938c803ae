"""A Connect schema, as the JsonConverter embeds it in each record, as the Avro schema that says the same."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any

_PLAIN = {
    **dict.fromkeys(("int8", "int16", "int32"), "int"),
    "int64": "long",
    **dict.fromkeys(("float", "float32"), "float"),
    **dict.fromkeys(("double", "float64"), "double"),
    **{name: name for name in ("boolean", "string", "bytes")},
}


def avro_of(schema: Mapping[str, Any]) -> Any:
    """The Avro schema, with `connect.name` and `connect.parameters` as Connect's Avro converters write them.

    Records without a name are named by number: a contract compares the names of those inside of columns.
    """
    return _one(schema, count())


def _one(schema: Mapping[str, Any], numbers: count[int]) -> Any:
    made = _type(schema, numbers)
    named = {"connect.name": schema["name"]} if schema.get("name") else {}
    parameters = {"connect.parameters": dict(schema["parameters"])} if schema.get("parameters") else {}
    if named or parameters:
        made = {**(made if isinstance(made, dict) else {"type": made}), **named, **parameters}
    return ["null", made] if schema.get("optional") else made


def _type(schema: Mapping[str, Any], numbers: count[int]) -> Any:
    match schema["type"]:
        case "struct":
            name = str(schema.get("name") or f"Record{next(numbers)}")
            fields = [{"name": str(one["field"]), "type": _one(one, numbers)} for one in schema.get("fields", ())]
            return {"type": "record", "name": name, "fields": fields}
        case "array":
            return {"type": "array", "items": _one(schema["items"], numbers)}
        case "map":
            return {"type": "map", "values": _one(schema["values"], numbers)}
        case kind:
            return _PLAIN[kind]
