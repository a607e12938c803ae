"""A table's plan: what becomes of its records of one writer schema under its policy. Compiled once, run per group.

rules and filter look at clear values; images, key and mirror are written as the policy says; what is hidden by the
row's disposition (ignored, filtered, skipped, sampled) becomes a stub later, for a whole batch at once
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
import numpy.typing as npt
import polars as pl

from chronicle.codec import diff
from chronicle.codec.contract import VALUE, Contract, breaks, told
from chronicle.codec.debezium import FULL, OP_AT, Extract, Plan, Trust
from chronicle.codec.flat import Flat, after, before, row_columns
from chronicle.codec.schema import Column, WriterSchema
from chronicle.codec.types import value_text
from chronicle.errors import ConfigError
from chronicle.model.chunk import SourceSpec
from chronicle.model.dead_letters import Reason, Stage
from chronicle.policy.file import Policy
from chronicle.policy.keyring import KeyRing, missing
from chronicle.policy.rules import REDACTED, Class, Images, OnBreak, TablePolicy
from chronicle.stages import grants
from chronicle.stages.attribute import Hide
from chronicle.stages.ciphers import Cipher, Sentinel
from chronicle.stages.decode import Indexes
from chronicle.stages.enrich import EnrichPlan
from chronicle.stages.expressions import compile_condition
from chronicle.stages.grants import Grants, nothing_granted
from chronicle.stages.route import MirrorPart, MirrorPlan
from chronicle.stages.route_conditions import Conditions
from chronicle.stages.row_view import row_value
from chronicle.stages.sanitize import token_key
from chronicle.stages.tokens import TokenKeys
from chronicle.stages.treatments import Treated, of_texts, treated
from chronicle.stages.value_rules import RulePlan

NO_CONTRACTS: Mapping[str, Contract] = {}
_QUERY = "s:query"
"""MySQL and MariaDB with `include.query`: the statement, cut to its comment by a transform (fact 38)."""

Codes = npt.NDArray[np.uint8]


class Stub(IntEnum):
    """Why a change is only a stub: by the rule that left it out. The names are in the column `stub`."""

    NONE = 0
    IGNORED = 1  # an update that changed ignored columns only
    FILTERED = 2  # `where` is not true
    SAMPLED = 3  # not among the entities of `sample`
    SKIPPED = 4  # `skip`

    @property
    def label(self) -> str:
        """As in the column."""
        return "" if self is Stub.NONE else self.name.lower()


@dataclass(frozen=True, slots=True)
class Encrypted:
    """Clear texts of one encrypted column, until the event ids are known."""

    column: str
    before: pl.Series = field(repr=False)
    after: pl.Series = field(repr=False)


@dataclass(frozen=True, slots=True)
class Made:
    """What a plan makes of a group's records: one row a record, in the same order."""

    core: list[pl.Series] = field(repr=False)
    """As in `codec.debezium.Extract`."""
    trust: Trust
    doubted: bool
    changed: diff.NameLists
    unavailable: diff.NameLists
    labels: diff.NameLists
    violations: diff.NameLists
    stub: Codes
    routed: diff.NameLists
    """Routes whose `where` is true (`stages.deliveries.CONDITIONS`)."""
    bare: npt.NDArray[np.bool_] | None
    """Rows whose images are not kept (`images = "none"`)."""
    refused: npt.NDArray[np.int64] | None
    """Index into `TablePlan.rules.details` of the value rule that makes the row a dead letter; -1: none."""
    comment: pl.Series | None = field(repr=False)
    actor: pl.Series | None = field(repr=False)
    entities: Mapping[str, pl.Series] = field(repr=False)
    """By `Enrich.into`: ids of reference data."""
    granted: Mapping[str, pl.Series] = field(repr=False)
    """By column: clear values for processors."""
    encrypted: Sequence[Encrypted] = field(repr=False)
    mirror: MirrorPart | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Rules:
    """Under what records become changes: the policy, the keys it needs, and the contracts."""

    policy: Policy
    keys: TokenKeys = field(repr=False)
    sentinel: Sentinel = field(repr=False)
    cipher: Cipher | None = field(repr=False)
    hide: Hide = field(default_factory=dict)
    """What the policy makes of the fields of contexts."""
    contracts: Mapping[str, Contract] = field(default_factory=dict)
    """By subject (`source.schema.table-value`): what consumers of a table rely on."""
    granted: Grants = nothing_granted
    """Columns that processors see in clear."""
    keep_whole: bool = False
    """Images of `images = "changed"` stay whole: the step `requests` makes them what they are to be."""


