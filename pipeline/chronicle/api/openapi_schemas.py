"""The shapes of requests and answers, as JSON Schema."""

from __future__ import annotations

from typing import Any

from chronicle.events.event import DESCRIPTION_LENGTH_MAX, OUTCOMES, PRIORITIES, TAGS_MAX, TEXT_LENGTH_MAX, TYPE_LENGTH_MAX
from chronicle.trail.collections import CHANGES, EVENTS, Collection

PRINTABLE = r"^[^\u0000-\u001f\u007f]*$"
EVENT: dict[str, Any] = {
    "type": "security.login",
    "source": "shop",
    "actor": {"id": "ann", "type": "user", "name": "Ann"},
    "outcome": "success",
    "payload": {"method": "password"},
    "request_id": "r-1",
}
ENTITY: dict[str, Any] = {"id": "org:acme", "name": "Acme Corp", "metadata": {"tier": "enterprise"}}

_TEXT: dict[str, Any] = {"type": "string", "maxLength": TEXT_LENGTH_MAX}
_PLAIN = {"type": "string"}
_TRUTH = {"type": "boolean"}
_MAYBE = {"type": ["string", "null"]}
_OBJECT = {"type": ["object", "null"]}
_TEXTS = {"type": "array", "items": {"type": "string"}}
_TIME = {"type": "string", "format": "date-time"}
_TYPES: dict[str, dict[str, Any]] = {
    "event_id": {"type": "string", "format": "uuid"},
    **dict.fromkeys(("time", "committed_at", "received_at", "processed_at"), _TIME),
    **dict.fromkeys(("type", "source", "schema", "table", "operation", "stub", "attribution", "policy"), _PLAIN),
    **dict.fromkeys(("entity", "priority", "position"), _PLAIN),
    **dict.fromkeys(("labels", "violations", "changed", "unavailable"), _TEXTS),
    **dict.fromkeys(("key", "previous_key", "before", "after", "enriched", "extra", "payload", "tags"), _OBJECT),
    **dict.fromkeys(("before_known", "attributed_late"), _TRUTH),
    "epoch": {"type": "integer"},
}


def ref(name: str) -> dict[str, Any]:
    """A reference to a schema of `SCHEMAS`."""
    return {"$ref": f"#/components/schemas/{name}"}


def _object(properties: dict[str, Any], *optional: str, more: bool = False) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": more}


def _row(collection: Collection) -> dict[str, Any]:
    return _object({name: _TYPES.get(name, _MAYBE) for name in collection.columns})


def listed(collection: Collection) -> dict[str, Any]:
    """A page of rows."""
    one = ref("StoredEvent" if collection is EVENTS else "Change")
    return _object(
        {collection.title: {"type": "array", "items": one}, "next_cursor": _MAYBE, "metadata": ref("Metadata")}, "metadata"
    )


