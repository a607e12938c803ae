"""Changes and contexts as records of the audit topic: JSON in OCSF's field names, spliced from the texts already there.

A record is `{"core": …, "meta": …}`, UTF-8, keys sorted (only a key keeps its own column order). `core` is an OCSF 1.3
Datastore Activity (class 6005) and deterministic: the same change under the same policy gives the same bytes, whenever
and however often it is delivered. What differs between deliveries (offsets, times of processing, Debezium's hints) is
in `meta`. What OCSF has no name for is in `core.unmapped`. Described by `schemas/audit-record.schema.json`. Events:
`codec.audit_events`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID
from zlib import crc32

import numpy as np
import polars as pl
import pyarrow as pa

OCSF_VERSION = "1.3.0"
_CATEGORY = 6
_CLASS = 6005
_OTHER = 99
ACTIVITIES = {
    "snapshot": (1, "Read"),
    "create": (6, "Create"),
    "update": (2, "Update"),
    "delete": (7, "Delete"),
    "truncate": (_OTHER, "Truncate"),
}
"""Operation → OCSF activity; a snapshot row is an observation of the row, not a modification."""
_CONTEXT_ACTIVITY = (_OTHER, "Context")
_GROUP = (
    *("source", "connector", "schema", "table", "operation", "epoch", "before_known", "policy", "attribution"),
    *("topic", "partition", "schema_id"),
)
_CONTEXT_GROUP = ("source", "epoch", "rung", "topic", "partition")
_FLAGS = {"_transacted": pl.col("transaction_id").is_not_null(), "_keyed": pl.col("key") != ""}
_GROUPS_CACHED_MAX = 16_384
_HEX = np.frombuffer("".join(f"{i:02x}" for i in range(256)).encode(), "<u2")
_UUID_LENGTH = 36
_DASHES = frozenset({8, 13, 18, 23})
_DIGITS = [i for i in range(_UUID_LENGTH) if i not in _DASHES]
Piece = pl.Expr | str
"""A part of a record's text: the same for all rows, or an expression."""
PRODUCT = '"product":{"name":"Chronicle","vendor_name":"Chronicle"}'


@dataclass(frozen=True, slots=True)
class Records:
    """Records of the audit topic, ready to be produced; the three have the same length."""

    keys: Sequence[bytes] = field(repr=False)
    values: Sequence[bytes] = field(repr=False)
    partitions: Sequence[int]


def changes(frame: pl.DataFrame, *, partitions: int, version: str) -> Records:
    """One record a change, columns as in `model.columns.CHANGES`; `version` is Chronicle's.

    Key: the event id as UUID text. Partition: the entity's hash modulo `partitions`, so that a row's records stay in
    one partition as long as the topic's partition count does.
    """
    if not len(frame):
        return Records([], [], [])
    keys = uuid_text(frame["event_id"])
    rows, names = _with_texts(
        frame.with_columns(
            *(flag.alias(name) for name, flag in _FLAGS.items()),
            keys.alias("_event"),
            uuid_text(frame["entity"]).alias("_entity"),
            _moved(frame).alias("_moved"),
        ),
        (*_GROUP, *_FLAGS),
        _group_texts,
    )
    values = rows.select(spliced(_change_pieces(names, processing(frame, version), frame))).to_series()
    return Records(
        keys=keys.cast(pl.Binary).to_list(),
        values=values.cast(pl.Binary).to_list(),
        partitions=entity_partitions(frame["entity"], partitions),
    )


def processing(frame: pl.DataFrame, version: str) -> Piece:
    """When and by what; one batch has one time of processing, so that this is nearly always one text."""
    head, tail = ',"processed_at":"', f'","processor":{{"name":"chronicle","version":{dumped(version)}}},"received_at":"'
    times = frame["processed_at"]
    if times.min() == times.max():
        return f"{head}{_iso(times[0])}{tail}"
    return pl.concat_str(pl.lit(head), instant("processed_at"), pl.lit(tail))


