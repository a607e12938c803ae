"""Events of applications to columns: the three forms of the wire (JSON, Avro under event.avsc, an Avro string that holds
JSON) become JSON texts, and those one frame.

A batch is read by one call, into columns by one pass a field, and looked at as columns. What such a look is not sure of
(an odd UUID, a deep payload, bytes that are no UTF-8) is decided by `events.event`, record by record: what is accepted here
is what is accepted over HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa

from chronicle.codec import avro
from chronicle.codec.diff import Indexes
from chronicle.codec.schema import WriterSchema
from chronicle.events import event as contract
from chronicle.model.dead_letters import Reason

TEXTS = (
    *("id", "type", "time", "source", "action", "resource_type", "resource_id", "outcome", "description", "request_id"),
    *("traceparent", "reason", "ip", "session", "tenant", "partition_key", "priority"),
)
"""Fields that are texts in the frame as they were written, "" and null being the same."""
ACTOR = ("actor_id", "actor_type", "actor_name")
_NIL = "00000000-0000-0000-0000-000000000000"
_AT = "1970-01-01T00:00:00.000000Z"
_UUID = r"^[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"
_TYPE = r"^[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*$"
_TIME = r"^(?:19|20|21)[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-5][0-9](?:\.[0-9]{1,6})?(?:Z|\+00:00)$"
_TRACE = r"^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"
_NO_TRACE = r"-0{32}-|-0{16}-"
_ODD = r"\\u[dD]|[:,\[]\s*-?(?:[0-9]+\.)?[0-9]{19}|[:,\[]\s*-?[0-9][0-9.]*[eE][+-]?[0-9]{3}"
"""Surrogates, numbers beyond 64 bits: as far as these are in a text, `events.event` has to look. Digits within a string (an
IBAN) are none of its business."""
_BRACKET = r"[\[{]"
_INSTANT = "%Y-%m-%dT%H:%M:%S%.fZ"


class Wire(msgspec.Struct, gc=False, kw_only=True, forbid_unknown_fields=True):
    """As `events.event.Event`, of which payload and tags are not read but cut at their top level."""

    id: str = ""
    type: str = ""
    time: str = ""
    source: str = ""
    actor: contract.Actor | str | None = None
    action: str | None = None
    resource_type: str | None = None
    resource_id: str | None = None
    outcome: contract.Outcome | None = None
    description: str | None = None
    payload: dict[str, msgspec.Raw] | None = None
    tags: dict[str, msgspec.Raw] = {}
    request_id: str | None = None
    traceparent: str | None = None
    reason: str | None = None
    ip: str | None = None
    session: str | None = None
    tenant: str | None = None
    partition_key: str | None = None
    priority: contract.Priority = "normal"


_LINE = msgspec.json.Decoder(tuple[Wire])
_ONE = msgspec.json.Decoder(Wire)
_ANY = msgspec.json.Decoder()


@dataclass(frozen=True, slots=True)
class Objects:
    """JSON objects of many rows, taken apart into their members: the flat columns have one entry a member."""

    there: np.ndarray[tuple[int], np.dtype[np.bool_]]
    """By row: there is an object."""
    lengths: Indexes
    """By row: how many members it has."""
    names: pl.Series = field(repr=False)
    texts: pl.Series = field(repr=False)
    """Each member's value as JSON text."""

    def rows(self) -> Indexes:
        """By member: its row."""
        return np.repeat(np.arange(len(self.lengths), dtype=np.int64), self.lengths)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why bytes are no event. Never holds data."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Read:
    """What a sequence of texts says."""

    frame: pl.DataFrame = field(repr=False)
    """One row an event: `TEXTS`, `ACTOR`, and `at` (`time` as Datetime; null where `time` is empty)."""
    payloads: Objects
    tags: Objects
    rows: Indexes
    """By row of the frame: the index of its text."""
    refused: dict[int, Refusal]
    """By index of a text."""


