"""Changes: envelope parts of all tables become one frame of changes and the mirror rows that point into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from chronicle.codec import diff
from chronicle.codec.debezium import DOUBTED, FULL, Family, Plan, Trust, completed, core_schema, family_of, trust_of
from chronicle.codec.flat import Flat
from chronicle.codec.schema import WriterSchema
from chronicle.model.batch import TableRows
from chronicle.model.chunk import SourceSpec
from chronicle.model.columns import CHANGES, empty
from chronicle.model.dead_letters import LIMITS, Limits, Reason
from chronicle.model.references import References
from chronicle.stages import enrich, grants, meaning, validate
from chronicle.stages import keys as key_texts
from chronicle.stages.decode import Indexes, Outcome, Part, Records
from chronicle.stages.gather import Facts, place
from chronicle.stages.identify import Processing, identified, positioned
from chronicle.stages.keys import Keys
from chronicle.stages.table_plan import Made, Rules, Stub, TablePlan

PLANS_MAX = 10_000


class Tables:
    """Compiled plans, and what has been learnt about tables by this process."""

    def __init__(self, rules: Rules, limits: Limits = LIMITS) -> None:
        self.rules = rules
        self.limits = limits
        self._plans: dict[tuple[WriterSchema, tuple[str, ...], SourceSpec, Trust, str, str], TablePlan] = {}
        self._plain: dict[tuple[WriterSchema, SourceSpec], Plan] = {}
        self.doubted: set[tuple[str, str, str]] = set()
        """Tables declared with full identity of which an update came without `before`."""

    def plan(
        self, schema: WriterSchema, key_names: tuple[str, ...], spec: SourceSpec, trust: Trust, table: tuple[str, str]
    ) -> TablePlan:
        """The plan for these records of a table (schema, name), compiled when it is asked for first."""
        name = (schema, key_names, spec, trust, *table)
        plan = self._plans.get(name)
        if plan is None:
            if len(self._plans) >= PLANS_MAX:
                self._plans.clear()
            columns = schema.row.names if schema.row else ()
            policy = self.rules.policy.table(spec.name, *table, columns, key_names)
            plan = self._plans[name] = TablePlan(schema, key_names, spec, trust, policy=policy, rules=self.rules)
        return plan

    def plain(self, schema: WriterSchema, spec: SourceSpec) -> Plan:
        """For Chronicle's own tables, which no policy is about."""
        plan = self._plain.get((schema, spec))
        if plan is None:
            plan = self._plain[schema, spec] = Plan(schema, (), spec, FULL, written={})
        return plan


@dataclass(frozen=True, slots=True)
class Group:
    """What became of the records of one topic, writer schema, key layout and table."""

    source: str
    schema: str
    table: str
    rows: Indexes
    """Record indexes."""
    keyed: bool
    """Whether the source says that the table has a key."""
    plan: TablePlan
    made: Made


