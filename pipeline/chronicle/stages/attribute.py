"""Attribute: who did it. Contexts become columns, and each change gets those of the best rung that answers.

The ladder, best first: a logical message, a row of the context table, a comment on the statement, the row itself. What a
better rung says replaces all fields of a worse one: two are never mixed. A change whose transaction may still get a
context is `pending`; the view `attributed_changes` takes the context that comes later.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import polars as pl

from chronicle.codec.comments import contexts_of_comments
from chronicle.model.columns import MICROS
from chronicle.policy.names import looks_secret
from chronicle.stages.sanitize import sanitized_context

Transaction = tuple[str, int, str]
"""Source, epoch, transaction id."""
Hide = Mapping[str, Callable[[pl.Series], pl.Series]]
"""Field of a context (one of `FIELDS`, or `tags.NAME`) → what the policy makes of its texts; null stays null."""

TEXTS = ("actor_id", "actor_type", "actor_name", "request_id", "reason", "ip", "session", "tenant")
FIELDS = (*TEXTS, "tags")
RUNGS = ("message", "table", "comment", "row")
"""The ladder, best first."""
PENDING, NONE = "pending", "none"
RANKS = {rung: len(RUNGS) - number for number, rung in enumerate(RUNGS)}
KEY = ("source", "epoch", "transaction_id")
CONTEXTS: Mapping[str, pl.DataType] = {
    "source": pl.String(),
    "epoch": pl.UInt8(),
    "transaction_id": pl.String(),
    "rung": pl.String(),
    "at": pl.UInt64(),
    "context": pl.String(),
}
"""A frame of contexts: `at` is the offset (of two of one rung the later is the better), `context` a JSON object."""

FIELD_CHARS_MAX = 1_024
TAGS_CHARS_MAX = 8_192
"""A context stands on every row of its transaction: what is longer is cut here; `transactions` has all of it."""
DEPTH_MAX = 8
_CUT = "…"
_UNREADABLE = "[unreadable]"
_ALIASES: Mapping[str, tuple[str, ...]] = {"request_id": ("request",)}
_ACTOR: Mapping[str, tuple[str, ...]] = {"actor_id": ("id",), "actor_type": ("type",), "actor_name": ("name", "display")}
_TAG = "tags."


@dataclass(frozen=True, slots=True)
class Fields:
    """A context as columns; None: not said."""

    actor_id: str | None = None
    actor_type: str | None = None
    actor_name: str | None = None
    request_id: str | None = None
    reason: str | None = None
    ip: str | None = None
    session: str | None = None
    tenant: str | None = None
    tags: str | None = None
    """Everything else, as a canonical JSON object."""


@dataclass(slots=True)
class _Said:
    """A context taken apart, before the policy has looked at it."""

    texts: list[str | None]
    """In the order of `TEXTS`."""
    tags: dict[str, Any]


class _PlainActor(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    id: str | None = None
    name: str | None = None
    type: str | None = None


class _Plain(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A context as most are written, and all are kept: fields in the order of their names, as they are kept."""

    actor: str | _PlainActor | None = None
    ip: str | None = None
    reason: str | None = None
    request_id: str | None = None
    session: str | None = None
    tags: dict[str, str] | None = None
    tenant: str | None = None


_PLAIN = msgspec.json.Decoder(_Plain)
_PLAINS = msgspec.json.Decoder(list[_Plain])
_NOBODY = _PlainActor()
_KEPT = msgspec.json.Encoder(order="deterministic")
_NOT_SAID = re.compile(rb'""|\{\}|null')
"""What makes a plain context hold something that is not kept."""


def normalised(context: Mapping[str, object]) -> Fields:
    """What an application said, as fields. Never raises, whatever the values are.

    `actor` is a text (then it is the id) or an object with id, type, name; it may also stand flat, as actor_id and so on.
    What is no text becomes one. `tags` and everything that has no field of its own are tags.
    """
    said = _apart(context)
    return Fields(**dict(zip(FIELDS, (*said.texts, _tags_text(said.tags)), strict=True)))