def read(texts: Sequence[bytes]) -> Read:
    """The events in these JSON texts. `id`, `time` may be empty; `type` is made of resource type and action if it is."""
    events, odd = _decoded(texts)
    frame = _frame(events)
    unsure = set(np.flatnonzero(~_sure(texts, frame, events)).tolist()) | odd
    if not unsure:
        return _read(events, frame, np.arange(len(texts), dtype=np.int64), {})
    refused: dict[int, Refusal] = {}
    for index in sorted(unsure):
        found = _one(texts[index])
        if isinstance(found, Refusal):
            refused[index] = found
        else:
            events[index] = found
    rows = np.asarray([index for index in range(len(texts)) if index not in refused], np.int64)
    kept = [events[index] for index in rows.tolist()]
    return _read(kept, _frame(kept), rows, refused)


def _at() -> pl.Expr:
    text = pl.col("time").str.replace("+00:00", "Z", literal=True)
    return text.str.to_datetime(_INSTANT, time_unit="us", strict=False).dt.replace_time_zone("UTC")


def _read(events: Sequence[Wire], frame: pl.DataFrame, rows: Indexes, refused: dict[int, Refusal]) -> Read:
    kind = (
        pl.when(pl.col("type") == "")
        .then(pl.concat_str(pl.col("resource_type").fill_null(""), pl.lit("."), pl.col("action").fill_null("")))
        .otherwise("type")
    )
    payloads, tags = ([getattr(one, name) for one in events] for name in ("payload", "tags"))
    return Read(
        frame.with_columns(kind.alias("type"), _at().alias("at"), pl.col("id").str.to_lowercase()),
        _objects(payloads),
        _objects(tags),
        rows,
        refused,
    )


def _decoded(texts: Sequence[bytes]) -> tuple[list[Wire], set[int]]:
    """All of them by one call; after a failure one by one. Also the indexes of those that could not be read."""
    if not texts:
        return [], set()
    try:
        # Each in brackets of its own: `[` after `]` and a line's end is in no JSON text, so that no two can be read as one,
        # and as many lines as texts are exactly the texts.
        lines = _LINE.decode_lines(b"[" + b"]\n[".join(texts) + b"]")
        if len(lines) == len(texts):
            return list(chain.from_iterable(lines)), set()
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        pass
    events, odd = [], set()
    for index, text in enumerate(texts):
        try:
            events.append(_ONE.decode(text))
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            events.append(Wire())
            odd.add(index)
    return events, odd


def _frame(events: Sequence[Wire]) -> pl.DataFrame:
    columns = [pl.Series(name, list(map(attrgetter(name), events)), dtype=pl.String) for name in TEXTS]
    actors = list(map(attrgetter("actor"), events))
    places = {actor: place for place, actor in enumerate(dict.fromkeys(actors))}
    codes = pl.Series(list(map(places.__getitem__, actors)), dtype=pl.UInt32)
    parts = [(one.id, one.type, one.name) if isinstance(one, contract.Actor) else (one, None, None) for one in places]
    who = [pl.Series(name, [part[at] for part in parts], dtype=pl.String).gather(codes) for at, name in enumerate(ACTOR)]
    return pl.DataFrame([*columns, *who])


