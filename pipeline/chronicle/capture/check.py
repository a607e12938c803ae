"""Everything that can be wrong with a source before it runs: its files, Connect's opinion, and the database itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from chronicle.capture.apply import Deployment
from chronicle.capture.check_binlog import check_binlog
from chronicle.capture.check_outbox import check_outbox
from chronicle.capture.check_postgres import check_postgres
from chronicle.capture.connect import ConnectClient
from chronicle.capture.database import Unreachable, connect
from chronicle.capture.findings import Finding, Findings
from chronicle.capture.sources import Source, load_source
from chronicle.errors import ChronicleError, ConfigError, TransientError

TESTED_POSTGRES = (3, 7)
"""Older PostgreSQL connectors can skip rows after a restart when several events share one LSN."""


def check_files(directory: Path, names: list[str]) -> tuple[dict[str, Source], list[Finding]]:
    """Read the source files (all, or those named); a file that is not right is a finding, its neighbours are read.

    Raises:
        ConfigError: the directory, or a source that was named, is not there.
    """
    if not directory.is_dir():
        raise ConfigError(f"no directory {directory}: set connect.directory to where your connector files are")
    present = {path.stem: path for path in sorted(directory.glob("*.toml"))}
    unknown = [name for name in names if name not in present]
    if unknown:
        raise ConfigError(f"name one of {', '.join(present) or 'none'}: no source file for {', '.join(unknown)} in {directory}")
    sources: dict[str, Source] = {}
    findings: list[Finding] = []
    for name in names or present:
        try:
            sources[name] = load_source(present[name])
        except ConfigError as error:
            findings.append(Finding("error", name, str(error), f"edit {present[name]}"))
    findings += _between(sources)
    return sources, findings


def check(source: Source, deployment: Deployment) -> list[Finding]:
    """Render, validate by Connect, and ask the database. What cannot be reached is a note, not an error."""
    findings = Findings(source.name)
    try:
        wanted = deployment.rendered(source)
    except ConfigError as error:
        findings.error(str(error), "correct the template")
        return findings.all
    _connect(source, wanted, deployment.connect, findings)
    try:
        with connect(source, deployment.environment) as database:
            if source.kind == "postgres":
                check_postgres(source, database, findings)
            else:
                check_binlog(source, database, findings)
            check_outbox(source, database, findings)
    except Unreachable as error:
        findings.note("the database was not checked", str(error))
    except ChronicleError as error:
        findings.warning("the database was not checked to the end", str(error))
    return findings.all


def _connect(source: Source, wanted: Mapping[str, str], client: ConnectClient, findings: Findings) -> None:
    try:
        plugins = client.plugins()
        connector = wanted["connector.class"]
        version = plugins.get(connector)
        if version is None:
            findings.error(
                f"Connect has no {connector}", "unpack the Debezium plugin into Connect's plugin.path and restart it"
            )
            return
        parts = [int(part) for part in version.split(".")[:2] if part.isdigit()]
        if source.kind == "postgres" and tuple(parts) < TESTED_POSTGRES:
            findings.error(
                f"Debezium {version} can skip rows after a restart (several events share one LSN)",
                "install debezium-connector-postgres 3.7.0.Final or newer",
            )
        for option, problem in client.validate(source.name, wanted):
            findings.error(f"Connect refuses {option}: {problem}", f"correct {source.file}, the template, or the database")
    except TransientError as error:
        findings.note("Connect was not asked", str(error))
    except ChronicleError as error:
        findings.error("Connect refuses the configuration", str(error))


def _between(sources: Mapping[str, Source]) -> list[Finding]:
    """What only shows when several sources are looked at together."""
    findings: list[Finding] = []
    ids: dict[tuple[str, str, int], str] = {}
    slots: dict[tuple[str, str, str], str] = {}
    signals: dict[tuple[str, str, str, str], str] = {}
    for name, source in sources.items():
        host, port = source.database.host, source.database.port
        other = signals.setdefault((host, port, source.database.name, source.signal_table), name)
        if other != name:
            fix = f"create another table and set `signal_table` in {source.file}"
            findings.append(Finding("error", name, f"has the signal table of {other}: each reads the other's signals", fix))
        if source.server_id is not None:
            other = ids.setdefault((host, port, source.server_id), name)
            if other != name:
                fix = f"set another `server_id` in {source.file}"
                findings.append(Finding("error", name, f"has the server_id of {other}: they throw each other out", fix))
        elif source.kind == "postgres":
            other = slots.setdefault((host, port, source.slot), name)
            if other != name:
                fix = f'set another "slot.name" under [options] in {source.file}'
                findings.append(Finding("error", name, f"uses the slot of {other}: each would miss what the other reads", fix))
    return findings
