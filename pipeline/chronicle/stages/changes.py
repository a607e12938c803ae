"""Changes: envelope parts of all tables become one frame of changes and the mirror rows that point into it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl

from chronicle.codec import diff
from chronicle.codec.debezium import DOUBTED, Extract, Family, Plan, Trust, completed, core_schema, family_of, trust_of
from chronicle.codec.flat import Flat
from chronicle.codec.schema import WriterSchema
from chronicle.model.batch import TableRows
from chronicle.model.chunk import SourceSpec
from chronicle.model.columns import CHANGES, empty
from chronicle.model.dead_letters import LIMITS, Limits
from chronicle.stages import validate
from chronicle.stages.decode import Indexes, Outcome, Part, Records
from chronicle.stages.gather import Facts, place
from chronicle.stages.identify import Processing, identified, positioned
from chronicle.stages.keys import KeyReader, Keys
from chronicle.stages.route import MirrorPart, MirrorPlan
from chronicle.stages.sanitize import filtered_columns

PLANS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class TablePlan:
    """What to do with a table's records of one writer schema and one key layout."""

    extract: Plan
    mirror: MirrorPlan | None
    """None: the table has no mirror."""


class Tables:
    """Compiled plans, and what has been learnt about tables by this process."""

    def __init__(self, keys: KeyReader, limits: Limits = LIMITS) -> None:
        self.keys = keys
        self.limits = limits
        self._plans: dict[tuple[WriterSchema, tuple[str, ...], SourceSpec, Trust], TablePlan] = {}
        self.doubted: set[tuple[str, str, str]] = set()
        """Tables declared with full identity of which an update came without `before`."""

    def plan(self, schema: WriterSchema, key_names: tuple[str, ...], spec: SourceSpec, trust: Trust) -> TablePlan:
        """The plan for these records, compiled when it is asked for first."""
        name = (schema, key_names, spec, trust)
        plan = self._plans.get(name)
        if plan is None:
            if len(self._plans) >= PLANS_MAX:
                self._plans.clear()
            columns = _columns(schema)
            filtered = filtered_columns(columns)
            usable = bool(key_names) and set(key_names) <= set(columns)
            mirror = MirrorPlan(schema, key_names, filtered, self.keys.tokens) if usable else None
            extract = Plan(schema, key_names, spec, trust, filtered=filtered, extras=mirror.exprs if mirror else ())
            plan = self._plans[name] = TablePlan(extract, mirror)
        return plan


def _columns(schema: WriterSchema) -> tuple[str, ...]:
    return schema.row.names if schema.row else ()


@dataclass(slots=True)
class _Family:
    """Extracts of one family of connectors, still apart."""

    cores: list[list[pl.Series]] = field(default_factory=list)
    trusts: list[Trust] = field(default_factory=list)
    keyed: list[bool] = field(default_factory=list)
    """Whether the source says that the table has a key."""
    rows: list[Indexes] = field(default_factory=list)
    changed: list[diff.NameLists] = field(default_factory=list)
    unavailable: list[diff.NameLists] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Mirror:
    source: str
    schema: str
    table: str
    plan: MirrorPlan
    part: MirrorPart


