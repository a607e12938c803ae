"""Events as records of the audit topic: OCSF beside the records of changes, of the class that their type's family has.

`core` is deterministic, as a change's is: the same event under the same policy gives the same bytes. Payload and tags keep
the order that the application wrote. Described by `schemas/audit-record.schema.json` (`event_record`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import polars as pl

from chronicle.codec.audit import (
    OCSF_VERSION,
    PRODUCT,
    Piece,
    Records,
    actor_text,
    document,
    dumped,
    endpoint_text,
    entity_partitions,
    instant,
    member_texts,
    name_lists,
    processing,
    spliced,
    uuid_text,
)
from chronicle.codec.events import quoted

KEY = "event:"
"""Begins the keys of events: the application chooses an event's id, and must not name a change's record with it."""
_API = (6003, {"created": 1, "read": 2, "updated": 3, "deleted": 4})
CLASSES: Mapping[str, tuple[int, Mapping[str, int]]] = {
    "auth": (3002, {"login": 1, "logout": 2}),
    "user": (3001, {"created": 1, "deleted": 6}),
    "team": (3006, {"member_added": 3, "member_removed": 4, "deleted": 5, "created": 6}),
    "http": (4002, {}),
    "database": (6005, {"connected": 3, "query": 4}),
}
"""First word of a type → OCSF class, and the activities that it has a number for, by the type's last word."""
_OTHER = 99
_STATUS = {"success": ("Success", 1), "failure": ("Failure", 2), "unknown": ("Unknown", 0)}
_TYPES_CACHED_MAX = 16_384


def events(frame: pl.DataFrame, *, partitions: int, version: str) -> Records:
    """One record an event, columns as in `model.event_columns.EVENTS`; `version` is Chronicle's.

    Key: `event:<source>:<tenant>:<type>:<event id>`, an empty tenant where there is none; `:` and `%` of a source or
    tenant are percent-encoded, so that no two events share a key. Partition: from the event id, modulo `partitions`.
    """
    if not len(frame):
        return Records([], [], [])
    ids = uuid_text(frame["event_id"])
    types = frame.select("type").unique()
    names = [f"_{at}" for at in range(4)]
    constant = types.hstack(
        pl.DataFrame([_type_texts(type_) for type_ in types["type"]], schema=dict.fromkeys(names, pl.String), orient="row")
    )
    rows = frame.with_columns(
        ids.alias("_event"), *(quoted(frame[name]).fill_null("null").alias(f"_{name}") for name in _QUOTED)
    ).join(constant, on="type", how="left", maintain_order="left")
    values = rows.select(spliced(_pieces(frame, version))).to_series()
    keys = rows.select(
        pl.concat_str(pl.lit(KEY), _word("source"), pl.lit(":"), _word("tenant"), pl.lit(":"), "type", pl.lit(":"), "_event")
    ).to_series()
    return Records(
        keys=keys.cast(pl.Binary).to_list(),
        values=values.cast(pl.Binary).to_list(),
        partitions=entity_partitions(frame["event_id"], partitions),
    )


_QUOTED = ("description", "source")


def _word(name: str) -> pl.Expr:
    """A part of a key: whatever a source or a tenant is called, it ends where it ends."""
    text = pl.col(name).fill_null("")
    return text.str.replace_all("%", "%25", literal=True).str.replace_all(":", "%3A", literal=True)


@lru_cache(maxsize=_TYPES_CACHED_MAX)
def _type_texts(type_: str) -> tuple[str, str, str, str]:
    """What is the same for all events of a type, between the pieces that differ."""
    class_, activities = CLASSES.get(type_.partition(".")[0], _API)
    last = type_.rpartition(".")[2]
    activity = activities.get(last, _OTHER)
    return (
        f'{{"core":{{"activity_id":{activity},"activity_name":{dumped(last)},"actor":',
        f',"category_uid":{class_ // 1000},"class_uid":{class_},"message":',
        f',"type_uid":{class_ * 100 + activity},"unmapped":{{',
        f',"type":{dumped(type_)},"violations":',
    )


def _pieces(frame: pl.DataFrame, version: str) -> list[Piece]:
    head, category, kind, type_ = (pl.col(f"_{at}") for at in range(4))
    status = pl.col("outcome")
    names, numbers = ({word: said[at] for word, said in _STATUS.items()} for at in (0, 1))
    return [
        head,
        actor_text(frame),
        category,
        pl.col("_description"),
        f',"metadata":{{{PRODUCT},"uid":"',
        pl.col("_event"),
        f'","version":"{OCSF_VERSION}"}},"severity_id":1,"src_endpoint":',
        endpoint_text(frame),
        ',"status":',
        status.replace_strict({word: dumped(name) for word, name in names.items()}, default="null", return_dtype=pl.String),
        ',"status_id":',
        status.replace_strict({word: str(one) for word, one in numbers.items()}, default="0", return_dtype=pl.String),
        ',"time":',
        pl.col("time").dt.epoch("ms").cast(pl.String),
        kind,
        member_texts(frame, ("action",)),
        ',"kind":"event","labels":',
        name_lists(frame["labels"]),
        ',"occurred_at":"',
        instant("time"),
        '","payload":',
        document(frame["payload"]),
        ",",
        member_texts(frame, ("policy", "priority", "reason", "request_id", "resource_id", "resource_type")),
        ',"source":',
        pl.col("_source"),
        ",",
        member_texts(frame, ("span_id",)),
        ',"tags":',
        document(frame["tags"]),
        ",",
        member_texts(frame, ("tenant", "trace_id")),
        type_,
        name_lists(frame["violations"]),
        '}},"meta":{"offset":',
        pl.col("offset").cast(pl.String),
        ',"partition":',
        pl.col("partition").cast(pl.String),
        processing(frame, version),
        instant("received_at"),
        '","topic":',
        pl.struct(pl.col("topic").alias("x")).struct.json_encode().str.strip_prefix('{"x":').str.strip_suffix("}"),
        "}}",
    ]
