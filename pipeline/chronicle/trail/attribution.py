"""How much of the trail says who did it: the share of each rung, and what was written without a word about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from clickhouse_connect.driver.client import Client

from chronicle.trail.reading import micros, rows
from chronicle.trail.tables import TableName

RUNGS = ("message", "table", "comment", "row", "pending", "none")
"""`attribution`, best first. Pending: the transaction's END was not read yet."""
UNATTRIBUTED = ("pending", "none")
_WHERE = "operation != 'snapshot' AND stub = '' AND committed_at >= fromUnixTimestamp64Micro({since:Int64}, 'UTC')"


@dataclass(frozen=True, slots=True)
class Attributed:
    """Changes counted by `attribution`."""

    by_rung: Mapping[str, int]

    @property
    def changes(self) -> int:
        """All of them."""
        return sum(self.by_rung.values())

    @property
    def unattributed(self) -> int:
        """Changes of which nobody said who did them, or not yet."""
        return sum(self.by_rung.get(rung, 0) for rung in UNATTRIBUTED)

    @property
    def share(self) -> float | None:
        """Of the changes whose author is known, 0 to 1; None: there are no changes."""
        return None if not self.changes else 1 - self.unattributed / self.changes

    def as_json(self) -> dict[str, Any]:
        """Flat, for a pipe."""
        by_rung = {rung: self.by_rung.get(rung, 0) for rung in RUNGS}
        return {"changes": self.changes, "attributed_share": self.share, "by_rung": by_rung}


@dataclass(frozen=True, slots=True)
class OutOfBand:
    """A transaction that ended without a context, a comment or a rule for its rows: written past the application."""

    source: str
    transaction_id: str
    committed_at: datetime
    changes: int
    tables: tuple[str, ...]
    operations: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Flat, for a pipe."""
        return {
            "source": self.source,
            "transaction_id": self.transaction_id,
            "committed_at": self.committed_at.isoformat(),
            "changes": self.changes,
            "tables": list(self.tables),
            "operations": list(self.operations),
        }


@dataclass(frozen=True, slots=True)
class Report:
    """Snapshot rows and stubs are left out: the former are observations, the latter rows that policy left out."""

    total: Attributed
    late: int
    """Changes whose context was read only after they had been written."""
    tables: Mapping[TableName, Attributed]
    out_of_band: tuple[OutOfBand, ...]
    """The newest."""
    out_of_band_transactions: int
    """All of them."""

    def as_json(self) -> dict[str, Any]:
        """One document, for a pipe. Database users are not in it: no connector's records name them."""
        return {
            **self.total.as_json(),
            "late": self.late,
            "tables": [
                {"source": name.source, "schema": name.schema, "table": name.table, **one.as_json()}
                for name, one in self.tables.items()
            ],
            "out_of_band_transactions": self.out_of_band_transactions,
            "out_of_band": [one.as_json() for one in self.out_of_band],
        }


def report(client: Client, database: str, *, since: datetime | None = None, limit: int = 20) -> Report:
    """Count changes committed since then (None: all), late contexts included; the `limit` newest out-of-band transactions.

    Raises as `reading.rows`.
    """
    asked: dict[str, Any] = {"database": database, "since": 0 if since is None else micros(since), "limit": limit}
    tables: dict[TableName, dict[str, int]] = {}
    total: dict[str, int] = {}
    late = 0
    counted = f"""
        SELECT source, schema, table, attribution, count() AS changes, countIf(attributed_late) AS late
        FROM {{database:Identifier}}.attributed_changes WHERE {_WHERE} GROUP BY source, schema, table, attribution ORDER BY ALL
    """  # noqa: S608  (built from this module's own texts; every value is bound)
    for row in rows(client, counted, asked):
        by_rung = tables.setdefault(TableName(row["source"], row["schema"], row["table"]), {})
        by_rung[row["attribution"]] = row["changes"]
        total[row["attribution"]] = total.get(row["attribution"], 0) + row["changes"]
        late += row["late"]
    found = rows(client, _OUT_OF_BAND, asked) if total.get("none") else []
    return Report(
        Attributed(total),
        late,
        {name: Attributed(by_rung) for name, by_rung in tables.items()},
        tuple(
            OutOfBand(
                row["source"],
                row["transaction"],
                row["committed"],
                row["changes"],
                tuple(row["tables"]),
                tuple(row["operations"]),
            )
            for row in found
        ),
        found[0]["transactions"] if found else 0,
    )


_OUT_OF_BAND = f"""
    SELECT
        source, assumeNotNull(transaction_id) AS transaction, max(committed_at) AS committed, count() AS changes,
        arraySort(groupUniqArray(concat(schema, '.', table))) AS tables,
        arraySort(groupUniqArray(operation)) AS operations, count() OVER () AS transactions
    FROM {{database:Identifier}}.attributed_changes
    WHERE {_WHERE} AND attribution = 'none' AND transaction_id IS NOT NULL
    GROUP BY source, epoch, transaction_id ORDER BY committed DESC, transaction DESC LIMIT {{limit:UInt64}}
"""  # noqa: S608  (built from this module's own texts; every value is bound)
