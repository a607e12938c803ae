"""API keys: 256 random bits, shown once, kept as their SHA-256, with roles, limits and an end; and the copy that requests ask.

A fast hash is right here: a key cannot be guessed, unlike a password, so there is nothing to slow down.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from chronicle.api.access import Limits, Principal, Role, parsed_roles
from chronicle.errors import ChronicleError, ConfigError
from chronicle.sinks.clickhouse_errors import translated
from chronicle.trail.reading import rows
from chronicle.trail.store import Store, as_client

PREFIX = "chr"
NAME_LENGTH_MAX = 100
KEYS_MAX = 100_000
ASK_AGAIN_S = 1.0
"""A key that the copy does not have is asked for no sooner after the last time."""
_WRITTEN = re.compile(rf"{PREFIX}_([0-9a-f]{{12}})_([A-Za-z0-9_-]{{43}})", re.ASCII)
_COLUMNS = (
    *("id", "name", "hash", "roles", "sources", "tables", "tenants", "columns"),
    *("created_at", "expires_at", "revoked_at", "version"),
)

LimitsOf = Callable[[frozenset[Role]], tuple[Limits, ...]]
"""The limits that the settings have for these roles."""


class Writer(Protocol):
    """What writing keys needs of a ClickHouse client."""

    def insert(
        self,
        table: str,
        data: Sequence[Sequence[Any]],
        column_names: Sequence[str],
        database: str,
        *,
        settings: dict[str, Any] | None = None,
    ) -> Any:
        """Add rows."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key as it is kept."""

    id: str
    name: str
    hash: str
    roles: frozenset[Role]
    limits: Limits
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    def valid(self, now: datetime) -> bool:
        """Whether it opens anything at this moment."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def state(self, now: datetime) -> str:
        """active, expired or revoked."""
        return "active" if self.valid(now) else "revoked" if self.revoked_at else "expired"

    def as_json(self, now: datetime) -> dict[str, Any]:
        """For a list: everything but the hash."""
        return {
            "id": self.id,
            "name": self.name,
            "state": self.state(now),
            "roles": sorted(self.roles),
            "sources": list(self.limits.sources),
            "tables": list(self.limits.tables),
            "tenants": list(self.limits.tenants),
            "columns": list(self.limits.columns),
            "created_at": self.created_at.isoformat(),
            "expires_at": None if self.expires_at is None else self.expires_at.isoformat(),
            "revoked_at": None if self.revoked_at is None else self.revoked_at.isoformat(),
        }


# --- writing


def create(
    client: Writer,
    database: str,
    name: str,
    roles: Sequence[str],
    limits: Limits,
    *,
    now: datetime,
    expires_at: datetime | None,
) -> tuple[Key, str]:
    """A new key, and its text, which nobody can show again.

    Raises:
        ConfigError: an empty name, no or an unknown role, or an end that is over already.
    """
    if not name or len(name) > NAME_LENGTH_MAX or not name.isprintable():
        raise ConfigError(f"name the key, with at most {NAME_LENGTH_MAX} printable characters: what or whom is it for?")
    if not roles:
        raise ConfigError(f"give the key a --role: {', '.join(Role)}")
    if expires_at is not None and expires_at <= now:
        raise ConfigError("choose an end that is not over already")
    id_, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    text = f"{PREFIX}_{id_}_{secret}"
    key = Key(id_, name, hashed(text), parsed_roles(roles), limits, now, expires_at, None)
    _write(client, database, key, now)
    return key, text


def revoke(client: Writer, store: Store, database: str, id_: str, *, now: datetime) -> Key:
    """Take a key back; services notice within their `api.keys_cache_s`. A revoked one stays as it is.

    Raises:
        ChronicleError: there is no such key.
    """
    found = next((key for key in read(store, database) if key.id == id_), None)
    if found is None:
        raise ChronicleError("choose an id from `chronicle keys list`: there is no such key")
    if found.revoked_at is not None:
        return found
    taken = Key(found.id, found.name, found.hash, found.roles, found.limits, found.created_at, found.expires_at, now)
    # the newest version counts, also when the clock of whoever made the key is ahead of ours
    _write(client, database, taken, max(now, found.created_at + timedelta(seconds=1)))
    return taken


def _write(client: Writer, database: str, key: Key, version: datetime) -> None:
    limits = key.limits
    row = [
        *(key.id, key.name, key.hash, sorted(key.roles), list(limits.sources), list(limits.tables), list(limits.tenants)),
        *(list(limits.columns), key.created_at, key.expires_at, key.revoked_at, version),
    ]
    with translated("api_keys", _COLUMNS):
        client.insert("api_keys", [row], list(_COLUMNS), database, settings={"async_insert": 0})


# --- reading


def read(store: Store, database: str) -> list[Key]:
    """All keys, the newest first. Raises as `trail.reading.rows`."""
    sql = f"""
        SELECT {", ".join(_COLUMNS[:-1])} FROM {{database:Identifier}}.api_keys FINAL
        ORDER BY created_at DESC, id LIMIT {{most:UInt64}}
    """  # noqa: S608  (column names of this module; values are bound)
    return [_key(row) for row in rows(as_client(store), sql, {"database": database, "most": KEYS_MAX})]


def _key(row: dict[str, Any]) -> Key:
    limits = Limits(tuple(row["sources"]), tuple(row["tables"]), tuple(row["tenants"]), tuple(row["columns"]))
    roles = frozenset(Role(name) for name in row["roles"] if name in tuple(Role))  # a role of a newer version opens nothing
    return Key(row["id"], row["name"], row["hash"], roles, limits, row["created_at"], row["expires_at"], row["revoked_at"])


def hashed(text: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(text.encode()).hexdigest()


class Keys:
    """All keys as they were a moment ago: read again every `cache_s` seconds by whoever calls `refresh`.

    While the store is away the last copy answers for `stale_s` seconds: applications go on handing in events. After that,
    and before the first copy, nobody is known.
    """

    def __init__(self, store: Store, database: str, clock: Callable[[], float], *, cache_s: float, stale_s: float) -> None:
        """`clock`: monotonic seconds."""
        self._store, self._database, self._clock = store, database, clock
        self.cache_s, self._stale_s = cache_s, stale_s
        self._lock = threading.Lock()
        self._known: dict[str, Key] = {}
        self._read_at: float | None = None
        self._asked_at = -ASK_AGAIN_S

    @property
    def fresh(self) -> bool:
        """Whether the copy may still be used."""
        return self._read_at is not None and self._clock() - self._read_at < max(self._stale_s, 2 * self.cache_s)

    @property
    def none_at_all(self) -> bool:
        """Whether no key was ever made, as far as is known now; a revoked one counts."""
        return self._read_at is not None and not self._known

    def refresh(self) -> None:
        """Read all keys. Raises as `read`; the last copy then stays."""
        with self._lock:
            self._asked_at = self._clock()
            begun = self._clock()
            self._known = {key.id: key for key in read(self._store, self._database)}
            self._read_at = begun

    def wanted(self, text: str) -> bool:
        """Whether this could be a key that was made since the copy: then `refresh` before `principal` is called again."""
        found = _WRITTEN.fullmatch(text)
        return bool(found) and found[1] not in self._known and self._clock() - self._asked_at >= ASK_AGAIN_S  # type: ignore[index]

    def principal(
        self, text: str, now: datetime, limits_of: Callable[[frozenset[Role]], tuple[Limits, ...]]
    ) -> Principal | None:
        """Whom this key stands for; None for one that is wrong, over or taken back, or when nothing is known any more."""
        found = _WRITTEN.fullmatch(text)
        if not found or not self.fresh:
            return None
        key = self._known.get(found[1])
        if key is None or not hmac.compare_digest(key.hash, hashed(text)) or not key.valid(now):
            return None
        limits = (*((key.limits,) if key.limits.any else ()), *limits_of(key.roles))
        return Principal(f"key:{key.id}", key.name, "api_key", key.roles, limits)


def looks_like_a_key(text: str) -> bool:
    """Whether this is one of our keys, by its form."""
    return text.startswith(f"{PREFIX}_")
