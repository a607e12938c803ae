"""The service's description in OpenAPI 3.1, made of the same tables that requests are read by; served at `/openapi.json`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata
from typing import Any

from chronicle.api import openapi_schemas as schemas
from chronicle.api.histories import ACTIVITY_FILTERS
from chronicle.api.parameters import TEXT_LENGTH_MAX
from chronicle.api.stream import KIND, KINDS, filters
from chronicle.trail.collections import CHANGES, COLLECTIONS, EVENTS, Collection, Filter

EXPORT_FORMATS = ("ndjson", "csv", "parquet")
_PATTERNS = {"uuid": r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"}
_PROBLEMS = {
    400: "The body cannot be read.",
    401: "No key or token, or one that is wrong, over or taken back.",
    403: "This key may not do that.",
    404: "There is no such thing, or this key does not see it.",
    408: "The body came too slowly.",
    413: "The body is too large.",
    415: "A media type or encoding that is not taken.",
    422: "Parameters or events that are wrong: all of them at once, by name.",
    429: "More than this key may ask for; see Retry-After.",
    503: "The broker or the store is away; see Retry-After.",
}
_CURSOR = {"type": "string", "minLength": 1, "maxLength": 4 * TEXT_LENGTH_MAX, "pattern": "^[A-Za-z0-9_:-]+$"}
_READ = (401, 403, 422, 429, 503)


@cache
def document() -> dict[str, Any]:
    """The whole description."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Chronicle",
            "version": metadata.version("chronicle"),
            "description": "Events of applications and changes of databases as one audit trail.",
        },
        "security": [{"key": []}],
        "paths": {**_ingest(), **_lists(), **_histories(), **_entities(), **_others()},
        "components": {
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A key of `chronicle keys create`, or an access token of the configured issuer.",
                }
            },
            "schemas": schemas.SCHEMAS,
        },
    }


def _ingest() -> dict[str, Any]:
    return {
        "/events": {
            "post": {
                "operationId": "postEvents",
                "summary": "Hand in one event, or a batch.",
                "description": "202 only when every accepted event is held: confirmed by the broker, or spilled to the disk. "
                "The same id, or the same Idempotency-Key, makes a repeat harmless. Role: ingest.",
                "parameters": [
                    {
                        "name": "Idempotency-Key",
                        "in": "header",
                        "description": "Ids of events that have none follow from it.",
                        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
                    }
                ],
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {
                            "schema": {
                                "anyOf": [
                                    schemas.ref("Event"),
                                    {"type": "array", "items": schemas.ref("Event"), "minItems": 1, "maxItems": 1_000},
                                ]
                            },
                            "examples": {
                                "one": {"value": schemas.EVENT},
                                "batch": {"value": [schemas.EVENT, {**schemas.EVENT, "type": "security.logout"}]},
                            },
                        },
                        "application/x-ndjson": {
                            "schema": {"type": "string"},
                            "examples": {"lines": {"value": '{"type":"security.login","source":"shop","actor":"ann"}\n'}},
                        },
                    },
                },
                "responses": {
                    "202": _answer("Held.", schemas.ref("Accepted")),
                    **_problems(400, 401, 403, 408, 413, 415, 429, 503),
                    "422": _answer(_PROBLEMS[422], schemas.ref("Refused")),
                },
            }
        }
    }


def _lists() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for collection in COLLECTIONS.values():
        found[f"/{collection.title}"] = {
            "get": {
                "operationId": f"get{collection.title.title()}",
                "summary": f"Find {collection.title}.",
                "description": "Filters hold together. Pages reach the first 10,000 records; `cursor` goes on without end. "
                "Role: reader.",
                "parameters": [*map(_parameter, collection.filters), *_paging(collection)],
                "responses": {"200": _answer("Found.", schemas.listed(collection)), **_problems(*_READ)},
            }
        }
    found["/events"] |= _ingest()["/events"]
    return found