def compiled(
    policy: Policy, ring: KeyRing, identity_key: bytes, *, nonce: str, contracts: Mapping[str, Contract] = NO_CONTRACTS
) -> Rules:
    """A policy with its keys and contracts. `nonce`: 32 random hex digits, new for each process.

    Raises:
        ConfigError: a key that the policy needs is not in the ring, or a class does not fit a context's field.
    """
    if lacking := missing(policy, ring):
        raise ConfigError(f"put into the key ring what {policy.name} needs: {'; '.join(lacking)}")
    domains = {domain: ring.token_key(id) for domain, id in policy.domains.items()}
    keys = TokenKeys({"default": token_key(identity_key), **domains})
    cipher = Cipher(*ring.encryption_key(policy.encrypt_key)) if policy.encrypts else None
    hide = {name: of_texts(name, treatment, keys) for name, treatment in policy.context.items()}
    return Rules(policy, keys, Sentinel(nonce), cipher, hide, contracts)


class TablePlan:
    """The compiled form of one table, writer schema and key layout under one policy."""

    def __init__(
        self,
        schema: WriterSchema,
        key_names: tuple[str, ...],
        spec: SourceSpec,
        trust: Trust,
        *,
        policy: TablePolicy,
        rules: Rules,
    ) -> None:
        self.policy = policy
        columns = schema.row.columns if schema.row else ()
        self.warnings: list[str] = []
        """What of the policy does not fit this schema; what it protects is hidden."""
        self.treated = self._treated(columns, policy, rules)
        same = {name: how.text for name, how in self.treated.items() if how.text is not None and how.text is how.value}
        both = {column.name for column in row_columns(schema, "before")} & {one.name for one in row_columns(schema, "after")}
        self.once = {name: make for name, make in same.items() if name in both}
        """Columns that are written alike in images and mirror."""
        self.hides_key = not self.treated.keys().isdisjoint(key_names)
        self.filters = policy.where is not None or policy.sample is not None
        self.refusal: tuple[Stage, Reason, str] | None = None
        """Why none of these records is taken."""
        if policy.refuse and policy.unclassified:
            self.refusal = (Stage.SANITIZE, Reason.UNCLASSIFIED, f"classify in the policy: {', '.join(policy.unclassified)}")
        usable = bool(key_names) and set(key_names) <= {column.name for column in columns} and not policy.skip
        self.mirror = MirrorPlan(schema, key_names, self.treated, policy, self.once) if usable else None
        postgres = spec.connector == "postgresql" and trust != FULL
        place = (policy.source, policy.schema, policy.table)
        unavailable = spec.unavailable_value_placeholder if postgres else None
        self.granted = grants.exprs(columns, rules.granted(*place), key_names, trust, unavailable)
        """By column that a processor sees in clear."""
        self.enrich = EnrichPlan(columns, policy.enrich, hidden=self.treated, trusted=None if trust.deletes else key_names)
        self._where: list[pl.Expr] = []
        self.rules = RulePlan((), ())
        try:
            self.rules = RulePlan(columns, policy.rules, table=".".join(place), unavailable=unavailable)
            if policy.where:
                about = f"where of {'.'.join(place)}"
                condition = compile_condition(policy.where, columns, rule=about, place=place, unavailable=unavailable)
                self._where = [condition.alias("?where")]
        except ConfigError as error:  # the schema changed under the policy: the records wait for a policy that fits
            self.refusal = (Stage.VALIDATE, Reason.RULE_BROKEN, str(error))
        self.routed = Conditions(rules.policy.routes, place, columns, unavailable, self.warnings)
        self._keep_contract(rules.contracts.get(f"{'.'.join(place)}{VALUE}"), schema)
        self._encrypted = [
            one for one in columns if one.name in self.treated and policy.columns[one.name].treatment.kind is Class.ENCRYPT
        ]
        extras: list[pl.Expr] = []
        self._at: dict[str, slice] = {}
        for name, exprs in self._extras(columns, policy, rules.hide).items():
            self._at[name] = slice(len(extras), len(extras) + len(exprs))
            extras += exprs
        self.extract = Plan(
            schema,
            key_names,
            spec,
            trust,
            written=self.treated,
            once=self.once,
            only_changed=policy.images is Images.CHANGED and not rules.keep_whole,
            bare_deletes=policy.images is not Images.FULL and not policy.snapshot_on_delete,
            extras=extras,
        )
        diffed = self.extract.diffed
        self._told = [index for index, name in enumerate(diffed) if name not in policy.ignore]
        self._told_names = [diffed[index] for index in self._told]
        self._labels = [
            (label.name, [diffed.index(name) for name in label.columns if name in diffed])
            for label in policy.labels
            if set(label.columns) & {column.name for column in columns}
        ]

    def _keep_contract(self, contract: Contract | None, schema: WriterSchema) -> None:
        """Refuse or warn, as the policy says, where the schema breaks what consumers rely on."""
        if contract is None or not (found := breaks(contract, schema)):
            return
        policy = self.policy
        text = f"the schema breaks the contract of {policy.source}.{policy.schema}.{policy.table}: {told(found)}"
        if policy.contract is OnBreak.DEADLETTER:
            self.refusal = (Stage.VALIDATE, Reason.CONTRACT_BROKEN, text)
        else:
            self.warnings.append(text)

    def _extras(self, columns: Sequence[Column], policy: TablePolicy, hides: Hide) -> dict[str, list[pl.Expr]]:
        """Expressions over the flat columns, by what they are for."""
        by_name = {column.name: column for column in columns}
        found: dict[str, list[pl.Expr]] = {
            "mirror": self.mirror.exprs if self.mirror else [],
            "rules": self.rules.exprs,
            "entities": self.enrich.exprs,
            "where": self._where,
            "routed": self.routed.exprs,
            "actor": [],
            "encrypted": [],
            "granted": list(self.granted.values()),
        }
        # a ciphertext is nobody's name, and where it will stand in an image there is only its mark yet
        if policy.actor is not None and policy.actor.column in by_name.keys() - {column.name for column in self._encrypted}:
            name = policy.actor.column
            how = self.treated.get(name)
            value = row_value(name)
            text = value_text(by_name[name], value) if how is None else how.text and how.text(value)
            hide = hides.get("actor_id") if how is None else None
            if text is not None and hide is not None:  # clear in the row, and hidden in contexts
                text = text.cast(pl.String).map_batches(hide, return_dtype=pl.String)
            found["actor"] = [] if text is None else [text.cast(pl.String).alias("?actor")]
        for column in self._encrypted:
            found["encrypted"] += [
                value_text(column, before(column.name)).alias(f"?b:{column.name}"),
                value_text(column, after(column.name)).alias(f"?a:{column.name}"),
            ]
        return found

    def run(self, group: Flat, rows: Indexes) -> Made:
        """`group`: the records of `rows` as a decoder made them, laid flat."""
        extract = self.extract.run(group)
        extras = {name: extract.extras[at] for name, at in self._at.items()}
        ops = extract.core[OP_AT]
        verdict = self.rules.verdicts(extras["rules"], ops)
        mirror = None
        if self.mirror is not None:
            mirror = self.mirror.part(extras["mirror"], rows, extract.missing, extract.unavailable)
        changed = extract.differs
        return Made(
            core=extract.core,
            trust=extract.trust,
            doubted=extract.doubted,
            changed=diff.name_lists(self._told_names, changed[:, self._told]),
            unavailable=extract.unavailable,
            labels=self._labelled(extract, ops),
            violations=verdict.violations,
            stub=self._stubs(extract, ops, extras["where"]),
            routed=self.routed.lists(extras["routed"], ops, deletes_known=extract.trust.deletes),
            bare=self._bare(ops),
            refused=verdict.refused,
            comment=group.table.get_column(_QUERY) if _QUERY in group.names else None,
            actor=extras["actor"][0] if extras["actor"] else None,
            entities=self.enrich.ids(extras["entities"], extract.missing),
            granted=dict(zip(self.granted, extras["granted"], strict=True)),
            encrypted=self._clear_cells(extras["encrypted"]),
            mirror=mirror,
        )

    def _treated(self, columns: Sequence[Column], policy: TablePolicy, rules: Rules) -> dict[str, Treated]:
        """By column, for those that are not clear. What cannot be treated as it should is redacted."""
        found = {}
        for column in columns:
            treatment = policy.columns[column.name].treatment
            try:
                how = treated(column, treatment, rules.keys, rules.sentinel)
            except ConfigError as error:
                self.warnings.append(f"{policy.source}.{policy.schema}.{policy.table}: {error} (redacted until then)")
                how = treated(column, REDACTED, rules.keys)
            if how is not None:
                found[column.name] = how
        return found

    def _stubs(self, extract: Extract, ops: pl.Series, where: list[pl.Series]) -> Codes:
        stub = np.zeros(len(ops), np.uint8)
        if self.policy.skip:
            stub[:] = Stub.SKIPPED
            return stub
        if len(self._told) < len(self.extract.diffed):
            told = extract.differs[:, self._told].any(axis=1)
            stub[extract.differs.any(axis=1) & ~told] = Stub.IGNORED
        if where:
            rows = ["c", "u", "r", *(["d"] if self.policy.where_deletes and extract.trust.deletes else [])]
            stub[(ops.is_in(rows) & ~where[0].fill_null(False)).to_numpy()] = Stub.FILTERED
        return stub

    def _labelled(self, extract: Extract, ops: pl.Series) -> diff.NameLists:
        """Labels of creates and deletes, and of updates that changed one of their columns."""
        if not self._labels:
            return diff.none_marked(len(ops))
        whole = ops.is_in(["c", "d"]).to_numpy()
        marks = np.empty((len(ops), len(self._labels)), np.bool_)
        for index, (_, columns) in enumerate(self._labels):
            marks[:, index] = whole | extract.differs[:, columns].any(axis=1)
        return diff.name_lists([name for name, _ in self._labels], marks)

    def _bare(self, ops: pl.Series) -> npt.NDArray[np.bool_] | None:
        if self.policy.images is not Images.NONE:
            return None
        return (ops != "d").to_numpy() if self.policy.snapshot_on_delete else np.ones(len(ops), np.bool_)

    def _clear_cells(self, made: list[pl.Series]) -> list[Encrypted]:
        return [Encrypted(column.name, made[2 * at], made[2 * at + 1]) for at, column in enumerate(self._encrypted)]
