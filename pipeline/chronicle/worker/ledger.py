"""Which chunks were delivered, which are acknowledged, and what may be committed: bookkeeping without a broker.

A chunk is acknowledged whole. The offset to commit is the end of the longest *prefix* of acknowledged chunks, so
nothing that is still in flight is ever skipped. Every seek starts a new epoch: an acknowledgement of a chunk that was
delivered before it is void, because the chunk will be delivered again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

Partition = tuple[str, int]
"""Topic and partition number."""


@dataclass(frozen=True, slots=True, eq=False)
class Ticket:
    """One delivered chunk, as the ledger knows it. Compared by identity."""

    partition: Partition
    first: int
    """Offset of its first record."""
    last: int
    timestamp_ms: int
    """Of its first record."""
    rows: int
    size: int
    """Bytes of keys and values."""
    epoch: int


@dataclass(slots=True)
class _Lane:
    position: int  # the next offset to be delivered
    committable: int  # everything before it is acknowledged
    committed: int | None
    pending: deque[Ticket] = field(default_factory=deque)
    acked: set[int] = field(default_factory=set)  # last offsets, not yet part of the prefix
    newest_ms: int = 0  # of the newest acknowledged chunk's first record


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one partition stands: what metrics, watchdog and `--until-drained` look at."""

    partition: Partition
    position: int
    """The next offset to be delivered."""
    unacknowledged_from: int
    """The first offset that is not acknowledged; equals `position` when nothing is in flight."""
    oldest_ms: int | None
    """Time of the oldest record known to be unacknowledged, else of the newest acknowledged chunk; None: none seen."""


class Ledger:
    """Deliveries of all assigned partitions. Used from one thread; `standings` may be read from another."""

    def __init__(self) -> None:
        self.epoch = 0
        self.rows = 0
        """Delivered and not acknowledged."""
        self.size = 0
        """Bytes of the same."""
        self._lanes: dict[Partition, _Lane] = {}

    def reset(self) -> None:
        """Forget everything: partitions were revoked or will be sought again."""
        self.epoch += 1
        self.rows = self.size = 0
        self._lanes = {}

    def begin(self, partition: Partition, position: int, committed: int | None) -> None:
        """Start a partition at `position`. `committed` is what the group has, or None when it must be written anew."""
        self._lanes[partition] = _Lane(position, position, committed)

    def position(self, partition: Partition) -> int | None:
        """The next offset to be delivered, or None when the partition was not begun."""
        lane = self._lanes.get(partition)
        return None if lane is None else lane.position

    def deliver(self, partition: Partition, *, first: int, last: int, timestamp_ms: int, rows: int, size: int) -> Ticket:
        """Note a chunk that goes to the agent now; offsets `first` to `last`, both included."""
        lane = self._lanes[partition]
        ticket = Ticket(partition, first, last, timestamp_ms, rows, size, self.epoch)
        lane.pending.append(ticket)
        lane.position = last + 1
        self.rows += rows
        self.size += size
        return ticket

    def skip_to(self, partition: Partition, position: int) -> None:
        """Nothing is between the last record and `position` (transaction markers): it may be committed once idle."""
        lane = self._lanes.get(partition)
        if lane is not None and position > lane.position:
            lane.position = position
            if not lane.pending:
                lane.committable = position

    def acknowledge(self, ticket: Ticket) -> bool:
        """Mark a chunk as done. False when its epoch is over or it was acknowledged before."""
        if ticket.epoch != self.epoch:
            return False
        lane = self._lanes[ticket.partition]
        if ticket.last in lane.acked or ticket.last < lane.committable:
            return False
        self.rows -= ticket.rows
        self.size -= ticket.size
        lane.newest_ms = max(lane.newest_ms, ticket.timestamp_ms)
        lane.acked.add(ticket.last)
        while lane.pending and lane.pending[0].last in lane.acked:
            done = lane.pending.popleft()
            lane.acked.discard(done.last)
            lane.committable = done.last + 1
        if not lane.pending:
            lane.committable = lane.position
        return True

    def committable(self) -> dict[Partition, int]:
        """Offsets worth committing now: partition → the next offset to read after a restart."""
        return {
            partition: lane.committable
            for partition, lane in self._lanes.items()
            if lane.committed is None or lane.committable > lane.committed
        }

    def committed(self, offsets: Mapping[Partition, int], epoch: int) -> None:
        """The broker holds these offsets now; ignored when a new epoch began meanwhile."""
        if epoch != self.epoch:
            return
        for partition, offset in offsets.items():
            lane = self._lanes.get(partition)
            if lane is not None:
                lane.committed = offset

    def standings(self) -> Iterator[Standing]:
        """Where each partition stands."""
        for partition, lane in list(self._lanes.items()):
            try:
                head: Ticket | None = lane.pending[0]
            except IndexError:
                head = None
            oldest = head.timestamp_ms if head else (lane.newest_ms or None)
            yield Standing(partition, lane.position, head.first if head else lane.position, oldest)


@dataclass(frozen=True, slots=True)
class Gap:
    """Records that nobody can read any more: offsets `first` to `last`, both included."""

    partition: Partition
    first: int
    last: int
    reason: str

    def __str__(self) -> str:
        topic, number = self.partition
        return f"{topic}[{number}] offsets {self.first} to {self.last}: {self.reason}"


def find_gaps(
    committed: Mapping[Partition, int | None], starts: Mapping[Partition, int], ends: Mapping[Partition, int]
) -> list[Gap]:
    """Compare where the group stands with what the log holds.

    A partition without a committed offset is read from its start; when that is not offset 0, records are gone that nobody
    shows to have read: a group that begins late, or one whose offsets the broker forgot (after seven idle days by default).
    """
    gaps = []
    for partition, offset in committed.items():
        if offset is None or offset < 0:
            if starts[partition] > 0:
                gaps.append(Gap(partition, 0, starts[partition] - 1, "deleted by retention, and the group has no offset here"))
            continue
        if offset < starts[partition]:
            gaps.append(Gap(partition, offset, starts[partition] - 1, "deleted by retention before they were read"))
        elif offset > ends[partition]:
            gaps.append(
                Gap(partition, ends[partition], offset - 1, "the log ends before the committed offset: the topic was recreated")
            )
    return gaps


def describe(gaps: Iterable[Gap]) -> str:
    """The text a stopped worker leaves: what is missing, and how to go on."""
    lines = [str(gap) for gap in gaps]
    return "\n".join(
        [
            "records are missing; take a new snapshot of the tables named below, then start once with --accept-gap",
            *lines[:20],
            *([f"… and {len(lines) - 20} more partitions"] if len(lines) > 20 else []),
        ]
    )
