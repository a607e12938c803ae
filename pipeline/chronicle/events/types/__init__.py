"""The shipped event types, each a Struct of its payload, by family. A family is loaded when one of its types is used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from chronicle.events.payload import Payload

_FAMILIES: Mapping[str, tuple[str, ...]] = {
    "http": ("http.request.received", "http.response.sent", "http.route.not_found", "http.method.not_allowed"),
    "auth": (
        *("auth.register", "auth.login", "auth.logout"),
        *("auth.token.issued", "auth.token.revoked", "auth.credentials.checked"),
    ),
    "database": (
        *("database.connected", "database.init", "database.error", "database.query", "database.exec"),
        *("database.transaction.started", "database.transaction.committed", "database.transaction.rolled_back"),
    ),
    "work_items": (
        *("work_item.created", "work_item.updated", "work_item.deleted"),
        *("work_item.assigned", "work_item.unassigned", "work_item.custom_field_set"),
    ),
    "comments": ("comment.added", "comment.deleted"),
    "attachments": ("attachment.added", "attachment.removed"),
    "users": ("user.created", "user.updated", "user.deleted", "user.logged_in", "user.logged_out"),
    "teams": ("team.created", "team.updated", "team.deleted", "team.member_added", "team.member_removed"),
    "logs": ("log.info", "log.warning", "log.debug", "log.error", "log.fatal", "log.assertion_failed"),
    "trail": ("chronicle.history.read",),
}


def _name(type: str) -> str:
    return "".join(word.capitalize() for word in type.replace("_", ".").split("."))


_FAMILY_OF = {type: family for family, types in _FAMILIES.items() for type in types}
_TYPE_OF = {_name(type): type for type in _FAMILY_OF}
TYPES = frozenset(_FAMILY_OF)
"""Every shipped event type."""


def payload_of(name: str) -> type[Payload]:
    """The Struct of a type's payload: of `auth.login` it is `auth.AuthLogin`.

    Raises:
        KeyError: no shipped type.
    """
    module = importlib.import_module(f"{__name__}.{_FAMILY_OF[name]}")
    found: type[Payload] = getattr(module, _name(name))
    return found


def __getattr__(name: str) -> Any:  # a type checker knows them from their families
    if name not in _TYPE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return payload_of(_TYPE_OF[name])


def __dir__() -> list[str]:
    return sorted({*globals(), *_TYPE_OF})