def _histories() -> dict[str, Any]:
    activity = [one for one in CHANGES.filters if one.name in ACTIVITY_FILTERS]
    note = "Role: auditor. Reading it is itself an event on the trail (`chronicle.history.read`)."
    return {
        "/history/{table}/{key}": _get(
            "getHistory",
            "One row's life, from what to what.",
            note,
            [
                _path("table", "source.schema.table, or an end of it that is only one table's", "shop.public.customers"),
                _path("key", 'primary key: 7, or 1,2, or JSON: {"id":7}', "7"),
                _flag("stubs", "also changes of which the policy keeps only a line"),
                _flag("all", "also snapshot rows that say nothing new, and both halves of a key change"),
            ],
            schemas.ref("History"),
            404,
        ),
        "/transactions/{id}": _get(
            "getTransaction",
            "One transaction: what was said of it, and its changes.",
            note,
            [_path("id", "id of the transaction", "4711"), _parameter(CHANGES.filters[1])],
            schemas.ref("Transaction"),
            404,
        ),
        "/actors/{id}/activity": _get(
            "getActivity",
            "Changes and events of one actor, newest first.",
            note,
            [
                _path("id", "id or name of the actor", "ann"),
                *map(_parameter, activity),
                _number("page_size", 1_000, 50),
                _cursor(),
            ],
            schemas.ref("Activity"),
        ),
        "/export": {
            "get": {
                "operationId": "getExport",
                "summary": "All that is found, as one stream.",
                "description": note,
                "parameters": [
                    _choice("of", tuple(COLLECTIONS), "events"),
                    _choice("format", EXPORT_FORMATS, "ndjson"),
                    _choice("sort", tuple(order for order in EVENTS.orders if order in CHANGES.orders), "-time"),
                    *_both(),
                ],
                "responses": {
                    "200": {
                        "description": "The records.",
                        "content": {
                            "application/x-ndjson": {"schema": {"type": "string"}},
                            "text/csv": {"schema": {"type": "string"}},
                            "application/vnd.apache.parquet": {"schema": {"type": "string", "format": "binary"}},
                        },
                    },
                    **_problems(*_READ),
                },
            }
        },
    }


def _entities() -> dict[str, Any]:
    name = _path("id", "kind:value", "org:acme", r"^[A-Za-z][A-Za-z0-9_.-]{0,63}:[^\u0000-\u001f\u007f]+$")
    written = {"200": _answer("Confirmed.", schemas.ref("Written")), **_problems(401, 403, 422, 429, 503)}
    return {
        "/entities": {
            "get": {
                "operationId": "getEntities",
                "summary": "Reference data, by id. Role: reader, without limits.",
                "parameters": [
                    _text("kind", "of this kind: what stands before the colon", "org"),
                    _text("q", "with this in the name", "acme"),
                    _number("page_size", 1_000, 50),
                    _cursor(),
                ],
                "responses": {"200": _answer("Found.", schemas.ref("Entities")), **_problems(*_READ)},
            },
            "post": {
                "operationId": "putEntities",
                "summary": "Write entities, each whole. Role: admin.",
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {
                            "schema": {
                                "anyOf": [
                                    schemas.ref("NewEntity"),
                                    {"type": "array", "items": schemas.ref("NewEntity"), "minItems": 1, "maxItems": 1_000},
                                ]
                            },
                            "examples": {"one": {"value": schemas.ENTITY}},
                        }
                    },
                },
                "responses": {**written, **_problems(400, 408, 413, 415)},
            },
        },
        "/entities/{id}": {
            "get": {
                "operationId": "getEntity",
                "summary": "One entity. Role: reader, without limits.",
                "parameters": [name],
                "responses": {"200": _answer("Found.", schemas.ref("Entity")), **_problems(*_READ, 404)},
            },
            "delete": {
                "operationId": "deleteEntity",
                "summary": "Delete one entity, whether it is there or not. Role: admin.",
                "parameters": [name],
                "responses": written,
            },
        },
    }