def _sure(texts: Sequence[bytes], frame: pl.DataFrame, events: Sequence[Wire]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Rows that `events.event.checked` would let pass, as well as columns can tell: never one that it would not."""
    if not len(frame):
        return np.zeros(0, np.bool_)
    col = pl.col
    long = contract.TEXT_LENGTH_MAX
    bounded = [name for name in (*TEXTS, *ACTOR) if name not in ("id", "type", "time", "description", "priority")]
    short = [col(name).str.len_chars().fill_null(0) <= long for name in bounded]
    named = (col("type") != "") | (
        col("resource_type").fill_null("").str.contains(_TYPE) & col("action").fill_null("").str.contains(_TYPE)
    )
    made = col("resource_type").fill_null("").str.len_bytes() + col("action").fill_null("").str.len_bytes()
    text = _utf8(texts)
    tags = pl.Series(list(map(len, map(attrgetter("tags"), events))), dtype=pl.UInt32)
    sure = [
        (col("id") == "") | col("id").str.contains(_UUID),
        (col("type") == "") | (col("type").str.contains(_TYPE) & (col("type").str.len_bytes() <= contract.TYPE_LENGTH_MAX)),
        named,
        (col("type") != "") | (made < contract.TYPE_LENGTH_MAX),
        (col("time") == "") | (col("time").str.contains(_TIME) & _at().is_not_null()),
        col("source") != "",
        *short,
        col("description").str.len_chars().fill_null(0) <= contract.DESCRIPTION_LENGTH_MAX,
        col("traceparent").is_null() | (col("traceparent").str.contains(_TRACE) & ~col("traceparent").str.contains(_NO_TRACE)),
        pl.lit(tags) <= contract.TAGS_MAX,
        pl.lit(text.is_not_null()),
        pl.lit(text.str.len_bytes() <= contract.EVENT_BYTES_MAX),
        pl.lit(~text.str.contains(_ODD)),
        pl.lit(text.str.count_matches(_BRACKET) <= contract.DEPTH_MAX),
    ]
    return frame.select(pl.all_horizontal(sure).fill_null(False)).to_series().to_numpy()


def _utf8(texts: Sequence[bytes]) -> pl.Series:
    """The texts; null where one is no UTF-8."""
    raw = pl.Series(texts, dtype=pl.Binary)
    try:
        return raw.cast(pl.String)
    except pl.exceptions.ComputeError:
        return pl.Series([_text(one) for one in texts], dtype=pl.String)


def _text(text: bytes) -> str | None:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return None


def _one(text: bytes) -> Wire | Refusal:
    """The event in a text as `events.event` sees it."""
    if len(text) > contract.EVENT_BYTES_MAX:
        return Refusal(Reason.TOO_LARGE, f"an event has at most {contract.EVENT_BYTES_MAX} bytes as JSON")
    try:
        given = contract.decoded(text)
        whole = contract.completed(given, id=_NIL, time=_AT)
        made = _ONE.decode(contract.encoded(whole))
    except contract.EventRefused as error:
        reason = Reason.NOT_AN_EVENT if _is_json(text) else Reason.NOT_DECODABLE
        return Refusal(reason, str(error) if reason is Reason.NOT_AN_EVENT else "the value is no JSON object")
    if not given.id:
        made.id = ""
    if not given.time:
        made.time = ""
    return made


def _is_json(text: bytes) -> bool:
    try:
        _ANY.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    except RecursionError:
        return True
    return True


def _objects(objects: Sequence[dict[str, msgspec.Raw] | None]) -> Objects:
    there = np.fromiter((one is not None for one in objects), np.bool_, len(objects))
    whole: list[dict[str, msgspec.Raw]] = [one or _NOTHING for one in objects]
    return Objects(
        there,
        np.fromiter(map(len, whole), np.int64, len(whole)),
        pl.Series("name", list(chain.from_iterable(whole)), dtype=pl.String),
        pl.Series("text", list(map(bytes, chain.from_iterable(map(dict.values, whole)))), dtype=pl.Binary).cast(pl.String),
    )


_NOTHING: dict[str, msgspec.Raw] = {}


# Avro ---------------------------------------------------------------------------------------------------------------


def texts_of(values: Sequence[bytes], schema: WriterSchema) -> tuple[list[bytes], dict[int, Refusal]]:
    """The JSON texts of values in the Confluent frame of one schema: event.avsc, or a string that is the JSON.

    A text for each value (empty for those that are refused), and {index: why}.
    """
    if not schema.bare and not {"id", "type", "time", "source", "payload"} <= set(schema.frame_schema()):
        refusal = Refusal(Reason.NOT_AN_EVENT, "the schema is neither event.avsc nor a string")
        return [b""] * len(values), dict.fromkeys(range(len(values)), refusal)
    frame, bad = avro.decode(values, schema)
    if schema.bare:
        made = frame.to_series().cast(pl.String, strict=False).fill_null("null")
    else:
        made = _json_of_records(frame) if len(frame) else pl.Series([], dtype=pl.String)
    texts = [b""] * len(values)
    good = [index for index in range(len(values)) if index not in bad] if bad else range(len(values))
    for index, text in zip(good, made.cast(pl.Binary).to_list(), strict=True):
        texts[index] = text
    return texts, {index: Refusal(Reason.NOT_DECODABLE, detail) for index, detail in bad.items()}


def _json_of_records(frame: pl.DataFrame) -> pl.Series:
    """Records under event.avsc as JSON: null is absent; actor and payload are JSON text already."""
    made: list[pl.Series] = []
    for name, dtype in frame.schema.items():
        column = frame[name]
        if isinstance(dtype, pl.Map):
            column = _json_of_maps(column)
        elif name not in ("actor", "payload"):
            column = quoted(column)
        made.append(column.alias(name))
    pieces = [pl.lit(f'"{name}":') + pl.col(name) for name in frame.columns]
    inner = pl.concat_str(pieces, separator=",", ignore_nulls=True)
    return pl.DataFrame(made).select(pl.concat_str(pl.lit("{"), inner, pl.lit("}"))).to_series()


def _json_of_maps(column: pl.Series) -> pl.Series:
    """Maps of JSON texts as JSON objects."""
    maps: Any = column.to_arrow(compat_level=pl.CompatLevel.oldest())
    flat = pl.DataFrame({"name": pl.from_arrow(maps.keys), "text": pl.from_arrow(maps.items)})
    lengths = np.diff(maps.offsets.to_numpy())
    return objects_text(np.ones(len(lengths), np.bool_), lengths, flat["name"], flat["text"].fill_null("null"))


# JSON objects out of their members ----------------------------------------------------------------------------------


def members(frame: pl.DataFrame) -> pl.Series:
    """Each row's columns as members of a JSON object, without its braces; Polars' writer escapes them."""
    text = pl.struct(pl.all()).struct.json_encode().str.strip_prefix("{").str.strip_suffix("}")
    return frame.select(text).to_series()


def quoted(texts: pl.Series) -> pl.Series:
    """Texts as JSON strings; null stays null."""
    made = members(texts.alias("x").to_frame()).str.slice(len('"x":'))
    return made.set(texts.is_null(), None) if texts.null_count() else made


def objects_text(there: np.ndarray[Any, np.dtype[np.bool_]], lengths: Indexes, names: pl.Series, texts: pl.Series) -> pl.Series:
    """JSON objects out of their members, as `Objects` has them; null where there is none."""
    distinct = names.unique()
    written = dict(zip(distinct.to_list(), quoted(distinct).to_list(), strict=True))
    heads = names.replace_strict(written, return_dtype=pl.String) if len(names) else names
    pairs = pl.DataFrame({"n": heads, "t": texts}).select(pl.concat_str("n", pl.lit(":"), "t")).to_series()
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    lists: Any = pa.LargeListArray.from_arrays(pa.array(ends, pa.int64()), pairs.to_arrow(compat_level=pl.CompatLevel.oldest()))
    column = pl.from_arrow(lists)
    assert isinstance(column, pl.Series)  # noqa: S101  # tells the type checker which of the two from_arrow returns
    frame = pl.DataFrame({"m": column.cast(pl.List(pl.String)), "there": there})
    return frame.select(pl.when("there").then(pl.concat_str(pl.lit("{"), pl.col("m").list.join(","), pl.lit("}")))).to_series()
