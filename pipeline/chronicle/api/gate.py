"""The door: who asks, by the key or token of a request, and whether that is enough for what is asked."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

import structlog
from anyio import CapacityLimiter, to_thread

from chronicle.api.access import Limits, Principal, Role
from chronicle.api.keys import looks_like_a_key
from chronicle.api.limits import Rate
from chronicle.api.parts import Parts
from chronicle.api.problems import forbidden, too_many, unauthorized, unavailable
from chronicle.errors import ChronicleError, TransientError
from chronicle.observe import explain

ANYONE = Principal("anonymous", "anonymous", "anonymous", frozenset(Role), ())
AUTHORIZATION_LENGTH_MAX = 20_000
PROXIED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
"""What a proxy says of whom it speaks for. It is believed of nobody but who has no key: then it can only shut the door."""
THREADS = 4
"""Of the door's own: questions to the store, however slow, must not keep those out who come with a new key or token."""
AGAIN_S = 1.0
"""After keys could not be read."""


class Gate:
    """Lets requests in. One of a process; belongs to its event loop."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._reads = Rate(parts.reads.reads_per_s, 2 * parts.reads.reads_per_s, parts.clock)
        self._refreshing: asyncio.Task[None] | None = None
        self._threads = CapacityLimiter(THREADS)
        self._log = structlog.get_logger("chronicle.api")

    async def watch(self) -> None:
        """Read the keys again and again, until cancelled."""
        failed = False
        while True:
            try:
                await to_thread.run_sync(self._parts.keys.refresh, limiter=self._threads)
                failed = False
            except ChronicleError as error:
                if not failed:
                    self._log.warning("keys.unread", **explain(error))
                failed = True
            await asyncio.sleep(AGAIN_S if failed else self._parts.keys.cache_s)

    def quick(self, authorization: str | None, headers: Mapping[str, str]) -> Principal | None:
        """Who asks, as far as that is known without waiting; then `slow` knows more."""
        if authorization is None:
            return ANYONE if self._open and _is_from_here(headers) else None
        text = _token(authorization)
        if looks_like_a_key(text):
            return self._parts.keys.principal(text, self._parts.now(), self.limits_of)
        return self._parts.tokens.known(text) if self._parts.tokens is not None else None

    async def slow(self, authorization: str | None) -> Principal:
        """As `quick`, when that said None: a key may be new, a token's signature is computed.

        Raises:
            Problem: 401, or 503 when nobody can tell who that is; 403 for who comes to an open service from elsewhere.
        """
        keys, now = self._parts.keys, self._parts.now
        if authorization is None:
            if self._open:
                raise forbidden(
                    "host",
                    "without any key this service answers only to localhost, to no proxy and to no other site's page: "
                    "see `chronicle keys create`",
                )
            raise unauthorized("send a key or a token: Authorization: Bearer …")
        text = _token(authorization)
        if looks_like_a_key(text):
            if keys.wanted(text):
                await self._refreshed()
            found = keys.principal(text, now(), self.limits_of)
            if found is None and not keys.fresh:
                raise unavailable("authorization", "the keys cannot be read now")
        elif self._parts.tokens is None:
            found = None
        else:
            try:
                principal = self._parts.tokens.principal
                found = await to_thread.run_sync(principal, text, now(), self.limits_of, limiter=self._threads)
            except TransientError:
                raise unavailable("authorization", "the issuer's keys cannot be read now") from None
        if found is None:
            raise unauthorized("this key or token is wrong, over, or taken back")
        return found

    async def principal(self, headers: Mapping[str, str]) -> Principal:
        """Who asks. Raises as `slow`."""
        authorization = headers.get("authorization")
        return self.quick(authorization, headers) or await self.slow(authorization)

    async def reader(self, headers: Mapping[str, str], role: Role = Role.READER) -> Principal:
        """Who asks, if they have this role and have not asked too often.

        Raises:
            Problem: as `slow`, 403 or 429.
        """
        found = await self.principal(headers)
        if not found.may(role):
            raise forbidden("authorization", f"this takes the role {role}")
        wait_s = self._reads.wait_s(found.id)
        if wait_s:
            raise too_many("more requests than this key may make in a second", wait_s)
        return found

    def limits_of(self, roles: frozenset[Role]) -> tuple[Limits, ...]:
        """The limits of these roles, as the settings have them."""
        return tuple(limits for role, limits in self._parts.role_limits.items() if role in roles and limits.any)

    @property
    def _open(self) -> bool:
        return self._parts.open_to_all and self._parts.tokens is None and self._parts.keys.none_at_all

    async def _refreshed(self) -> None:
        """Read the keys now, once for all who wait for it."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._refresh())
        await asyncio.shield(self._refreshing)

    async def _refresh(self) -> None:
        try:
            await to_thread.run_sync(self._parts.keys.refresh, limiter=self._threads)
        except ChronicleError as error:
            self._log.warning("keys.unread", **explain(error))


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_from_here(headers: Mapping[str, str]) -> bool:
    """Whether somebody on this machine asks, as far as headers can say.

    Another name that leads here, or a request across sites, is how a web page in a browser would reach an open service; and
    a proxy on this machine would bring in whoever reaches the proxy.
    """
    if any(name in headers for name in PROXIED) or headers.get("sec-fetch-site") == "cross-site":
        return False
    origin = headers.get("origin")
    return _is_loopback(f"//{headers.get('host', '')}") and (origin is None or _is_loopback(origin))


def _is_loopback(url: str) -> bool:
    try:
        name = urlsplit(url).hostname
    except ValueError:
        return False
    return name is not None and is_loopback(name)


def _token(authorization: str) -> str:
    if len(authorization) > AUTHORIZATION_LENGTH_MAX:
        return ""
    scheme, _, text = authorization.partition(" ")
    return text.strip() if scheme.lower() == "bearer" else ""