def columns_of(contexts: pl.Series, hide: Hide | None = None) -> pl.DataFrame:
    """`FIELDS` of each context (a String column of JSON objects), one row each; null, or no object: all null.

    Each distinct text is read once, and the policy's functions see each field of the distinct texts once.
    """
    known: dict[str, int] = {}
    codes = [None if text is None else known.setdefault(text, len(known)) for text in contexts.to_list()]
    plain = None if hide else _all_plain(known)
    frame = (
        _frame([_plain(text) or _apart(_object(text)) for text in known], hide or {}) if plain is None else _plain_frame(plain)
    )
    if len(known) == len(codes):
        return frame
    return frame.select(pl.all().gather(pl.Series(codes, dtype=pl.UInt32)))


def stored(contexts: pl.Series, hide: Hide | None = None) -> pl.Series:
    """Each context in the one form in which it is kept (`transactions`, audit topic), the policy already applied.

    `{"actor":{"id","name","type"},"ip","reason","request_id","session","tags":{…},"tenant"}`, keys sorted, without what was
    not said. Reading it again gives the same fields, so it may be done twice; the policy must be applied once only.
    """
    texts = contexts.to_list()
    made = [None if text is None or hide else kept(text.encode()) for text in texts]
    rest = [at for at, text in enumerate(texts) if text is not None and made[at] is None]
    rows = columns_of(pl.Series([texts[at] for at in rest], dtype=pl.String), hide).iter_rows()
    for at, row in zip(rest, rows, strict=True):
        made[at] = _stored(*row)
    return pl.Series(contexts.name, made, dtype=pl.String)


def kept(context: bytes) -> str | None:
    """As `stored` without a policy, in one step, of a context that an application wrote as most are written. None: it holds
    anything unusual, a secret-looking name included, and takes the long way (`sanitized_context`, then `stored`)."""
    if len(context) > FIELD_CHARS_MAX or _NOT_SAID.search(context):
        return None
    try:
        it = _PLAIN.decode(context)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if it.tags and any(map(looks_secret, it.tags)):
        return None
    if isinstance(it.actor, str):
        it.actor = _PlainActor(id=it.actor)
    return _KEPT.encode(it).decode()


def said_in_comments(queries: pl.Series, hide: Hide | None = None) -> pl.DataFrame:
    """`FIELDS` and `attribution` (comment or none) of each change, from its statement's comment; one row each."""
    texts = contexts_of_comments(queries)
    if texts.null_count() < len(texts):
        known = texts.drop_nulls().unique()
        clean = [msgspec.json.encode(sanitized_context(_object(text)), order="deterministic").decode() for text in known]
        texts = texts.replace_strict(known, clean, default=None, return_dtype=pl.String)
    rung = pl.when(texts.is_not_null()).then(pl.lit("comment")).otherwise(pl.lit(NONE)).alias("attribution")
    return columns_of(texts, hide).with_columns(rung)


def wanted(changes: pl.DataFrame) -> dict[Transaction, int]:
    """The transactions whose contexts these changes need, and when the newest change of each was received (ms since 1970).

    Left out: snapshot rows, which have no transaction, and a TRUNCATE in a binlog, whose BEGIN is never followed by an END.
    """
    rows = changes.lazy().filter(_AWAITING).group_by(KEY).agg(pl.col("received_at").dt.epoch("ms").max()).collect()
    return dict(zip(rows.select(KEY).rows(), rows["received_at"].to_list(), strict=True))


_ENDLESS = (pl.col("operation") == "truncate") & (pl.col("connector") != "postgresql")
_AWAITING = pl.col("transaction_id").is_not_null() & (pl.col("operation") != "snapshot") & ~_ENDLESS


def attributed(
    changes: pl.DataFrame, contexts: pl.DataFrame, open_: Collection[Transaction], hide: Hide | None = None
) -> pl.DataFrame:
    """The changes with `FIELDS`, `attribution` and `attributed_at` (of those that have one: when they were processed).

    `contexts`: columns `CONTEXTS`, any number per transaction. `open_`: transactions that may still get one. Changes may
    already carry what a comment or the row itself said (`attribution` comment, row or none); absent columns say none.
    """
    changes = _with_columns(changes)
    if len(contexts):
        changes = _joined(changes, _best(contexts), hide)
    if open_:
        columns = dict(zip(KEY, zip(*open_, strict=True), strict=True))
        keys = pl.DataFrame(columns, schema={name: CONTEXTS[name] for name in KEY})
        waits = changes.select(KEY).join(keys.with_columns(_open=True), on=KEY, how="left", maintain_order="left")["_open"]
        waits = waits.fill_null(False) & (changes["operation"] != "snapshot") & (changes["attribution"] == NONE)
        changes = changes.with_columns(
            pl.when(waits).then(pl.lit(PENDING)).otherwise(pl.col("attribution")).alias("attribution")
        )
    answered = pl.col("attribution").is_in([PENDING, NONE]).not_()
    return changes.with_columns(pl.when(answered).then("processed_at").alias("attributed_at"))


