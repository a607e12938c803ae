"""chDB, ClickHouse as a library in this process, with the part of clickhouse-connect's client that Chronicle uses.

clickhouse-connect has a client for chDB, which does queries and parameters (bound by the engine, never pasted). Added here:
Arrow inserts without a file on a disk, external data, several threads at once, one process per store, and durability: a
part is on the disk, with its directory, before its insert returns.
"""

from __future__ import annotations

import logging
import os
import queue
import re
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import clickhouse_connect
from clickhouse_connect.driver.exceptions import DatabaseError, ProgrammingError

from chronicle.embedded import store_lock
from chronicle.errors import ConfigError, TransientError

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
    from clickhouse_connect.driver.external import ExternalData

HANDLES_MAX = 8
"""Calls under way at once; more wait. A handle of the engine does one thing at a time."""
WAIT_S = 60.0
"""How long a call waits for a handle."""
CONFIG_NAME = "chronicle.xml"
_CONFIG = """<clickhouse>
    <!-- An insert that returned survives a loss of power: chDB's own defaults leave that to the operating system, and take the
         parts that were merged away at once. -->
    <merge_tree>
        <fsync_after_insert>1</fsync_after_insert>
        <fsync_part_directory>1</fsync_part_directory>
        <min_rows_to_fsync_after_merge>1</min_rows_to_fsync_after_merge>
        <min_compressed_bytes_to_fsync_after_merge>1</min_compressed_bytes_to_fsync_after_merge>
        <old_parts_lifetime>480</old_parts_lifetime>
    </merge_tree>
</clickhouse>
"""
_OF_HTTP = frozenset({"wait_end_of_query", "cancel_http_readonly_queries_on_client_close", "buffer_size", "session_id"})
"""Settings of ClickHouse's HTTP interface, which there is none of."""
_HEAD = re.compile(rb"\s*(INSERT INTO .*\))\s+FORMAT\s+(\w+)\s*\n", re.DOTALL | re.IGNORECASE)
_HEAD_BYTES_MAX = 1024 * 1024

_log = logging.getLogger(__name__)


class _Handle:
    """One connection for queries and, once it is needed, one for inserts."""

    def __init__(self, location: str, database: str | None, *, reads_only: bool) -> None:
        self._location, self._database, self.reads_only = location, database, reads_only
        self.client: Client = clickhouse_connect.get_client(interface="chdb", path=location, database=database)
        if reads_only:
            self.client.command("SET readonly = 2")  # for good: nothing that is asked here can take it back
        self._writer: Any = None

    def insert(self, into: str, settings: str, fmt: str, data: bytes) -> None:
        """Insert `data`; `into`: INSERT INTO a table and its columns. Returns when all of it is in the table."""
        import chdb

        try:
            if self._writer is None:
                self._writer = chdb.connect(self._location)
                if self._database:
                    self._writer.query(f"USE {_quoted(self._database)}")
            # Not by chDB's `send_insert`: with a full disk its `finish` counts rows as written that are in no table.
            with _file(data) as name:
                self._writer.query(f"{into} FROM INFILE {_literal(name)} SETTINGS {settings} FORMAT {fmt}")
        except RuntimeError as error:
            raise _error(str(error)) from None

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self.client.close()


