"""Asks a PostgreSQL server whether it can be captured completely."""

from __future__ import annotations

from typing import Any

from chronicle.capture.database import Queries
from chronicle.capture.findings import Findings
from chronicle.capture.slots import slot
from chronicle.capture.sources import Source

OLDEST = 140000
TABLES = """
SELECT n.nspname || '.' || c.relname AS name, c.relkind::text AS kind, c.relreplident::text AS identity,
       EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary) AS has_key,
       has_table_privilege(c.oid, 'SELECT') AS readable,
       has_table_privilege(c.oid, 'INSERT') AS writable,
       pg_has_role(c.relowner, 'USAGE') AS owned,
       EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attgenerated = 's') AS generated,
       c.relpersistence::text AS persistence,
       (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname || '.' || c.relname = ANY(%s)
"""
SETTINGS = ("server_version_num", "wal_level", "max_replication_slots", "max_wal_senders", "max_slot_wal_keep_size")
SIGNAL_DDL = "CREATE TABLE {table} (id varchar(64) PRIMARY KEY, type varchar(32) NOT NULL, data varchar(2048))"


def check_postgres(source: Source, database: Queries, findings: Findings) -> None:
    """Server settings, the account's rights, the publication, the slot, and each table."""
    rows = database.rows("SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", list(SETTINGS))
    settings = {row["name"]: str(row["setting"]) for row in rows}
    _server(settings, findings)
    account = database.rows(
        "SELECT rolsuper, rolreplication OR EXISTS (SELECT 1 FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid"
        " WHERE m.member = r.oid AND g.rolname IN ('rds_replication', 'cloudsqlsuperuser', 'azure_pg_admin')) AS replicates,"
        " has_database_privilege(current_database(), 'CREATE') AS creates FROM pg_roles r WHERE rolname = current_user"
    )[0]
    if not (account["rolsuper"] or account["replicates"]):
        findings.error("the account may not replicate", "ALTER ROLE <account> REPLICATION")
    _slot(source, database, settings, findings)
    names = [*source.captured, source.signal_table]
    tables = {row["name"]: row for row in database.rows(TABLES, names)}
    for name in source.captured:
        _table(name, tables.get(name), findings, only_inserted=name in source.routed)
        if name in source.tables:
            _identity(name, tables.get(name), findings, said_full=name in source.full_identity)
        if name in source.tables and name in tables:
            findings.keyless(name, said=name in source.keyless, has_key=bool(tables[name]["has_key"]))
    _signal_table(source, tables.get(source.signal_table), findings)
    _publication(source, database, tables, account, findings)


def _server(settings: dict[str, str], findings: Findings) -> None:
    if int(settings["server_version_num"]) < OLDEST:
        findings.error("PostgreSQL is older than 14: logical messages do not reach the connector", "upgrade the server")
    if settings["wal_level"] != "logical":
        findings.error(
            f"wal_level is {settings['wal_level']}: there is nothing to capture",
            "ALTER SYSTEM SET wal_level = 'logical', then restart the server",
        )
    if settings["max_slot_wal_keep_size"] == "-1":
        findings.warning(
            "max_slot_wal_keep_size is unlimited: a forgotten or broken slot fills the disk until the server stops",
            "ALTER SYSTEM SET max_slot_wal_keep_size = '50GB' (as much as may be waiting while the connector is down)",
        )


def _slot(source: Source, database: Queries, settings: dict[str, str], findings: Findings) -> None:
    found = slot(database, source.slot)
    if found is None:
        used = int(database.rows("SELECT count(*) AS used FROM pg_replication_slots")[0]["used"])
        senders = int(database.rows("SELECT count(*) AS used FROM pg_stat_replication")[0]["used"])
        for option, taken in (("max_replication_slots", used), ("max_wal_senders", senders)):
            if taken >= int(settings[option]):
                findings.error(
                    f"no place is left of {option} ({settings[option]})",
                    f"ALTER SYSTEM SET {option} = {int(settings[option]) + 10}, then restart the server",
                )
    elif found.wal_status == "lost":
        findings.error(
            f"slot {found.name} is lost: the server has removed WAL that was not read yet",
            f"chronicle connectors apply {source.name} --new-epoch",
        )
    elif found.wal_status == "unreserved":
        findings.warning(f"slot {found.name} is about to be lost", "start the connector, or raise max_slot_wal_keep_size")


