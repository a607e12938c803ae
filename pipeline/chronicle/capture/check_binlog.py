"""Asks a MySQL or MariaDB server whether its binlog can be captured completely."""

from __future__ import annotations

from typing import Any

from chronicle.capture.database import Queries
from chronicle.capture.findings import Findings
from chronicle.capture.sources import Source

RETENTION_S = 3 * 24 * 3600
"""Shorter than a long weekend without anybody looking."""
GRANTS = {
    # what → (why, names under which a server may list it)
    "SELECT": ("the snapshot reads the tables", ("SELECT",)),
    "REPLICATION SLAVE": ("the connector is a replica", ("REPLICATION SLAVE", "REPLICATION REPLICA")),
    "REPLICATION CLIENT": ("positions are asked for", ("REPLICATION CLIENT", "BINLOG MONITOR")),
    "RELOAD": ("the snapshot locks the tables for a moment", ("RELOAD", "FLUSH_TABLES", "LOCK TABLES")),
}
SIGNAL_DDL = "CREATE TABLE {table} (id varchar(64) PRIMARY KEY, type varchar(32) NOT NULL, data varchar(2048))"
TABLES = """
SELECT t.table_name AS name, t.table_type AS kind, t.engine AS engine,
       EXISTS (SELECT 1 FROM information_schema.table_constraints c
               WHERE c.table_schema = t.table_schema AND c.table_name = t.table_name
                 AND c.constraint_type = 'PRIMARY KEY') AS has_key,
       (SELECT count(*) FROM information_schema.columns k
        WHERE k.table_schema = t.table_schema AND k.table_name = t.table_name) AS columns
FROM information_schema.tables t WHERE t.table_schema = %s
"""
CASCADES = """
SELECT constraint_name AS name, table_name AS child, referenced_table_name AS parent,
       delete_rule AS on_delete, update_rule AS on_update
FROM information_schema.referential_constraints
WHERE constraint_schema = %s
  AND (delete_rule IN ('CASCADE', 'SET NULL', 'SET DEFAULT') OR update_rule IN ('CASCADE', 'SET NULL', 'SET DEFAULT'))
"""


def check_binlog(source: Source, database: Queries, findings: Findings) -> None:
    """Server settings, the account's rights, each table, and cascades, of which the binlog says nothing."""
    settings = {str(row["variable_name"]).lower(): str(row["value"]) for row in database.rows("SHOW GLOBAL VARIABLES")}
    _flavour(source, settings, findings)
    _binlog(source, settings, findings)
    _retention(settings, findings)
    _filters(source, database, findings)
    _grants(database, findings)
    tables = {f"{source.database.name}.{row['name']}": row for row in database.rows(TABLES, source.database.name)}
    for name in source.captured:
        _table(name, tables.get(name), findings)
        if name in source.tables and name in tables:
            findings.keyless(name, said=name in source.keyless, has_key=bool(tables[name]["has_key"]))
    signal = tables.get(source.signal_table)
    if signal is None or signal["columns"] != 3:
        findings.error(
            f"the signal table {source.signal_table} does not exist, or has not three columns: no incremental snapshots",
            SIGNAL_DDL.format(table=source.signal_table),
        )
    _cascades(source, database, findings)


def _flavour(source: Source, settings: dict[str, str], findings: Findings) -> None:
    version = settings.get("version", "")
    comment = settings.get("version_comment", "")
    maria = "mariadb" in version.lower()
    if source.kind == "mysql" and maria:
        findings.error(
            "the server is MariaDB: the MySQL connector refuses it", f'write `template = "mariadb"` in {source.file}'
        )
    if source.kind == "mariadb" and not maria and "mariadb" not in comment.lower():
        findings.error("the server is not MariaDB", f'write `template = "mysql"` in {source.file}')


