"""Payloads of `database.…`: what an application asked of its databases. Never a parameter, nor a text that may hold one."""

from __future__ import annotations

from typing import Annotated, ClassVar

from chronicle.events.payload import Kind, Payload, said

System = Annotated[str, said("postgresql, mariadb, mysql, sqlite …", "postgresql")]
Database = Annotated[str | None, said("Name of the database.", "shop")]
Duration = Annotated[float | None, said("Milliseconds that it took.", 3.25)]
Operation = Annotated[str | None, said("First word of the statement.", "SELECT")]
Tables = Annotated[list[str] | None, said("Tables that it names.", ["public.orders"])]
Fingerprint = Annotated[str | None, said("Equal for statements that differ in their values only.", "a3f1c2d4")]
Parameters = Annotated[int | None, said("How many parameters it had.", 2)]
TransactionId = Annotated[str | None, said("The database's own number of it.", "731")]
Statements = Annotated[int | None, said("How many statements it had.", 3)]


class DatabaseConnected(Payload, frozen=True):
    """A connection was opened."""

    KIND: ClassVar[Kind] = Kind.of("database.connected")

    system: System
    database: Database = None
    host: Annotated[str | None, said("Where the server is.", "db.internal")] = None
    port: Annotated[int | None, said("On which port.", 5432)] = None
    user: Annotated[str | None, said("As which user of the database.", "shop_app", "token")] = None
    encrypted: Annotated[bool | None, said("Whether TLS protects it.", True)] = None
    duration_ms: Duration = None


class DatabaseInit(Payload, frozen=True):
    """A database was made ready: created, or brought to a version of its schema."""

    KIND: ClassVar[Kind] = Kind.of("database.init")

    system: System
    database: Database = None
    schema_version: Annotated[str | None, said("Version that it has now.", "0042")] = None
    migrations: Annotated[int | None, said("How many migrations were applied.", 3)] = None
    duration_ms: Duration = None


class DatabaseError(Payload, frozen=True):
    """The database, or the way to it, failed."""

    KIND: ClassVar[Kind] = Kind.of("database.error")

    system: System
    database: Database = None
    code: Annotated[str | None, said("SQLSTATE, or the driver's number.", "23505")] = None
    error_type: Annotated[str | None, said("Class of the exception.", "UniqueViolation")] = None
    operation: Operation = None
    tables: Tables = None
    fingerprint: Fingerprint = None


class DatabaseQuery(Payload, frozen=True):
    """Rows were read."""

    KIND: ClassVar[Kind] = Kind.of("database.query")

    system: System
    database: Database = None
    operation: Operation = None
    tables: Tables = None
    fingerprint: Fingerprint = None
    parameters: Parameters = None
    rows: Annotated[int | None, said("How many rows came.", 20)] = None
    duration_ms: Duration = None


class DatabaseExec(Payload, frozen=True):
    """Rows or the schema were changed."""

    KIND: ClassVar[Kind] = Kind.of("database.exec")

    system: System
    database: Database = None
    operation: Annotated[str | None, said("First word of the statement.", "UPDATE")] = None
    tables: Tables = None
    fingerprint: Fingerprint = None
    parameters: Parameters = None
    rows: Annotated[int | None, said("How many rows it touched.", 1)] = None
    duration_ms: Duration = None


class DatabaseTransactionStarted(Payload, frozen=True):
    """A transaction began."""

    KIND: ClassVar[Kind] = Kind.of("database.transaction.started")

    system: System
    database: Database = None
    transaction_id: TransactionId = None
    isolation: Annotated[str | None, said("Isolation level.", "repeatable read")] = None
    read_only: Annotated[bool | None, said("Whether it may change nothing.", False)] = None


class DatabaseTransactionCommitted(Payload, frozen=True):
    """A transaction took effect."""

    KIND: ClassVar[Kind] = Kind.of("database.transaction.committed")

    system: System
    database: Database = None
    transaction_id: TransactionId = None
    statements: Statements = None
    duration_ms: Duration = None


class DatabaseTransactionRolledBack(Payload, frozen=True):
    """A transaction had no effect."""

    KIND: ClassVar[Kind] = Kind.of("database.transaction.rolled_back")

    system: System
    database: Database = None
    transaction_id: TransactionId = None
    statements: Statements = None
    error_type: Annotated[str | None, said("Class of the exception that caused it.", "DeadlockDetected")] = None
    duration_ms: Duration = None
