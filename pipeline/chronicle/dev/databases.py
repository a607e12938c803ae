"""The databases of the local stack: a Postgres and a MariaDB of its own, never the system's, and a MariaDB posing as MySQL."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import ClassVar

from chronicle.dev.accounts import Account, database_account, database_home
from chronicle.dev.parts import NotHealthyYet, Part, base_environment, write_if_changed
from chronicle.dev.processes import Command
from chronicle.errors import StackError

POSTGRES_MINIMUM = 14
MARIADB_USER = "chronicle"
MARIADB_PASSWORD = "chronicle"  # noqa: S105 - no secret: the server listens on loopback, and the data are for trying out


def postgres_programs(existing_data: Path | None = None) -> Path:
    """The directory of Postgres' server programs: the newest version, or the one that made the existing data.

    Raises:
        StackError: there is none, it is too old, or the data belong to a version that is gone.
    """
    homes = {int(path.parent.name): path for path in Path("/usr/lib/postgresql").glob("*/bin") if path.parent.name.isdigit()}
    on_path = shutil.which("postgres")
    if on_path is not None:
        real = Path(on_path).resolve()
        shown = subprocess.run([str(real), "--version"], capture_output=True, text=True, check=False).stdout
        found = re.search(r"(\d+)", shown)
        if found:
            homes.setdefault(int(found[1]), real.parent)
    homes = {version: path for version, path in homes.items() if version >= POSTGRES_MINIMUM and (path / "initdb").exists()}
    if not homes:
        raise StackError(
            f"install Postgres {POSTGRES_MINIMUM} or newer (Debian, Ubuntu: apt install postgresql; make demo does it)"
        )
    if existing_data is not None and (existing_data / "PG_VERSION").exists():
        version = int((existing_data / "PG_VERSION").read_text(encoding="utf-8"))
        if version not in homes:
            raise StackError(
                f"run chronicle dev reset: the data were made by Postgres {version}, which is not installed any more"
            )
        return homes[version]
    return homes[max(homes)]


def _program(name: str, package: str) -> str:
    found = shutil.which(name, path=f"{base_environment()['PATH']}:/usr/libexec")
    if found is None:
        raise StackError(f"install {package}: {name} is missing (Debian, Ubuntu: apt install {package}; make demo does it)")
    return found


def _own(directory: Path, account: Account | None) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    if account is not None:
        os.chown(directory, account.uid, account.gid)


def _run_once(what: str, argv: list[str], account: Account | None, directory: Path) -> None:
    done = subprocess.run(
        [*(account.prefix() if account else []), *argv],
        cwd=directory,
        env={**base_environment(), "HOME": str(directory)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise StackError(f"read why {what} failed:\n{(done.stdout + done.stderr)[-2000:]}")


class Postgres(Part):
    """A cluster with logical decoding; TCP on loopback with trust, no socket file."""

    name: ClassVar[str] = "postgres"
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT
    """"Fast": SIGTERM would wait for every client to leave."""

    @property
    def working_directory(self) -> Path:
        """The postmaster goes there by itself."""
        return self.home / "data"

    @property
    def account(self) -> Account | None:
        """Root drops to this."""
        return database_account("postgres")

    @property
    def home(self) -> Path:
        """The cluster, where its account can get at it."""
        return database_home(self.site.directory, self.name, self.account)

    def prepare(self) -> None:
        """initdb once; settings every time."""
        account, data = self.account, self.home / "data"
        _own(self.home, account)
        if not (data / "PG_VERSION").exists():
            shutil.rmtree(data, ignore_errors=True)  # of an initdb that was interrupted
            argv = [
                str(postgres_programs() / "initdb"),
                "-A",
                "trust",
                "-N",
                "-U",
                "postgres",
                "-E",
                "UTF8",
                "--no-locale",
                "-D",
                str(data),
            ]
            _run_once("initdb", argv, account, self.home)
        # `prepare` is called when no process of this cluster is left, but after SIGKILL a zombie may still hold the pid
        # that this file names, for as long as PID 1 does not reap it (never, in many containers): Postgres would not start
        (data / "postmaster.pid").unlink(missing_ok=True)

    def command(self) -> Command:
        """The postmaster in the foreground."""
        settings = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "wal_level": "logical",
            "max_replication_slots": "20",
            "max_wal_senders": "20",
            "max_connections": "200",
            # a slot that nobody reads must not fill the developer's disk
            "max_slot_wal_keep_size": "4GB",
            "shared_buffers": "64MB",
            # faster, and only safe because nothing here outlives the machine: NOT for a database one cares for
            "fsync": "off",
            "full_page_writes": "off",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_statement": "none",
        }
        data = self.home / "data"
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return Command(
            argv=(str(postgres_programs(data) / "postgres"), "-D", str(data), *flags),
            environment=base_environment(),
            account=self.account,
        )

    def check(self) -> None:
        """It answers a query."""
        import psycopg

        try:
            with psycopg.connect(
                host="127.0.0.1", port=self.port, user="postgres", dbname="postgres", connect_timeout=3
            ) as connection:
                connection.execute("SELECT 1")
        except psycopg.Error:
            raise NotHealthyYet("Postgres to answer a query") from None


class MariaDB(Part):
    """A server with a row-based binlog; user and password `chronicle`, all rights, loopback only."""

    name: ClassVar[str] = "mariadb"
    server_id: ClassVar[int] = 1
    flags: ClassVar[tuple[str, ...]] = ()

    @property
    def account(self) -> Account | None:
        """Root drops to this."""
        return database_account("mysql")

    @property
    def home(self) -> Path:
        """The data, where their account can get at them."""
        return database_home(self.site.directory, self.name, self.account)

    def prepare(self) -> None:
        """Install the system tables once; the init file every time."""
        account, data = self.account, self.home / "data"
        _own(self.home, account)
        write_if_changed(
            self.home / "init.sql",
            # anonymous users would shadow chronicle@% for connections from localhost
            "SET sql_log_bin=0;\n"
            "DELETE FROM mysql.global_priv WHERE User='';\n"
            "FLUSH PRIVILEGES;\n"
            f"CREATE USER IF NOT EXISTS {MARIADB_USER}@'%' IDENTIFIED BY '{MARIADB_PASSWORD}';\n"
            f"GRANT ALL PRIVILEGES ON *.* TO {MARIADB_USER}@'%' WITH GRANT OPTION;\n",
        )
        (self.home / "init.sql").chmod(0o644)  # whatever the caller's umask is, the database's account reads it
        if not (data / "installed").exists():
            shutil.rmtree(data, ignore_errors=True)  # of an installation that was interrupted
            _own(data, account)
            argv = [
                _program("mariadb-install-db", "mariadb-server"),
                "--no-defaults",
                f"--datadir={data}",
                "--skip-test-db",
                "--auth-root-authentication-method=normal",
                "--skip-name-resolve",
            ]
            _run_once("mariadb-install-db", argv, account, self.home)
            (data / "installed").touch()

    def command(self) -> Command:
        """mariadbd in the foreground, without any configuration file of the system."""
        data = self.home / "data"
        flags = (
            f"--datadir={data}",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            "--socket=mariadb.sock",  # relative to the data: a long state directory must not exceed 107 bytes
            f"--pid-file={data / 'mariadb.pid'}",
            f"--init-file={self.home / 'init.sql'}",
            f"--server-id={self.server_id}",
            "--log-bin=binlog",
            "--binlog-format=ROW",
            "--binlog-row-image=FULL",
            "--binlog-row-metadata=FULL",
            "--binlog-annotate-row-events=1",
            "--binlog-expire-logs-seconds=604800",
            "--gtid-strict-mode=1",
            "--default-time-zone=+00:00",
            "--character-set-server=utf8mb4",
            "--max-allowed-packet=64M",
            "--max-connections=200",
            "--skip-name-resolve",
            "--innodb-buffer-pool-size=64M",
            "--innodb-log-file-size=64M",
            "--innodb-flush-log-at-trx-commit=2",  # safe against a killed server, not against a power cut
            "--performance-schema=OFF",
        )
        return Command(
            argv=(_program("mariadbd", "mariadb-server"), "--no-defaults", *flags, *self.flags),
            environment=base_environment(),
            account=self.account,
        )

    def check(self) -> None:
        """The chronicle user can log in and gets an answer."""
        import pymysql

        try:
            login = pymysql.connect(
                host="127.0.0.1", port=self.port, user=MARIADB_USER, password=MARIADB_PASSWORD, connect_timeout=3
            )
            with login as connection:
                connection.ping()
        except (pymysql.Error, OSError):
            raise NotHealthyYet("MariaDB to let its user in") from None


class MySQL(MariaDB):
    """The same server saying that it is MySQL 5.7, since the MySQL connector refuses MariaDB by its version."""

    name: ClassVar[str] = "mysql"
    server_id: ClassVar[int] = 2
    flags: ClassVar[tuple[str, ...]] = ("--version=5.7.10-log",)
