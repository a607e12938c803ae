"""The policies that rows were written under: kept in ClickHouse before the first row that names one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from clickhouse_connect.driver.client import Client

from chronicle import config
from chronicle.model.batch import Batch
from chronicle.policy.file import Policy
from chronicle.sinks.clickhouse_client import connect
from chronicle.sinks.clickhouse_errors import translated
from chronicle.sinks.engines import quoted

if TYPE_CHECKING:
    from chronicle.engine import Failed

SEEN_EVERY_S = 3600.0
"""How often a running worker says that its policy is still in force."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One policy of the past or present."""

    hash: str
    name: str
    """Of the file."""
    first_seen: datetime
    last_seen: datetime
    """When a worker under it last wrote, to the hour."""
    rows: int
    """Changes whose latest processing was under it."""


def record(client: Client, clickhouse: config.ClickHouse, policy: Policy, text: str, at: datetime | None = None) -> None:
    """Keep a policy. May be repeated: one row a hash, seen first and last.

    `text`: the file as it was read. `at`: when it was in force (now).

    Raises:
        TransientError, ConfigError: as ClickHouse says.
    """
    seen = at or datetime.now(UTC)
    with translated("policies"):
        client.insert(
            "policies",
            [[policy.hash, policy.name, text, seen, seen]],
            column_names=["hash", "name", "text", "first_seen", "last_seen"],
            database=clickhouse.database,
            settings={"async_insert": 0},
        )


class Recording:
    """An `engine.Step` that keeps the policy before any row of it is written, and says now and then that it is in force."""

    name = "clickhouse"  # what is away when this step cannot be done

    def __init__(
        self, clickhouse: config.ClickHouse, policy: Policy, text: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Connects at the first batch."""
        self._clickhouse, self._policy, self._text, self._clock = clickhouse, policy, text, clock
        self._at: float | None = None

    def __call__(self, batch: Batch) -> tuple[Batch, Sequence[Failed]]:
        """As `engine.Step`: the batch as it is. Raises TransientError while ClickHouse is away."""
        now = self._clock()
        if self._at is None or now - self._at > SEEN_EVERY_S:
            client = connect(self._clickhouse)
            try:
                record(client, self._clickhouse, self._policy, self._text)
            finally:
                client.close()
            self._at = now
        return batch, ()


def kept(client: Client, database: str) -> tuple[Kept, ...]:
    """All policies, the latest in force first, with the number of rows of `changes` written under each.

    Raises:
        TransientError, ConfigError: as ClickHouse says.
    """
    place = quoted(database)
    query = f"""
        SELECT hash, name, first_seen, last_seen, rows
        FROM
        (
            SELECT hash, anyLast(name) AS name, min(first_seen) AS first_seen, max(last_seen) AS last_seen
            FROM {place}.policies GROUP BY hash
        ) AS p
        LEFT JOIN (SELECT policy, count() AS rows FROM {place}.changes FINAL GROUP BY policy) AS c ON p.hash = c.policy
        ORDER BY last_seen DESC, first_seen DESC, hash
    """  # noqa: S608  (a quoted name)
    with translated("policies"):
        found = client.query(query, settings={"readonly": 2}).result_rows
    return tuple(Kept(hash_, name, _utc(first), _utc(last), int(rows)) for hash_, name, first, last, rows in found)


def latest(client: Client, database: str) -> str | None:
    """Hash of the policy that was in force last; None: none is kept. Raises as `kept`."""
    query = f"SELECT hash FROM {quoted(database)}.policies GROUP BY hash ORDER BY max(last_seen) DESC LIMIT 1"  # noqa: S608
    with translated("policies"):
        found = client.query(query, settings={"readonly": 2}).result_rows
    return str(found[0][0]) if found else None


def text_of(client: Client, database: str, hash_: str) -> str | None:
    """The text of a policy; None: it is not kept. Raises as `kept`."""
    query = f"SELECT anyLast(text) FROM {quoted(database)}.policies WHERE hash = {{hash:String}} HAVING count() > 0"  # noqa: S608
    with translated("policies"):
        found = client.query(query, parameters={"hash": hash_}, settings={"readonly": 2}).result_rows
    return str(found[0][0]) if found else None


def _utc(at: datetime) -> datetime:
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
