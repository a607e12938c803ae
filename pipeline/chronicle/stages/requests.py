"""What transactions asked of the trail, as far as the policy allows it: changes that are only counted, images kept whole.

A request stands in the context of a transaction (`attribution.Audit`) and reaches its changes in the column `tags`, by a
message or the context table; a comment asks for nothing. A context that comes too late asks for nothing either: what was
recorded stays recorded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import polars as pl

from chronicle.attribution.context import AUDIT_TAG
from chronicle.model.event_columns import EVENTS, NO_EVENTS
from chronicle.policy.requests import Requests
from chronicle.stages.attribute import CONTEXTS, FIELDS, KEY, RANKS, columns_of

UNAUDITED = "unaudited"
"""In `stub`, and the type of the summary."""
SUMMARY_TYPE = f"chronicle.{UNAUDITED}"
_MARK = f'"{AUDIT_TAG}"'
_BY = ("message", "table")
_IMAGES = ("before", "after", "enriched", "extra")
_LISTS = ("changed", "unavailable", "labels", "violations")
_ROW = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ANY = msgspec.json.Decoder(dict[str, Any])


@dataclass(frozen=True, slots=True)
class Asked:
    """What one context asks for."""

    without: str | None = None
    snapshots: bool = False


@dataclass(frozen=True, slots=True)
class Granted:
    """A batch's changes as their transactions asked, and how many rows that were."""

    changes: pl.DataFrame = field(repr=False)
    rows: Mapping[str, int]
    """`unaudited`, `snapshots`, `refused` → changes."""


def asked(tags: str | None) -> Asked:
    """Out of a context's tags; nothing, where there is no request or none that can be read."""
    if tags is None or _MARK not in tags:
        return Asked()
    try:
        found = _ANY.decode(tags).get(AUDIT_TAG)
    except (msgspec.MsgspecError, RecursionError):
        return Asked()
    if not isinstance(found, dict):
        return Asked()
    reason = found.get("without")
    return Asked(reason if isinstance(reason, str) and reason else None, found.get("snapshots") is True)


def granted(changes: pl.DataFrame, allowed: Requests, *, reduces: Callable[[str, str, str], bool]) -> Granted:
    """Do what is asked and allowed.

    `reduces`: whether the images of a table (source, schema, table), which are whole here, are to hold only what changed
    unless their transaction asked otherwise. With `allowed.snapshots` unset images are what they are to be.
    """
    rows: dict[str, int] = {}
    said = _codes(changes, allowed, rows)
    if allowed.snapshots:
        whole = None if said is None else said == _SNAPSHOTS
        changes = _reduced(changes, whole, reduces)
    if said is not None and rows.get(UNAUDITED):
        changes = _counted(changes, pl.Series((said == _WITHOUT).fill_null(False)))
    return Granted(changes, rows)


_WITHOUT, _SNAPSHOTS, _REFUSED = 1, 2, 3
_NAMES = {_WITHOUT: UNAUDITED, _SNAPSHOTS: "snapshots", _REFUSED: "refused"}


def _codes(changes: pl.DataFrame, allowed: Requests, rows: dict[str, int]) -> pl.Series | None:
    """By row what is done about a request; null: there is none. None: no row has any."""
    tags = changes["tags"]
    if tags.null_count() == len(tags):
        return None
    asking = tags.str.contains(_MARK, literal=True).fill_null(False) & changes["attribution"].is_in(_BY)
    asking &= changes["operation"] != "snapshot"
    if not asking.any():
        return None
    texts = tags.filter(asking).unique()
    codes = {text: _code(asked(text), allowed) for text in texts}
    found = tags.replace_strict(codes, default=None, return_dtype=pl.UInt8).set(~asking, None)
    for code, count in found.drop_nulls().value_counts().iter_rows():
        rows[_NAMES[code]] = count
    return found


def _code(request: Asked, allowed: Requests) -> int | None:
    if request.without is not None:
        return _WITHOUT if allowed.allows(request.without) else _REFUSED
    if request.snapshots:
        return _SNAPSHOTS if allowed.snapshots else _REFUSED
    return None


def _counted(changes: pl.DataFrame, mark: pl.Series) -> pl.DataFrame:
    """These rows as lines without images; those that the policy left out anyway keep its rule."""
    kept = ~pl.lit(mark)
    images = [pl.when(kept).then(pl.col(name)).alias(name) for name in _IMAGES]
    lists = [pl.when(kept).then(pl.col(name)).otherwise(pl.lit([], pl.List(pl.String))).alias(name) for name in _LISTS]
    stub = pl.when(kept | (pl.col("stub") != "")).then(pl.col("stub")).otherwise(pl.lit(UNAUDITED)).alias("stub")
    return changes.with_columns(*images, *lists, stub)


