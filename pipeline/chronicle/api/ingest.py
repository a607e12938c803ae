"""`POST /events`: the one path of this service that must be quick, so it is plain ASGI, before any routing.

Answered with 202 only when every accepted event of the request is held: confirmed by the broker, or spilled to the disk.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec
from starlette.datastructures import Headers

from chronicle.api import bodies
from chronicle.api.access import Principal, Role
from chronicle.api.bodies import Gone
from chronicle.api.gate import Gate
from chronicle.api.limits import Rate
from chronicle.api.parts import Durability, Parts, Record, Unavailable
from chronicle.api.problems import Problem, forbidden, too_many, unavailable
from chronicle.events.event import Event, EventRefused, completed, decoded, encoded
from chronicle.journal.outgoing import key_of

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PATH = "/events"
RESERVED = "chronicle."
"""Types that only Chronicle itself writes begin so; `chronicle` is its source."""
SOURCE = "chronicle"
IDEMPOTENCY_KEY_LENGTH_MAX = 255
REMEMBERED_MAX = 10_000
"""Idempotency-Keys whose time is remembered."""
KINDS = (bodies.JSON, bodies.NDJSON)
_IDEMPOTENCY_KEY = re.compile(rb"[!-~]{1,%d}" % IDEMPOTENCY_KEY_LENGTH_MAX)
_encoder = msgspec.json.Encoder()
_WANTED = frozenset({b"authorization", b"content-type", b"content-encoding", b"content-length", b"idempotency-key"})


class Ingest:
    """ASGI middleware: takes `POST /events`, hands on everything else."""

    def __init__(self, app: App, parts: Parts, gate: Gate) -> None:
        self._app, self._parts, self._gate = app, parts, gate
        self._rate = Rate(parts.events_per_s, 2 * parts.events_per_s, parts.clock)
        self._first: OrderedDict[bytes, str] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI."""
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        begun = self._parts.clock()
        try:
            status, answer, headers = await self._answer(scope, receive)
        except Problem as problem:
            status, answer, headers = problem.status, {"error": problem.errors}, problem.headers
        except Gone:
            return
        body = _encoder.encode(answer)
        raw = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        raw += [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": body})
        self._parts.metrics.served("POST /events", status, self._parts.clock() - begun)

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[int, Any, dict[str, str]]:
        headers = {name: value for name, value in scope["headers"] if name in _WANTED}
        authorization = _text(headers, b"authorization")
        principal = self._gate.quick(authorization, Headers(scope=scope)) or await self._gate.slow(authorization)
        if not principal.may(Role.INGEST):
            raise forbidden("authorization", f"this takes the role {Role.INGEST}")
        kind = (_text(headers, b"content-type") or "").partition(";")[0].strip().lower()
        if kind not in KINDS:
            raise Problem(415, {"content-type": f"choose {' or '.join(KINDS)}"})
        prefix = _idempotency(principal, headers.get(b"idempotency-key"))
        body = await bodies.read(receive, headers.get(b"content-length"), self._parts.sizes)
        encoding = (_text(headers, b"content-encoding") or "").strip().lower()
        text = bodies.inflated(body, encoding, self._parts.sizes)
        texts, batch = bodies.cut(text, kind, self._parts.sizes)
        wait_s = self._rate.wait_s(principal.id, len(texts))
        if wait_s:
            self._parts.metrics.events("rate_limited", len(texts))
            raise too_many("more events than this key may hand in", wait_s)
        return await self._take(principal, texts, prefix, batch=batch)

    async def _take(
        self, principal: Principal, texts: list[bytes], prefix: bytes | None, *, batch: bool
    ) -> tuple[int, Any, dict[str, str]]:
        now = self._time(prefix)
        records: list[Record] = []
        results: list[dict[str, Any]] = []
        for number, text in enumerate(texts):
            try:
                event = self._accepted(principal, text, _id(prefix, number), now)
                records.append((key_of(event), encoded(event)))
                results.append({"id": event.id, "status": "accepted"})
            except EventRefused as error:
                results.append({"status": "refused", "error": {error.field or "event": error.problem}})
        self._parts.metrics.events("refused", len(texts) - len(records))
        if not records:
            return (422, {"status": "refused", "results": results} if batch else {"error": results[0]["error"]}, {})
        durability = await self._held(records)
        if not batch:
            return 202, {"status": "accepted", "id": results[0]["id"], "durability": durability}, {}
        status = "accepted" if len(records) == len(texts) else "partial"
        return 202, {"status": status, "durability": durability, "results": results}, {}

    def _time(self, prefix: bytes | None) -> str:
        """The time of events that say none: now, or when this Idempotency-Key first came, as far as that is remembered."""
        now = self._parts.now().isoformat(timespec="microseconds").replace("+00:00", "Z")
        if prefix is None:
            return now
        first = self._first.setdefault(prefix, now)
        if len(self._first) > REMEMBERED_MAX:
            self._first.popitem(last=False)
        return first

    async def _held(self, records: list[Record]) -> Durability:
        try:
            durability = await self._parts.publisher.publish(records)
        except Unavailable as error:
            self._parts.metrics.events("unavailable", len(records))
            raise unavailable("events", "nothing was accepted: send it again", error.retry_after_s) from None
        self._parts.metrics.events(durability, len(records))
        return durability

    def _accepted(self, principal: Principal, text: bytes, id_: str, now: str) -> Event:
        event = decoded(text)
        if principal.limits:
            event = _within(principal, event)
        whole = completed(event, id=id_, time=now)
        if whole.type.startswith(RESERVED):
            raise EventRefused("type", f"types that begin with {RESERVED} are Chronicle's own")
        if whole.source == SOURCE:
            raise EventRefused("source", f"{SOURCE} is Chronicle itself")
        if principal.limits and not principal.sees_table(whole.source, whole.type):
            raise EventRefused("type", "is not among those of this key")
        if self._parts.refuse is not None:
            self._parts.refuse(whole)
        return whole


def _within(principal: Principal, event: Event) -> Event:
    """The event as one of this key's sources and tenants: what it does not say is filled in where only one is left."""
    changes = {}
    for field, what in (("source", "sources"), ("tenant", "tenants")):
        left, said = principal.only(what), getattr(event, field)
        if left is None:
            continue
        if not said and len(left) == 1:
            changes[field] = left[0]
        elif said not in left:
            raise EventRefused(field, f"is not among the {what} of this key")
    return msgspec.structs.replace(event, **changes) if changes else event


def _text(headers: dict[bytes, bytes], name: bytes) -> str | None:
    value = headers.get(name)
    return None if value is None else value.decode("latin-1")


def _idempotency(principal: Principal, key: bytes | None) -> bytes | None:
    if key is None:
        return None
    if not _IDEMPOTENCY_KEY.fullmatch(key):
        raise Problem(422, {"idempotency-key": f"write 1 to {IDEMPOTENCY_KEY_LENGTH_MAX} printable ASCII characters, no space"})
    return b"%d:%s%s" % (len(principal.id), principal.id.encode(), key)


def _id(prefix: bytes | None, number: int) -> str:
    """A UUID of this kind (version 4), or one that follows from the Idempotency-Key (version 8)."""
    if prefix is None:
        digest, version = os.urandom(16).hex(), "4"
    else:
        digest, version = hashlib.blake2b(b"%s:%d" % (prefix, number), digest_size=16).hexdigest(), "8"
    return (
        f"{digest[:8]}-{digest[8:12]}-{version}{digest[13:16]}-{'89ab'[int(digest[16], 16) & 3]}{digest[17:20]}-{digest[20:]}"
    )
