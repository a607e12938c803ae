"""Compliance: many deletes at once, deletes out of hours, and changes of privileges, as labels and alerts.

What is counted is one batch (up to 20,000 changes, or a quarter of a second): a transaction of that size is seen whole, or
in two parts of which each may be below the limit. Slow mass deletion, a few rows an hour, is a question for the trail
(`chronicle changes`), not for a processor.

Each function makes a processor with limits of one's own; the module's own have the defaults. In a module of yours:

    from chronicle.examples.compliance import watch_bulk_deletes
    bulk_deletes = watch_bulk_deletes(rows_max=20, tables="shop.**")
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import polars as pl

from chronicle.errors import ConfigError
from chronicle.processors import Processor, alerts, label, processor

WORKDAYS = (1, 2, 3, 4, 5)
"""Monday to Friday."""
PRIVILEGES = ("role", "roles", "is_admin", "is_superuser", "permissions", "privileges", "grants", "scopes", "access_level")


def watch_bulk_deletes(rows_max: int = 100, *, tables: str | Sequence[str] = "**", name: str = "bulk_deletes") -> Processor:
    """More than `rows_max` deletes in one batch by one actor, or in one transaction: label `bulk_operation`, and an alert of
    severity high for each. A TRUNCATE is always one. An actor is counted within one source; the unknown actor is not."""

    @processor(tables=tables, name=name)
    def bulk_deletes(changes: pl.DataFrame) -> pl.DataFrame:
        deletes = changes.filter(pl.col("operation") == "delete")
        truncates = changes.filter(pl.col("operation") == "truncate")
        by_transaction, by_actor = (_many(deletes, who, rows_max) for who in ("transaction_id", "actor_id"))
        alerts.raise_(
            rule=f"{name}.transaction",
            severity="high",
            title="{deleted} rows deleted in one transaction of {source} by {actor_id}",
            changes=by_transaction.unique(["source", "transaction_id"], keep="first", maintain_order=True),
            extra=["deleted"],
            subject=["transaction_id"],
        )
        alerts.raise_(
            rule=f"{name}.actor",
            severity="high",
            title="{deleted} rows of {source} deleted at once by {actor_id}",
            changes=by_actor.unique(["source", "actor_id"], keep="first", maintain_order=True),
            extra=["deleted"],
            subject=["actor_id", "transaction_id"],
        )
        alerts.raise_(rule=f"{name}.truncate", severity="high", title="{table} was emptied by {actor_id}", changes=truncates)
        bulk = pl.concat([one["event_id"] for one in (by_transaction, by_actor, truncates)])
        return changes.with_columns(label("bulk_operation", pl.col("event_id").is_in(bulk.implode())))

    return bulk_deletes


def _many(deletes: pl.DataFrame, who: str, rows_max: int) -> pl.DataFrame:
    """Those of groups with more rows than allowed, with the group's number as `deleted`."""
    known = deletes.filter(pl.col(who).is_not_null())
    return known.with_columns(pl.len().over("source", who).alias("deleted")).filter(pl.col("deleted") > rows_max)


def watch_out_of_hours(
    zone: str = "UTC",
    *,
    opens: int = 7,
    closes: int = 19,
    days: Collection[int] = WORKDAYS,
    tables: str | Sequence[str] = "**",
    name: str = "out_of_hours",
) -> Processor:
    """Deletes and truncates outside of `opens` to `closes` o'clock in `zone`, or on other days than `days` (1 is Monday):
    label `out_of_hours`, `extra.local_time`, and one alert of severity medium for each actor and day of a source.

    Raises:
        ConfigError: there is no such time zone, or there are no such hours.
    """
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigError(f"name a time zone as Europe/Zurich is one, not {zone}") from None
    if not 0 <= opens < closes <= 24:
        raise ConfigError("give `opens` and `closes` as hours of one day, the first before the second")
    allowed = sorted(days)

    @processor(tables=tables, name=name, extra={"local_time": pl.String})
    def out_of_hours(changes: pl.DataFrame) -> pl.DataFrame:
        local = pl.col("committed_at").dt.convert_time_zone(zone)
        outside = ~local.dt.hour().is_between(opens, closes - 1) | ~local.dt.weekday().is_in(allowed)
        rows = changes.with_columns(
            (pl.col("operation").is_in(["delete", "truncate"]) & outside).alias("_outside"),
            local.dt.to_string("%Y-%m-%d").alias("_day"),
        ).with_columns(pl.when("_outside").then(local.dt.to_string("%Y-%m-%dT%H:%M:%S%:z")).alias("local_time"))
        alerts.raise_(
            rule=name,
            severity="medium",
            title="{actor_id} deleted rows of {source} at {local_time}",
            changes=rows.filter("_outside").unique(["source", "actor_id", "_day"], keep="first", maintain_order=True),
            extra=["local_time"],
            subject=["actor_id", "_day"],
        )
        return rows.with_columns(label("out_of_hours", pl.col("_outside")))

    return out_of_hours


def watch_privileges(
    columns: Sequence[str] = PRIVILEGES,
    *,
    labels: Sequence[str] = ("privilege_change",),
    tables: str | Sequence[str] = "**",
    name: str = "privileges",
) -> Processor:
    """An update of one of `columns`, or a change that the policy gives one of `labels`: label `privilege_change` and an alert
    of severity high, each. Names suffice: an update of a column whose values the policy hides is seen, too. An insert or a
    delete names no changed columns: let the policy label the table's (`[[tables.label]]`), which counts for these."""

    @processor(tables=tables, name=name)
    def privileges(changes: pl.DataFrame) -> pl.DataFrame:
        named = pl.col("changed").list.set_intersection(list(columns)).list.sort().list.join(", ")
        labelled = pl.col("labels").list.set_intersection(list(labels)).list.len() > 0
        rows = changes.with_columns(named.alias("_columns"), labelled.alias("_labelled"))
        rows = rows.with_columns(((pl.col("_columns") != "") | pl.col("_labelled")).fill_null(False).alias("_touched"))
        alerts.raise_(
            rule=name,
            severity="high",
            title="privileges of a row of {table} changed by {actor_id}",
            changes=rows.filter("_touched").with_columns(columns="_columns"),
            extra=["columns"],
        )
        return rows.with_columns(label("privilege_change", pl.col("_touched")))

    return privileges


bulk_deletes = watch_bulk_deletes()
out_of_hours = watch_out_of_hours()
privileges = watch_privileges()