def _reduced(changes: pl.DataFrame, whole: pl.Series | None, reduces: Callable[[str, str, str], bool]) -> pl.DataFrame:
    """The images of updates with their key and what changed. Row by row, in Python: only where a policy allows to ask for
    whole ones, and only of tables that keep less."""
    parts = ("source", "schema", "table")
    names = changes.select(parts)
    tables = [row for row in names.unique().iter_rows() if reduces(*row)]
    if not tables:
        return changes
    marked = pl.DataFrame(tables, schema=names.schema, orient="row").with_columns(_found=True)
    concerned = names.join(marked, on=parts, how="left", maintain_order="left")["_found"].fill_null(False)
    concerned &= (changes["operation"] == "update") & changes["before_known"]
    concerned &= changes["before"].is_not_null() & changes["after"].is_not_null()
    if whole is not None:
        concerned &= ~whole.fill_null(False)
    at = concerned.arg_true()
    if not len(at):
        return changes
    rows = changes.select("key", "before", "after", "changed")[at].iter_rows()
    before, after = zip(*(_row(*row) for row in rows), strict=True)
    return changes.with_columns(
        changes["before"].scatter(at, pl.Series(before, dtype=pl.String)),
        changes["after"].scatter(at, pl.Series(after, dtype=pl.String)),
    )


def _row(key: str | None, before: str, after: str, changed: Sequence[str]) -> tuple[str, str]:
    old, new = _ROW.decode(before), _ROW.decode(after)
    keep = {*changed, *(_ROW.decode(key) if key else ())}
    keep |= {name for name, value in old.items() if name in new and bytes(value) != bytes(new[name])}
    return _only(old, keep), _only(new, keep)


def _only(row: Mapping[str, msgspec.Raw], keep: set[str]) -> str:
    return msgspec.json.encode({name: value for name, value in row.items() if name in keep}).decode()


def ended(transactions: pl.DataFrame) -> pl.DataFrame:
    """The ENDs among a batch's transaction records, with the time in milliseconds since 1970 (`ms`)."""
    ends = transactions.filter(pl.col("kind") == "end")
    return ends.with_columns(pl.coalesce("occurred_at", "processed_at").dt.epoch("ms").alias("ms"))


def summaries(ends: pl.DataFrame, contexts: pl.DataFrame, allowed: Requests, policy: str) -> pl.DataFrame:
    """One event of type `chronicle.unaudited` for each transaction of `ends` that is left out; columns `EVENTS`.

    Its payload says why, and how many rows of which tables, as the database's log counted them. The same transaction gives the
    same event, however often its END is read.

    Args:
        ends: as `ended` gives them.
        contexts: columns `CONTEXTS`, of these transactions.
        policy: hash of the policy in force.
    """
    marked = contexts.filter(pl.col("context").str.contains(_MARK, literal=True))
    if not len(marked) or not len(ends):
        return NO_EVENTS
    ranked = contexts.with_columns(pl.col("rung").replace_strict(RANKS, default=0, return_dtype=pl.UInt8).alias("_rank"))
    best = ranked.sort("_rank", "at", "context").unique(KEY, keep="last", maintain_order=True).select(CONTEXTS.keys())
    said = best.select(*KEY).hstack(columns_of(best["context"]))
    rows = []
    for row in ends.unique(KEY, keep="last", maintain_order=True).join(said, on=KEY, how="inner").iter_rows(named=True):
        reason = asked(row["tags"]).without
        if reason is not None and allowed.allows(reason):
            rows.append(_summary(row, reason, policy))
    if not rows:
        return NO_EVENTS
    return pl.DataFrame(rows, schema={column.name: column.dtype for column in EVENTS}, orient="row")


def _summary(row: Mapping[str, Any], reason: str, policy: str) -> dict[str, Any]:
    tables = {one["table"]: one["count"] for one in row["tables"] or ()}
    place = [row["source"], row["epoch"], row["transaction_id"]]
    payload = {"reason": reason, "rows": sum(tables.values()), "tables": tables, "transaction": row["transaction_id"]}
    when = row["occurred_at"] or row["processed_at"]
    return {
        **dict.fromkeys(column.name for column in EVENTS),
        **{name: row[name] for name in FIELDS},
        "event_id": hashlib.blake2b(msgspec.json.encode([SUMMARY_TYPE, *place]), digest_size=16).digest(),
        "type": SUMMARY_TYPE,
        "time": when,
        "source": row["source"],
        "action": "left_out",
        "resource_type": "transaction",
        "resource_id": row["transaction_id"],
        "priority": "normal",
        "payload": msgspec.json.encode(payload, order="deterministic").decode(),
        "labels": [],
        "violations": [],
        "policy": policy,
        **{name: row[name] for name in ("topic", "partition", "offset", "processed_at")},
        "received_at": when.replace(microsecond=when.microsecond // 1000 * 1000),
    }
