"""Archival: marks changes of closed requisitions with the day from which their rows may be archived, and those past it.

A processor sees a row when it changes, not when a day comes: `archive_after` stands on every change of a closed campaign,
so that a job asks the trail for those whose day has come; the label `archivable` is on changes that were made after it. No
alerts. Needed in clear: campaigns.status, .closes_at.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from chronicle.errors import ConfigError
from chronicle.processors import Processor, label, processor, read


def mark_archivable(
    days: int = 365, *, tables: str | Sequence[str] = "hiring.hiring.campaigns", name: str = "archival"
) -> Processor:
    """Campaigns with status `closed`: `extra.archive_after`, the day `days` after `closes_at` (without it: after the
    commit that closed them), and label `archivable` on changes made on that day or later.

    Raises:
        ConfigError: `days` is negative.
    """
    if days < 0:
        raise ConfigError("give `days` as a number that is not negative")

    @processor(tables=tables, name=name, extra={"archive_after": pl.Date})
    def archival(changes: pl.DataFrame) -> pl.DataFrame:
        rows = read(changes, before={"status": pl.String}, after={"status": pl.String, "closes_at": pl.Datetime("us")})
        commit = pl.col("committed_at").dt.replace_time_zone(None)
        closing = pl.col("before_known") & pl.col("before.status").ne_missing("closed") & (pl.col("operation") == "update")
        closed_at = pl.coalesce("after.closes_at", pl.when(closing).then(commit))
        due = pl.when(pl.col("after.status") == "closed").then(closed_at.dt.date() + pl.duration(days=days))
        rows = rows.with_columns(due.alias("archive_after"))
        return rows.with_columns(label("archivable", commit.dt.date() >= pl.col("archive_after")))

    return archival


archival = mark_archivable()
