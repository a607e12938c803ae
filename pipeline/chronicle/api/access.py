"""Who may do what: roles, limits on what is seen, and the principal that a key or a token stands for. No input or output."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache

from chronicle.errors import ConfigError
from chronicle.trail.words import expression, one_word

PATTERN_LENGTH_MAX = 300
PATTERNS_MAX = 100


class Role(StrEnum):
    """What a caller may do. Limits apply to every role."""

    INGEST = "ingest"
    """Hand in events."""
    READER = "reader"
    """Read events, changes and reference data, and follow the live tail; ciphertexts are cut out."""
    AUDITOR = "auditor"
    """What a reader may, and histories, transactions, activities and exports, ciphertexts included."""
    ADMIN = "admin"
    """Everything, and write reference data."""


IMPLIED: Mapping[Role, frozenset[Role]] = {
    Role.INGEST: frozenset({Role.INGEST}),
    Role.READER: frozenset({Role.READER}),
    Role.AUDITOR: frozenset({Role.AUDITOR, Role.READER}),
    Role.ADMIN: frozenset(Role),
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What of the trail a caller meets; an empty tuple does not limit. All four hold together."""

    sources: tuple[str, ...] = ()
    """Names of sources."""
    tables: tuple[str, ...] = ()
    """Patterns on `<source>.<schema>.<table>` of a change and `<source>.<type>` of an event: `*` stands for one word,
    `**` for any. A source is one word (`trail.words.one_word`): an application that calls itself `shop.security` is none of
    `shop.security.*`, and a source with a dot is named by `sources`."""
    tenants: tuple[str, ...] = ()
    """Names of tenants. What has no tenant is not seen then."""
    columns: tuple[str, ...] = ()
    """Names of columns of changes and of payload fields of events; with dots in it, a pattern on
    `<source>.<schema>.<table>.<column>` or `<source>.<type>.<field>`."""

    def __post_init__(self) -> None:
        for name in ("sources", "tables", "tenants", "columns"):
            values = getattr(self, name)
            if len(values) > PATTERNS_MAX:
                raise ConfigError(f"name at most {PATTERNS_MAX} {name}")
            for value in values:
                if not value or len(value) > PATTERN_LENGTH_MAX or not value.isprintable():
                    raise ConfigError(f"write each of the {name} with 1 to {PATTERN_LENGTH_MAX} printable characters")

    @property
    def any(self) -> bool:
        """Whether something is left out for this caller."""
        return bool(self.sources or self.tables or self.tenants or self.columns)

    @property
    def table_expression(self) -> str:
        """The tables as one regular expression, for Python and RE2; empty: any."""
        return expression(self.tables)

    def sees_table(self, source: str, name: str) -> bool:
        """Whether what stands under this source and name (`<schema>.<table>`, or a type) is seen at all."""
        if self.sources and source not in self.sources:
            return False
        return not self.tables or bool(_compiled(self.table_expression).fullmatch(f"{one_word(source)}.{name}"))

    def sees_tenant(self, tenant: str | None) -> bool:
        """Whether this tenant's rows are seen."""
        return not self.tenants or tenant in self.tenants

    def sees_column(self, source: str, name: str, column: str) -> bool:
        """Whether this column (or payload field) is seen."""
        if not self.columns:
            return True
        plain = {one for one in self.columns if "." not in one}
        if column in plain or "*" in plain:
            return True
        dotted = tuple(one for one in self.columns if "." in one)
        whole = f"{one_word(source)}.{name}.{one_word(column)}"
        return bool(dotted) and bool(_compiled(expression(dotted)).fullmatch(whole))


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks."""

    id: str
    """`key:<id>`, `user:<subject>`, or `anonymous`."""
    name: str
    kind: str
    """Type of the actor on the trail: api_key, user or anonymous."""
    roles: frozenset[Role]
    limits: tuple[Limits, ...] = field(default=())
    """Each holds: those of the key or token, and those of the role."""

    def may(self, role: Role) -> bool:
        """Whether one of its roles is or includes this one."""
        return any(role in IMPLIED[own] for own in self.roles)

    @property
    def limited(self) -> bool:
        """Whether anything is kept from it."""
        return any(limits.any for limits in self.limits)

    @property
    def column_limited(self) -> bool:
        """Whether columns are kept from it."""
        return any(limits.columns for limits in self.limits)

    def sees_table(self, source: str, name: str) -> bool:
        """As of all its limits."""
        return all(limits.sees_table(source, name) for limits in self.limits)

    def sees_tenant(self, tenant: str | None) -> bool:
        """As of all its limits."""
        return all(limits.sees_tenant(tenant) for limits in self.limits)

    def sees_column(self, source: str, name: str, column: str) -> bool:
        """As of all its limits."""
        return all(limits.sees_column(source, name, column) for limits in self.limits)

    def only(self, what: str) -> tuple[str, ...] | None:
        """The `sources` or `tenants` that all its limits leave; None: any. An empty tuple: none."""
        left: set[str] | None = None
        for limits in self.limits:
            values = set(getattr(limits, what))
            if values:
                left = values if left is None else left & values
        return None if left is None else tuple(sorted(left))


def parsed_roles(names: Iterable[str]) -> frozenset[Role]:
    """Roles by name.

    Raises:
        ConfigError: there is no such role.
    """
    found = set()
    for name in names:
        if name not in tuple(Role):
            raise ConfigError(f"choose roles from {', '.join(Role)}: there is none of that name")
        found.add(Role(name))
    return frozenset(found)


@lru_cache(maxsize=1024)
def _compiled(text: str) -> re.Pattern[str]:
    return re.compile(f"(?:{text})", re.DOTALL)