class Changes:
    """Collects a batch's envelope parts; `finish` once."""

    def __init__(self, records: Records, facts: Facts, keys: Keys, tables: Tables, outcome: Outcome) -> None:
        self._records, self._facts, self._keys = records, facts, keys
        self._tables, self._outcome = tables, outcome
        self._families: dict[Family, list[Group]] = {}
        self._schema_id = np.zeros(len(records), np.uint32)
        self.granted: dict[tuple[str, str, str], pl.DataFrame] = {}
        """After `finish`: as `Batch.granted`."""
        self.references: tuple[References, ...] = ()
        """After `finish`: as `Batch.references`."""

    def add(self, part: Part, group: Flat, schema: str, table: str) -> None:
        """Records of one topic, writer schema, key layout and table; `group` is their frame laid flat."""
        spec = self._facts.specs[part.topic]
        shape = int(self._keys.shape[part.rows[0]])
        key_names = self._keys.shapes[shape].names if shape >= 0 else ()
        plan, made = self._made(part, group, key_names, (schema, table))
        if plan.refusal is not None:
            stage, reason, detail = plan.refusal
            for index in part.rows.tolist():
                self._outcome.refuse(index, reason, detail, part.schema.id or None, stage=stage)
            return
        self._outcome.warnings += plan.warnings
        self._outcome.count_unclassified(f"{spec.name}.{schema}.{table}", plan.policy.unclassified, len(part.rows))
        self._schema_id[part.rows] = part.schema.id
        keyed = spec.keyless is not None and f"{schema}.{table}" not in spec.keyless
        self._families.setdefault(plan.extract.family, []).append(Group(spec.name, schema, table, part.rows, keyed, plan, made))

    def _made(self, part: Part, group: Flat, key_names: tuple[str, ...], table: tuple[str, str]) -> tuple[TablePlan, Made]:
        spec = self._facts.specs[part.topic]
        name = (spec.name, *table)
        trust = DOUBTED if name in self._tables.doubted else trust_of(spec, _family_of(part), *table)
        plan = self._tables.plan(part.schema, key_names, spec, trust, table)
        made = plan.run(group, part.rows)
        if made.doubted:
            self._tables.doubted.add(name)
            self._outcome.warnings.append(
                f"{'.'.join(name)}: run ALTER TABLE … REPLICA IDENTITY FULL, or take the table out of full_identity in the "
                f"source file: an update came without the old row. From here on its deletes keep only the key; earlier ones "
                f"may show values that Debezium made up"
            )
            plan = self._tables.plan(part.schema, key_names, spec, DOUBTED, table)
            made = plan.run(group, part.rows)
        return plan, made

    def finish(self, identity_key: bytes, now_us: int) -> tuple[pl.DataFrame, tuple[TableRows, ...]]:
        """All changes in the order of the records, and their mirror rows."""
        frames, kept, mirrors = [], [], []
        for family, groups in self._families.items():
            frame, rows = self._family(family, groups, Processing(identity_key, now_us))
            frames.append(frame)
            kept.append(rows)
            mirrors += [group for group in groups if group.made.mirror is not None]
        if not frames:
            return empty(CHANGES), ()
        rows = np.concatenate(kept)
        changes = pl.concat(frames, rechunk=True) if len(frames) > 1 else frames[0].rechunk()
        if len(rows) > 1 and not bool((np.diff(rows) > 0).all()):
            order = np.argsort(rows, kind="stable")
            changes, rows = changes[order], rows[order]
        at = np.full(len(self._records), -1, np.int64)
        at[rows] = np.arange(len(rows))
        everything = [group for groups in self._families.values() for group in groups]
        self.granted = grants.gathered(everything, at)
        self.references = enrich.gathered(everything, at, changes["stub"])
        tables = (self._table(group, at, changes["stub"]) for group in mirrors)
        return changes, tuple(one for one in tables if len(one.frame))

    def _family(self, family: Family, groups: Sequence[Group], processing: Processing) -> tuple[pl.DataFrame, Indexes]:
        """The changes of a family and the records they come from."""
        rows = np.concatenate([group.rows for group in groups])
        core = _joined([group.made.core for group in groups], list(core_schema(family)))
        lengths = [len(group.rows) for group in groups]
        trusts = [group.made.trust for group in groups]
        raw_key = self._keys.raw.gather(pl.Series(rows))
        frame = core.hstack(
            [
                pl.Series("trust_updates", np.repeat([one.updates for one in trusts], lengths)),
                pl.Series("trust_deletes", np.repeat([one.deletes for one in trusts], lengths)),
                *place(self._records, self._facts, rows),
                pl.Series("schema_id", self._schema_id[rows]),
                pl.Series("keyed", np.repeat([group.keyed for group in groups], lengths)),
                raw_key.alias("raw_key"),
                self._written_keys(groups, raw_key).alias("key"),
                *self._previous(groups, core["op"]),
            ]
        )
        frame = positioned(completed(frame), family)
        changed, unavailable = (diff.concat([getattr(group.made, name) for group in groups]) for name in _LISTS)
        size = validate.audit_bytes(frame, (changed, unavailable))
        large = pl.Series("too_large", size > self._tables.limits.audit - validate.MARGIN_BYTES)
        broken = validate.broken_rules(frame.with_columns(large))
        good = (broken == 0).to_numpy() & self._obeying(groups)
        if not good.all():
            self._fail(rows, broken)
            frame, changed, unavailable = frame.filter(pl.Series(good)), changed.at(good), unavailable.at(good)
        made = identified(frame, family, changed.series("changed"), unavailable.series("unavailable"), processing)
        return meaning.added(made, groups, good, self._tables.rules), rows[good]

    def _written_keys(self, groups: Sequence[Group], raw: pl.Series) -> pl.Series:
        """Keys as they may leave: the raw ones, where the policy hides none."""
        if not any(group.plan.hides_key for group in groups):
            return raw
        return pl.concat([self._keys.written(group.rows, group.plan.treated) for group in groups])

    def _obeying(self, groups: Sequence[Group]) -> diff.Flags:
        """Rows that break no value rule; those that do become dead letters here."""
        good = []
        for group in groups:
            verdict = group.made.refused
            good.append(np.ones(len(group.rows), np.bool_) if verdict is None else verdict < 0)
            if verdict is not None:
                for at in np.flatnonzero(verdict >= 0).tolist():
                    index, detail = int(group.rows[at]), group.plan.rules.details[int(verdict[at])]
                    self._outcome.refuse(index, Reason.RULE_BROKEN, detail, int(self._schema_id[index]) or None)
        return np.concatenate(good)

    def _fail(self, rows: Indexes, broken: pl.Series) -> None:
        for index, code in zip(rows.tolist(), broken.to_list(), strict=True):
            if code:
                rule = validate.RULES[code - 1]
                self._outcome.refuse(index, rule.reason, rule.detail, int(self._schema_id[index]) or None)

    def _previous(self, groups: Sequence[Group], ops: pl.Series) -> list[pl.Series]:
        """Key and raw key before a primary-key change; only on the create half, and only where its key is known."""
        names = ("previous_key", "raw_previous_key")
        old_keys, start = self._facts.old_keys, 0
        texts: tuple[dict[int, str | None], dict[int, str | None]] = ({}, {})
        for group in groups if old_keys else ():
            moved = [(start + at, row) for at, row in enumerate(group.rows.tolist()) if row in old_keys]
            moved = [(at, row) for at, row in moved if ops[at] == "c" and self._keys.shape[row] >= 0]
            start += len(group.rows)
            if moved:
                columns = self._keys.shapes[self._keys.shape[moved[0][1]]].columns
                found = key_texts.previous(columns, [old_keys[row] for _, row in moved], group.plan.treated)
                for known, series in zip(texts, found, strict=True):
                    known.update(zip((at for at, _ in moved), series, strict=True))
        nothing = pl.Series([None], dtype=pl.String).new_from_index(0, len(ops))
        return [
            (nothing.scatter(list(known), list(known.values())) if known else nothing).alias(name)
            for name, known in zip(names, texts, strict=True)
        ]

    def _table(self, group: Group, at: Indexes, stubs: pl.Series) -> TableRows:
        """A mirror's rows with their places in the changes; rows that became dead letters are gone."""
        plan, part = group.plan.mirror, group.made.mirror
        if plan is None or part is None:
            raise AssertionError("no mirror: a bug")
        if part.refused_keys:
            self._outcome.warnings.append(
                f"{group.source}.{group.schema}.{group.table}: a key that its mirror's type cannot hold; in changes only"
            )
        place_of = at[part.rows]
        frame = part.frame(plan, place_of)
        if len(place_of) and place_of.min() < 0:
            frame = frame.filter(pl.Series(place_of >= 0))
        if group.plan.filters:
            frame = plan.without(frame, stubs.gather(frame["_row"]).is_in(OUTSIDE))
        return TableRows(group.source, group.schema, group.table, plan.columns, frame)


_LISTS = ("changed", "unavailable")
OUTSIDE = (Stub.FILTERED.label, Stub.SAMPLED.label)
"""Rows that the policy leaves out of the mirror as well."""


def _joined(parts: list[list[pl.Series]], names: list[str]) -> pl.DataFrame:
    """Column by column, because that is much cheaper than frame by frame."""
    columns = [pl.concat(pieces, rechunk=True) if len(pieces) > 1 else pieces[0] for pieces in zip(*parts, strict=True)]
    return pl.DataFrame([column.alias(name) for column, name in zip(columns, names, strict=True)])


def _family_of(part: Part) -> Family:
    family = family_of(part.schema)
    if family is None:
        raise ValueError("no envelope of a known connector")
    return family