def _table(name: str, row: dict[str, Any] | None, findings: Findings, *, only_inserted: bool) -> None:
    schema, _, table = name.partition(".")
    quoted = f'"{schema}"."{table}"'
    if row is None:
        findings.error(f"table {name} does not exist", "correct `tables`, or create it")
        return
    if row["kind"] not in ("r", "p"):
        findings.error(f"{name} is no table: views and foreign tables have no changes", "take it out of `tables`")
        return
    if row["persistence"] != "p":
        findings.error(
            f"table {name} is unlogged or temporary: nothing of it is in the WAL", f"ALTER TABLE {quoted} SET LOGGED"
        )
    if not row["readable"]:
        findings.error(f"table {name} may not be read: its snapshot fails", f"GRANT SELECT ON {quoted} TO <account>")
    full = f"ALTER TABLE {quoted} REPLICA IDENTITY FULL"
    if row["identity"] == "n" or (row["identity"] == "d" and not row["has_key"]):
        findings.error(
            f"table {name} has no replica identity: once it is published, UPDATE and DELETE fail in the application", full
        )
    elif row["identity"] != "f" and not only_inserted:
        findings.warning(
            f"table {name} has no REPLICA IDENTITY FULL: what was there before an update or delete is not known, and unchanged"
            " large values are missing",
            full,
        )
    if not row["has_key"]:
        findings.warning(
            f"table {name} has no primary key: no mirror, and a row copied twice after a crash may be counted twice",
            f"ALTER TABLE {quoted} ADD PRIMARY KEY (…)",
        )
    if row["generated"]:
        findings.warning(f"table {name} has generated columns: they are not in the log", "compute them where they are read")


def _identity(name: str, row: dict[str, Any] | None, findings: Findings, *, said_full: bool) -> None:
    """`full_identity` of the source file against the database: no record says which it is."""
    if row is None:
        return
    if said_full and row["identity"] != "f":
        findings.error(
            f"table {name} is in `full_identity` but has no REPLICA IDENTITY FULL: invented values would be recorded",
            f"take it out of `full_identity`, or ALTER TABLE {name} REPLICA IDENTITY FULL",
        )
    elif not said_full and row["identity"] == "f":
        findings.warning(
            f"table {name} has REPLICA IDENTITY FULL but is not in `full_identity`: of a deleted row only the key is kept",
            f'add "{name}" to `full_identity`',
        )


def _signal_table(source: Source, row: dict[str, Any] | None, findings: Findings) -> None:
    if row is None:
        findings.error(
            f"the signal table {source.signal_table} does not exist: no incremental snapshots",
            SIGNAL_DDL.format(table=source.signal_table),
        )
    elif not row["writable"]:
        findings.error(
            f"the account may not write into the signal table {source.signal_table}",
            f"GRANT SELECT, INSERT ON {source.signal_table} TO <account>",
        )
    elif row["columns"] != 3:
        findings.error(
            f"the signal table {source.signal_table} must have three columns", SIGNAL_DDL.format(table=source.signal_table)
        )


def _publication(
    source: Source, database: Queries, tables: dict[str, dict[str, Any]], account: dict[str, Any], findings: Findings
) -> None:
    name = source.publication
    found = database.rows(
        "SELECT puballtables, pubinsert AND pubupdate AND pubdelete AND pubtruncate AS complete,"
        " pg_has_role(pubowner, 'USAGE') AS owned FROM pg_publication WHERE pubname = %s",
        name,
    )
    if found and not found[0]["complete"]:
        findings.error(
            f"publication {name} leaves out some operations",
            f"ALTER PUBLICATION {name} SET (publish = 'insert, update, delete, truncate')",
        )
    published = database.rows(
        "SELECT schemaname || '.' || tablename AS name FROM pg_publication_tables WHERE pubname = %s", name
    )
    missing = {*tables} - {row["name"] for row in published}
    if not missing or (found and found[0]["puballtables"]):
        return
    strange = sorted(table for table in missing if not tables[table]["owned"])
    may_change = account["rolsuper"] or (found[0]["owned"] if found else account["creates"])
    listed = ", ".join(sorted({*tables}))
    if not may_change or (strange and not account["rolsuper"]):
        order = f"ALTER PUBLICATION {name} SET TABLE {listed}" if found else f"CREATE PUBLICATION {name} FOR TABLE {listed}"
        findings.error(
            f"the account can neither find all tables in publication {name} nor put them there itself"
            + (f" (not its own: {', '.join(strange)})" if strange else ""),
            f"as the tables' owner: {order} WITH (publish_via_partition_root = true)" if not found else f"as owner: {order}",
        )