class ChdbClient:
    """Several threads may share it. All clients of a process open the same store: chDB has one engine per process."""

    def __init__(self, path: Path | None, *, database: str | None = None) -> None:
        """`path`: the store's directory, made when it is not there; None: in memory, for as long as any client is open.
        `database`: default for unqualified names.

        Raises:
            ConfigError: chDB is not installed, another process has the store open, or this process another store.
        """
        self.database = database
        self._directory = None if path is None else _prepared(path)
        self._location = (
            ":memory:" if self._directory is None else f"{self._directory}?config-file={self._directory / CONFIG_NAME}"
        )
        self._idle: dict[bool, queue.LifoQueue[_Handle]] = {False: queue.LifoQueue(), True: queue.LifoQueue()}
        self._room = threading.BoundedSemaphore(HANDLES_MAX)
        self._handles: list[_Handle] = []
        self._closed = False
        self._guard = threading.Lock()
        if self._directory is not None:
            store_lock.acquire(self._directory)
        try:
            with self._handle():
                pass
        except BaseException:
            self.close()
            raise

    # --- reading

    def query(
        self, query: str, parameters: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None, **more: Any
    ) -> Any:
        """As `Client.query`: a QueryResult."""
        with self._handle(settings) as handle:
            return handle.client.query(query, parameters=_dict(parameters), settings=_kept(settings), **more)

    def query_arrow(
        self, query: str, parameters: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None, **more: Any
    ) -> Any:
        """As `Client.query_arrow`: a pyarrow.Table."""
        with self._handle(settings) as handle:
            return handle.client.query_arrow(query, parameters=_dict(parameters), settings=_kept(settings), **more)

    def raw_query(
        self, query: str, parameters: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None, **more: Any
    ) -> bytes:
        """As `Client.raw_query`: the answer's bytes in format `fmt`."""
        with self._handle(settings) as handle:
            return handle.client.raw_query(query, parameters=_dict(parameters), settings=_kept(settings), **more)

    @contextmanager
    def query_row_block_stream(
        self, query: str, parameters: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None, **more: Any
    ) -> Iterator[Any]:
        """As `Client.query_row_block_stream`: a context over lists of rows. Holds a handle until its end."""
        with self._handle(settings) as handle:
            stream = handle.client.query_row_block_stream(query, parameters=_dict(parameters), settings=_kept(settings), **more)
            with stream as blocks:
                yield blocks

    def ping(self) -> bool:
        """Whether the engine answers."""
        with self._handle() as handle:
            return handle.client.ping()

    # --- writing

    def command(
        self,
        cmd: str,
        parameters: Mapping[str, Any] | None = None,
        data: str | bytes | None = None,
        settings: Mapping[str, Any] | None = None,
        external_data: ExternalData | None = None,
        **more: Any,
    ) -> Any:
        """As `Client.command`. External data are temporary tables of a connection of their own."""
        if external_data is None:
            with self._handle(settings) as handle:
                return handle.client.command(cmd, parameters=_dict(parameters), data=data, settings=_kept(settings), **more)
        with self._handle() as handle:
            try:
                for file in external_data.files:
                    handle.client.command(f"CREATE TEMPORARY TABLE {_quoted(file.name)} ({file.structure}) ENGINE = Memory")
                    # the same connection as the command's: a temporary table is its own
                    handle.client.raw_insert(_quoted(file.name), insert_block=file.data, fmt=file.fmt)
                return handle.client.command(cmd, parameters=_dict(parameters), data=data, settings=_kept(settings), **more)
            finally:
                for file in external_data.files:
                    with suppress(DatabaseError):
                        handle.client.command(f"DROP TEMPORARY TABLE IF EXISTS {_quoted(file.name)}")

    def insert(self, table: str, data: Any, column_names: Any = "*", database: str | None = None, **more: Any) -> Any:
        """As `Client.insert`: few rows of Python values."""
        if "settings" in more:
            more["settings"] = _kept(more["settings"])
        with self._handle() as handle:
            return handle.client.insert(table, data, column_names, database, **more)

    def raw_insert(
        self,
        table: str,
        column_names: Sequence[str] | None = None,
        insert_block: bytes | None = None,
        settings: Mapping[str, Any] | None = None,
        fmt: str | None = None,
    ) -> None:
        """As `Client.raw_insert`. Returns when the rows are on the disk. With `table` empty, the block begins with
        `INSERT INTO … (…) FORMAT …` and a line feed, as ClickHouse's HTTP interface takes it.
        """
        block = insert_block or b""
        if table:
            columns = f" ({', '.join(map(_quoted, column_names))})" if column_names else ""
            statement, fmt = f"INSERT INTO {table}{columns}", fmt or "Native"
        else:
            head = _HEAD.match(block, 0, min(len(block), _HEAD_BYTES_MAX))
            if head is None:
                raise ProgrammingError("an insert needs a table, or a block that begins with INSERT INTO … (…) FORMAT …")
            statement, fmt, block = head[1].decode(), head[2].decode(), block[head.end() :]
        # No queue of asynchronous inserts: it would answer before the disk has it.
        wanted = (_kept(settings) or {}) | {"async_insert": 0}
        clause = ", ".join(f"{name} = {_literal(value)}" for name, value in wanted.items())
        with self._handle() as handle:
            handle.insert(statement, clause, fmt, block)

    def close(self) -> None:
        """Close every handle; the last client of a process gives the store back. May be repeated."""
        with self._guard:
            if self._closed:
                return
            self._closed = True
            handles, self._handles = self._handles, []
        for handle in handles:
            handle.close()
        if self._directory is not None:
            store_lock.release(self._directory)

    # --- handles

    @contextmanager
    def _handle(self, settings: Mapping[str, Any] | None = None) -> Iterator[_Handle]:
        """One that is free; it reads only when the settings say so: chDB's own way would leave it so for the next caller."""
        if not self._room.acquire(timeout=WAIT_S):
            raise TransientError(f"ask again later: the embedded store is busy ({HANDLES_MAX} calls for {WAIT_S:.0f} s)")
        try:
            handle = self._taken(reads_only=bool(settings and int(settings.get("readonly", 0))))
            try:
                yield handle
            finally:
                self._idle[handle.reads_only].put(handle)
        finally:
            self._room.release()

    def _taken(self, *, reads_only: bool) -> _Handle:
        if self._closed:
            raise ProgrammingError("The client has been closed")
        with suppress(queue.Empty):
            return self._idle[reads_only].get_nowait()
        handle = self._opened(reads_only=reads_only)
        with self._guard:
            self._handles.append(handle)
        return handle

    def _opened(self, *, reads_only: bool) -> _Handle:
        try:
            return _Handle(self._location, self.database, reads_only=reads_only)
        except ImportError:
            raise ConfigError("install chronicle[embedded]: the embedded store is chDB") from None
        except ProgrammingError as error:
            if "already initialized" in str(error):
                raise ConfigError("use one embedded store per process: this process has another one open") from None
            raise ConfigError(
                f"look at {self._directory or 'memory'}: chDB cannot open a store there ({_code(str(error))})"
            ) from None