def _with_columns(changes: pl.DataFrame) -> pl.DataFrame:
    absent: list[pl.Expr] = [pl.lit(None, pl.String).alias(name) for name in FIELDS if name not in changes.columns]
    if "attribution" not in changes.columns:
        absent.append(pl.lit(NONE).alias("attribution"))
    if "attributed_at" not in changes.columns:
        absent.append(pl.lit(None, MICROS).alias("attributed_at"))
    return changes.with_columns(absent) if absent else changes


def _rank(column: str) -> pl.Expr:
    return pl.col(column).replace_strict(RANKS, default=0, return_dtype=pl.UInt8)


def _best(contexts: pl.DataFrame) -> pl.DataFrame:
    """One context a transaction: of the best rung the last."""
    ranked = contexts.with_columns(_rank("rung").alias("_rank"))
    if ranked.select(KEY).is_duplicated().any():
        ranked = ranked.sort("_rank", "at", "context").unique(KEY, keep="last", maintain_order=True)
    return ranked


def _joined(changes: pl.DataFrame, best: pl.DataFrame, hide: Hide | None) -> pl.DataFrame:
    fields = columns_of(best["context"], hide).rename({name: f"_{name}" for name in FIELDS})
    lookup = best.select(*KEY, "_rank", pl.col("rung").alias("_attribution")).hstack(fields)
    both = changes.join(lookup, on=KEY, how="left", maintain_order="left")
    better = (pl.col("_rank").fill_null(0) > _rank("attribution")) & (pl.col("operation") != "snapshot")
    names = (*FIELDS, "attribution")
    return both.with_columns(
        pl.when(better).then(pl.col(f"_{name}")).otherwise(pl.col(name)).alias(name) for name in names
    ).select(changes.columns)


def _frame(said: Sequence[_Said], hide: Hide) -> pl.DataFrame:
    """Fields of contexts, one row each, as the policy wants them."""
    for name in hide:
        if name.startswith(_TAG):
            _hide_tag(said, name.removeprefix(_TAG), hide[name])
    made = [pl.Series(name, [one.texts[at] for one in said], dtype=pl.String) for at, name in enumerate(TEXTS)]
    made.append(pl.Series("tags", [_tags_text(one.tags) for one in said], dtype=pl.String))
    hidden = [hide[one.name](one).cast(pl.String).alias(one.name) if one.name in hide else one for one in made]
    if "tags" in hide:  # hidden as a whole: an object all the same
        texts = [None if text is None else _json(_object(text) or {"tags": text}) for text in hidden[-1].to_list()]
        hidden[-1] = pl.Series("tags", texts, dtype=pl.String)
    return pl.DataFrame(hidden)


def _hide_tag(said: Sequence[_Said], name: str, function: Callable[[pl.Series], pl.Series]) -> None:
    having = [one for one in said if one.tags.get(name) is not None]
    texts = pl.Series(name, [_text(one.tags[name]) for one in having], dtype=pl.String)
    for one, text in zip(having, function(texts).cast(pl.String).to_list(), strict=True):
        if text is None:
            del one.tags[name]
        else:
            one.tags[name] = text


def _stored(*row: str | None) -> str:
    context: dict[str, Any] = {name: text for name, text in zip(FIELDS, row, strict=True) if text is not None}
    actor = {each.removeprefix("actor_"): context.pop(each) for each in _ACTOR if each in context}
    if actor:
        context["actor"] = actor
    if "tags" in context:
        context["tags"] = msgspec.Raw(context["tags"].encode())
    return msgspec.json.encode(context, order="deterministic").decode()


