"""Changes and contexts as records of the audit topic: JSON in OCSF's field names, spliced from the texts already there.

A record is `{"core": …, "meta": …}`, UTF-8, keys sorted (only a key keeps its own column order). `core` is an OCSF 1.3
Datastore Activity (class 6005) and deterministic: the same change under the same policy gives the same bytes, whenever
and however often it is delivered. What differs between deliveries (offsets, times of processing, Debezium's hints) is
in `meta`. What OCSF has no name for is in `core.unmapped`. Described by `schemas/audit-record.schema.json`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
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
_GROUP = ("source", "connector", "schema", "table", "operation", "epoch", "topic")
_GROUPS_CACHED_MAX = 16_384
_HEX = np.frombuffer("".join(f"{i:02x}" for i in range(256)).encode(), "<u2")
_UUID_LENGTH = 36
_DASHES = frozenset({8, 13, 18, 23})
_DIGITS = [i for i in range(_UUID_LENGTH) if i not in _DASHES]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PRODUCT = '"product":{"name":"Chronicle","vendor_name":"Chronicle"}'


@dataclass(frozen=True, slots=True)
class Records:
    """Records of the audit topic, ready to be produced; the three have the same length."""

    keys: Sequence[bytes]
    values: Sequence[bytes]
    partitions: Sequence[int]


def changes(frame: pl.DataFrame, *, partitions: int, version: str) -> Records:
    """One record a change, columns as in `model.columns.CHANGES`; `version` is Chronicle's.

    Key: the event id as UUID text. Partition: the entity's hash modulo `partitions`, so that a row's records stay in
    one partition as long as the topic's partition count does.
    """
    if not len(frame):
        return Records([], [], [])
    groups = frame.select(_GROUP).unique()
    texts = [_group_texts(row, version) for row in groups.iter_rows()]
    names = [f"_{i}" for i in range(len(texts[0]))]
    constant = groups.hstack(pl.DataFrame(texts, schema=dict.fromkeys(names, pl.String), orient="row"))
    keys = uuid_text(frame["event_id"])
    rows = frame.with_columns(
        keys.alias("_event"), uuid_text(frame["entity"]).alias("_entity"), _optional_uuid(frame["previous_entity"])
    ).join(constant, on=_GROUP, how="left", maintain_order="left")
    values = rows.select(pl.concat_str(_change_pieces(names))).to_series()
    return Records(
        keys=keys.cast(pl.Binary).to_list(),
        values=values.cast(pl.Binary).to_list(),
        partitions=entity_partitions(frame["entity"], partitions),
    )


def contexts(frame: pl.DataFrame, *, partitions: int, version: str) -> Records:
    """One record for each row of kind `context`, columns as in `model.columns.TRANSACTIONS`.

    Key: `transaction:<source>:<epoch>:<transaction id>`, so that compaction keeps a transaction's latest context.
    """
    rows = frame.filter(pl.col("kind") == "context")
    keys, values = [], []
    for row in rows.iter_rows(named=True):  # one a transaction, not one a change
        key = f"transaction:{row['source']}:{row['epoch']}:{row['transaction_id']}"
        keys.append(key.encode())
        values.append(_context_record(row, key, version).encode())
    return Records(keys, values, [crc32(key) % partitions for key in keys])


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


def _optional_uuid(series: pl.Series) -> pl.Series:
    """JSON text: a quoted UUID or null. Few changes have one."""
    text = pl.Series("_previous_entity", ["null"]).new_from_index(0, len(series))
    known = series.is_not_null()
    if not known.any():
        return text
    found = uuid_text(series.filter(known))
    return text.scatter(known.arg_true(), [f'"{each}"' for each in found])


@lru_cache(maxsize=_GROUPS_CACHED_MAX)
def _group_texts(group: tuple[Any, ...], version: str) -> tuple[str, ...]:
    """What is the same for all changes of a table and operation (values of `_GROUP`), between the pieces that differ."""
    values = dict(zip(_GROUP, group, strict=True))
    source, schema, table, epoch = values["source"], values["schema"], values["table"], values["epoch"]
    activity, name = ACTIVITIES[values["operation"]]
    text = {key: _dumped(value) for key, value in {**values, "name": name, "version": version}.items()}
    full_name = _dumped(f"{source}.{schema}.{table}")
    return (
        f'{{"core":{{"activity_id":{activity},"activity_name":{text["name"]},"category_uid":{_CATEGORY},"class_uid":{_CLASS},'
        f'"database":{{"name":{text["source"]},"type":"Relational","type_id":1}},"metadata":{{',
        f'"correlation_uid":{_dumped(f"transaction:{source}:{epoch}:")[:-1]}',
        f'","version":"{OCSF_VERSION}"}},"severity_id":1,"table":{{"name":{text["table"]},"uid":{full_name}}},"time":',
        f',"type_id":3,"type_uid":{_CLASS * 100 + activity},"unmapped":{{"after":',
        f'","connector":{text["connector"]},"entity":"',
        f'","epoch":{epoch},"key":',
        f',"operation":{text["operation"]},"position":"',
        f',"schema":{text["schema"]},"source":{text["source"]},"table":{text["table"]},"transaction_id":',
        f',"processor":{{"name":"chronicle","version":{text["version"]}}},"received_at":"',
        f',"topic":{text["topic"]},"transaction_order":',
    )


def _change_pieces(constant: Sequence[str]) -> list[pl.Expr]:
    head, correlation, table, kind, connector, epoch, operation, names, processor, topic = (pl.col(name) for name in constant)
    transaction = _escaped(pl.col("transaction_id"))
    correlated = pl.concat_str(correlation, transaction, pl.lit('",'))
    position = pl.col("position_hi").cast(pl.UInt128) * pl.lit(1 << 64, pl.UInt128) + pl.col("position_lo").cast(pl.UInt128)
    return [
        head,
        correlated.fill_null(""),
        pl.lit(_PRODUCT + ',"uid":"'),
        pl.col("_event"),
        table,
        pl.col("committed_at").dt.epoch("ms").cast(pl.String),
        kind,
        pl.col("after").fill_null("null"),
        pl.lit(',"before":'),
        pl.col("before").fill_null("null"),
        pl.lit(',"before_known":'),
        pl.col("before_known").cast(pl.String),
        pl.lit(',"changed":'),
        _names("changed"),
        pl.lit(',"committed_at":"'),
        _instant("committed_at"),
        connector,
        pl.col("_entity"),
        epoch,
        pl.when(pl.col("key") == "").then(pl.lit("null")).otherwise("key"),
        operation,
        position.cast(pl.String),
        pl.lit('","previous_entity":'),
        pl.col("_previous_entity"),
        pl.lit(',"previous_key":'),
        pl.col("previous_key").fill_null("null"),
        names,
        pl.concat_str(pl.lit('"'), transaction, pl.lit('"')).fill_null("null"),
        pl.lit(',"unavailable":'),
        _names("unavailable"),
        pl.lit('}},"meta":{"captured_at":"'),
        _instant("captured_at"),
        pl.lit('","offset":'),
        pl.col("offset").cast(pl.String),
        pl.lit(',"partition":'),
        pl.col("partition").cast(pl.String),
        pl.lit(',"processed_at":"'),
        _instant("processed_at"),
        pl.lit('"'),
        processor,
        _instant("received_at"),
        pl.lit('","schema_id":'),
        pl.col("schema_id").cast(pl.String),
        topic,
        pl.col("transaction_order").cast(pl.String).fill_null("null"),
        pl.lit("}}"),
    ]


def _instant(name: str) -> pl.Expr:
    """ISO 8601 in UTC with microseconds."""
    naive = pl.col(name).dt.cast_time_unit("us").dt.replace_time_zone(None)
    return pl.concat_str(naive.dt.to_string("%Y-%m-%dT%H:%M:%S%.6f"), pl.lit("Z"))


def _names(name: str) -> pl.Expr:
    """A list of column names as JSON; Polars' writer escapes them."""
    text = pl.struct(pl.col(name).fill_null([]).alias("x")).struct.json_encode()
    return text.str.strip_prefix('{"x":').str.strip_suffix("}")


