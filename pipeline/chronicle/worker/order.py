"""Notices a MySQL or MariaDB server that started over: its binlog positions go back while its GTIDs rise (fact 41).

Within one epoch of a source, two changes of the same GTID domain must stand in the same order by sequence number and by
binlog position. A redelivery after a restart of Connect keeps that law (it brings old numbers with their old positions),
`RESET MASTER` breaks it, and the connector does not notice. Kept in memory: a server that started over while no worker
ran is not seen by this guard. MySQL without GTIDs and Postgres (whose connector fails loudly by itself) are not judged.
"""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from chronicle.errors import StopWorker
from chronicle.model.batch import Batch

_MARIADB = r"^(\d+)-\d+-(\d+)$"  # domain-server-sequence
_MYSQL = r"^([0-9a-fA-F-]{36}(?::[A-Za-z_]\w*)?):(\d+)$"  # uuid[:tag]:sequence


class PositionGuard:
    """Call it with every batch before it reaches a sink."""

    def __init__(self, *, accept: bool = False, warn: Callable[[str], None] = lambda _text: None) -> None:
        """With `accept` a source that started over is only warned of."""
        self._accept = accept
        self._warn = warn
        self._highest: dict[tuple[str, int, str], tuple[int, tuple[int, int]]] = {}  # → sequence, its highest position

    def __call__(self, batch: Batch) -> None:
        """Raises StopWorker when positions of a source go back within its epoch."""
        for source, epoch, domain, sequence, first, last in self._summary(batch.changes):
            lane = (source, epoch, domain)
            known = self._highest.get(lane)
            if known is None:
                self._highest[lane] = (sequence, last)
                continue
            if (sequence > known[0] and first < known[1]) or (sequence < known[0] and last > known[1]):
                self._started_over(source)
                self._highest[lane] = (sequence, last)  # only reached when accepted
            elif sequence > known[0]:
                self._highest[lane] = (sequence, last)
            elif sequence == known[0]:
                self._highest[lane] = (sequence, max(last, known[1]))

    def _summary(self, changes: pl.DataFrame) -> list[tuple[str, int, str, int, tuple[int, int], tuple[int, int]]]:
        """Per source, epoch and domain: the lowest and the highest sequence number with their first and last positions."""
        streamed = changes.lazy().filter(
            pl.col("connector").is_in(["mysql", "mariadb"])
            & (pl.col("operation") != "snapshot")
            & pl.col("transaction_id").is_not_null()
        )
        parts = streamed.select(
            "source",
            "epoch",
            pl.coalesce(
                pl.col("transaction_id").str.extract(_MARIADB, 1), pl.col("transaction_id").str.extract(_MYSQL, 1)
            ).alias("domain"),
            pl.coalesce(pl.col("transaction_id").str.extract(_MARIADB, 2), pl.col("transaction_id").str.extract(_MYSQL, 2))
            .cast(pl.UInt64, strict=False)
            .alias("sequence"),
            "position_hi",
            "position_lo",
        ).filter(pl.col("sequence").is_not_null())
        lanes = ["source", "epoch", "domain"]
        bounds = (pl.col("sequence") == pl.col("sequence").min().over(lanes)) | (
            pl.col("sequence") == pl.col("sequence").max().over(lanes)
        )
        found = (
            parts.filter(bounds)
            .sort("sequence", "position_hi", "position_lo")
            .group_by(*lanes, "sequence", maintain_order=True)
            .agg(
                pl.struct("position_hi", "position_lo").first().alias("first"),
                pl.struct("position_hi", "position_lo").last().alias("last"),
            )
            .collect()
        )
        return [
            (source, epoch, domain, sequence, _pair(first), _pair(last))
            for source, epoch, domain, sequence, first, last in found.rows()
        ]

    def _started_over(self, source: str) -> None:
        text = (
            f"source {source}: binlog positions go back while GTIDs rise: the server started over (RESET MASTER, failover). "
            f"Run `chronicle connectors apply {source} --new-epoch`, or start once with --accept-gap"
        )
        if not self._accept:
            raise StopWorker(text)
        self._warn(text)


def _pair(position: dict[str, int]) -> tuple[int, int]:
    return position["position_hi"], position["position_lo"]
