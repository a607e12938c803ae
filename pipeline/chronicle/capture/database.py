"""Connections to captured databases, for checks and for slots: `${env:NAME}` is resolved from the caller's environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

from chronicle.capture.sources import REFERENCE, Database, Source
from chronicle.errors import ChronicleError

CONNECT_TIMEOUT_S = 5
QUERY_TIMEOUT_S = 10


class Unreachable(ChronicleError):
    """The database cannot be asked from here. Connect may reach it all the same."""


class Queries(Protocol):
    """An open connection that reads rows as dictionaries (names in small letters)."""

    def rows(self, sql: str, *parameters: object) -> list[dict[str, Any]]: ...

    def execute(self, sql: str, *parameters: object) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


@dataclass(frozen=True, slots=True)
class Address:
    """A database's address with references resolved. `password` never leaves this module."""

    host: str
    port: int
    name: str
    user: str
    password: str


def resolve(database: Database, environment: Mapping[str, str]) -> Address:
    """Replace references by the environment's values.

    Raises:
        Unreachable: a variable is not set here, or the reference is to a provider that only Connect has.
    """
    missing: list[str] = []

    def value(text: str) -> str:
        match = REFERENCE.fullmatch(text)
        if match is None:
            return text
        name = match.group("name")
        if match.group("provider") != "env" or name not in environment:
            missing.append(name if match.group("provider") == "env" else text)
            return ""
        return environment[name]

    host, port, user, password = (value(text) for text in (database.host, database.port, database.user, database.password))
    if missing:
        raise Unreachable(
            f"set {', '.join(missing)} here too: the database is asked directly, with the values that Connect has"
        )
    if not port.isdigit():
        raise Unreachable("set the database's port to a number")
    return Address(host, int(port), database.name, user, password)


def connect(source: Source, environment: Mapping[str, str]) -> Queries:
    """Open a connection to the source's database.

    Raises:
        Unreachable: it cannot be reached, or does not let us in; the message holds no secret.
    """
    address = resolve(source.database, environment)
    return Postgres(address) if source.kind == "postgres" else MySQL(address)


def _unreachable(address: Address, error: Exception) -> Unreachable:
    return Unreachable(
        f"database {address.name} at {address.host}:{address.port} not reachable from here ({type(error).__name__})"
    )


class Postgres:
    """PostgreSQL by psycopg, in autocommit."""

    def __init__(self, address: Address) -> None:
        import psycopg
        from psycopg.rows import dict_row

        try:
            self._connection = psycopg.connect(
                host=address.host,
                port=address.port,
                dbname=address.name,
                user=address.user,
                password=address.password,
                connect_timeout=CONNECT_TIMEOUT_S,
                options=f"-c statement_timeout={QUERY_TIMEOUT_S}s",
                application_name="chronicle connectors",
                autocommit=True,
                row_factory=dict_row,
            )
        except psycopg.Error as error:
            raise _unreachable(address, error) from None
        self._error = psycopg.Error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def rows(self, sql: str, *parameters: object) -> list[dict[str, Any]]:
        try:
            return list(self._connection.execute(sql.encode(), parameters or None).fetchall())
        except self._error as error:
            raise ChronicleError(f"the database refuses a question ({type(error).__name__})") from None

    def execute(self, sql: str, *parameters: object) -> None:
        try:
            self._connection.execute(sql.encode(), parameters or None)
        except self._error as error:
            raise ChronicleError(f"the database refuses an order ({type(error).__name__})") from None


class MySQL:
    """MySQL and MariaDB by PyMySQL, in autocommit."""

    def __init__(self, address: Address) -> None:
        import pymysql
        import pymysql.cursors

        try:
            self._connection = pymysql.connect(
                host=address.host,
                port=address.port,
                database=address.name,
                user=address.user,
                password=address.password,
                connect_timeout=CONNECT_TIMEOUT_S,
                read_timeout=QUERY_TIMEOUT_S,
                autocommit=True,
                charset="utf8mb4",
                cursorclass=pymysql.cursors.DictCursor,
            )
        except (pymysql.Error, OSError, RuntimeError) as error:
            raise _unreachable(address, error) from None
        self._error = pymysql.Error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def rows(self, sql: str, *parameters: object) -> list[dict[str, Any]]:
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(sql, parameters or None)
                return [{str(name).lower(): value for name, value in dict(row).items()} for row in cursor.fetchall()]
        except self._error as error:
            raise ChronicleError(f"the database refuses a question ({type(error).__name__})") from None

    def execute(self, sql: str, *parameters: object) -> None:
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(sql, parameters or None)
        except self._error as error:
            raise ChronicleError(f"the database refuses an order ({type(error).__name__})") from None
