"""What the reading commands share: a connection to the trail, filters as a person writes them, what they leave out."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from chronicle import config
from chronicle.cli.terminal import err
from chronicle.errors import TransientError

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client


@dataclass(frozen=True, slots=True)
class Trail:
    """An open connection and the database that holds the trail."""

    client: Client
    database: str


@contextmanager
def open_trail(settings: config.Settings | None = None) -> Iterator[Trail]:
    """Connect with the settings in force and disconnect afterwards.

    Raises:
        ConfigError: settings are wrong.
        TransientError: ClickHouse does not answer.
    """
    from chronicle.sinks.clickhouse_client import connect

    settings = settings or config.load()
    quiet()
    try:
        client = connect(settings.clickhouse)
    except TransientError as error:
        raise TransientError(f"start ClickHouse, or correct clickhouse.url ({settings.clickhouse.url}): no answer") from error
    try:
        yield Trail(client, settings.clickhouse.database)
    finally:
        client.close()


def quiet() -> None:
    """ClickHouse's client and its HTTP library also log what they raise; the error is shown once."""
    for library in ("clickhouse_connect", "urllib3"):
        logging.getLogger(library).addHandler(logging.NullHandler())
        logging.getLogger(library).propagate = False


def moment(text: str | None) -> datetime | None:
    """An option such as `--since 10m`, read against the clock of this machine."""
    from chronicle.trail import moments

    return None if text is None else moments.parse(text, datetime.now(UTC))


def say_left_out(stubs: int) -> None:
    """Nothing is hidden silently."""
    if stubs:
        err.print(f"({stubs:,} {'change' if stubs == 1 else 'changes'} left out by the policy: --stubs)")
