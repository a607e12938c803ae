"""What a caller sees of a row: conditions for queries; columns, payload fields and ciphertexts cut out of what is answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from chronicle.api.access import Principal, Role
from chronicle.trail.changes import Change
from chronicle.trail.search import Sight

CUT = "[ENCRYPTED]"
"""Stands where a ciphertext is, for those who may not have it."""
_IMAGES = ("before", "after", "key", "previous_key", "enriched", "extra")
_LISTS = ("changed", "unavailable")
_SAID = ("description", "resource_id", "tags")
"""Fields of an event that may hold anything, so that a limit on columns must name them."""


def sight(principal: Principal) -> Sight:
    """What every query of this caller is limited to."""
    names = tuple(limits.table_expression for limits in principal.limits if limits.tables)
    return Sight(principal.only("sources"), principal.only("tenants"), names)


def event(principal: Principal, item: dict[str, Any]) -> dict[str, Any]:
    """An event as this caller sees it."""
    if principal.column_limited:
        source, type_ = item["source"], item["type"]
        item = item | {
            name: item[name] if principal.sees_column(source, type_, name) else None for name in _SAID if name in item
        }
        item["payload"] = _seen(principal, source, type_, item["payload"])
        item["violations"] = []  # they name fields
    if not principal.may(Role.AUDITOR):
        item = item | {"payload": _unsealed(item["payload"])}
    return item


def change(principal: Principal, item: dict[str, Any]) -> dict[str, Any]:
    """A change as this caller sees it."""
    if principal.column_limited:
        source, name = item["source"], f"{item['schema']}.{item['table']}"
        item = item | {image: _seen(principal, source, name, item[image]) for image in _IMAGES}
        item |= {each: [column for column in item[each] if principal.sees_column(source, name, column)] for each in _LISTS}
        item["violations"] = []  # they name columns
        if not principal.sees_column(source, name, "tags"):
            item["tags"] = None
    if not principal.may(Role.AUDITOR):
        item = item | {image: _unsealed(item[image]) for image in _IMAGES}
    return item


def recorded(principal: Principal, found: Change) -> Change | None:
    """As `change`, of the trail's own dataclass; None when it is not seen at all."""
    source, name = found.name.source, f"{found.name.schema}.{found.name.table}"
    if not principal.sees_table(source, name) or not principal.sees_tenant(found.tenant):
        return None
    if not principal.column_limited:
        return found
    seen: dict[str, Any] = {image: _seen(principal, source, name, getattr(found, image)) for image in _IMAGES}
    for each in _LISTS:
        seen[each] = tuple(column for column in getattr(found, each) if principal.sees_column(source, name, column))
    if not principal.sees_column(source, name, "tags"):
        seen["tags"] = None
    return replace(found, **seen, violations=())


def _seen(principal: Principal, source: str, name: str, image: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if image is None:
        return None
    return {column: value for column, value in image.items() if principal.sees_column(source, name, column)}


def _unsealed(image: Any) -> Any:
    """Without ciphertexts: the policy's, and those of the journal library (`{"$encrypted": …}`), wherever they stand."""
    if isinstance(image, str):
        return CUT if _is_sealed(image) else image
    if isinstance(image, Mapping):
        return CUT if "$encrypted" in image else {name: _unsealed(value) for name, value in image.items()}
    return [_unsealed(value) for value in image] if isinstance(image, list) else image


def _is_sealed(text: str) -> bool:
    from chronicle.stages.ciphers import is_sealed  # it loads Polars

    return is_sealed(text)
