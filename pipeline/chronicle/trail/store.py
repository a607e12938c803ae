"""What a reader needs of a store: clickhouse-connect's own words, so that its client is one and an embedded one can be."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client


class Result(Protocol):
    """What a SELECT gave."""

    @property
    def column_names(self) -> Sequence[str]:
        """In the order of the cells."""

    @property
    def result_rows(self) -> Sequence[Sequence[Any]]:
        """Times are `datetime` (aware, or in UTC), UUIDs are `UUID`, 128-bit numbers `int`."""


class Store(Protocol):
    """A ClickHouse client, or something that answers like one. Several threads use it at the same time.

    `parameters` are bound by the server (`{name:Type}` in the text), `settings` are ClickHouse's own. Errors are
    clickhouse-connect's `ClickHouseError` (`trail.reading.translated` gives them their meaning) or Chronicle's.
    """

    def query(self, query: str, *, parameters: dict[str, Any] | None = None, settings: dict[str, Any] | None = None) -> Result:
        """Run one SELECT."""

    def query_row_block_stream(
        self, query: str, *, parameters: dict[str, Any] | None = None, settings: dict[str, Any] | None = None
    ) -> AbstractContextManager[Any]:
        """Run one SELECT; the context manager iterates over blocks of rows, and its `source.column_names` names the cells.
        Leaving it early ends the query."""


class Connecting:
    """A store that is opened when it is first asked for something, and again after that failed: a service starts without it."""

    def __init__(self, connect: Callable[[], Store]) -> None:
        self._connect = connect
        self._store: Store | None = None
        self._lock = threading.Lock()

    def query(self, query: str, *, parameters: dict[str, Any] | None = None, settings: dict[str, Any] | None = None) -> Result:
        """As the store's; also what `connect` raises."""
        return self._opened().query(query, parameters=parameters, settings=settings)

    def query_row_block_stream(
        self, query: str, *, parameters: dict[str, Any] | None = None, settings: dict[str, Any] | None = None
    ) -> AbstractContextManager[Any]:
        """As the store's; also what `connect` raises."""
        return self._opened().query_row_block_stream(query, parameters=parameters, settings=settings)

    def _opened(self) -> Store:
        with self._lock:
            if self._store is None:
                self._store = self._connect()
            return self._store


class Unsettable:
    """A store whose user may not change any setting (`readonly = 1`): its limits are in its profile, nothing is asked for."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def query(self, query: str, *, parameters: dict[str, Any] | None = None, settings: dict[str, Any] | None = None) -> Result:
        """As the store's."""
        del settings
        return self._store.query(query, parameters=parameters)

    def query_row_block_stream(
        self, query: str, *, parameters: dict[str, Any] | None = None, settings: dict[str, Any] | None = None
    ) -> AbstractContextManager[Any]:
        """As the store's."""
        del settings
        return self._store.query_row_block_stream(query, parameters=parameters)


class Bounded:
    """A store all of whose queries have these settings, whatever else they ask for: time, rows, and that they only read."""

    def __init__(self, store: Store, settings: Mapping[str, Any]) -> None:
        self._store = store
        self._settings = dict(settings)

    def query(self, query: str, *, parameters: dict[str, Any] | None = None, settings: dict[str, Any] | None = None) -> Result:
        """As the store's."""
        return self._store.query(query, parameters=dict(parameters or {}), settings={**(settings or {}), **self._settings})

    def query_row_block_stream(
        self, query: str, *, parameters: dict[str, Any] | None = None, settings: dict[str, Any] | None = None
    ) -> AbstractContextManager[Any]:
        """As the store's."""
        return self._store.query_row_block_stream(
            query, parameters=dict(parameters or {}), settings={**(settings or {}), **self._settings}
        )


def as_client(store: Store) -> Client:
    """A store for the trail's functions that name clickhouse-connect's class: they use nothing of it but `query`."""
    return cast("Client", store)
