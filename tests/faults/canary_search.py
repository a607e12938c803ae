"""Reads back all that a deployment wrote and says where canaries are: tables of ClickHouse, its own logs too, and topics."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from tests.faults.canary import Canaries

NOT_DATA = frozenset({"numbers", "numbers_mt", "zeros", "zeros_mt", "primes", "unicode", "models"})
"""Tables of `system` that generate rows without end, are Unicode's own, or start a program when they are read."""
BATCH = 10_000
DEADLINE_S = 30.0
_COLUMNS = "SELECT database, name FROM system.tables WHERE database IN {databases:Array(String)} ORDER BY database, name"


@dataclass(frozen=True, slots=True)
class Looked:
    """What was found, and how much was looked at."""

    found: dict[str, set[str]]
    """Place → names of needles."""
    count: int
    """Rows, or records."""
    unread: frozenset[str] = frozenset()
    """Tables of `system` about things that this server does not have."""


def tables(client: Client, databases: Collection[str]) -> list[tuple[str, str]]:
    """All tables and views of these databases, but for those that hold no data."""
    found = client.query(_COLUMNS, parameters={"databases": sorted(databases)}).result_rows
    return [(database, name) for database, name in found if database != "system" or name not in NOT_DATA]


def in_clickhouse(client: Client, databases: Collection[str], canaries: Canaries) -> Looked:
    """Which needles each table has, in any part and version of any row.

    Every column is compared as text. The needles travel reversed: these very queries are in `system.query_log`.
    """
    client.command("SYSTEM FLUSH LOGS")
    found: dict[str, set[str]] = {}
    unread: set[str] = set()
    rows = 0
    names = [one.name for one in canaries.needles]
    reversed_ = [one.text[::-1] for one in canaries.needles]
    for database, table in tables(client, databases):
        sums = ", ".join(f"countIf(position(row, reverse({{n{at}:String}})) > 0)" for at in range(len(names)))
        query = f"SELECT count(), {sums} FROM (SELECT formatRow('TSV', *) AS row FROM `{database}`.`{table}`)"
        parameters = {f"n{at}": text for at, text in enumerate(reversed_)}
        try:
            [counts] = client.query(query, parameters=parameters, settings={"max_execution_time": 120}).result_rows
        except DatabaseError as error:
            if database == "system" and not table.endswith("_log"):
                unread.add(table)
                continue
            raise AssertionError(f"{database}.{table} cannot be read back: {str(error)[:300]}") from None
        rows += int(counts[0])
        if hit := {name for name, count in zip(names, counts[1:], strict=True) if count}:
            found[f"{database}.{table}"] = hit
    return Looked(found, rows, frozenset(unread))


def in_topics(servers: str, names: Collection[str], canaries: Canaries) -> Looked:
    """Which needles keys, values or headers of any record of a topic have."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    count = 0
    for topic, data in _records(servers, names):
        count += 1
        if hit := canaries.found(data):
            found[topic] |= hit
    return Looked(dict(found), count)


def in_texts(texts: Mapping[str, str], canaries: Canaries) -> dict[str, set[str]]:
    """Name of a text → which needles it has."""
    return {name: hit for name, text in texts.items() if (hit := canaries.found(text.encode()))}


def _records(servers: str, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Every record of these topics as they are now: key, value and headers in one."""
    options = {"group.id": "canaries", "enable.auto.commit": False, "enable.partition.eof": True}
    consumer = Consumer({"bootstrap.servers": servers, **options})
    end = KafkaError._PARTITION_EOF
    try:
        there = consumer.list_topics(timeout=DEADLINE_S).topics
        for name in sorted(names):
            for number in there[name].partitions:
                consumer.assign([TopicPartition(name, number, 0)])
                deadline, left = time.monotonic() + DEADLINE_S, True
                while left:
                    for message in consumer.consume(BATCH, timeout=0.2):
                        error, deadline = message.error(), time.monotonic() + DEADLINE_S
                        if error is None:
                            yield name, _bytes(message)
                        else:
                            assert error.code() == end, error
                            left = False
                    assert time.monotonic() < deadline, f"{name} {number} was not read to its end"
    finally:
        consumer.close()


def _bytes(message: Message) -> bytes:
    """Key, value and headers in one."""
    headers: Any = message.headers() or ()
    parts = (message.key(), message.value(), *(part for pair in headers for part in pair))
    return b"\0".join(part.encode() if isinstance(part, str) else part or b"" for part in parts)
