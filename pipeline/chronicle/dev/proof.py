"""Are source, mirror and audit topic equal? Final rows of one table, read from each by its own way, as one digest each."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pymysql
from clickhouse_connect.driver.client import Client
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from psycopg import sql as psql
from pymysql.cursors import DictCursor

from chronicle.config import Kafka
from chronicle.errors import ChronicleError
from chronicle.sinks.mirror_names import current_name
from chronicle.trail.tables import TableName

TIMEOUT_S = 15.0

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Side:
    """What one place holds of a table."""

    rows: int
    digest: str


def side(rows: Iterable[Row], columns: Collection[str]) -> Side:
    """What these columns hold. Order of rows and columns does not matter; every value does."""
    texts = sorted(canonical(row, columns) for row in rows)
    return Side(len(texts), hashlib.blake2b("\n".join(texts).encode(), digest_size=8).hexdigest())


def postgres_rows(dsn: str, name: TableName) -> list[Row]:
    """The table as Postgres has it."""
    statement = psql.SQL("SELECT * FROM {}").format(psql.Identifier(name.schema, name.table))
    with psycopg.connect(dsn, row_factory=psycopg.rows.dict_row) as connection:
        connection.execute("SET TIME ZONE 'UTC'")
        return list(connection.execute(statement).fetchall())


def mariadb_rows(login: Mapping[str, Any], name: TableName) -> list[Row]:
    """The table as MariaDB has it, TIMESTAMP columns in UTC."""
    connection = pymysql.connect(**login, charset="utf8mb4", cursorclass=DictCursor)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SET time_zone = '+00:00'")
            cursor.execute(f"SELECT * FROM `{name.schema}`.`{name.table}`")  # noqa: S608  (the demo's own names)
            return list(cursor.fetchall())
    finally:
        connection.close()


def mirror_rows(client: Client, database: str, name: TableName) -> list[Row]:
    """The table as the mirror shows it now."""
    result = client.query(
        "SELECT * FROM {database:Identifier}.{view:Identifier}",
        parameters={"database": database, "view": current_name(name.source, name.schema, name.table)},
    )
    return [
        {column: value for column, value in zip(result.column_names, row, strict=True) if not column.startswith("_")}
        for row in result.result_rows
    ]


def audit_rows(records: Iterable[Mapping[str, Any]], name: TableName) -> list[Row]:
    """The table as the audit topic's records say it is: the newest of each row, by position, and later than a TRUNCATE."""
    last: dict[str, tuple[int, Mapping[str, Any] | None]] = {}
    truncated = -1
    for record in records:
        if (record["source"], record["schema"], record["table"]) != (name.source, name.schema, name.table):
            continue
        position = int(record["position"])
        if record["operation"] == "truncate":
            truncated = max(truncated, position)
        # a deletion and a creation at one position are a primary-key change: of different rows
        elif position >= last.get(record["entity"], (-1, None))[0]:
            last[record["entity"]] = (position, record["after"])
    return [row for position, row in last.values() if row is not None and position > truncated]


def audit_records(kafka: Kafka, sources: Sequence[str]) -> list[Mapping[str, Any]]:
    """All changes of these sources in the audit topic, one per event id, as a reader who upserts by key sees them.

    Raises:
        ChronicleError: the topic cannot be read to its end.
    """
    return [record for record in audited(kafka, sources) if "operation" in record]


def audited(kafka: Kafka, sources: Sequence[str]) -> list[Mapping[str, Any]]:
    """As `audit_records`, and all events of applications of these names, whose `kind` is `event`; each with its `id`.

    Raises:
        ChronicleError: the topic cannot be read to its end.
    """
    consumer = Consumer(
        {**kafka.client_config(), "group.id": "chronicle-demo", "enable.auto.commit": False, "enable.partition.eof": True}
    )
    by_event: dict[bytes, Mapping[str, Any]] = {}
    try:
        partitions = consumer.list_topics(kafka.audit_topic, timeout=TIMEOUT_S).topics[kafka.audit_topic].partitions
        consumer.assign([TopicPartition(kafka.audit_topic, partition, 0) for partition in partitions])
        open_partitions = set(partitions)
        while open_partitions:
            message = consumer.poll(TIMEOUT_S)
            if message is None:
                raise ChronicleError("start the broker: no answer from it")
            error = message.error()
            if error is not None and error.code() == KafkaError._PARTITION_EOF:
                open_partitions.discard(message.partition() or 0)
                continue
            if error is not None:
                raise KafkaException(error)
            core = json.loads(message.value() or b"{}").get("core", {})
            record = core.get("unmapped", {})
            if record.get("source") in sources:
                by_event[message.key() or b""] = {"id": core.get("metadata", {}).get("uid"), **record}
    except KafkaException as error:
        raise ChronicleError(f"start the broker: the audit topic cannot be read ({error.args[0].name()})") from None
    finally:
        consumer.close()
    return list(by_event.values())


def canonical(row: Row, columns: Collection[str]) -> str:
    """One text per row, the same from whichever side it was read."""
    plain = {column: _plain(value) for column, value in row.items() if column in columns}
    return json.dumps(plain, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _plain(value: Any) -> Any:  # noqa: PLR0911  (one per type)
    match value:
        case None | bool() | int():
            return value
        case float():
            return int(value) if value.is_integer() else value
        case Decimal():
            return format(value, "f")
        case datetime():
            return (value.astimezone(UTC) if value.tzinfo else value).replace(tzinfo=None).isoformat(timespec="microseconds")
        case date():
            return value.isoformat()
        case Mapping():
            return {str(name): _plain(one) for name, one in value.items() if one is not None}
        case list() | tuple():
            return [_plain(one) for one in value]
    return _text(str(value))


def _text(text: str) -> Any:
    """Documents are compared by content; instants to the microsecond and in UTC, without saying so: mirrors do not tell
    a time without a zone from one in UTC."""
    if text[:1] in ("{", "["):
        try:
            return _plain(json.loads(text))
        except ValueError:
            return text
    found = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?Z?", text)
    return f"{found[1]}.{(found[2] or '').ljust(6, '0')}" if found else text