_COUNT = {"type": "integer", "minimum": 0}
_ERRORS = {"type": "object", "additionalProperties": {"type": "string"}, "minProperties": 1}
_ACTOR = {
    "anyOf": [
        _TEXT,
        _object({"id": _TEXT, "type": _TEXT, "name": _TEXT}, "type", "name"),
    ]
}
_ID = {"type": "string", "format": "uuid", "pattern": "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"}
_FIELDS: dict[str, Any] = {
    "id": {**_ID, "description": "Of the event; without it the service makes one."},
    "type": {
        "type": "string",
        "pattern": "^[A-Za-z0-9_-]{1,40}(\\.[A-Za-z0-9_-]{1,40}){0,3}$",
        "maxLength": TYPE_LENGTH_MAX,
        "description": "Words with dots between; absent: <resource_type>.<action>.",
    },
    "time": {
        "type": "string",
        "pattern": "^(19[0-9]{2}|2[01][0-9]{2})-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])"
        "T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?(Z|[+-]0[0-9]:[0-5][0-9])$",
        "description": "ISO 8601 with an offset; absent: when the service takes it.",
        "example": "2026-02-01T12:00:00.5Z",
    },
    "source": {**_TEXT, "minLength": 1, "description": "The application; absent: the only one of the key."},
    "actor": _ACTOR,
    **dict.fromkeys(("action", "resource_type", "resource_id", "request_id", "reason", "ip", "session", "tenant"), _TEXT),
    "partition_key": {**_TEXT, "description": "Events of one key keep their order."},
    "outcome": {"enum": list(OUTCOMES)},
    "priority": {"enum": list(PRIORITIES)},
    "description": {"type": "string", "maxLength": DESCRIPTION_LENGTH_MAX},
    "payload": {"type": "object"},
    "tags": {"type": "object", "maxProperties": TAGS_MAX},
    "traceparent": {"type": "string", "pattern": "^00-[0-9a-f]{31}[1-9a-f]-[0-9a-f]{15}[1-9a-f]-0[01]$"},
}
_RESULT = {
    "anyOf": [
        _object({"id": _ID, "status": {"const": "accepted"}}),
        _object({"status": {"const": "refused"}, "error": _ERRORS}),
    ]
}
_DURABILITY = {"enum": ["confirmed", "spilled"]}
_COLUMN = _object(
    {"column": {"type": "string"}, "before": {}, "after": {}, "before_from": {"type": "string"}, "hidden": {"type": "boolean"}},
    "before",
    "after",
)
_ENTRY = _row(CHANGES)["properties"] | {
    "columns": {"type": "array", "items": _COLUMN},
    "says_nothing_new": {"type": "boolean"},
    "uncompared": _TEXTS,
}

SCHEMAS: dict[str, Any] = {
    "Problem": _object({"error": _ERRORS}),
    "Refused": {
        "anyOf": [ref("Problem"), _object({"status": {"const": "refused"}, "results": {"type": "array", "items": _RESULT}})]
    },
    "Event": {**_object(_FIELDS, *(name for name in _FIELDS if name not in ("type", "source"))), "example": EVENT},
    "Accepted": {
        "anyOf": [
            _object({"status": {"const": "accepted"}, "id": _ID, "durability": _DURABILITY}),
            _object(
                {
                    "status": {"enum": ["accepted", "partial"]},
                    "durability": _DURABILITY,
                    "results": {"type": "array", "items": _RESULT},
                }
            ),
        ]
    },
    "StoredEvent": _row(EVENTS),
    "Change": _row(CHANGES),
    "Metadata": _object(dict.fromkeys(("current_page", "page_size", "first_page", "last_page", "total_records"), _COUNT)),
    "History": _object(
        {"table": {"type": "string"}, "entries": {"type": "array", "items": _object(_ENTRY)}, "cut": {"type": "boolean"}}
    ),
    "Transaction": _object(
        {
            "transaction_id": {"type": "string"},
            "transactions": {"type": "array", "items": {"type": "object"}},
            "changes": {"type": "array", "items": ref("Change")},
            "cut": {"type": "boolean"},
        }
    ),
    "Activity": _object({"activity": {"type": "array", "items": {"type": "object"}}, "next_cursor": _MAYBE}),
    "NewEntity": {
        **_object(
            {
                "id": {"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9_.-]{0,63}:[!-~]{1,100}$"},
                "name": {"type": "string", "minLength": 1, "maxLength": TEXT_LENGTH_MAX},
                "metadata": {"type": "object"},
            },
            "metadata",
        ),
        "example": ENTITY,
    },
    "Entity": _object({"id": {"type": "string"}, "name": {"type": "string"}, "metadata": {"type": "object"}, "put_at": _TIME}),
    "Entities": _object({"entities": {"type": "array", "items": ref("Entity")}, "next_cursor": _MAYBE}),
    "Written": _object({"status": {"enum": ["written", "deleted"]}, "ids": _TEXTS}),
    "Status": _object({"status": {"type": "string"}}),
}
