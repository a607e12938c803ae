"""What two policies say differently of the tables there are, and of everything else. Pure: no record is looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from chronicle.policy.file import Policy
from chronicle.policy.rules import TablePolicy
from chronicle.policy.tables import SeenTable


@dataclass(frozen=True, slots=True)
class ColumnDiffers:
    """One column that is treated in two ways."""

    column: str
    old: str
    """Its class with its parameters: `token person`."""
    new: str
    old_rule: str
    """The rule that gave it."""
    new_rule: str


@dataclass(frozen=True, slots=True)
class OptionDiffers:
    """Something else that differs, in words."""

    what: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class TableDiffers:
    """One table for which the policies differ."""

    table: str
    """`source.schema.table`."""
    columns: tuple[ColumnDiffers, ...]
    options: tuple[OptionDiffers, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """All there is; empty for files that mean the same."""

    tables: tuple[TableDiffers, ...]
    general: tuple[OptionDiffers, ...]

    def __bool__(self) -> bool:
        return bool(self.tables or self.general)

    def as_json(self) -> dict[str, Any]:
        """For a pipe."""
        return asdict(self)


def differences(old: Policy, new: Policy, tables: Sequence[SeenTable]) -> Difference:
    """What differs for these tables, in their order.

    Raises:
        ConfigError: a policy gives a key column a class that no key can have.
    """
    if old.hash == new.hash:
        return Difference((), ())
    found = []
    for table in tables:
        before, after = (one.table(*table.parts, table.names, table.key) for one in (old, new))
        columns, options = tuple(_columns(before, after)), tuple(_options(_said(before), _said(after)))
        if columns or options:
            found.append(TableDiffers(table.name, columns, options))
    return Difference(tuple(found), tuple(_options(_general(old), _general(new))))


def _columns(old: TablePolicy, new: TablePolicy) -> Iterator[ColumnDiffers]:
    for name, before in old.columns.items():
        after = new.columns[name]
        if before.treatment.label != after.treatment.label:
            yield ColumnDiffers(name, before.treatment.label, after.treatment.label, before.origin, after.origin)


def _options(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[OptionDiffers]:
    for what in dict.fromkeys((*old, *new)):
        if old.get(what, "") != new.get(what, ""):
            yield OptionDiffers(what, old.get(what, ""), new.get(what, ""))


def _said(policy: TablePolicy) -> dict[str, str]:
    """What holds for the whole table, in words; empty words: nothing."""
    said = {
        "skip": "true" if policy.skip else "",
        "ignore": ", ".join(sorted(policy.ignore)),
        "images": str(policy.images),
        "snapshot_on_delete": str(policy.snapshot_on_delete).lower(),
        "where": policy.where or "",
        "where_deletes": "true" if policy.where_deletes else "",
        "sample": "" if policy.sample is None else f"{policy.sample:g}",
        "contract": str(policy.contract),
        "refuse": "true" if policy.refuse else "",
        "actor": f"{policy.actor.column} ({policy.actor.type})" if policy.actor else "",
    }
    said |= {f"label {one.name}": ", ".join(one.columns) for one in policy.labels}
    said |= {f"enrich {one.into}": f"{one.entity} by {one.column}" for one in policy.enrich}
    return said | {f"rule {one.column} {one.name}": " ".join([*map(repr, one.argument), one.on_break]) for one in policy.rules}


def _general(policy: Policy) -> dict[str, str]:
    """What holds for no table in particular."""
    said = {"unclassified": str(policy.unclassified), "encryption key": policy.encrypt_key or ""}
    said |= {f"domain {name}": f"key {key}" for name, key in policy.domains.items()}
    said |= {f"context {name}": one.label for name, one in policy.context.items() if one.label != "clear"}
    return said | {f"route {one.name}": _words(asdict(one)) for one in policy.routes}


def _words(given: Mapping[str, Any]) -> str:
    told = {name: ", ".join(map(str, one)) if isinstance(one, tuple | list) else one for name, one in given.items()}
    return "; ".join(f"{name} {one}" for name, one in told.items() if one not in (None, False, "") and name != "name")
