"""Meaning: what the policy and the row itself say of identified changes: stubs, labels, violations, actors, ciphertexts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from chronicle.codec import diff
from chronicle.model.columns import CHANGES, MEANING
from chronicle.stages import attribute, ciphers
from chronicle.stages.decode import Indexes
from chronicle.stages.deliveries import CONDITIONS
from chronicle.stages.table_plan import Codes, Rules, Stub

if TYPE_CHECKING:
    from chronicle.stages.changes import Group

_ORDER = [column.name for column in CHANGES]
_STUBS = pl.Series("stub", [stub.label for stub in Stub])
_IMAGES: tuple[ciphers.Image, ...] = ("before", "after")


def added(changes: pl.DataFrame, groups: Sequence[Group], good: diff.Flags, rules: Rules) -> pl.DataFrame:
    """Rows of `CHANGES`. `changes`: the identified rows of all groups, one after the other, of which those marked in
    `good` are left."""
    stubs = _stubs(changes, groups, good)
    asked = any(route.where is not None for route in rules.policy.routes)
    names = {name: name for name in _LISTS} | ({"routed": CONDITIONS} if asked else {})
    lists = (diff.concat([getattr(one.made, name) for one in groups]).at(good).series(to) for name, to in names.items())
    nothing = [pl.lit(None, dtype).alias(name) for name, dtype in MEANING.items()]
    changes = changes.with_columns(nothing).with_columns(
        *lists,
        _STUBS.gather(pl.Series(stubs)),
        *_said(changes["operation"], groups, good, rules),
        pl.lit(rules.policy.hash).alias("policy"),
    )
    return _bared(_encrypted(changes, groups, good, rules), groups, good, stubs).select(
        *_ORDER, *([CONDITIONS] if asked else [])
    )


_LISTS = ("labels", "violations")


def _stubs(changes: pl.DataFrame, groups: Sequence[Group], good: diff.Flags) -> Codes:
    """By row why it is only a stub. Sampled by entity, so that a row is told whole or not at all."""
    stubs = np.concatenate([group.made.stub for group in groups])[good]
    if all(group.plan.policy.sample is None for group in groups):
        return stubs
    lengths = [len(group.rows) for group in groups]
    shares = np.repeat([1.0 if group.plan.policy.sample is None else group.plan.policy.sample for group in groups], lengths)
    deletes = np.repeat([group.plan.policy.where_deletes for group in groups], lengths)
    exempt = changes["operation"].is_in(["delete", "truncate"]).to_numpy() & ~deletes[good]
    names = changes.select(pl.when(pl.col("key") == "").then("event_id").otherwise("entity")).to_series()  # keyless: by row
    numbers = np.frombuffer(b"".join(names.to_list()), ">u8").reshape(len(names), 2)[:, 0]
    outside = numbers / 2.0**64 >= shares[good]
    stubs[outside & ~exempt & (stubs == Stub.NONE)] = Stub.SAMPLED
    return stubs


def _bared(changes: pl.DataFrame, groups: Sequence[Group], good: diff.Flags, stubs: Codes) -> pl.DataFrame:
    """Without the images that are not kept; a stub has none, and names no columns."""
    none = [np.zeros(len(group.rows), np.bool_) if group.made.bare is None else group.made.bare for group in groups]
    hidden, stub = pl.Series(np.concatenate(none)[good] | (stubs > 0)), pl.Series(stubs > 0)
    if not hidden.any():
        return changes
    images = [pl.when(~pl.lit(hidden)).then(pl.col(name)).alias(name) for name in _IMAGES]
    empty = pl.lit([], pl.List(pl.String))
    names = ("changed", "unavailable", *_LISTS)
    return changes.with_columns(
        *images, *(pl.when(~pl.lit(stub)).then(pl.col(name)).otherwise(empty).alias(name) for name in names)
    )


def _encrypted(changes: pl.DataFrame, groups: Sequence[Group], good: diff.Flags, rules: Rules) -> pl.DataFrame:
    """With ciphertexts for the marks that stand in images, and in mirrors: they need the event ids."""
    if rules.cipher is None or not any(group.made.encrypted for group in groups):
        return changes
    places, ends = np.cumsum(good) - 1, np.cumsum([len(group.rows) for group in groups])
    having = [
        (group, slice(end - len(group.rows), end)) for group, end in zip(groups, ends, strict=True) if group.made.encrypted
    ]
    images = []
    for image in _IMAGES:
        cells = [
            ciphers.Group(
                f"{group.source}.{group.schema}.{group.table}",
                places[span][good[span]],
                {one.column: getattr(one, image).filter(pl.Series(good[span])) for one in group.made.encrypted},
            )
            for group, span in having
        ]
        done = ciphers.sealed(
            changes[image], cells, changes["event_id"], image=image, cipher=rules.cipher, sentinel=rules.sentinel
        )
        images.append(done.images)
    for (group, span), made in zip(having, done.ciphertexts, strict=True):
        _into_mirror(group, group.rows[good[span]], made)
    return changes.with_columns(images)


def _into_mirror(group: Group, rows: Indexes, ciphertexts: Mapping[str, pl.Series]) -> None:
    """The ciphertexts of the new rows (records `rows`) as the mirror's columns."""
    plan, part = group.plan.mirror, group.made.mirror
    if plan is None or part is None:
        return
    at = np.searchsorted(rows, part.rows)
    known = at < len(rows)
    known[known] = rows[at[known]] == part.rows[known]
    where = pl.Series(at).set(~pl.Series(known), None)
    for column, series in ciphertexts.items():
        index = plan.index[column]
        part.columns[index] = series.gather(where).alias(part.columns[index].name)


def _said(operations: pl.Series, groups: Sequence[Group], good: diff.Flags, rules: Rules) -> Sequence[pl.Series | pl.Expr]:
    """Attribution as far as the statement's comment and the row itself give it; a snapshot row is nobody's doing."""
    made = [group.made for group in groups]
    if all(one.comment is None and one.actor is None for one in made):
        return [pl.lit("none").alias("attribution")]
    keep, lengths = pl.Series(good), [len(group.rows) for group in groups]
    comments, actors = (
        pl.concat([_or_nulls(getattr(one, name), length) for one, length in zip(made, lengths, strict=True)]).filter(keep)
        for name in ("comment", "actor")
    )
    kinds = [None if group.plan.policy.actor is None else group.plan.policy.actor.type for group in groups]
    kind = pl.Series(kinds, dtype=pl.String).gather(pl.Series(np.repeat(np.arange(len(groups)), lengths)[good]))
    modifies = pl.lit(operations != "snapshot")
    by_row = modifies & pl.lit(actors).is_not_null() & (pl.col("attribution") == "none")
    said = attribute.said_in_comments(comments, rules.hide)
    said = said.with_columns(pl.when(modifies).then(pl.col(name)).alias(name) for name in attribute.FIELDS).with_columns(
        pl.when(modifies).then(pl.col("attribution")).otherwise(pl.lit("none")).alias("attribution")
    )
    return said.with_columns(
        pl.when(by_row).then(pl.lit(actors)).otherwise(pl.col("actor_id")).alias("actor_id"),
        pl.when(by_row).then(pl.lit(kind)).otherwise(pl.col("actor_type")).alias("actor_type"),
        pl.when(by_row).then(pl.lit("row")).otherwise(pl.col("attribution")).alias("attribution"),
    ).get_columns()


def _or_nulls(series: pl.Series | None, rows: int) -> pl.Series:
    return pl.Series([None], dtype=pl.String).new_from_index(0, rows) if series is None else series.alias("")
