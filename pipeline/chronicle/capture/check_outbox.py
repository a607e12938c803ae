"""Asks a database whether its outbox table is as `journal.in_transaction` writes it and Debezium's router reads it."""

from __future__ import annotations

from chronicle.capture.database import Queries
from chronicle.capture.findings import Findings
from chronicle.capture.sources import Source
from chronicle.journal.outbox_table import COLUMNS

FOUND = """
SELECT c.column_name AS name, c.is_nullable AS nullable, lower(c.data_type) AS type, c.column_default AS value
FROM information_schema.columns c WHERE c.table_schema = %s AND c.table_name = %s
"""
TEXT = frozenset({"text", "character varying", "varchar", "char", "character", "tinytext", "mediumtext", "longtext"})
LONG = frozenset({"text", "longtext", "mediumtext"})
"""Types that hold any event: a MySQL text of 64 kB does not."""


def check_outbox(source: Source, database: Queries, findings: Findings) -> None:
    """Each column with its type, and that nothing stays in the table. A table that is not there is found elsewhere."""
    if source.outbox_table is None:
        return
    schema, _, table = source.outbox_table.partition(".")
    found = {str(row["name"]): row for row in database.rows(FOUND, schema, table)}
    if not found:
        return
    fix = f"make it as `chronicle outbox ddl --dialect {source.kind}` says"
    for column in COLUMNS:
        row = found.get(column)
        if row is None:
            findings.error(f"the outbox table {source.outbox_table} has no column {column}: no event can be written", fix)
        elif row["type"] not in TEXT and (column, row["type"]) != ("id", "uuid"):
            findings.error(f"column {column} of the outbox table is {row['type']}: the router wants text", fix)
        elif column == "event" and row["type"] not in (LONG - {"text"} if source.kind != "postgres" else LONG):
            findings.error(f"column event of the outbox table is {row['type']}: too short for an event", fix)
        elif row["nullable"] != "NO" and column != "id":
            findings.error(f"column {column} of the outbox table can be NULL: such a row would stop the connector", fix)
    strange = sorted(
        name for name, row in found.items() if name not in COLUMNS and row["nullable"] == "NO" and row["value"] is None
    )
    if strange:
        findings.warning(
            f"the outbox table has other columns that must be written ({', '.join(strange)}): the library writes only its own",
            "give them a DEFAULT, or take them away",
        )
    quote = '"' if source.kind == "postgres" else "`"
    named = ".".join(f"{quote}{part}{quote}" for part in (schema, table))
    if database.rows(f"SELECT 1 AS one FROM {named} LIMIT 1"):  # noqa: S608  # a table that the file names
        findings.warning(
            f"the outbox table {source.outbox_table} has rows: they were delivered when they were inserted, and whoever wrote"
            " them did not delete them",
            f"DELETE FROM {named}",  # noqa: S608  # shown, not run
        )
