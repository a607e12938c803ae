"""OIDC access tokens: a JWT of the configured issuer, for the configured audience, signed with an algorithm we named.

What is in the token's header decides nothing but which of the issuer's own keys is tried: neither the algorithm nor where keys
come from is taken from there.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx
import jwt

from chronicle.api.access import Limits, Principal, Role
from chronicle.api.keys import LimitsOf
from chronicle.errors import ChronicleError, ConfigError, TransientError

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Asymmetric ones: with a shared secret, who can check a token can also make one."""
KEYS_TTL_S = 600.0
"""The issuer's keys are read again after this time …"""
KEYS_STALE_S = 24 * 3600.0
"""… and while the issuer is away they are used so long."""
REFRESH_MIN_S = 30.0
"""A token with an unknown key has them read again no sooner: strangers cannot have us ask the issuer all the time."""
LEEWAY_S = 30
TOKEN_LENGTH_MAX = 16_384
DOCUMENT_BYTES_MAX = 1024 * 1024
KNOWN_MAX = 10_000
KNOWN_S = 60.0
"""A token that was right is not computed again for so long, nor beyond its own end."""


@dataclass(frozen=True, slots=True)
class Oidc:
    """How tokens are checked."""

    issuer: str
    audience: str
    jwks_url: str = ""
    """Empty: as the issuer's `/.well-known/openid-configuration` says."""
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    roles_claim: str = "roles"
    """Where the roles are; dots go into objects (`realm_access.roles`). Names that are no roles of ours mean nothing."""
    tenants_claim: str = ""
    """Where the tenants are (a text or a list); a token without it is refused. Empty: tokens are not limited to tenants."""
    timeout_s: float = 5.0

    def __post_init__(self) -> None:
        wrong = [name for name in self.algorithms if name not in ALGORITHMS]
        if wrong or not self.algorithms:
            raise ConfigError(f"choose api.oidc_algorithms from {', '.join(ALGORITHMS)}")
        if not self.audience:
            raise ConfigError("set api.oidc_audience: a token that is meant for another service must not open this one")


class IssuerKeys:
    """The issuer's public keys by their id, over HTTP, with bounds on how often they are asked for."""

    def __init__(self, oidc: Oidc, clock: Callable[[], float]) -> None:
        self._oidc, self._clock = oidc, clock
        self._lock = threading.Lock()
        self._keys: dict[str, jwt.PyJWK] = {}
        self._read_at: float | None = None
        self._asked_at: float | None = None
        self.fetches = 0
        """How often the issuer was asked."""

    def key(self, key_id: str | None) -> jwt.PyJWK | None:
        """The key of this id; without an id, the only one there is. None: there is none.

        Raises:
            TransientError: nobody answers, and what is known is too old.
        """
        with self._lock:
            found = self._found(key_id)
            age = None if self._read_at is None else self._clock() - self._read_at
            if found is not None and age is not None and age < KEYS_TTL_S:
                return found
            if self._asked_at is None or self._clock() - self._asked_at >= REFRESH_MIN_S:
                self._refresh(keep=age is not None and age < KEYS_STALE_S)
                age = None if self._read_at is None else self._clock() - self._read_at
            if age is None or age >= KEYS_STALE_S:
                raise TransientError("the issuer's keys cannot be read: see api.oidc_issuer")
            return self._found(key_id)

    def _found(self, key_id: str | None) -> jwt.PyJWK | None:
        if key_id is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(key_id)

    def _refresh(self, *, keep: bool) -> None:
        self._asked_at = self._clock()
        self.fetches += 1
        try:
            document = self._document(self._url())
            keys = [one for one in document.get("keys", ()) if isinstance(one, dict) and one.get("use", "sig") == "sig"]
            self._keys = dict(_usable(keys))
            self._read_at = self._asked_at
        except (httpx.HTTPError, ValueError, TypeError, AttributeError, ChronicleError):
            if not keep:
                raise TransientError("the issuer's keys cannot be read: see api.oidc_issuer") from None

    def _url(self) -> str:
        if self._oidc.jwks_url:
            return self._oidc.jwks_url
        found = self._document(self._oidc.issuer.rstrip("/") + "/.well-known/openid-configuration")
        if found.get("issuer") != self._oidc.issuer or not isinstance(found.get("jwks_uri"), str):
            raise TransientError("the issuer's configuration is another issuer's, or names no keys")
        return str(found["jwks_uri"])

    def _document(self, url: str) -> dict[str, Any]:
        with httpx.stream("GET", url, timeout=self._oidc.timeout_s, follow_redirects=False) as answer:
            answer.raise_for_status()
            text = b""
            for part in answer.iter_bytes():
                text += part
                if len(text) > DOCUMENT_BYTES_MAX:
                    raise ValueError("too large")
        document = httpx.Response(200, content=text).json()
        if not isinstance(document, dict):
            raise TypeError("no object")
        return document


