"""The files of `schemas/events/` that are made from code: `python -m chronicle.dev.event_schemas --write` after a change.

Of each shipped type `<type>.avsc`, `<type>.example.json` and, for every version that there ever was,
`history/<type>.v<version>.avsc`; of the event itself `event.schema.json`, for HTTP, and its history. `event.avsc` is written by
hand. A test compares.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from chronicle.events.avro import CLASS, VERSION, avro_of, example_of, written
from chronicle.events.event import (
    LENGTHS,
    OUTCOMES,
    PRIORITIES,
    TAGS_MAX,
    TEXT_LENGTH_MAX,
    TRACEPARENT_PATTERN,
    TYPE_LENGTH_MAX,
    TYPE_PATTERN,
    UUID_PATTERN,
    Event,
)
from chronicle.events.types import TYPES, payload_of
from chronicle.schema_files import HISTORY

DIRECTORY = Path(__file__).parents[3] / "schemas" / "events"

_DATE = (
    r"(19|2[0-2])[0-9]{2}-((0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])|(0[13-9]|1[0-2])-(29|30)|(0[13578]|1[02])-31)"
    r"|((19|2[0-2])(0[48]|[2468][048]|[13579][26])|2000)-02-29"
)
_CLOCK = r"([01][0-9]|2[0-3]):[0-5][0-9]"
_TIME = rf"({_DATE})T{_CLOCK}:[0-5][0-9](\.[0-9]{{1,9}})?(Z|[+-]{_CLOCK})"
"""Days that there are, from 1900 to 2299."""


def files(directory: Path) -> Iterator[tuple[Path, str]]:
    """Every file that is made, and its text."""
    envelope = json.loads((directory / "event.avsc").read_text(encoding="utf-8"))
    yield directory / "event.schema.json", written(json_schema(envelope))
    yield _released(directory, "event", envelope)
    for name in sorted(TYPES):
        payload = payload_of(name)
        schema = avro_of(payload)
        yield directory / f"{name}.avsc", written(schema)
        yield directory / f"{name}.example.json", written(example_of(payload))
        yield _released(directory, name, schema)


def _released(directory: Path, name: str, schema: Mapping[str, Any]) -> tuple[Path, str]:
    return directory / HISTORY / f"{name}.v{schema[VERSION]}.avsc", written(_bare(schema))


def _bare(schema: Any) -> Any:
    """Without words and proposals, which may change within a version."""
    if isinstance(schema, list):
        return [_bare(one) for one in schema]
    if isinstance(schema, dict):
        return {key: _bare(value) for key, value in schema.items() if key not in ("doc", CLASS)}
    return schema


def json_schema(envelope: Mapping[str, Any]) -> dict[str, Any]:
    """The event as HTTP takes it, in JSON Schema; what its fields are for is taken from `event.avsc`.

    It says what a text can be looked at for: not how many levels a payload has, how large its numbers are, nor how
    long the whole is.
    """
    told = {one["name"]: one["doc"] for one in envelope["fields"]}
    required = ("tags", "priority")
    schemas: dict[str, dict[str, Any]] = {
        name: {"type": "string" if name in ("id", "type", "time", "source", *required) else ["string", "null"]}
        for name in Event.__struct_fields__
    }
    for name, most in LENGTHS.items():
        schemas[name]["maxLength"] = most
    patterns = {"id": f"^({UUID_PATTERN})?$", "type": f"^({TYPE_PATTERN})?$", "time": f"^({_TIME})?$"}
    for name, pattern in {**patterns, "traceparent": f"^{TRACEPARENT_PATTERN}$"}.items():
        schemas[name]["pattern"] = pattern
        schemas[name].pop("maxLength") if name != "type" else None
    schemas["outcome"] = {"enum": [*OUTCOMES, None]}
    schemas["priority"] = {"enum": list(PRIORITIES), "default": "normal"}
    schemas["payload"] = {"type": ["object", "null"]}
    schemas["tags"] = {"type": "object", "maxProperties": TAGS_MAX}
    schemas["actor"] = {"anyOf": [{"type": ["string", "null"], "maxLength": TEXT_LENGTH_MAX}, _actor(envelope)]}
    absent = {
        "id": "made",
        "type": "<resource_type>.<action>",
        "time": "when it is taken",
        "source": "the key's, if it has one",
    }
    for name, schema in schemas.items():
        schema["description"] = told[name] + (f" Absent: {absent[name]}." if name in absent else "")
    # together no longer than a type, with the dot between
    word = {"type": "string", "minLength": 1, "pattern": f"^{TYPE_PATTERN}$", "maxLength": (TYPE_LENGTH_MAX - 1) // 2}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Event",
        "description": "Something that an application says happened. A field that is absent or null is not said.",
        "type": "object",
        "properties": schemas,
        "additionalProperties": False,
        "anyOf": [
            {"required": ["type"], "properties": {"type": {"minLength": 1}}},
            {"required": ["resource_type", "action"], "properties": {"resource_type": word, "action": word}},
        ],
        "examples": EXAMPLES,
    }


def _actor(envelope: Mapping[str, Any]) -> dict[str, Any]:
    [record] = [one for one in _type(envelope, "actor") if isinstance(one, dict)]
    return {
        "type": "object",
        "properties": {
            one["name"]: {
                "type": "string" if one["name"] == "id" else ["string", "null"],
                "maxLength": TEXT_LENGTH_MAX,
                "description": one["doc"],
            }
            for one in record["fields"]
        },
        "required": ["id"],
        "additionalProperties": False,
    }


def _type(envelope: Mapping[str, Any], name: str) -> Any:
    return next(one["type"] for one in envelope["fields"] if one["name"] == name)


EXAMPLES: list[dict[str, Any]] = [
    {"type": "report.read", "source": "shop", "actor": "ann@example.com"},
    {
        "id": "5f0c0f6e-7f0e-4a53-9b7c-3a5e2f1d9c10",
        "type": "security.login",
        "time": "2026-02-01T00:00:40.000000Z",
        "source": "shop",
        "actor": {"id": "ann@example.com", "type": "user", "name": "Ann"},
        "action": "login",
        "resource_type": "user",
        "resource_id": "1042",
        "outcome": "success",
        "description": "Logged in with a passkey",
        "payload": {"method": "passkey"},
        "tags": {"attempts": 1},
        "request_id": "req-7f3a",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "ip": "203.0.113.7",
        "session": "s-19",
        "partition_key": "user:1042",
        "priority": "high",
    },
    {
        "source": "shop",
        "resource_type": "order",
        "action": "placed",
        "resource_id": "7",
        "payload": {"total": "129.90", "items": 2},
    },
]


def main() -> int:
    """`--write`: write what differs, but no version that is in the history already. Else name it, and exit 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    write = parser.parse_args().write
    left = 0
    for path, text in files(DIRECTORY):
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        if write and not (path.exists() and path.parent.name == HISTORY):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            continue
        left += 1
        fix = "raise its version" if path.parent.name == HISTORY and path.exists() else "write it (--write)"
        sys.stderr.write(f"{path.name}: {fix}\n")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