def _escaped(text: pl.Expr) -> pl.Expr:
    """Inside of a JSON string. Transaction ids are digits, GTIDs, file names: no control characters."""
    return text.str.replace_all("\\", "\\\\", literal=True).str.replace_all('"', '\\"', literal=True)


def _dumped(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def _context_record(row: dict[str, Any], key: str, version: str) -> str:
    """The application's JSON is spliced in as it is: its keys are sorted already."""
    activity, name = _CONTEXT_ACTIVITY
    uid, source, transaction = _dumped(key), _dumped(row["source"]), _dumped(row["transaction_id"])
    return (
        f'{{"core":{{"activity_id":{activity},"activity_name":"{name}","category_uid":{_CATEGORY},"class_uid":{_CLASS},'
        f'"database":{{"name":{source},"type":"Relational","type_id":1}},'
        f'"metadata":{{"correlation_uid":{uid},{_PRODUCT},"uid":{uid},"version":"{OCSF_VERSION}"}},'
        f'"severity_id":1,"time":{_micros(row["occurred_at"]) // 1000},"type_id":1,"type_uid":{_CLASS * 100 + activity},'
        f'"unmapped":{{"committed_at":"{_iso(row["occurred_at"])}","context":{row["context"]},"epoch":{row["epoch"]},'
        f'"rung":"{row["rung"]}","source":{source},"transaction_id":{transaction}}}}},'
        f'"meta":{{"offset":{row["offset"]},"partition":{row["partition"]},"processed_at":"{_iso(row["processed_at"])}",'
        f'"processor":{{"name":"chronicle","version":{_dumped(version)}}},"topic":{_dumped(row["topic"])}}}}}'
    )


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _iso(moment: datetime) -> str:
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
