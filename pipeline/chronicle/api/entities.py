"""`/entities`: reference data, read from the store's copy, written to wherever the truth is."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response

from chronicle.api.access import Principal, Role
from chronicle.api.bodies import read
from chronicle.api.gate import Gate
from chronicle.api.parameters import Asked
from chronicle.api.parts import Parts
from chronicle.api.problems import Problem, answered, forbidden, unavailable
from chronicle.api.reading import asked_of_store
from chronicle.codec.entity import Entity, InvalidEntity, check_id
from chronicle.errors import ChronicleError
from chronicle.trail.reading import rows
from chronicle.trail.store import as_client

ENTITIES_MAX = 1_000
"""Of one POST."""
_LIST = """
    SELECT id, name, metadata, put_at FROM {database:Identifier}.entities_current
    WHERE startsWith(id, {prefix:String}) AND id > {after:String}
      AND positionCaseInsensitiveUTF8(name, {q:String}) > 0 ORDER BY id LIMIT {limit:UInt64}
"""
_ONE = "SELECT id, name, metadata, put_at FROM {database:Identifier}.entities_current WHERE id = {id:String}"
_LONE = re.compile(r"[\ud800-\udfff]")


class Written(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An entity in a request."""

    id: str
    name: str
    metadata: dict[str, Any] = {}


_body = msgspec.json.Decoder(Written | list[Written])


class Entities:
    """The endpoints of reference data. It belongs to no tenant and no source: a limited key does not see it."""

    def __init__(self, parts: Parts, gate: Gate) -> None:
        self._parts, self._gate = parts, gate

    async def find(self, request: Request) -> Response:
        """`GET /entities`: by id, from a cursor on."""
        await self._allowed(request, Role.READER)
        asked = Asked.of(request.query_params.multi_items(), ("kind", "q", "page_size", "cursor"))
        size = asked.number("page_size", 50, self._parts.reads.page_rows_max)
        kind = asked.values.get("kind", "")
        asked.refuse_wrong()
        bound = {
            "database": self._parts.database,
            "prefix": f"{kind}:" if kind else "",
            "after": asked.values.get("cursor", ""),
            "q": asked.values.get("q", ""),
            "limit": size + 1,
        }
        found = await asked_of_store(lambda: rows(as_client(self._parts.store), _LIST, bound))
        more, found = len(found) > size, found[:size]
        items = [_item(one) for one in found]
        return answered(200, {"entities": items, "next_cursor": found[-1]["id"] if more else None})

    async def one(self, request: Request) -> Response:
        """`GET /entities/{id}`."""
        await self._allowed(request, Role.READER)
        bound = {"database": self._parts.database, "id": _id(request)}
        found = await asked_of_store(lambda: rows(as_client(self._parts.store), _ONE, bound))
        if not found:
            raise Problem(404, {"id": "there is no such entity"})
        return answered(200, _item(found[0]))

    async def put(self, request: Request) -> Response:
        """`POST /entities`: one, or an array, each whole; effective at the next batch once this is answered."""
        await self._allowed(request, Role.ADMIN)
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise Problem(415, {"content-type": "choose application/json"})
        length = request.headers.get("content-length")
        text = await read(request.receive, length.encode() if length else None, self._parts.sizes)
        entities = _parsed(text)
        await self._written(lambda: self._parts.entities.put(entities))
        return answered(200, {"status": "written", "ids": [one.id for one in entities]})

    async def delete(self, request: Request) -> Response:
        """`DELETE /entities/{id}`: whether it is there or not."""
        await self._allowed(request, Role.ADMIN)
        id_ = _id(request)
        await self._written(lambda: self._parts.entities.delete([id_]))
        return answered(200, {"status": "deleted", "ids": [id_]})

    async def _allowed(self, request: Request, role: Role) -> Principal:
        principal = await self._gate.reader(request.headers, role)
        if principal.limited:
            raise forbidden("authorization", "reference data belongs to no source and no tenant: limited keys do not have it")
        return principal

    async def _written(self, call: Any) -> None:
        try:
            await to_thread.run_sync(call)
        except ChronicleError:
            raise unavailable("entities", "not every one is confirmed: sending it again is safe", 2) from None


def _id(request: Request) -> str:
    text = str(request.path_params["id"])
    try:
        if _LONE.search(text):
            raise InvalidEntity("no text")
        check_id(text)
    except InvalidEntity:
        raise Problem(422, {"id": "write kind:value, as org:acme"}) from None
    return text


def _parsed(text: bytes) -> list[Entity]:
    try:
        found = _body.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Problem(422, {"body": 'write {"id":…,"name":…,"metadata":{…}}, or an array of these'}) from None
    written = found if isinstance(found, list) else [found]
    if not 1 <= len(written) <= ENTITIES_MAX:
        raise Problem(422, {"body": f"write 1 to {ENTITIES_MAX} entities"})
    entities, errors = {}, dict[str, str]()
    for number, one in enumerate(written):
        try:
            entities[one.id] = Entity(one.id, one.name, one.metadata)
        except InvalidEntity as error:
            errors[f"entity {number}"] = str(error)
    if errors:
        raise Problem(422, errors)
    if len(entities) < len(written):
        raise Problem(422, {"body": "two of them have one id"})
    return list(entities.values())


def _item(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": row["id"],
        "name": row["name"],
        "metadata": msgspec.json.decode(row["metadata"] or "{}"),
        "put_at": row["put_at"].isoformat(),
    }
