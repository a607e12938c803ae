"""Deliveries: which changes and events of a batch each route takes, and what it sends of them as records of its topic.

Routes come last, after policy, attribution, reference data and processors: what a route sends is what the audit topic has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import polars as pl

from chronicle.codec import audit, audit_events
from chronicle.policy.routing import event_type, matches
from chronicle.policy.rules import Route, RouteFormat

Flags = npt.NDArray[np.bool_]
Holds = Callable[[Route, pl.DataFrame], pl.Series]
"""For a route with `where`: one Boolean for each of these changes, of the row in clear; null: nothing of this table."""

CONDITIONS = "_where"
"""Beside the columns of `CHANGES`, where a route has a `where`: List(String), names of the routes whose `where` is true of
the row. Made by the pure path, which alone sees clear values."""
MISFIT = "!"
"""Before a name in `CONDITIONS`: the condition does not fit the columns of the row's table."""
CLOUDEVENTS_TYPE = "application/cloudevents+json"
_TYPE = ("source", "schema", "table", "operation")
_LASTING = ("delete", "truncate")
"""Operations that `where` and `sample` spare, unless `where_deletes`: whoever has a row must hear of its end."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """Records of one topic, in the order of the changes."""

    topic: str
    format: RouteFormat
    records: audit.Records


def by_path(route: Route, changes: pl.DataFrame) -> pl.Series:
    """`Holds` out of the column `CONDITIONS`."""
    said = pl.col(CONDITIONS)
    return changes.select(pl.when(~said.list.contains(MISFIT + route.name)).then(said.list.contains(route.name))).to_series()


class Router:
    """What the routes of a policy make of batches."""

    def __init__(self, routes: Sequence[Route], *, holds: Holds = by_path) -> None:
        self.routes = tuple(routes)
        self._holds = holds
        self._taking = lru_cache(maxsize=65_536)(self._matching)

    @property
    def topics(self) -> frozenset[str]:
        """All that are fed."""
        return frozenset(route.to for route in self.routes)

    def _matching(self, event: str) -> tuple[int, ...]:
        return tuple(index for index, route in enumerate(self.routes) if matches(route.match, event))

    def deliveries(self, changes: pl.DataFrame, partitions: Callable[[str], int], *, version: str) -> list[Delivery]:
        """What goes where. `changes`: columns as in `model.columns.CHANGES`; stubs go nowhere. `partitions`: of a topic.

        Key: the event id. Partition: by entity, as in the audit topic, so that a row's records stay in order.
        """
        taken = self.taken(changes)
        return [
            delivery(topic, form, changes.filter(pl.Series(flags)), partitions(topic), version=version)
            for (topic, form), flags in taken.items()
            if flags.any()
        ]

    def event_deliveries(self, events: pl.DataFrame, partitions: Callable[[str], int], *, version: str) -> list[Delivery]:
        """What goes where of what applications said. `events`: columns as in `model.event_columns.EVENTS`.

        Patterns match the event's type. A route with `where` takes none: its condition is about a table's columns.
        """
        found: dict[tuple[str, RouteFormat], Flags] = {}
        types = events["type"].unique().to_list()
        routes_of = {type_: self._taking(type_) for type_ in types}
        for index, route in enumerate(self.routes):
            mine = [type_ for type_ in types if index in routes_of[type_]]
            if not mine or route.where is not None:
                continue
            flags = events["type"].is_in(mine).to_numpy()
            if route.sample is not None:
                flags = flags & (_share(events["event_id"]) < route.sample)
            if route.labels:
                flags = flags & _labelled(events, route)
            at = (route.to, route.format)
            found[at] = found[at] | flags if at in found else flags
        return [
            event_delivery(topic, form, events.filter(pl.Series(flags)), partitions(topic), version=version)
            for (topic, form), flags in found.items()
            if flags.any()
        ]

    def taken(self, changes: pl.DataFrame) -> Mapping[tuple[str, RouteFormat], Flags]:
        """By topic, which of the changes it gets: those that any of its routes takes."""
        found: dict[tuple[str, RouteFormat], Flags] = {}
        if not len(changes):
            return found
        # few distinct event types, many rows: patterns are matched against the types
        types = changes.select(_TYPE).unique(maintain_order=True).with_row_index("_type")
        kind = changes.select(_TYPE).join(types, on=_TYPE, how="left", maintain_order="left")["_type"].to_numpy()
        routes_of = [self._taking(event_type(*names)) for names in types.select(_TYPE).iter_rows()]
        told = (changes["stub"].fill_null("") == "").to_numpy()
        for index, route in enumerate(self.routes):
            mine = np.array([index in routes for routes in routes_of], np.bool_)
            if not mine.any():
                continue
            flags = mine[kind] & told
            if flags.any():
                flags = flags & self._chosen(route, changes)
            at = (route.to, route.format)
            found[at] = found[at] | flags if at in found else flags
        return found

    def _chosen(self, route: Route, changes: pl.DataFrame) -> Flags:
        """What labels, `where` and `sample` leave."""
        chosen, fits = np.ones(len(changes), np.bool_), np.ones(len(changes), np.bool_)
        if route.where is not None:
            holds = self._holds(route, changes)
            chosen, fits = holds.fill_null(False).to_numpy() & chosen, holds.is_not_null().to_numpy()
        if route.sample is not None:
            chosen &= _share_of(changes) < route.sample
        if not route.where_deletes:
            chosen |= changes["operation"].is_in(_LASTING).to_numpy() & fits
        if route.labels:
            chosen &= _labelled(changes, route)
        return chosen


def _labelled(rows: pl.DataFrame, route: Route) -> Flags:
    """Those with one of the route's labels."""
    wanted = pl.Series([list(route.labels)], dtype=pl.List(pl.String))
    common = pl.col("labels").list.set_intersection(pl.lit(wanted).first()).list.len() > 0
    return rows.select(common).to_series().fill_null(False).to_numpy()


