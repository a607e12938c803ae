"""Pure: what applying a source would change, as a diff in which no secret can be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from chronicle.capture.render import escaped
from chronicle.capture.sources import REFERENCE, Source, is_secret
from chronicle.errors import ConfigError

Action = Literal["create", "update", "new-epoch", "none"]
MASK = "(hidden)"
EPOCH = "transforms.epoch.value.literal"
ADDRESS = ("database.hostname", "database.port", "database.dbname", "database.include.list", "slot.name", "connector.class")
"""A change of one of these can mean another server or another log: positions would start over."""


@dataclass(frozen=True, slots=True)
class Change:
    """One option; None on the side where it is absent. Values are already masked."""

    option: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What `apply` would do to one source's connector."""

    source: str
    action: Action
    changes: tuple[Change, ...] = ()
    tables_added: tuple[str, ...] = ()
    """Captured from now on; on an update they are snapshotted incrementally, on a create by the initial snapshot."""
    tables_removed: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "action": self.action,
            "changes": [{"option": change.option, "before": change.before, "after": change.after} for change in self.changes],
            "tables_added": list(self.tables_added),
            "tables_removed": list(self.tables_removed),
            "warnings": list(self.warnings),
        }


def plan(source: Source, wanted: Mapping[str, str], current: Mapping[str, str] | None) -> Plan:
    """Compare the rendered configuration with the one that Connect has (None: there is no connector).

    Raises:
        ConfigError: the file's epoch is below the one that is deployed: positions would go backwards.
    """
    if current is None:
        changes = tuple(Change(option, None, masked(option, value)) for option, value in sorted(wanted.items()))
        return Plan(source.name, "create", changes, tables_added=source.captured)
    before = {option: value for option, value in current.items() if option != "name"}
    changes = tuple(
        Change(option, masked(option, before.get(option)), masked(option, wanted.get(option)))
        for option in sorted(before.keys() | wanted.keys())
        if before.get(option) != wanted.get(option)
    )
    if not changes:
        return Plan(source.name, "none")
    deployed, epoch = _epoch(before), _epoch(wanted)
    if epoch < deployed:
        raise ConfigError(
            f"set `epoch = {deployed}` in {source.file}: that is the deployed one, and with a lower epoch every new change"
            " would count as older than those already recorded"
        )
    had, has = _tables(before), _tables(wanted)
    by_pattern = {escaped(table): table for table in source.captured}
    return Plan(
        source.name,
        "new-epoch" if epoch > deployed else "update",
        changes,
        tables_added=tuple(by_pattern.get(table, table) for table in has if table not in had),
        tables_removed=tuple(_unescaped(table) for table in had if table not in has),
        warnings=_warnings(changes, epoch > deployed, had, has),
    )


def masked(option: str, value: str | None) -> str | None:
    """What may be shown of a value: references as they are, other values of secret-looking options not at all."""
    if value is None or not is_secret(option):
        return value
    # A reference is safe to show; what stands around it (a user name in a JAAS line, say) is not known to be.
    references = [match.group(0) for match in REFERENCE.finditer(value)]
    return value if REFERENCE.fullmatch(value) else " ".join([MASK, *references])


def _epoch(config: Mapping[str, str]) -> int:
    literal = config.get(EPOCH, "0")
    return int(literal) if literal.isdigit() else 0


def _tables(config: Mapping[str, str]) -> list[str]:
    return [table for table in config.get("table.include.list", "").split(",") if table]


def _unescaped(pattern: str) -> str:
    return pattern.replace("\\", "")


def _warnings(changes: tuple[Change, ...], new_epoch: bool, had: list[str], has: list[str]) -> tuple[str, ...]:
    warnings = []
    moved = [change.option for change in changes if change.option in ADDRESS]
    if moved and not new_epoch:
        warnings.append(
            f"{', '.join(moved)} changed: when this is another server or another slot, use `apply --new-epoch`,"
            " or positions go backwards and the stored offset will not be found"
        )
    if any(table not in has for table in had):
        warnings.append("tables that are no longer listed are not captured from now on; what is recorded of them stays")
    if new_epoch:
        warnings.append("a new epoch forgets the stored position and reads every table again as a snapshot")
    return tuple(warnings)
