"""The outbox table: its columns, its DDL, and the two statements that a transaction with events ends with.

Rows are inserted and deleted in one transaction: the database's log, which the connector reads, has the INSERT, and the table
stays empty. Debezium's outbox router makes one record of each inserted row (`connectors/templates/common.toml`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from chronicle.errors import ChronicleError

Dialect = Literal["postgres", "mysql", "mariadb"]
DIALECTS: tuple[Dialect, ...] = ("postgres", "mysql", "mariadb")
OUTBOX_TABLE = "chronicle_outbox"
COLUMNS = ("id", "topic", "partition_key", "event")
INSERT_BYTES_MAX = 4 * 1024 * 1024
"""Text of one INSERT, before the driver quotes it, which at most doubles it: below MariaDB's and MySQL's default for
`max_allowed_packet`. Events of a transaction that have more together take another INSERT."""
_TABLE_NAME = re.compile(rf"(?:[A-Za-z_][A-Za-z0-9_]{{0,63}}\.)?{OUTBOX_TABLE}")
_ACCOUNT = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,62}")
_TOPIC = re.compile(r"(?:\.[a-zA-Z0-9_-]+)*")
_NO_ASCII = re.compile(r"[^\x20-\x7e]")


class OutboxError(ChronicleError):
    """The developer: an event cannot be part of a transaction as it is asked; the message says the fix."""


@dataclass(frozen=True, slots=True)
class Row:
    """One event as it is written. Everything in it is ASCII: no connection's, column's or database's character set can
    change or refuse it."""

    id: str
    topic: str
    """What stands behind the name of the events topic: nothing, or a dot and more."""
    key: str = field(repr=False)
    event: str = field(repr=False)

    @property
    def size(self) -> int:
        """Bytes of its texts."""
        return len(self.id) + len(self.topic) + len(self.key) + len(self.event)


def row(id: str, event: bytes, key: bytes, topic: str = "") -> Row:
    """An event's row.

    Args:
        id: the event's.
        event: its JSON.
        key: its partition key, UTF-8; what is not ASCII in it is written as in JSON, so that equal keys stay equal.
        topic: behind the events topic's name, as `.security`; no event can be written to any other topic.

    Raises:
        OutboxError: a topic that is none.
    """
    if not _TOPIC.fullmatch(topic):
        raise OutboxError("route events of a transaction to chronicle.events, or to chronicle.events.<name>")
    return Row(id, topic, _ascii(key.decode(errors="replace")), _ascii(event.decode()))


def _ascii(text: str) -> str:
    """As JSON escapes it; in JSON text, where only strings have such characters, the same value."""
    return text if text.isascii() and text.isprintable() else _NO_ASCII.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    units = match.group().encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def quoted(table: str, dialect: Dialect) -> str:
    """The table's name, quoted.

    Raises:
        OutboxError: the dialect is unknown, or the name is not `chronicle_outbox`, with a schema before it or without.
    """
    if dialect not in DIALECTS:
        raise OutboxError("name the dialect: postgres, mysql or mariadb")
    if not _TABLE_NAME.fullmatch(table):
        raise OutboxError(f"name the outbox table {OUTBOX_TABLE}, with a plain schema before it or none: its route goes by it")
    quote = '"' if dialect == "postgres" else "`"
    return ".".join(f"{quote}{part}{quote}" for part in table.split("."))


def ddl(dialect: Dialect, table: str = OUTBOX_TABLE) -> str:
    """The CREATE TABLE statement; it may be repeated. Raises OutboxError as `quoted`."""
    name = quoted(table, dialect)
    if dialect == "postgres":
        return (
            f"CREATE TABLE IF NOT EXISTS {name} (id uuid PRIMARY KEY, topic text NOT NULL DEFAULT '', "
            "partition_key text NOT NULL, event text NOT NULL)"
        )
    return (
        f"CREATE TABLE IF NOT EXISTS {name} (id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY, "
        "topic VARCHAR(200) NOT NULL DEFAULT '', partition_key TEXT NOT NULL, event LONGTEXT NOT NULL) "
        "ENGINE = InnoDB CHARACTER SET utf8mb4"
    )


def grants(dialect: Dialect, account: str, table: str = OUTBOX_TABLE) -> str:
    """What the application's account needs: it inserts, and deletes what it inserted. Raises OutboxError as `quoted`."""
    if not _ACCOUNT.fullmatch(account):
        raise OutboxError("name the account in letters, digits, _ and -")
    to = f'"{account}"' if dialect == "postgres" else f"'{account}'@'%'"
    return f"GRANT INSERT, SELECT, DELETE ON {quoted(table, dialect)} TO {to}"