class Changes:
    """Collects a batch's envelope parts; `finish` once."""

    def __init__(self, records: Records, facts: Facts, keys: Keys, tables: Tables, outcome: Outcome) -> None:
        self._records, self._facts, self._keys = records, facts, keys
        self._tables, self._outcome = tables, outcome
        self._families: dict[Family, _Family] = {}
        self._mirrors: list[_Mirror] = []
        self._schema_id = np.zeros(len(records), np.uint32)

    def add(self, part: Part, group: Flat, schema: str, table: str) -> None:
        """Records of one topic, writer schema, key layout and table; `group` is their frame laid flat."""
        spec = self._facts.specs[part.topic]
        shape = int(self._keys.shape[part.rows[0]])
        key_names = self._keys.shapes[shape].names if shape >= 0 else ()
        extract, plan = self._extract(part, group, key_names, (schema, table))
        self._schema_id[part.rows] = part.schema.id
        found = self._families.setdefault(plan.extract.family, _Family())
        found.cores.append(extract.core)
        found.trusts.append(extract.trust)
        found.keyed.append(spec.keyless is not None and f"{schema}.{table}" not in spec.keyless)
        found.rows.append(part.rows)
        found.changed.append(extract.changed)
        found.unavailable.append(extract.unavailable)
        if plan.mirror is not None:
            mirror = plan.mirror.part(extract.extras, part.rows, extract.missing, extract.unavailable)
            self._mirrors.append(_Mirror(spec.name, schema, table, plan.mirror, mirror))

    def _extract(
        self, part: Part, group: Flat, key_names: tuple[str, ...], table: tuple[str, str]
    ) -> tuple[Extract, TablePlan]:
        spec = self._facts.specs[part.topic]
        name = (spec.name, *table)
        trust = DOUBTED if name in self._tables.doubted else trust_of(spec, _family_of(part), *table)
        plan = self._tables.plan(part.schema, key_names, spec, trust)
        extract = plan.extract.run(group)
        if extract.doubted:
            self._tables.doubted.add(name)
            self._outcome.warnings.append(
                f"{'.'.join(name)}: run ALTER TABLE … REPLICA IDENTITY FULL, or take the table out of full_identity in the "
                f"source file: an update came without the old row. From here on its deletes keep only the key; earlier ones "
                f"may show values that Debezium made up"
            )
            plan = self._tables.plan(part.schema, key_names, spec, DOUBTED)
            extract = plan.extract.run(group)
        return extract, plan

    def finish(self, identity_key: bytes, now_us: int) -> tuple[pl.DataFrame, tuple[TableRows, ...]]:
        """All changes in the order of the records, and their mirror rows."""
        frames, kept = [], []
        for family, found in self._families.items():
            rows = np.concatenate(found.rows)
            frame, good = self._family(family, rows, Processing(identity_key, now_us))
            frames.append(frame)
            kept.append(rows[good])
        if not frames:
            return empty(CHANGES), ()
        rows = np.concatenate(kept)
        changes = pl.concat(frames, rechunk=True) if len(frames) > 1 else frames[0].rechunk()
        if len(rows) > 1 and not bool((np.diff(rows) > 0).all()):
            order = np.argsort(rows, kind="stable")
            changes, rows = changes[order], rows[order]
        at = np.full(len(self._records), -1, np.int64)
        at[rows] = np.arange(len(rows))
        tables = (self._table(mirror, at) for mirror in self._mirrors)
        return changes, tuple(one for one in tables if len(one.frame))

    def _family(self, family: Family, rows: Indexes, processing: Processing) -> tuple[pl.DataFrame, diff.Flags]:
        found = self._families[family]
        core = _joined(found.cores, list(core_schema(family)))
        at = pl.Series(rows)
        lengths = [len(one) for one in found.rows]
        frame = core.hstack(
            [
                pl.Series("trust_updates", np.repeat([one.updates for one in found.trusts], lengths)),
                pl.Series("trust_deletes", np.repeat([one.deletes for one in found.trusts], lengths)),
                *place(self._records, self._facts, rows),
                pl.Series("schema_id", self._schema_id[rows]),
                pl.Series("keyed", np.repeat(found.keyed, lengths)),
                self._keys.raw.gather(at).alias("raw_key"),
                self._keys.clean.gather(at).alias("key"),
                *self._previous(rows, core["op"]),
            ]
        )
        frame = positioned(completed(frame), family)
        changed, unavailable = diff.concat(found.changed), diff.concat(found.unavailable)
        lists = changed.series("changed"), unavailable.series("unavailable")
        size = validate.audit_bytes(frame, (changed, unavailable))
        large = pl.Series("too_large", size > self._tables.limits.audit - validate.MARGIN_BYTES)
        broken = validate.broken_rules(frame.with_columns(large))
        good = (broken == 0).to_numpy()
        if not good.all():
            self._fail(rows, broken)
            keep = pl.Series(good)
            frame, lists = frame.filter(keep), (lists[0].filter(keep), lists[1].filter(keep))
        return identified(frame, family, *lists, processing), good

    def _fail(self, rows: Indexes, broken: pl.Series) -> None:
        for index, code in zip(rows.tolist(), broken.to_list(), strict=True):
            if code:
                rule = validate.RULES[code - 1]
                self._outcome.refuse(index, rule.reason, rule.detail, int(self._schema_id[index]) or None)

    def _previous(self, rows: Indexes, ops: pl.Series) -> list[pl.Series]:
        """Key and raw key before a primary-key change; only on the create half, and only where its key is known."""
        names = ("previous_key", "raw_previous_key")
        moved = [(at, int(row)) for at, row in enumerate(rows) if row in self._facts.old_keys] if self._facts.old_keys else []
        moved = [(at, row) for at, row in moved if ops[at] == "c" and self._keys.shape[row] >= 0]
        if not moved:
            nothing = pl.Series(names[0], [None], dtype=pl.String).new_from_index(0, len(rows))
            return [nothing, nothing.rename(names[1])]
        texts: dict[str, list[str | None]] = {name: [None] * len(rows) for name in names}
        for shape in {int(self._keys.shape[row]) for _, row in moved}:
            mine = [(at, row) for at, row in moved if self._keys.shape[row] == shape]
            found = self._tables.keys.previous(self._keys.shapes[shape].columns, [self._facts.old_keys[row] for _, row in mine])
            for (at, _), clean, raw in zip(mine, found.clean, found.raw, strict=True):
                texts[names[0]][at], texts[names[1]][at] = clean, raw
        return [pl.Series(name, texts[name], dtype=pl.String) for name in names]

    def _table(self, mirror: _Mirror, at: Indexes) -> TableRows:
        """A mirror's rows with their places in the changes; rows that became dead letters are gone."""
        place_of = at[mirror.part.rows]
        made = mirror.part.columns
        row = pl.Series("_row", place_of, dtype=pl.Int64).cast(pl.UInt32, strict=False)
        width = len(mirror.plan.columns)
        frame = pl.DataFrame([*made[:width], row, *made[width:]])
        frame.columns = [*(column.name for column in mirror.plan.columns), "_row", *(one.name for one in made[width:])]
        if mirror.part.refused_keys:
            self._outcome.warnings.append(
                f"{mirror.source}.{mirror.schema}.{mirror.table}: a key that its mirror's type cannot hold; in changes only"
            )
        if len(place_of) and place_of.min() < 0:
            frame = frame.filter(pl.Series(place_of >= 0))
        return TableRows(mirror.source, mirror.schema, mirror.table, mirror.plan.columns, frame)


def _joined(parts: list[list[pl.Series]], names: list[str]) -> pl.DataFrame:
    """Column by column, because that is much cheaper than frame by frame."""
    columns = [pl.concat(pieces, rechunk=True) if len(pieces) > 1 else pieces[0] for pieces in zip(*parts, strict=True)]
    return pl.DataFrame([column.alias(name) for column, name in zip(columns, names, strict=True)])


def _family_of(part: Part) -> Family:
    family = family_of(part.schema)
    if family is None:
        raise ValueError("no envelope of a known connector")
    return family
