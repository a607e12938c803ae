"""The pure path for tests: what becomes of given records, without a broker, a registry, ClickHouse or a clock.

from chronicle.testing import Record, run

batch = run([Record("shop.public.customers", value=b"…", key=b"…")], schemas={7: "…"})
assert batch.changes["operation"].to_list() == ["create"]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from chronicle.model.batch import Batch
from chronicle.model.chunk import Chunk, Headers, SourceSpec
from chronicle.policy.file import ALL_CLEAR, Policy
from chronicle.policy.keyring import EMPTY, KeyRing
from chronicle.stages.path import Path
from chronicle.stages.table_plan import Rules, compiled

IDENTITY_KEY = b"chronicle.testing: not a secret."
"""Event ids of a test are not those of any deployment."""


@dataclass(frozen=True, slots=True)
class Record:
    """One Kafka record as Debezium writes it."""

    topic: str
    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()
    partition: int = 0
    offset: int | None = None
    """None: one more than the offset of the record before it in this partition, or 0."""
    timestamp_ms: int = 0


def chunks(records: Iterable[Record]) -> list[Chunk]:
    """One chunk a partition, records in the order given."""
    by_partition: dict[tuple[str, int], list[Record]] = {}
    for record in records:
        by_partition.setdefault((record.topic, record.partition), []).append(record)
    return [_chunk(topic, partition, mine) for (topic, partition), mine in by_partition.items()]


def _chunk(topic: str, partition: int, records: Sequence[Record]) -> Chunk:
    offsets: list[int] = []
    for record in records:
        following = offsets[-1] + 1 if offsets else 0
        offsets.append(following if record.offset is None else record.offset)
    return Chunk(
        topic,
        partition,
        offsets,
        [record.timestamp_ms for record in records],
        [record.key for record in records],
        [record.value for record in records],
        [record.headers for record in records],
    )


def run(
    records: Iterable[Record],
    *,
    schemas: Mapping[int, str | None] | None = None,
    sources: Sequence[SourceSpec] = (),
    identity_key: bytes = IDENTITY_KEY,
    policy: Policy = ALL_CLEAR,
    now_us: int = 0,
) -> Batch:
    """Take records through the whole pure path.

    `schemas`: Avro schemas by registry id; none is needed for JSON. `sources`: as `SourceSpec`; when none is given, what
    stands before the first dot of each topic is one, with the most careful settings.
    """
    found = chunks(records)
    names = dict.fromkeys(chunk.topic.partition(".")[0] for chunk in found)
    specs = sources or [SourceSpec(name, "") for name in names]
    return Path(specs, identity_key, rules(policy, identity_key)).run(found, schemas or {}, now_us)


def rules(policy: Policy = ALL_CLEAR, identity_key: bytes = IDENTITY_KEY, ring: KeyRing = EMPTY) -> Rules:
    """A policy with its keys, as the pure path takes it; secrets of a test protect nothing."""
    return compiled(policy, ring, identity_key, nonce="0" * 32)