def _binlog(source: Source, settings: dict[str, str], findings: Findings) -> None:
    wanted = [
        ("log_bin", "ON", "there is nothing to capture", "start the server with --log-bin"),
        ("binlog_format", "ROW", "statements hold no rows", "SET GLOBAL binlog_format = 'ROW' (and in the server's file)"),
        (
            "binlog_row_image",
            "FULL",
            "columns that did not change are missing, and so is what was there before",
            "SET GLOBAL binlog_row_image = 'FULL' (and in the server's file)",
        ),
    ]
    for name, value, why, fix in wanted:
        if settings.get(name, value).upper() != value:
            findings.error(f"{name} is {settings[name]}: {why}", fix)
    if "PARTIAL_JSON" in settings.get("binlog_row_value_options", "").upper():
        findings.error("binlog_row_value_options is PARTIAL_JSON: updates of JSON columns are not whole", "unset it")
    if settings.get("binlog_row_metadata", "FULL").upper() != "FULL":
        findings.warning(
            f"binlog_row_metadata is {settings['binlog_row_metadata']}: the binlog does not say what its columns are, so"
            " a mistake in the schema history goes unnoticed",
            "SET GLOBAL binlog_row_metadata = 'FULL' (and in the server's file)",
        )
    if settings.get("server_id") in ("0", str(source.server_id)):
        findings.error(
            f"the server's own server_id is {settings['server_id']}: replicas need another, and not 0",
            "set server_id in the server's file, or `server_id` in the source's",
        )
    if source.kind == "mysql" and settings.get("gtid_mode", "ON").upper() != "ON":
        findings.warning(
            "gtid_mode is off: after a failover the position in the new server's binlog is not known", "turn GTID on"
        )
    if source.attribution_comments:
        option = "binlog_annotate_row_events" if source.kind == "mariadb" else "binlog_rows_query_log_events"
        if settings.get(option, "OFF").upper() != "ON":
            findings.error(f"{option} is off: the binlog holds no statements, so no comments", f"SET GLOBAL {option} = ON")


def _retention(settings: dict[str, str], findings: Findings) -> None:
    seconds = float(settings.get("binlog_expire_logs_seconds") or 0) or 86400 * float(settings.get("expire_logs_days") or 0)
    if seconds == 0:
        findings.warning(
            "the binlog is never removed: in the end it fills the disk", "SET GLOBAL binlog_expire_logs_seconds = 604800"
        )
    elif seconds < RETENTION_S:
        findings.warning(
            f"the binlog is kept for {seconds / 3600:.0f} h: a connector that is down for longer loses changes",
            "SET GLOBAL binlog_expire_logs_seconds = 604800",
        )
    if float(settings.get("max_binlog_total_size") or 0) > 0:
        findings.warning("max_binlog_total_size removes binlogs by size, read or not", "set it to 0, or large enough for days")


def _filters(source: Source, database: Queries, findings: Findings) -> None:
    rows = database.rows("SHOW MASTER STATUS")
    if not rows:
        return
    only = [name for name in str(rows[0].get("binlog_do_db") or "").split(",") if name]
    without = [name for name in str(rows[0].get("binlog_ignore_db") or "").split(",") if name]
    name = source.database.name
    if name in without or (only and name not in only):
        findings.error(f"the server keeps {name} out of its binlog", "change --binlog-do-db / --binlog-ignore-db")


def _grants(database: Queries, findings: Findings) -> None:
    text = " ".join(str(value) for row in database.rows("SHOW GRANTS") for value in row.values()).upper()
    if "ALL PRIVILEGES ON *.*" in text:
        return
    for what, (why, names) in GRANTS.items():
        if not any(name in text for name in (*names, "ALL PRIVILEGES")):
            findings.error(f"the account lacks {what}: {why}", f"GRANT {what} ON *.* TO <account>")


def _table(name: str, row: dict[str, Any] | None, findings: Findings) -> None:
    if row is None:
        findings.error(f"table {name} does not exist, or may not be seen", "correct `tables`, create it, or GRANT SELECT on it")
        return
    if row["kind"] not in ("BASE TABLE", "SYSTEM VERSIONED"):
        findings.error(f"{name} is no table: views have no changes", "take it out of `tables`")
        return
    database, _, table = name.partition(".")
    if not row["has_key"]:
        findings.warning(
            f"table {name} has no primary key: no mirror", f"ALTER TABLE `{database}`.`{table}` ADD PRIMARY KEY (…)"
        )
    if str(row["engine"]).upper() not in ("INNODB", "ROCKSDB", "TOKUDB", "NDBCLUSTER"):
        findings.warning(
            f"table {name} uses {row['engine']}: its rows change outside of transactions",
            f"ALTER TABLE `{database}`.`{table}` ENGINE = InnoDB",
        )


def _cascades(source: Source, database: Queries, findings: Findings) -> None:
    for row in database.rows(CASCADES, source.database.name):
        child = f"{source.database.name}.{row['child']}"
        if child in source.tables:
            acting = {"DELETE": row["on_delete"], "UPDATE": row["on_update"]}
            rules = ", ".join(f"ON {what} {rule}" for what, rule in acting.items() if rule not in ("RESTRICT", "NO ACTION"))
            findings.warning(
                f"foreign key {row['name']} of {child} changes rows by itself ({rules} of {row['parent']}), and the binlog does"
                " not show it: rows vanish or change without an event",
                "change the child rows in the application or in a trigger, and make the key RESTRICT",
            )