def _others() -> dict[str, Any]:
    open_: dict[str, Any] = {"security": []}
    ready = {"200": _answer("Yes.", schemas.ref("Status")), **_problems(503)}
    return {
        "/stream": {
            "get": {
                "operationId": "getStream",
                "summary": "Events and changes as they come in, as server-sent events.",
                "description": "`id` goes into `Last-Event-ID` to resume; the seconds before it come again. With "
                "`kind=events` all filters of `GET /events` but times hold, with `kind=changes` those of `GET /changes`, "
                "with `kind=all` those that both have. Role: reader.",
                "parameters": [
                    _choice("kind", tuple(KINDS), KIND),
                    *(_parameter(one) for one in EVENTS.filters if one.name in filters(KINDS["all"])),
                ],
                "responses": {
                    "200": {"description": "The tail.", "content": {"text/event-stream": {"schema": {"type": "string"}}}},
                    **_problems(*_READ),
                },
            }
        },
        "/health": {
            "get": {
                "operationId": "getHealth",
                "summary": "Whether the process answers.",
                **open_,
                "responses": {"200": _answer("Yes.", schemas.ref("Status"))},
            }
        },
        "/ready": {
            "get": {"operationId": "getReady", "summary": "Whether events are taken and questions answered.", **open_,
                    "responses": ready}
        },
        "/metrics": {
            "get": {
                "operationId": "getMetrics",
                "summary": "For Prometheus.",
                **open_,
                "responses": {"200": {"description": "Metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}}},
            }
        },
    }  # fmt: skip


def _get(id_: str, summary: str, note: str, parameters: Iterable[Any], schema: Any, *more: int) -> dict[str, Any]:
    responses = {"200": _answer("Found.", schema), **_problems(*_READ, *more)}
    return {
        "get": {
            "operationId": id_,
            "summary": summary,
            "description": note,
            "parameters": list(parameters),
            "responses": responses,
        }
    }


def _answer(text: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _problems(*statuses: int) -> dict[str, Any]:
    return {str(status): _answer(_PROBLEMS[status], schemas.ref("Problem")) for status in sorted(statuses)}


def _parameter(one: Filter) -> dict[str, Any]:
    text: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": TEXT_LENGTH_MAX, "pattern": schemas.PRINTABLE}
    if one.choices:
        words = "|".join(one.choices)
        text["pattern"] = f"^({words})(,({words}))*$"
    elif one.kind in _PATTERNS:
        text = {"type": "string", "format": "uuid", "pattern": _PATTERNS[one.kind]}
    elif one.kind in ("since", "until"):
        text["pattern"] = r"^([0-9]{1,3}[smhdw]|(19[0-9]{2}|20[0-9]{2})-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8]))$"
    elif one.kind == "flag":
        text = {"type": "string", "enum": ["true", "false"]}
    elif one.kind == "key":
        text["pattern"] = r'^\{"[a-z_]+":([0-9]{1,9}|"[A-Za-z0-9 ]*")\}$'
    elif one.kind == "query":
        text["pattern"] = r"^[^\s\u0000-\u001f\u007f]{1,100}( [^\s\u0000-\u001f\u007f]{1,100}){0,5}$"
    return {"name": one.name, "in": "query", "description": one.text, "schema": text, "example": one.example}


def _both() -> list[dict[str, Any]]:
    """Filters of either collection; which of them is asked decides which are known."""
    names = {one.name for one in EVENTS.filters} & {one.name for one in CHANGES.filters}
    return [_parameter(one) for one in EVENTS.filters if one.name in names]


def _paging(collection: Collection) -> list[dict[str, Any]]:
    return [
        _choice("sort", collection.orders, "-time"),
        _number("page", 10, 1),
        _number("page_size", 1_000, 50),
        _cursor(),
    ]


def _choice(name: str, words: tuple[str, ...], default: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": {"type": "string", "enum": list(words), "default": default}}


def _flag(name: str, text: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": text, "schema": {"type": "string", "enum": ["true", "false"]}}


def _number(name: str, most: int, default: int) -> dict[str, Any]:
    schema = {"type": "integer", "minimum": 1, "maximum": most, "default": default}
    return {"name": name, "in": "query", "schema": schema}


def _cursor() -> dict[str, Any]:
    text = "`next_cursor` of the answer before, with the same sort"
    return {"name": "cursor", "in": "query", "description": text, "schema": _CURSOR}


def _text(name: str, text: str, example: str) -> dict[str, Any]:
    schema = {"type": "string", "minLength": 1, "maxLength": TEXT_LENGTH_MAX, "pattern": schemas.PRINTABLE}
    return {"name": name, "in": "query", "description": text, "schema": schema, "example": example}


def _path(name: str, text: str, example: str, pattern: str = "") -> dict[str, Any]:
    schema = {"type": "string", "minLength": 1, "maxLength": 512, "pattern": pattern or schemas.PRINTABLE}
    return {"name": name, "in": "path", "required": True, "description": text, "schema": schema, "example": example}