def parts(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """The rows of each INSERT: all of them, unless they have more than `INSERT_BYTES_MAX` together."""
    begin, size = 0, 0
    for at, one in enumerate(rows):
        if at > begin and size + one.size > INSERT_BYTES_MAX:
            yield rows[begin:at]
            begin, size = at, 0
        size += one.size
    if begin < len(rows):
        yield rows[begin:]


def postgres_insert(table: str, mark: str = "%s") -> str:
    """The INSERT of any number of rows, given as one JSON text (`as_json`); it answers with the rows' places.

    Places, because a deletion by them reads nothing but these rows. It would, if the planner took the empty table for cheaper
    to read whole: 1,000 rows then took 265 instead of 1.2 ms, and under SERIALIZABLE any two such transactions at a time would
    conflict. So that is switched off for the rest of the transaction, whose last statement the deletion is.
    """
    return (
        f"INSERT INTO {quoted(table, 'postgres')} (id, topic, partition_key, event) "  # noqa: S608  # a checked name
        "SELECT r.id, r.topic, r.key, r.event "
        f"FROM json_to_recordset(CAST({mark} AS json)) AS r (id uuid, topic text, key text, event text) "
        "RETURNING CAST(ctid AS text), set_config('enable_seqscan', 'off', true)"
    )


def as_json(rows: Sequence[Row]) -> str:
    """Rows for `postgres_insert`."""
    return msgspec.json.encode(rows).decode()


def postgres_delete(table: str, mark: str = "%s") -> str:
    """The deletion of rows by their places, given as `places`."""
    return f"DELETE FROM {quoted(table, 'postgres')} WHERE ctid = ANY (CAST(CAST({mark} AS text) AS tid[]))"  # noqa: S608


def places(found: Sequence[str]) -> str:
    """As an array literal."""
    return "{" + ",".join(f'"{one}"' for one in found) + "}"


def mysql_insert(table: str, marks: Sequence[Sequence[str]]) -> str:
    """The INSERT of as many rows as there are sequences of four placeholders, in the order of `COLUMNS`."""
    values = ", ".join(f"({', '.join(one)})" for one in marks)
    return f"INSERT INTO {quoted(table, 'mysql')} (id, topic, partition_key, event) VALUES {values}"  # noqa: S608


def mysql_delete(table: str, marks: Sequence[str]) -> str:
    """The deletion of these ids.

    By a join that looks up one after the other: given a list, the optimizer thinks that an empty table may as well be read
    whole, and would wait for the rows of every transaction that is just doing the same (and these for its own: a deadlock).
    """
    ids = " UNION ALL ".join(f"SELECT CAST({mark} AS CHAR(36) CHARACTER SET ascii) AS id" for mark in marks)
    return f"DELETE o FROM ({ids}) AS l STRAIGHT_JOIN {quoted(table, 'mysql')} AS o FORCE INDEX (PRIMARY) ON o.id = l.id"


def mysql_values(rows: Sequence[Row]) -> list[str]:
    """The parameters of `mysql_insert`."""
    return [value for one in rows for value in (one.id, one.topic, one.key, one.event)]