def _object(text: str) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _plain(text: str) -> _Said | None:
    """A short context that holds nothing unusual, at a quarter of the cost; None: take it apart."""
    if len(text) > FIELD_CHARS_MAX:
        return None
    try:
        it = _PLAIN.decode(text)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return None
    actor = it.actor
    who = (actor.id, actor.type, actor.name) if isinstance(actor, _PlainActor) else (actor, None, None)
    return _Said([one or None for one in (*who, it.request_id, it.reason, it.ip, it.session, it.tenant)], it.tags or {})


def _all_plain(texts: Collection[str]) -> list[_Plain] | None:
    """Many plain contexts in one step, at half the cost of `_plain`; None: one of them is not plain."""
    if max(map(len, texts), default=0) > FIELD_CHARS_MAX:
        return None
    try:
        found = _PLAINS.decode(f"[{','.join(texts)}]")
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return None
    return found if len(found) == len(texts) else None


def _plain_frame(plain: Sequence[_Plain]) -> pl.DataFrame:
    actors = [_PlainActor(id=one.actor) if isinstance(one.actor, str) else one.actor or _NOBODY for one in plain]
    columns = [[getattr(one, name.removeprefix("actor_")) or None for one in actors] for name in _ACTOR]
    columns += [[getattr(one, name) or None for one in plain] for name in TEXTS[len(_ACTOR) :]]
    columns.append([_tags_text(one.tags) if one.tags else None for one in plain])
    return pl.DataFrame([pl.Series(name, column, dtype=pl.String) for name, column in zip(FIELDS, columns, strict=True)])


def _apart(context: Mapping[str, object]) -> _Said:
    rest = dict(context)
    explicit = rest.pop("tags", None)
    actor = rest.pop("actor", None)
    given: dict[str, object] = {name: rest.pop(name) for name in TEXTS if name in rest}
    for name, others in _ALIASES.items():
        for other in others:
            if _text(given.get(name)) is None and other in rest:
                given[name] = rest.pop(other)
    if isinstance(actor, Mapping):
        inner = dict(actor)
        for name, others in _ACTOR.items():
            used = next((each for each in others if _text(inner.get(each)) is not None), None)
            if used is not None:
                given[name] = inner.pop(used)
        if more := {name: value for name, value in inner.items() if value is not None}:
            rest["actor"] = more
    elif actor is not None:
        given["actor_id"] = actor
    tags = {_text(name) or "": _bounded(value, DEPTH_MAX) for name, value in rest.items()}
    if isinstance(explicit, Mapping):
        tags |= {_text(name) or "": _bounded(value, DEPTH_MAX) for name, value in explicit.items()}
    elif explicit is not None:
        tags["tags"] = _bounded(explicit, DEPTH_MAX)
    return _Said([_text(given.get(name)) for name in TEXTS], tags)


def _text(value: object) -> str | None:
    """Any value as a text of bounded length; None: nothing was said."""
    if value is None or value == "":
        return None
    text = value if isinstance(value, str) else _json(value)
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode()  # half a surrogate pair is no text for anyone after us
    return text if len(text) <= FIELD_CHARS_MAX else text[: FIELD_CHARS_MAX - len(_CUT)] + _CUT


def _json(value: object) -> str:
    try:
        return msgspec.json.encode(value, order="deterministic").decode()
    except (TypeError, ValueError, RecursionError, OverflowError):
        return _UNREADABLE


def _bounded(value: object, depth: int) -> object:
    """A tag's value as it is, its texts cut, what is nested too deep as text."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if -(1 << 63) <= value < 1 << 64 else str(value)[:FIELD_CHARS_MAX]
    if isinstance(value, str):
        return _text(value) or ""
    if depth and isinstance(value, Mapping):
        return {_text(name) or "": _bounded(one, depth - 1) for name, one in value.items()}
    if depth and isinstance(value, list | tuple):
        return [_bounded(one, depth - 1) for one in value]
    return _text(value)


def _tags_text(tags: Mapping[str, object]) -> str | None:
    """Canonical JSON; of too many the first, by name, that fit."""
    if not tags:
        return None
    text = _json(tags)
    if len(text) <= TAGS_CHARS_MAX:
        return text
    kept: dict[str, object] = {}
    room = TAGS_CHARS_MAX - len("{}")
    for name in sorted(tags):
        room -= len(_json({name: tags[name]})) - len("{}") + len(",")
        if room < 0:
            break
        kept[name] = tags[name]
    return _json(kept)