def event_delivery(topic: str, form: RouteFormat, events: pl.DataFrame, partitions: int, *, version: str) -> Delivery:
    """As `delivery`, of what applications said. A CloudEvent's `id` is the record's key: by the application's own id
    alone, readers would take events of two tenants or types for one."""
    records = audit_events.events(events, partitions=partitions, version=version)
    if form is RouteFormat.CLOUDEVENTS:
        frame = events.select("source", "type", pl.col("time").alias("at")).with_columns(
            pl.Series("id", records.keys, dtype=pl.Binary).cast(pl.String),
            pl.Series("record", records.values, dtype=pl.Binary).cast(pl.String),
        )
        records = audit.Records(records.keys, _enveloped(frame, ()), records.partitions)
    return Delivery(topic, form, records)


def delivery(topic: str, form: RouteFormat, changes: pl.DataFrame, partitions: int, *, version: str) -> Delivery:
    """These changes as records of a topic with so many partitions. `version`: Chronicle's."""
    records = audit.changes(changes, partitions=partitions, version=version)
    if form is RouteFormat.CLOUDEVENTS:
        records = audit.Records(records.keys, _cloudevents(changes, records), records.partitions)
    return Delivery(topic, form, records)


def _cloudevents(changes: pl.DataFrame, records: audit.Records) -> list[bytes]:
    """CloudEvents 1.0, JSON, structured: `id` the event id, `subject` the entity, `data` the audit record."""
    types = changes.select(_TYPE).unique(maintain_order=True)
    named = types.with_columns(pl.Series("_event", [event_type(*row) for row in types.iter_rows()], dtype=pl.String))
    events = changes.select(_TYPE).join(named, on=_TYPE, how="left", maintain_order="left")["_event"]
    text = pl.DataFrame({"id": records.keys, "record": records.values}, schema={"id": pl.Binary, "record": pl.Binary})
    frame = changes.select(pl.col("committed_at").alias("at"), "source").hstack(
        [
            text["id"].cast(pl.String),
            text["record"].cast(pl.String),
            audit.uuid_text(changes["entity"]).alias("entity"),
            events.alias("type"),
        ]
    )
    return _enveloped(frame, (pl.lit('","subject":"'), pl.col("entity")))


def _enveloped(frame: pl.DataFrame, subject: Sequence[pl.Expr]) -> list[bytes]:
    """`frame`: id, source, type, at, and the audit record."""
    naive = pl.col("at").dt.cast_time_unit("us").dt.replace_time_zone(None)
    pieces = (
        pl.lit('{"data":'),
        pl.col("record"),
        pl.lit(',"datacontenttype":"application/json","id":"'),
        _inside(pl.col("id")),
        pl.lit('","source":"/chronicle/'),
        _inside(pl.col("source")),
        pl.lit('","specversion":"1.0'),
        *subject,
        pl.lit('","time":"'),
        naive.dt.to_string("%Y-%m-%dT%H:%M:%S%.6fZ"),
        pl.lit('","type":"chronicle.'),
        _inside(pl.col("type")),
        pl.lit('"}'),
    )
    made: list[bytes] = frame.select(pl.concat_str(pieces)).to_series().cast(pl.Binary).to_list()
    return made


def _inside(text: pl.Expr) -> pl.Expr:
    """Inside of a JSON string, escaped by Polars' own writer."""
    return pl.struct(text.alias("x")).struct.json_encode().str.strip_prefix('{"x":"').str.strip_suffix('"}')


def _share_of(changes: pl.DataFrame) -> npt.NDArray[np.float64]:
    """Where in [0, 1) each entity stands, the same in every route and every run; a row without a key by itself."""
    return _share(changes.select(pl.when(pl.col("key") == "").then("event_id").otherwise("entity")).to_series())


def _share(names: pl.Series) -> npt.NDArray[np.float64]:
    first = np.frombuffer(b"".join(names.to_list()), ">u8").reshape(len(names), 2)[:, 0]
    return np.asarray(first / 2.0**64, np.float64)