def contexts(frame: pl.DataFrame, *, partitions: int, version: str) -> Records:
    """One record for each row of kind `context`, columns as in `model.columns.TRANSACTIONS`.

    Key: `transaction:<source>:<epoch>:<transaction id>:<rung>:<topic>:<partition>:<offset>`, the place being the raw
    record's: compaction removes only what was processed again, and of several statements about one transaction no one
    replaces a better one. What stands before the rung is the correlation id of all its changes and contexts.
    """
    rows = frame.filter(pl.col("kind") == "context")
    if not len(rows):
        return Records([], [], [])
    rows, names = _with_texts(rows, _CONTEXT_GROUP, lambda group: _context_texts(group, version))
    correlation, place = pl.col(names[-2]), pl.col(names[-1])
    keys = rows.select(pl.concat_str(correlation, "transaction_id", place, "offset")).to_series()
    transactions = rows.select(pl.concat_str(correlation, "transaction_id")).to_series()
    return Records(
        keys=keys.cast(pl.Binary).to_list(),
        values=rows.select(spliced(_context_pieces(names[:-2]))).to_series().cast(pl.Binary).to_list(),
        partitions=[crc32(one) % partitions for one in transactions.cast(pl.Binary).to_list()],
    )


def _with_texts(
    rows: pl.DataFrame, group: Sequence[str], texts_of: Callable[[tuple[Any, ...]], tuple[str, ...]]
) -> tuple[pl.DataFrame, list[str]]:
    """The rows with the texts that are the same for all rows of a group, and the names of these columns."""
    groups = rows.select(group).unique()
    texts = [texts_of(row) for row in groups.iter_rows()]
    names = [f"_{i}" for i in range(len(texts[0]))]
    constant = groups.hstack(pl.DataFrame(texts, schema=dict.fromkeys(names, pl.String), orient="row"))
    return rows.join(constant, on=group, how="left", maintain_order="left", nulls_equal=True), names


def entity_partitions(entities: pl.Series, partitions: int) -> list[int]:
    """The audit topic's partition of each entity: the first 8 bytes of its keyed hash, little-endian, modulo `partitions`."""
    first = _bytes(entities).reshape(len(entities), 16)[:, :8].copy().view("<u8").ravel()
    numbers: list[int] = (first % np.uint64(partitions)).tolist()
    return numbers


def uuid_text(series: pl.Series) -> pl.Series:
    """16-byte Binary without nulls as lower-case UUID text, without a Python object a row."""
    count = len(series)
    text = np.full((count, _UUID_LENGTH), ord("-"), np.uint8)
    text[:, _DIGITS] = _HEX[_bytes(series)].view(np.uint8).reshape(count, 32)
    offsets = np.arange(0, _UUID_LENGTH * count + 1, _UUID_LENGTH, dtype=np.int64)
    array = pa.LargeStringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(text))
    column = pl.from_arrow(array)
    assert isinstance(column, pl.Series)  # noqa: S101  # tells the type checker which of the two from_arrow returns
    return column


def _bytes(series: pl.Series) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    return np.frombuffer(b"".join(series.to_list()), np.uint8)


def _moved(frame: pl.DataFrame) -> pl.Series:
    """JSON of previous_entity and previous_key. Few changes have them: half of a primary-key change."""
    text = pl.Series(['null,"previous_key":null']).new_from_index(0, len(frame))
    known = frame["previous_entity"].is_not_null() | frame["previous_key"].is_not_null()
    if not known.any():
        return text
    pairs = frame.filter(known).select("previous_entity", "previous_key").iter_rows()
    made = [f'{_quoted_uuid(entity)},"previous_key":{key or "null"}' for entity, key in pairs]
    return text.scatter(known.arg_true(), made)


def _quoted_uuid(value: bytes | None) -> str:
    return "null" if value is None else f'"{UUID(bytes=value)}"'