def _usable(keys: list[dict[str, Any]]) -> list[tuple[str, jwt.PyJWK]]:
    found = []
    for number, one in enumerate(keys):
        try:
            found.append((str(one.get("kid", number)), jwt.PyJWK(one)))
        except jwt.PyJWTError:
            continue  # of a kind that we cannot use
    return found


class Tokens:
    """Tokens to principals."""

    def __init__(self, oidc: Oidc, clock: Callable[[], float]) -> None:
        """`clock`: monotonic seconds."""
        self._oidc, self._clock = oidc, clock
        self.keys = IssuerKeys(oidc, clock)
        self._known: OrderedDict[bytes, tuple[Principal, float]] = OrderedDict()
        self._lock = threading.Lock()

    def known(self, text: str) -> Principal | None:
        """Whom this token stands for when that was computed a moment ago; never waits."""
        digest = hashlib.sha256(text.encode()).digest()
        with self._lock:
            found = self._known.get(digest)
            return found[0] if found and self._clock() < found[1] else None

    def principal(self, text: str, now: datetime, limits_of: LimitsOf) -> Principal | None:
        """Whom this token stands for; None for one that is wrong or over. May ask the issuer: not for an event loop.

        Raises:
            TransientError: the issuer's keys cannot be read.
        """
        if len(text) > TOKEN_LENGTH_MAX:
            return None
        try:
            key_id = jwt.get_unverified_header(text).get("kid")
            key = self.keys.key(key_id if isinstance(key_id, str) else None)
            if key is None:
                return None
            claims = jwt.decode(
                text,
                key,
                algorithms=list(self._oidc.algorithms),
                audience=self._oidc.audience,
                issuer=self._oidc.issuer,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except (jwt.PyJWTError, ValueError, TypeError):
            return None
        made = self._made(claims, limits_of)
        if made is not None:
            self._remember(text, made, float(claims["exp"]) + LEEWAY_S - now.timestamp())
        return made

    def _made(self, claims: Mapping[str, Any], limits_of: LimitsOf) -> Principal | None:
        subject = claims["sub"]
        if not isinstance(subject, str) or not subject or len(subject) > 512 or not subject.isprintable():
            return None
        roles = frozenset(Role(name) for name in _texts(_inside(claims, self._oidc.roles_claim)) if name in tuple(Role))
        limits = limits_of(roles)
        if self._oidc.tenants_claim:
            said = _inside(claims, self._oidc.tenants_claim)
            tenants = (said,) if isinstance(said, str) else _texts(said)
            if not tenants:
                return None
            try:
                limits = (Limits(tenants=tenants), *limits)
            except ConfigError:
                return None
        name = claims.get("name") or claims.get("preferred_username") or subject
        return Principal(f"user:{subject}", name if isinstance(name, str) else subject, "user", roles, limits)

    def _remember(self, text: str, principal: Principal, left_s: float) -> None:
        with self._lock:
            self._known[hashlib.sha256(text.encode()).digest()] = (principal, self._clock() + min(KNOWN_S, left_s))
            while len(self._known) > KNOWN_MAX:
                self._known.popitem(last=False)


def _inside(claims: Mapping[str, Any], path: str) -> Any:
    if path in claims:  # names with dots are common: https://example.com/roles
        return claims[path]
    value: Any = claims
    for word in path.split("."):
        value = value.get(word) if isinstance(value, Mapping) else None
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(value.split())
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list) else ()
