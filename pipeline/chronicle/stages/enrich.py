"""Enrich: reference data joined to changes by the clear value of a column, for the policy's `[[tables.enrich]]`.

The plan of a table makes ids (`EnrichPlan`), the path hands them on beside the batch (`model.references`), and the step
`Enriching` replaces them by what the reference data says, once for a whole batch. An id is looked up once for each
distinct value; nothing here grows with the number of entities but the index, which is made once per state of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from chronicle.codec.entity import Entity, Record
from chronicle.codec.flat import after
from chronicle.codec.schema import Column
from chronicle.codec.types import value_text
from chronicle.model.batch import Batch
from chronicle.model.references import References
from chronicle.policy.rules import Enrich
from chronicle.stages.decode import Indexes
from chronicle.stages.row_view import row_value

if TYPE_CHECKING:
    from chronicle.stages.changes import Group

UNKNOWN = "{}"
"""Stands under `into` for an id that no entity has."""
_HASH_SEED = 7
_SCHEMA: Mapping[str, pl.DataType] = {"id": pl.String(), "body": pl.String(), "at_ms": pl.Int64(), "offset": pl.Int64()}


class EntityFrame:
    """All entities as they were at one moment. Immutable; `changed` makes the next one."""

    def __init__(self, frame: pl.DataFrame | None = None) -> None:
        """`frame`: one row an entity: `id`, `body` (`codec.entity.Entity.body`), `at_ms` and `offset` of its record."""
        self.frame = pl.DataFrame(schema=_SCHEMA) if frame is None else frame

    @classmethod
    def of(cls, entities: Iterable[Entity]) -> EntityFrame:
        """These entities, the last of equal ids."""
        return cls().changed([Record(one.id, one.body, 0, number) for number, one in enumerate(entities)])

    def __len__(self) -> int:
        return len(self.frame)

    @cached_property
    def size(self) -> int:
        """Bytes of their texts."""
        return int(sum(self.frame[name].str.len_bytes().sum() for name in ("id", "body")))

    def snapshot(self) -> EntityFrame:
        """Itself: where entities are asked for, a fixed state of them will do."""
        return self

    def changed(self, records: Iterable[Record]) -> EntityFrame:
        """The state after these records, in their order."""
        last = {record.id: record for record in records}
        if not last:
            return self
        live = [(one.id, one.body, one.at_ms, one.offset) for one in last.values() if one.body is not None]
        fresh = pl.DataFrame(live, schema=dict(_SCHEMA), orient="row")
        if not len(self.frame):
            return EntityFrame(fresh)
        touched = pl.Series(list(last), dtype=pl.String)
        return EntityFrame(self.frame.filter(~pl.col("id").is_in(touched.implode())).vstack(fresh).rechunk())

    @cached_property
    def _index(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.intp]]:
        """Hashes of the ids in ascending order, and the rows they belong to."""
        hashes = self._hashes(self.frame["id"])
        order = np.argsort(hashes, kind="stable")
        return hashes[order], order

    def _hashes(self, ids: pl.Series) -> npt.NDArray[np.uint64]:
        return ids.hash(_HASH_SEED).to_numpy()

    def find(self, ids: pl.Series) -> pl.Series:
        """The row of each of these ids (no nulls) in `frame`; null where there is no such entity."""
        if not len(self.frame) or not len(ids):
            return pl.Series([None], dtype=pl.UInt32).new_from_index(0, len(ids))
        hashes, order = self._index
        wanted = self._hashes(ids)
        at = np.searchsorted(hashes, wanted)
        found = np.full(len(ids), -1, np.int64)
        open_ = np.flatnonzero((at < len(hashes)) & (hashes[np.minimum(at, len(hashes) - 1)] == wanted))
        while len(open_):  # more than once only where two ids have one hash
            rows = order[at[open_]]
            same = (self.frame["id"].gather(pl.Series(rows)) == ids.gather(pl.Series(open_))).to_numpy()
            found[open_[same]] = rows[same]
            open_ = open_[~same]
            at[open_] += 1
            open_ = open_[at[open_] < len(hashes)]
            open_ = open_[hashes[at[open_]] == wanted[open_]]
        known = pl.Series(found)
        return known.set(known < 0, None).cast(pl.UInt32)


class Entities(Protocol):
    """Where the state of the reference data is asked for (`worker.entities.EntityFollower`, or an EntityFrame)."""

    def snapshot(self) -> EntityFrame:
        """The state as of now. Raises TransientError while it cannot be known, ConfigError or StopWorker to stop."""


class EnrichPlan:
    """Ids of entities out of a table's rows. Compiled once per table and writer schema."""

    def __init__(
        self,
        columns: Sequence[Column],
        rules: Sequence[Enrich],
        *,
        hidden: Collection[str] = (),
        trusted: Collection[str] | None = None,
    ) -> None:
        """`columns`: of the rows; rules about others are left out. `hidden`: columns that are not clear: their ids are not
        shown. `trusted`: columns whose old value in a delete is the database's own; None: all. Debezium may have invented the
        others (a table without REPLICA IDENTITY FULL, fact 8): they name nothing.
        """
        by_name = {column.name: column for column in columns}
        self.rules = tuple(rule for rule in rules if rule.column in by_name)
        self.exprs = [_id(by_name[rule.column], rule, trusted is None or rule.column in trusted) for rule in self.rules]
        """One String expression a rule over the flat columns (`codec.flat`), for the table's one `select`."""
        self.hidden = frozenset(rule.into for rule in self.rules if rule.column in hidden)

    def ids(self, made: Sequence[pl.Series], missing: Mapping[str, pl.Series]) -> dict[str, pl.Series]:
        """By `into` what `exprs` made. `missing`: columns with values that the database did not send: true where it is so."""
        return {
            rule.into: series.set(missing[rule.column], None) if rule.column in missing else series
            for rule, series in zip(self.rules, made, strict=True)
        }


