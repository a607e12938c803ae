"""The nouns of a policy as it applies to one table: what every column becomes, what is kept, who is joined. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Class(StrEnum):
    """What becomes of a column's values; the values are the words of `policy.toml`."""

    CLEAR = "clear"  # as they are
    DROP = "drop"  # the column is left out, name and all; `changed` still names it
    REDACT = "redact"  # [FILTERED]; NULL stays NULL
    MASK = "mask"  # all but the last n characters hidden
    TOKEN = "token"  # noqa: S105  # keyed HMAC-SHA256: equal values of a domain have equal tokens
    GENERALIZE = "generalize"  # a coarser value of the same kind
    ENCRYPT = "encrypt"  # AES-SIV, for those who hold the key


class Images(StrEnum):
    """How much of `before` and `after` a change keeps."""

    FULL = "full"
    CHANGED = "changed"  # of an update: key columns and the columns that changed
    NONE = "none"


class Unclassified(StrEnum):
    """What becomes of a column that no rule names."""

    REDACT = "redact"
    DROP = "drop"
    DEADLETTER = "deadletter"


class OnBreak(StrEnum):
    """What becomes of a row that breaks a value rule, or of a table's rows whose schema breaks its contract."""

    DEADLETTER = "deadletter"
    FLAG = "flag"  # value rules: named in `violations`
    WARN = "warn"  # contracts: a warning, once


@dataclass(frozen=True, slots=True)
class Treatment:
    """A class with its parameters."""

    kind: Class
    keep: int = 4
    """MASK: characters left readable at the end; never more than half of a value's."""
    to: str = ""
    """GENERALIZE: `hour`, `day`, `month`, `year`; `bucket:N`; `net:24` (IPv4 bits) or `net:24/48` (IPv4/IPv6 bits);
    `domain` (of an e-mail address); `prefix:N` (first characters, of a postcode)."""
    domain: str = "default"
    """TOKEN: whose key. The same value has the same token in all tables of a domain."""
    scan: tuple[str, ...] = ()
    """CLEAR text: kinds of personal data searched for inside and masked: email, card, iban, phone, ip."""

    @property
    def label(self) -> str:
        """One text for one way of writing: `token person`, `mask 4`, `generalize month`; values that are written in two ways
        never stand in one column of a mirror."""
        parameter = {Class.MASK: str(self.keep), Class.GENERALIZE: self.to, Class.TOKEN: self.domain}.get(self.kind, "")
        return " ".join(word for word in (self.kind.value, parameter, *self.scan) if word)


REDACTED = Treatment(Class.REDACT)
CLEAR = Treatment(Class.CLEAR)


@dataclass(frozen=True, slots=True)
class ColumnPolicy:
    """What becomes of one column, and why."""

    treatment: Treatment
    origin: str
    """The rule that gave it, for people: `shop.public.customers: email`, `defaults`, `secret name`, `unclassified`."""


@dataclass(frozen=True, slots=True)
class Label:
    """A logical operation on a change that touches one of these columns (created, deleted, or changed)."""

    columns: tuple[str, ...]
    name: str


@dataclass(frozen=True, slots=True)
class ValueRule:
    """One expression that is true for good rows; checked on clear values, its result names the rule and column only."""

    column: str
    name: str
    """`not_null`, `in`, `between`, `matches`, `length`, `unique_key`."""
    argument: tuple[object, ...] = ()
    """`in`: the values; `between`: lowest and highest; `length`: least and most characters; `matches`: the expression."""
    on_break: OnBreak = OnBreak.DEADLETTER


@dataclass(frozen=True, slots=True)
class Enrich:
    """Reference data joined by a column's clear value."""

    column: str
    entity: str
    """Pattern with one `{}` for the value: `org:{}`."""
    into: str
    """Name under which the entity's name and metadata stand in `enriched`."""


@dataclass(frozen=True, slots=True)
class RowActor:
    """Rung 4 of attribution: who did it, out of the row itself."""

    column: str
    type: str = "user"


class RouteFormat(StrEnum):
    """How a route writes its records."""

    JSON = "json"  # as on the audit topic
    CLOUDEVENTS = "cloudevents"  # the same, in CloudEvents' JSON envelope


@dataclass(frozen=True, slots=True)
class Route:
    """A topic fed with some of the changes besides the audit topic."""

    name: str
    match: tuple[str, ...]
    """AMQP's patterns over event types, any of which: `hiring.*.applications.#`; `*` is one word, `#` any number."""
    to: str
    """Topic."""
    dead_letters: str | None = None
    """Topic for what its consumers cannot process; None: the worker's own."""
    format: RouteFormat = RouteFormat.JSON
    where: str | None = None
    """Only changes for whose row this SQL expression is true."""
    where_deletes: bool = False
    """Whether `where` and `sample` apply to deletes, too."""
    sample: float | None = None
    """Share of entities that is kept."""
    labels: tuple[str, ...] = ()
    """Only changes with one of these labels; empty: whatever their labels."""


@dataclass(frozen=True, slots=True)
class TablePolicy:
    """The effective policy of one table, resolved for the columns it has. Hashable: plans are compiled once for each."""

    source: str
    schema: str
    table: str
    columns: Mapping[str, ColumnPolicy] = field(hash=False)
    """Every column of the writer schema, and key columns that it lacks."""
    key_columns: tuple[str, ...] = ()
    unclassified: tuple[str, ...] = ()
    """Columns that no rule named; treated as the policy's `unclassified` says (key columns: tokenised)."""
    refuse: bool = False
    """Unclassified columns make dead letters of this table's records."""
    skip: bool = False
    ignore: frozenset[str] = frozenset()
    """An update that changed nothing else is left out; never named in `changed`."""
    images: Images = Images.FULL
    snapshot_on_delete: bool = True
    """A delete keeps the whole last row even where `images` is changed or none."""
    labels: tuple[Label, ...] = ()
    where: str | None = None
    """Only rows for which this SQL expression is true."""
    where_deletes: bool = False
    """Whether `where` and `sample` apply to deletes, too."""
    sample: float | None = None
    """Share of entities that is kept."""
    contract: OnBreak = OnBreak.DEADLETTER
    rules: tuple[ValueRule, ...] = ()
    enrich: tuple[Enrich, ...] = ()
    actor: RowActor | None = None