@lru_cache(maxsize=_GROUPS_CACHED_MAX)
def _group_texts(group: tuple[Any, ...]) -> tuple[str, ...]:
    """What is the same for all changes of a group (values of `_GROUP` and `_FLAGS`), between the pieces that differ."""
    values = dict(zip((*_GROUP, *_FLAGS), group, strict=True))
    source, schema, table, epoch = values["source"], values["schema"], values["table"], values["epoch"]
    activity, name = ACTIVITIES[values["operation"]]
    text = {key: dumped(value) for key, value in {**values, "name": name}.items()}
    full_name = dumped(f"{source}.{schema}.{table}")
    correlation = f'"correlation_uid":{dumped(f"transaction:{source}:{epoch}:")[:-1]}' if values["_transacted"] else ""
    quote = '"' if values["_transacted"] else ""
    return (
        f'{{"core":{{"activity_id":{activity},"activity_name":{text["name"]},"actor":',
        f',"category_uid":{_CATEGORY},"class_uid":{_CLASS},'
        f'"database":{{"name":{text["source"]},"type":"Relational","type_id":1}},"metadata":{{{correlation}',
        f'{quote and quote + ","}{PRODUCT},"uid":"',
        f'","version":"{OCSF_VERSION}"}},"severity_id":1,"src_endpoint":',
        f',"table":{{"name":{text["table"]},"uid":{full_name}}},"time":',
        f',"type_id":3,"type_uid":{_CLASS * 100 + activity},"unmapped":{{"after":',
        f',"attribution":{text["attribution"]},"before":',
        f',"before_known":{text["before_known"]},"changed":',
        f'","connector":{text["connector"]},"entity":"',
        f'","epoch":{epoch},"extra":',
        f',"operation":{text["operation"]},"policy":{text["policy"]},"position":"',
        f',"schema":{text["schema"]},"source":{text["source"]},"table":{text["table"]},"tags":',
        f'"transaction_id":{quote or "null"}',
        f'{quote},"unavailable":',
        f',"partition":{values["partition"]}',
        f'","schema_id":{values["schema_id"]},"topic":{text["topic"]},"transaction_order":',
    )


def _change_pieces(constant: Sequence[str], processing: Piece, frame: pl.DataFrame) -> list[Piece]:
    """A record's text in order. Each piece costs 40 ns a row: what does not differ within a group is in `constant`."""
    (head, category, product, endpoint, table, kind, said, known, connector, epoch, operation, names, number, unavailable,
     partition, schema_id) = (pl.col(name) for name in constant)  # fmt: skip
    transaction = _escaped(pl.col("transaction_id")).fill_null("")
    position = pl.col("position_hi").cast(pl.UInt128) * pl.lit(1 << 64, pl.UInt128) + pl.col("position_lo").cast(pl.UInt128)
    return [
        head,
        actor_text(frame),
        category,
        transaction,
        product,
        pl.col("_event"),
        endpoint,
        endpoint_text(frame),
        table,
        pl.col("committed_at").dt.epoch("ms").cast(pl.String),
        kind,
        pl.col("after").fill_null("null"),
        said,
        pl.col("before").fill_null("null"),
        known,
        name_lists(frame["changed"]),
        ',"committed_at":"',
        instant("committed_at"),
        connector,
        pl.col("_entity"),
        epoch,
        document(frame["extra"]),
        ',"key":',
        pl.when(pl.col("_keyed")).then(pl.col("key")).otherwise(pl.lit("null")),
        ',"labels":',
        name_lists(frame["labels"]),
        operation,
        position.cast(pl.String),
        '","previous_entity":',
        pl.col("_moved"),
        ",",
        member_texts(frame, ("reason", "request_id")),
        names,
        document(frame["tags"]),
        ",",
        member_texts(frame, ("tenant",)),
        ",",
        number,
        transaction,
        unavailable,
        name_lists(frame["unavailable"]),
        ',"violations":',
        name_lists(frame["violations"]),
        '}},"meta":{"captured_at":"',
        instant("captured_at"),
        '","enriched":',
        document(frame["enriched"]),
        ',"offset":',
        pl.col("offset").cast(pl.String),
        partition,
        processing,
        instant("received_at"),
        schema_id,
        pl.col("transaction_order").cast(pl.String).fill_null("null"),
        "}}",
    ]


def spliced(pieces: Sequence[Piece]) -> pl.Expr:
    """All pieces, one after the other; literal ones that stand side by side are one."""
    parts: list[pl.Expr] = []
    text = ""
    for piece in (*pieces, pl.lit("")):
        if isinstance(piece, str):
            text += piece
        else:
            parts += [pl.lit(text), piece] if text else [piece]
            text = ""
    return pl.concat_str(parts[:-1])


def actor_text(frame: pl.DataFrame) -> Piece:
    """OCSF's actor; null where nobody is known."""
    names = ("actor_name", "actor_type", "actor_id", "session")
    if all(frame[name].null_count() == len(frame) for name in names):
        return "null"
    user = pl.struct(pl.col("actor_name").alias("name"), pl.col("actor_type").alias("type"), pl.col("actor_id").alias("uid"))
    text = pl.struct(pl.struct(pl.col("session").alias("uid")).alias("session"), user.alias("user")).struct.json_encode()
    known = pl.any_horizontal(pl.col(name).is_not_null() for name in names)
    return pl.when(known).then(text).otherwise(pl.lit("null"))