def _prepared(path: Path) -> Path:
    """The directory, there, with the engine's settings in it; its one real name, for chDB compares names letter by letter."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        directory = path.resolve(strict=True)
        file = directory / CONFIG_NAME
        if not file.is_file() or file.read_text(encoding="utf-8") != _CONFIG:
            fresh = file.with_suffix(f".{os.getpid()}")
            fresh.write_text(_CONFIG, encoding="utf-8")
            fresh.replace(file)
    except OSError as error:
        raise ConfigError(f"make {path} a writable directory, or name another one ({type(error).__name__})") from None
    if set("?&#%+=") & set(str(directory)):  # chDB reads the path as a part of an address
        raise ConfigError(f"choose a directory without any of ?&#%+= in its path: {directory}")
    return directory


@contextmanager
def _file(data: bytes) -> Iterator[str]:
    """The name of a file that holds `data`: in memory where there are such files."""
    if sys.platform == "linux":
        with os.fdopen(os.memfd_create("chronicle-insert"), "wb") as file:
            file.write(data)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        with tempfile.NamedTemporaryFile() as named:
            named.write(data)
            named.flush()
            yield named.name


def _error(text: str) -> DatabaseError:
    """chDB's text as the library's error, with ClickHouse's code."""
    found = re.search(r"Code: (\d+)", text)
    return DatabaseError(text[found.start() :] if found else text, code=int(found[1]) if found else None)


def _code(text: str) -> str:
    found = re.search(r"Code: \d+", text)
    return found[0].lower() if found else "no code"


def _kept(settings: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if settings is None:
        return None
    return {name: value for name, value in settings.items() if name not in _OF_HTTP and name != "readonly"}


def _dict(parameters: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if parameters is None else dict(parameters)


def _quoted(identifier: str) -> str:
    return "`" + identifier.replace("\\", "\\\\").replace("`", "\\`") + "`"


def _literal(value: object) -> str:
    return "'" + str(value).replace("\\", "\\\\").replace("'", "\\'") + "'"
