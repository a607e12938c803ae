"""What Chronicle changes inside aiokafka: cheap records, a bounded poll, and calls that survive a broker that is away."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import structlog
from aiokafka.consumer import fetcher as aiokafka_fetcher
from aiokafka.errors import CommitFailedError, CorruptRecordException, IllegalStateError
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread

from chronicle.worker.ledger import Partition

log = structlog.get_logger("chronicle.transport")


class ChunkRecords(aiokafka_fetcher.PartitionRecords):  # type: ignore[misc]
    """Hands out aiokafka's C records; its own frozen dataclass per record costs 2 us more (fact 43).

    A C record has offset, timestamp, key, value and headers, but neither topic nor partition.
    """

    def __iter__(self) -> Iterator[Any]:
        return self._records_iterator  # type: ignore[no-any-return]  # without a call in Python for each record

    def _unpack_records(self) -> Iterator[Any]:
        if self._isolation_level == aiokafka_fetcher.READ_COMMITTED:
            yield from super()._unpack_records()
            return
        while self._records.has_next():
            batch = self._records.next_batch()
            if self._check_crcs and not batch.validate_crc():
                raise CorruptRecordException(f"Invalid CRC - {self._tp}")
            if batch.is_control_batch:
                self.next_fetch_offset = batch.next_offset
                continue
            first = self.next_fetch_offset
            for record in batch:
                if record.offset < first:
                    continue  # a compressed batch starts before the position
                self.next_fetch_offset = record.offset + 1
                yield record
            # the last offset of a batch counts even when compaction removed its record
            self.next_fetch_offset = batch.next_offset


class FetchThread(AIOKafkaConsumerThread):
    """The consumer's own thread: heartbeats go on while a batch is processed or a declared retry waits."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        aiokafka_fetcher.PartitionRecords = ChunkRecords
        return super()._create_worker_consumer(transport)

    def verify_event_path(self, now: float, tp: Any) -> None:
        """Silent: Chronicle's watchdog judges progress, and this one complains about declared retries."""

    async def poll(self, active: set[Any], *, timeout: float, max_records: int) -> Mapping[Any, list[Any]]:
        """Fetched records of the partitions in `active`, at most `max_records`; empty after `timeout` seconds."""
        return await self.call_thread(  # type: ignore[no-any-return]
            self._fetch_records, self._ensure_consumer(), active, timeout=timeout, max_records=max_records
        )

    async def offsets(
        self, partitions: Iterable[Any]
    ) -> tuple[dict[Partition, int | None], dict[Partition, int], dict[Partition, int]]:
        """What the group committed (None: nothing), where each log starts, and where it ends."""
        return await self.call_thread(self._offsets, [TopicPartition(*tp) for tp in partitions])  # type: ignore[no-any-return]

    async def _offsets(
        self, tps: list[TopicPartition]
    ) -> tuple[dict[Partition, int | None], dict[Partition, int], dict[Partition, int]]:
        consumer = self._ensure_consumer()
        found = await consumer._coordinator.fetch_committed_offsets(tps)  # one request for all, unlike committed()
        starts = await consumer.beginning_offsets(tps)
        ends = await consumer.end_offsets(tps)
        committed: dict[Partition, int | None] = {}
        for tp in tps:
            offset = found[tp].offset if tp in found else -1
            committed[tuple(tp)] = offset if offset >= 0 else None
        return committed, {tuple(tp): n for tp, n in starts.items()}, {tuple(tp): n for tp, n in ends.items()}

    async def seek_all(self, positions: Mapping[Partition, int], fetch_bytes: int) -> bool:
        """Continue at these positions; False when a rebalance took a partition away meanwhile."""
        return await self.call_thread(self._seek_all, positions, fetch_bytes)  # type: ignore[no-any-return]

    async def _seek_all(self, positions: Mapping[Partition, int], fetch_bytes: int) -> bool:
        consumer = self._ensure_consumer()
        # aiokafka keeps up to this much of each partition before anyone asks for it: bound the sum
        consumer._fetcher._max_partition_fetch_bytes = fetch_bytes
        try:
            for partition, offset in positions.items():
                consumer.seek(TopicPartition(*partition), offset)
        except IllegalStateError:
            return False
        return True

    async def positions(self, partitions: Iterable[Any]) -> dict[Partition, int]:
        """Where the fetcher stands, transaction markers skipped; only partitions that have a position."""
        return await self.call_thread(self._positions, list(partitions))  # type: ignore[no-any-return]

    async def _positions(self, partitions: list[Any]) -> dict[Partition, int]:
        subscription = self._ensure_consumer()._subscription.subscription
        assignment = subscription.assignment if subscription else None
        found: dict[Partition, int] = {}
        for tp in partitions:
            key = TopicPartition(*tp)
            if assignment is not None and key in assignment.tps:
                state = assignment.state_value(key)
                if state is not None and state.has_valid_position:
                    found[tuple(tp)] = state.position
        return found

    async def _commit(self, offsets: Mapping[Any, int]) -> bool:
        """Commit; False when a rebalance came first. Waits while the broker is away (aiokafka repeats inside).

        Raises:
            KafkaError: the broker refuses for good (authorization).
        """
        consumer = self._ensure_consumer()
        assigned = consumer.assignment()
        wanted = {TopicPartition(*tp): OffsetAndMetadata(offset, "") for tp, offset in offsets.items()}
        try:
            await consumer.commit({tp: meta for tp, meta in wanted.items() if tp in assigned})
        except (CommitFailedError, IllegalStateError) as error:
            log.info("commit.superseded", error=type(error).__name__)
            return False
        return True