def endpoint_text(frame: pl.DataFrame) -> Piece:
    """OCSF's src_endpoint; null where it is not known."""
    if frame["ip"].null_count() == len(frame):
        return "null"
    return pl.when(pl.col("ip").is_not_null()).then(pl.struct("ip").struct.json_encode()).otherwise(pl.lit("null"))


def document(column: pl.Series) -> Piece:
    """A column of JSON texts."""
    return "null" if column.null_count() == len(column) else pl.col(column.name).fill_null("null")


def member_texts(frame: pl.DataFrame, names: Sequence[str]) -> Piece:
    """Texts as members of an object, without its braces."""
    if all(frame[name].null_count() == len(frame) for name in names):
        return ",".join(f'"{name}":null' for name in names)
    return pl.struct(*names).struct.json_encode().str.strip_prefix("{").str.strip_suffix("}")


def instant(name: str) -> pl.Expr:
    """ISO 8601 in UTC with microseconds."""
    naive = pl.col(name).dt.cast_time_unit("us").dt.replace_time_zone(None)
    return naive.dt.to_string("%Y-%m-%dT%H:%M:%S%.6fZ")


def name_lists(lists: pl.Series) -> Piece:
    """Lists of column names as JSON; Polars' writer escapes them."""
    if not lists.list.len().sum():
        return "[]"
    text = pl.struct(pl.col(lists.name).fill_null([]).alias("x")).struct.json_encode()
    return text.str.strip_prefix('{"x":').str.strip_suffix("}")


def _escaped(text: pl.Expr) -> pl.Expr:
    """Inside of a JSON string. Transaction ids are digits, GTIDs, file names: no control characters."""
    return text.str.replace_all("\\", "\\\\", literal=True).str.replace_all('"', '\\"', literal=True)


def dumped(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def _context_texts(group: tuple[Any, ...], version: str) -> tuple[str, ...]:
    """What is the same for all contexts of a group (values of `_CONTEXT_GROUP`), between the pieces that differ; and last,
    what stands before and after the transaction's id in a key."""
    values = dict(zip(_CONTEXT_GROUP, group, strict=True))
    activity, name = _CONTEXT_ACTIVITY
    source, topic, rung = (dumped(values[one]) for one in ("source", "topic", "rung"))
    correlation = f"transaction:{values['source']}:{values['epoch']}:"
    place = f":{values['rung']}:{values['topic']}:{values['partition']}:"
    inner, there = dumped(correlation)[1:-1], dumped(place)[1:-1]
    return (
        f'{{"core":{{"activity_id":{activity},"activity_name":"{name}","category_uid":{_CATEGORY},"class_uid":{_CLASS},'
        f'"database":{{"name":{source},"type":"Relational","type_id":1}},"metadata":{{"correlation_uid":"{inner}',
        f'",{PRODUCT},"uid":"{inner}',
        there,
        f'","version":"{OCSF_VERSION}"}},"severity_id":1,"time":',
        f',"type_id":1,"type_uid":{_CLASS * 100 + activity},"unmapped":{{"committed_at":"',
        f',"epoch":{values["epoch"]},"rung":{rung},"source":{source},"transaction_id":"',
        f',"partition":{values["partition"]},"processed_at":"',
        f'","processor":{{"name":"chronicle","version":{dumped(version)}}},"topic":{topic}}}}}',
        correlation,
        place,
    )


def _context_pieces(constant: Sequence[str]) -> list[Piece]:
    """A record's text in order; the application's JSON is spliced in as it is: its keys are sorted already."""
    head, product, there, time, kind, epoch, partition, tail = (pl.col(name) for name in constant)
    transaction, offset = _escaped(pl.col("transaction_id")), pl.col("offset").cast(pl.String)
    return [
        *(head, transaction, product, transaction, there, offset, time),
        pl.col("occurred_at").dt.epoch("ms").cast(pl.String),
        *(kind, instant("occurred_at"), '","context":', pl.col("context"), epoch, transaction),
        *('"}},"meta":{"offset":', offset, partition, instant("processed_at"), tail),
    ]


def _iso(moment: datetime) -> str:
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