def _id(column: Column, rule: Enrich, trusted: bool) -> pl.Expr:
    value = row_value(column.name) if trusted else pl.when(pl.col("op") != "d").then(after(column.name))
    head, _, tail = rule.entity.partition("{}")
    parts = [pl.lit(head)] * bool(head) + [value_text(column, value)] + [pl.lit(tail)] * bool(tail)
    return pl.concat_str(parts).alias(f"?e:{rule.into}")


def gathered(groups: Iterable[Group], at: Indexes, stubs: pl.Series) -> tuple[References, ...]:
    """What these groups' changes name. `at`: record index → row in the changes, negative: none; a stub names nothing."""
    found = []
    for group in groups:
        if not group.made.entities:
            continue
        ids = [series.alias(into) for into, series in group.made.entities.items()]
        frame = pl.DataFrame([pl.Series("_row", at[group.rows]), *ids])
        frame = frame.filter((pl.col("_row") >= 0) & pl.any_horizontal(pl.exclude("_row").is_not_null()))
        frame = frame.with_columns(pl.col("_row").cast(pl.UInt32))
        frame = frame.filter(stubs.gather(frame["_row"]) == "")
        if len(frame):
            found.append(References(f"{group.source}.{group.schema}.{group.table}", frame, group.plan.enrich.hidden))
    return tuple(found)


class Enriching:
    """The step of the engine that joins. A batch that names no entity asks for none."""

    name = "enrich"

    def __init__(self, entities: Entities) -> None:
        self._entities = entities

    def __call__(self, batch: Batch) -> tuple[Batch, tuple[()]]:
        """The batch with `enriched`, and without its references; no row fails. Raises as `Entities.snapshot`."""
        if not batch.references:
            return batch, ()
        texts, unknown = joined(len(batch.changes), batch.references, self._entities.snapshot())
        return replace(batch, changes=batch.changes.with_columns(texts), references=(), unknown_entities=unknown), ()


def joined(
    rows: int, references: Sequence[References], entities: EntityFrame
) -> tuple[pl.Series, Mapping[tuple[str, str], int]]:
    """Column `enriched` of a batch of so many changes, and how often (table, into) named an entity that there is not.

    The text is `{into: {"id","metadata","name"}}` in canonical JSON. Under an id that no entity has stands `{}`; a null id
    has no member; a change that names none has null.
    """
    unknown: Counter[tuple[str, str]] = Counter()
    members = []
    for into in sorted({name for one in references for name in one.names}):
        having = [one for one in references if into in one.names]
        texts, missed = _members(into, having, entities)
        ends = np.cumsum([len(one.frame) for one in having])
        for one, end in zip(having, ends, strict=True):
            unknown[one.table, into] += int(missed[end - len(one.frame) : end].sum())
        at = np.full(rows, -1, np.int64)
        at[np.concatenate([one.frame["_row"].to_numpy() for one in having])] = np.arange(len(texts))
        places = pl.Series(at)
        members.append(texts.gather(places.set(places < 0, None)).alias(into))
    whole = pl.concat_str(pl.all(), separator=",", ignore_nulls=True)
    named = pl.any_horizontal(pl.all().is_not_null())
    text = pl.when(named).then(pl.concat_str(pl.lit("{"), whole, pl.lit("}"))).alias("enriched")
    made = pl.DataFrame(members).select(text).to_series()
    return made, {name: count for name, count in sorted(unknown.items()) if count}


def _members(into: str, having: Sequence[References], entities: EntityFrame) -> tuple[pl.Series, npt.NDArray[np.bool_]]:
    """`"into":{…}` of each row of these references, and which of them name an entity that there is not."""
    ids = pl.concat([one.frame[into].alias("id") for one in having]) if len(having) > 1 else having[0].frame[into]
    encoded = ids.to_arrow().cast(pa.large_string()).dictionary_encode()
    distinct = pl.Series("id", encoded.dictionary, dtype=pl.String)
    codes = pl.Series(encoded.indices).cast(pl.Int64)
    body = entities.frame["body"].gather(entities.find(distinct))
    hides = [into in one.hidden for one in having]
    versions = []
    for hidden in sorted(set(hides)):
        # polars' writer escapes the id as in all other texts: {"id":"…"}
        opening = (
            pl.lit("{") if hidden else pl.concat_str(pl.struct("id").struct.json_encode().str.strip_suffix("}"), pl.lit(","))
        )
        whole = pl.concat_str(pl.lit(f'"{into}":'), opening, pl.lit(body))
        versions.append(whole.fill_null(f'"{into}":{UNKNOWN}'))
    if not len(distinct):
        return pl.Series([None], dtype=pl.String).new_from_index(0, len(ids)), np.zeros(len(ids), np.bool_)
    texts = pl.concat([pl.DataFrame([distinct]).select(one.alias("text")).to_series() for one in versions])
    place = codes
    if len(versions) > 1:
        shift = np.repeat([len(distinct) if hidden else 0 for hidden in hides], [len(one.frame) for one in having])
        place = codes + pl.Series(shift)
    missed = body.is_null().gather(codes).fill_null(False).to_numpy()
    return texts.gather(place), missed
