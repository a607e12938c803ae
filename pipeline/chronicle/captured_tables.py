"""What the registry knows about captured tables: what policies and contracts are checked against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from chronicle import config
from chronicle.codec.columns import DECIMAL, VARIABLE_SCALE_DECIMAL, Column, RowSchema, UnsupportedSchema
from chronicle.codec.schema import Kind as SchemaKind
from chronicle.codec.schema import parse_avro
from chronicle.errors import ConfigError
from chronicle.policy.check import Finding, Level
from chronicle.policy.file import Policy
from chronicle.policy.resolve import decided
from chronicle.policy.rules import Class
from chronicle.policy.tables import Kind, SeenColumn, SeenTable
from chronicle.registry import Registry

if TYPE_CHECKING:
    from chronicle.model.chunk import SourceSpec

_VALUE, _KEY = "-value", "-key"
_SEMANTIC: Mapping[str, Kind] = {
    DECIMAL: Kind.NUMBER,
    VARIABLE_SCALE_DECIMAL: Kind.NUMBER,
    "io.debezium.data.Enum": Kind.WORD,
    "io.debezium.data.EnumSet": Kind.WORD,
    "io.debezium.data.Uuid": Kind.UUID,
    "io.debezium.data.Json": Kind.DOCUMENT,
    "io.debezium.data.Xml": Kind.DOCUMENT,
    "io.debezium.data.Bits": Kind.NUMBER,
    "io.debezium.time.Year": Kind.NUMBER,
    "io.debezium.time.Date": Kind.DATE,
    "io.debezium.time.IsoDate": Kind.DATE,
    "org.apache.kafka.connect.data.Date": Kind.DATE,
    "org.apache.kafka.connect.data.Timestamp": Kind.TIME,
    "org.apache.kafka.connect.data.Time": Kind.TIME,
}


@dataclass(frozen=True, slots=True)
class Captured:
    """The tables of all sources, by name."""

    tables: tuple[SeenTable, ...]
    columns: Mapping[str, Mapping[str, Column]]
    """By table's name and column's name: what their schemas say."""
    unreadable: tuple[str, ...]
    """Topics whose schema no decoder reads: their records are dead letters."""


def captured(settings: config.Settings, specs: Sequence[SourceSpec]) -> Captured:
    """The tables of these sources as the newest schemas in the registry have them; Chronicle's own are left out.

    Raises:
        TransientError: the registry is away or busy.
        ConfigError: it refuses our credentials.
    """
    registry = Registry(settings.registry)
    tables: list[SeenTable] = []
    columns: dict[str, Mapping[str, Column]] = {}
    unreadable: list[str] = []
    try:
        subjects = registry.names()
        for topic in sorted(name.removesuffix(_VALUE) for name in subjects if name.endswith(_VALUE)):
            place = _place(topic, specs)
            if place is None or (found := registry.latest(topic + _VALUE)) is None:
                continue
            key = registry.latest(topic + _KEY) if topic + _KEY in subjects else None
            try:
                row, names = _row(found), _key_names(key)
            except UnsupportedSchema:
                unreadable.append(topic)
                continue
            if row is not None:
                table = SeenTable(*place, tuple(SeenColumn(one.name, kind_of(one)) for one in row.columns), names)
                tables.append(table)
                columns[table.name] = {one.name: one for one in row.columns}
    finally:
        registry.close()
    return Captured(tuple(tables), columns, tuple(unreadable))


def misfits(policy: Policy, captured: Captured) -> list[Finding]:
    """What does not fit the tables' types: a month of a text that is no date, a filter over a column that is not there."""
    from chronicle.stages.expressions import compile_condition
    from chronicle.stages.tokens import TokenKeys
    from chronicle.stages.treatments import treated
    from chronicle.stages.value_rules import RulePlan

    keys, found = TokenKeys({}), []  # no class that is tried needs one
    for table in captured.tables:
        mine = policy.about(*table.parts)
        for name, column in captured.columns[table.name].items():
            decision = decided(mine, policy.unclassified, name)
            kind = decision.treatment.kind
            if kind is not Class.GENERALIZE and not decision.treatment.scan:  # the other classes fit any type
                continue
            try:
                treated(column, decision.treatment, keys)
            except ConfigError as error:
                where = f"{table.name}: {name}"
                found.append(Finding(Level.ERROR, "type", where, str(error), f"another class ({decision.origin})"))
        try:
            resolved = policy.table(*table.parts, tuple(captured.columns[table.name]), table.key)
            columns = tuple(captured.columns[table.name].values())
            RulePlan(columns, resolved.rules, table=table.name)
            if resolved.where:
                compile_condition(resolved.where, columns, rule=f"where of {table.name}", place=table.parts)
        except ConfigError as error:
            found.append(Finding(Level.ERROR, "rule", table.name, str(error), "correct the rule"))
    return found


