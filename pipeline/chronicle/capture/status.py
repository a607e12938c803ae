"""How each source is doing: its tasks, its position, what it lags behind, and what its slot holds back."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chronicle.capture import snapshots
from chronicle.capture.connect import ConnectClient, TaskState
from chronicle.capture.database import Queries, connect
from chronicle.capture.plan import EPOCH
from chronicle.capture.slots import Slot, slot
from chronicle.capture.sources import Source
from chronicle.config import Kafka
from chronicle.errors import ChronicleError


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """One source. What could not be learnt is None, and `notes` says why."""

    name: str
    kind: str
    state: str
    """The connector's: RUNNING, PAUSED, STOPPED, FAILED, UNASSIGNED or absent."""
    tasks: tuple[TaskState, ...] = ()
    cause: str | None = None
    """First cause of the connector's own failure; a task has its own."""
    epoch: int | None = None
    """The deployed one."""
    position: str | None = None
    """The position that Connect has stored."""
    lag_bytes: int | None = None
    """From the stored position to the end of the database's log: an upper bound, it is stored every few seconds."""
    idle_s: float | None = None
    """Since the last change that the stored position covers."""
    slot: Slot | None = None
    notes: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        """Running, with every task; what somebody paused or stopped is not an error, but not healthy either."""
        return self.state == "RUNNING" and bool(self.tasks) and all(task.state == "RUNNING" for task in self.tasks)

    def as_json(self) -> dict[str, Any]:
        return {
            "source": self.name,
            "kind": self.kind,
            "state": self.state,
            "healthy": self.healthy,
            "cause": self.cause,
            "tasks": [{"id": task.id, "state": task.state, "worker": task.worker, "cause": task.cause} for task in self.tasks],
            "epoch": self.epoch,
            "position": self.position,
            "lag_bytes": self.lag_bytes,
            "idle_s": self.idle_s,
            "slot": self.slot.as_json() if self.slot else None,
            "notes": list(self.notes),
        }


def status(source: Source, client: ConnectClient, environment: Mapping[str, str], kafka: Kafka | None = None) -> SourceStatus:
    """Ask Connect, and the database when it can be reached (otherwise a note says why not).

    With `kafka`, notes also name the tables whose last snapshot failed: Debezium skips them and stays RUNNING.

    Raises:
        TransientError: Connect is not reachable.
    """
    state = client.state(source.name)
    config = client.config(source.name) if state is not None else None
    offsets = client.offsets(source.name) if state is not None else None
    notes: list[str] = []
    lag, its_slot = None, None
    try:
        with connect(source, environment) as database:
            if source.kind == "postgres":
                its_slot = slot(database, source.slot)
                lag = _postgres_lag(database, offsets)
            else:
                lag = _binlog_lag(database, offsets)
    except ChronicleError as error:
        notes.append(f"lag unknown: {error}")
    if state is None:
        if its_slot is not None:
            notes.append(f"slot {its_slot.name} is there without a connector, and fills the disk: apply, or drop it")
        return SourceStatus(source.name, source.kind, "absent", slot=its_slot, notes=tuple(notes))
    epoch = (config or {}).get(EPOCH)
    if epoch is not None and epoch != str(source.epoch):
        notes.append(f"epoch {epoch} is deployed, the file says {source.epoch}: run `chronicle connectors apply {source.name}`")
    if its_slot is not None and its_slot.wal_status == "lost":
        notes.append(f"slot {its_slot.name} is lost: run `chronicle connectors apply {source.name} --new-epoch`")
    if state.failure is not None:
        notes.append(f"once the cause is gone: `chronicle connectors restart {source.name}`{_meaning(state.failure)}")
    if kafka is not None:
        try:
            notes += [snapshots.failure_note(source, scan) for scan in snapshots.failures(kafka, source)]
        except ChronicleError as error:
            notes.append(f"snapshots unknown: {error}")
    return SourceStatus(
        source.name,
        source.kind,
        state.state,
        state.tasks,
        state.cause,
        int(epoch) if epoch is not None and epoch.isdigit() else None,
        _position(source, offsets),
        lag,
        _idle_s(source, offsets),
        its_slot,
        tuple(notes),
    )


def _meaning(failure: str) -> str:
    """Apicurio's client says only that it failed."""
    return " (the cause: the schema registry was away, or refused a schema)" if "RestClientException" in failure else ""


def _position(source: Source, offsets: Mapping[str, Any] | None) -> str | None:
    if not offsets:
        return None
    if source.kind == "postgres":
        lsn = offsets.get("lsn")
        return None if lsn is None else f"{int(lsn) >> 32:X}/{int(lsn) & 0xFFFFFFFF:X}"
    return f"{offsets['file']}:{offsets['pos']}" if "file" in offsets else None


def _idle_s(source: Source, offsets: Mapping[str, Any] | None) -> float | None:
    """Debezium notes the commit time: microseconds on PostgreSQL, seconds in a binlog."""
    if not offsets:
        return None
    at = offsets.get("ts_usec", 0) / 1e6 if source.kind == "postgres" else offsets.get("ts_sec", 0)
    return round(max(0.0, time.time() - at), 1) if at else None


def _postgres_lag(database: Queries, offsets: Mapping[str, Any] | None) -> int | None:
    if not offsets or offsets.get("lsn") is None:
        return None
    end = database.rows("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint AS lsn")[0]["lsn"]
    return max(0, int(end) - int(offsets["lsn"]))


def _binlog_lag(database: Queries, offsets: Mapping[str, Any] | None) -> int | None:
    if not offsets or "file" not in offsets:
        return None
    logs = {row["log_name"]: int(row["file_size"]) for row in database.rows("SHOW BINARY LOGS")}
    file, position = offsets["file"], int(offsets["pos"])
    if file not in logs:
        return None
    return max(0, sum(size for name, size in logs.items() if name >= file) - position)
