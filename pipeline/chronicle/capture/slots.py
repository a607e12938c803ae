"""PostgreSQL's replication slots and publications: what they hold back, and dropping them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chronicle.capture.database import Queries, connect
from chronicle.capture.sources import Source
from chronicle.errors import ChronicleError

DROP_DEADLINE_S = 15.0
POLL_INTERVAL_S = 0.3


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot's state. Bytes are of WAL."""

    name: str
    active: bool
    wal_status: str
    """reserved, extended, unreserved or lost (PostgreSQL's words)."""
    retained_bytes: int
    """What the server keeps on disk for it."""
    lag_bytes: int
    """Written, but not confirmed by the connector."""
    safe_bytes: int | None
    """What may still be written before the slot is lost; None without max_slot_wal_keep_size."""

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "active": self.active,
            "wal_status": self.wal_status,
            "retained_bytes": self.retained_bytes,
            "lag_bytes": self.lag_bytes,
            "safe_bytes": self.safe_bytes,
        }


def slot(database: Queries, name: str) -> Slot | None:
    """The slot's state, or None when there is no such slot."""
    found = database.rows(
        "SELECT active, coalesce(wal_status, 'unknown') AS wal_status, safe_wal_size,"
        " coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint AS retained,"
        " coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn), 0)::bigint AS lag"
        " FROM pg_replication_slots WHERE slot_name = %s",
        name,
    )
    if not found:
        return None
    row = found[0]
    return Slot(name, bool(row["active"]), row["wal_status"], int(row["retained"]), int(row["lag"]), row["safe_wal_size"])


def drop_slot(source: Source, environment: Mapping[str, str]) -> bool:
    """Drop the source's slot; False when there is none. Waits a little while the stopped connector still holds it.

    Raises:
        Unreachable: the database cannot be reached.
        ChronicleError: the slot stays in use.
    """
    deadline = time.monotonic() + DROP_DEADLINE_S
    with connect(source, environment) as database:
        while (found := slot(database, source.slot)) is not None:
            if not found.active:
                database.rows("SELECT pg_drop_replication_slot(%s)", source.slot)
                return True
            if time.monotonic() > deadline:
                raise ChronicleError(f"stop what reads slot {source.slot}, then try again: it is still in use")
            time.sleep(POLL_INTERVAL_S)
    return False


def drop_publication(source: Source, environment: Mapping[str, str]) -> bool:
    """Drop the source's publication; False when there is none. Raises Unreachable as `drop_slot` does."""
    with connect(source, environment) as database:
        if not database.rows("SELECT 1 AS one FROM pg_publication WHERE pubname = %s", source.publication):
            return False
        quoted = source.publication.replace('"', '""')
        database.execute(f'DROP PUBLICATION IF EXISTS "{quoted}"')
        return True