def route_findings(policy: Policy, captured: Captured, types: Sequence[str] = ()) -> list[Finding]:
    """Routes whose `where` does not fit the tables that they match, or that match no table, nor one of these event types. No
    worker waits for these.

    A route takes nothing of a table that its `where` does not fit: an error when that is so of all its tables.
    """
    from chronicle.policy.routing import about_table, matches
    from chronicle.stages.expressions import compile_condition

    found: list[Finding] = []
    for route in policy.routes:
        where, mine = f"route {route.name}", [one for one in captured.tables if about_table(route, *one.parts)]
        if not mine and not any(matches(route.match, type_) for type_ in types):
            fix, what = "correct match, or take the route out", "it matches no change of a captured table, and no known event"
            found.append(Finding(Level.WARNING, "no table", where, what, fix))
        if route.where is None:
            continue
        wrong: list[tuple[str, str]] = []
        for table in mine:
            columns = tuple(captured.columns[table.name].values())
            try:
                compile_condition(route.where, columns, rule=f"where of {where}", place=table.parts)
            except ConfigError as error:
                wrong.append((table.name, str(error)))
        level = Level.ERROR if len(wrong) == len(mine) else Level.WARNING
        fix = "correct where, or match fewer tables"
        for name, text in wrong:
            found.append(Finding(level, "route", f"{where}: {name}", f"{text} (it takes nothing of this table)", fix))
    return found


def _row(value: tuple[int, str]) -> RowSchema | None:
    """The table's columns; None: the records are no row changes."""
    schema = parse_avro(*value)
    return schema.row if schema.kind is SchemaKind.ENVELOPE else None


def _key_names(key: tuple[int, str] | None) -> tuple[str, ...]:
    if key is None:
        return ()
    schema = parse_avro(*key)
    return () if schema.bare else tuple(column.name for column in schema.columns)


def kind_of(column: Column) -> Kind:
    """What a column's values are."""
    semantic = column.semantic or ""
    if semantic in _SEMANTIC:
        return _SEMANTIC[semantic]
    if semantic.startswith("io.debezium.time."):
        return Kind.TIME
    if semantic.startswith("io.debezium.data.geometry."):
        return Kind.PLACE
    if isinstance(column.dtype, pl.List):
        return Kind.LIST
    if column.as_text or column.fields or column.items is not None:
        return Kind.DOCUMENT
    return _plain(column.dtype)


def _plain(dtype: pl.DataType) -> Kind:
    if dtype.is_numeric():
        return Kind.NUMBER
    return {pl.Boolean(): Kind.BOOLEAN, pl.Binary(): Kind.BYTES}.get(dtype, Kind.TEXT)


def _place(topic: str, specs: Sequence[SourceSpec]) -> tuple[str, str, str] | None:
    """Source, schema and table of a topic; None: it is of no source, or not of a captured table."""
    mine = [spec for spec in specs if topic.startswith(spec.name + ".")]
    if not mine:
        return None
    spec = max(mine, key=lambda one: len(one.name))
    schema, _, table = topic.removeprefix(spec.name + ".").partition(".")
    own = spec.signal_tables | spec.context_tables | spec.heartbeat_tables
    return (spec.name, schema, table) if table and table not in own else None
