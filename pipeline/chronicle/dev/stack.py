"""One local stack: its directory, its ports, and bringing all or some of its parts up and down."""

from __future__ import annotations

import fcntl
import json
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from chronicle.dev import processes
from chronicle.dev.clickhouse import ClickHouse
from chronicle.dev.databases import MariaDB, MySQL, Postgres
from chronicle.dev.fetch import cache_directory, fetch
from chronicle.dev.java import Connect, Kafka, Registry, source_environment
from chronicle.dev.parts import NotHealthyYet, Part, Site, write_if_changed
from chronicle.dev.ports import DEFAULT_BASE, Ports, require_free
from chronicle.dev.progress import PartStatus, Progress, Report, one_at_a_time, quiet
from chronicle.dev.worker_part import Worker
from chronicle.errors import ChronicleError, ConfigError, StackError

__all__ = ["DEFAULT_PARTS", "PARTS", "PartStatus", "Progress", "Report", "Stack", "quiet"]

PARTS: dict[str, type[Part]] = {
    kind.name: kind for kind in (Kafka, Registry, Connect, Postgres, MariaDB, ClickHouse, MySQL, Worker)
}
"""Every part, in the order in which it is shown."""
DEFAULT_PARTS = tuple(name for name in PARTS if name not in ("mysql", "worker"))
LOCK_DEADLINE_S = 300.0
HEALTH_INTERVAL_S = 0.2
LOG_BYTES_MAX = 64 * 1024 * 1024
"""A longer log is put aside, as one older file, when its part starts."""


class Stack:
    """A stack by its state directory. Objects hold no state: any number of them, in any process, may name one stack."""

    def __init__(self, directory: Path, port_base: int | None = None) -> None:
        """Name a stack; nothing is started or written.

        Args:
            directory: the state directory.
            port_base: its first port; None: as remembered in the directory, else `DEFAULT_BASE`.

        Raises:
            ConfigError: the base is out of range, or another one than that of a stack which is up.
        """
        self.directory = directory.expanduser().absolute()
        remembered = self._remembered()
        self.ports = Ports(port_base if port_base is not None else remembered or DEFAULT_BASE)
        self.site = Site(self.directory, self.ports)
        self.cache = cache_directory()
        if remembered is not None and remembered != self.ports.base and self._any_running():
            raise ConfigError(
                f"run chronicle dev down --dir {directory} first, or leave --port-base out: "
                f"this stack is up with port base {remembered}"
            )

    # -- what clients need ---------------------------------------------------------------------------------------------

    @property
    def kafka(self) -> str:
        """Bootstrap servers."""
        return f"127.0.0.1:{self.ports.kafka}"

    @property
    def registry_url(self) -> str:
        """The registry by Confluent's API."""
        return f"http://localhost:{self.ports.registry}/apis/ccompat/v7"

    @property
    def connect_url(self) -> str:
        """Kafka Connect's REST interface."""
        return f"http://localhost:{self.ports.connect}"

    @property
    def clickhouse_url(self) -> str:
        """ClickHouse over HTTP; user `default`, no password."""
        return f"http://localhost:{self.ports.clickhouse}"

    @property
    def settings_file(self) -> Path:
        """The `chronicle.toml` for this stack, written by `up`."""
        return self.directory / "chronicle.toml"

    @property
    def environment(self) -> dict[str, str]:
        """What `${env:NAME}` in the demo's connector files resolves to here."""
        return source_environment(self.ports.base)

    def postgres_dsn(self, dbname: str = "postgres") -> str:
        """A libpq connection string of the superuser."""
        return f"host=127.0.0.1 port={self.ports.postgres} user=postgres password=postgres dbname={dbname}"

    def mariadb_params(self, database: str | None = None) -> dict[str, Any]:
        """Keyword arguments for `pymysql.connect`, as a user with all rights."""
        login = {"host": "127.0.0.1", "port": self.ports.mariadb, "user": "chronicle", "password": "chronicle"}
        return login | ({"database": database} if database else {})

    # -- the whole -----------------------------------------------------------------------------------------------------

    def up(self, only: Sequence[str] | None = None, report: Report = quiet) -> None:
        """Start what does not run yet and return when all of it is healthy. May be repeated.

        Args:
            only: parts to start, with what they need; None: all but `mysql`.
            report: called from several threads, one call at a time.

        Raises:
            ConfigError: a part is unknown, or a port is taken.
            StackError: something could not be fetched or started, or died; its log's end is in the message.
                What did start keeps running.
        """
        names = self._with_needs(DEFAULT_PARTS if only is None else only)
        report = one_at_a_time(report)
        self._require_own_directory()
        with self._locked():
            parts = [self.part(name) for name in names]
            absent = [part.name for part in parts if not self._is_running(part)]
            require_free(self.ports, absent)
            self._remember()
            for directory in ("logs", "run"):
                (self.directory / directory).mkdir(exist_ok=True)
            self._write_settings()
            self._fetch([part for part in parts if part.name in absent], report)
            self._start_all(parts, report)

    def fetch(self, only: Sequence[str] | None = None, report: Report = quiet) -> None:
        """Download and build what `up` would, and start nothing.

        Raises:
            ConfigError: a part is unknown.
            StackError: something could not be fetched.
        """
        names = self._with_needs(DEFAULT_PARTS if only is None else only)
        self._fetch([self.part(name) for name in names], one_at_a_time(report))

    def down(self, report: Report = quiet) -> None:
        """Stop everything, also what a killed `up` left behind. Fine when nothing runs.

        Raises:
            StackError: a process survived SIGKILL.
        """
        if not self.directory.exists():
            return
        with self._locked(), ThreadPoolExecutor(len(PARTS)) as threads:
            # Connect first: without a broker it would wait for one until its deadline
            self._stop_one(self.part("connect"), report)
            for _ in threads.map(
                lambda name: self._stop_one(self.part(name), report), [name for name in PARTS if name != "connect"]
            ):
                pass

    def reset(self, report: Report = quiet) -> None:
        """Stop everything and delete the stack's state; the cache of downloads stays."""
        homes = [self.part(name).home for name in PARTS]
        self.down(report)
        for home in homes:
            if home.is_relative_to(Path("/var/lib/chronicle-dev")):
                shutil.rmtree(home.parent, ignore_errors=True)
                with suppress(OSError):  # another stack's files are there, or it is gone already
                    home.parent.parent.rmdir()
        if (self.directory / "stack.json").exists():
            shutil.rmtree(self.directory)
        elif self.directory.exists() and [path.name for path in self.directory.iterdir()] == ["lock"]:
            shutil.rmtree(self.directory)  # of an `up` that was refused

    def status(self) -> list[PartStatus]:
        """What every part does now; health is asked, so this takes up to some seconds when parts hang."""
        with ThreadPoolExecutor(len(PARTS)) as threads:
            return list(threads.map(lambda name: self._status_of(self.part(name)), PARTS))

    # -- one part ------------------------------------------------------------------------------------------------------

    def part(self, name: str) -> Part:
        """A part by its name.

        Raises:
            ConfigError: there is no such part.
        """
        if name not in PARTS:
            raise ConfigError(f"choose from {', '.join(PARTS)}: there is no part {name!r}")
        return PARTS[name](self.site, self.cache)

    def start(self, name: str, report: Report = quiet) -> None:
        """Start one part (what it needs included) and wait until it is healthy."""
        self.up([name], report)

    def stop(self, name: str, report: Report = quiet) -> None:
        """Stop one part in good order."""
        with self._locked():
            self._stop_one(self.part(name), report)

    def kill(self, name: str) -> None:
        """SIGKILL one part at once; `status` then says that it died.

        Raises:
            StackError: it does not run.
        """
        processes.kill(self.part(name).owner)

    def log_file(self, name: str) -> Path:
        """Where a part's output is kept."""
        return self.site.log_file(self.part(name).name)

    # -- inner ---------------------------------------------------------------------------------------------------------

    def _with_needs(self, names: Sequence[str]) -> list[str]:
        wanted = {need for name in names for need in (*self.part(name).needs, name)}
        return [name for name in PARTS if name in wanted]

    def _is_running(self, part: Part) -> bool:
        identity = processes.read_pid_file(part.owner.pid_file)
        return identity is not None and processes.is_running(identity)

    def _any_running(self) -> bool:
        files = ((self.directory / "run") / f"{name}.pid" for name in PARTS)
        return any(one is not None and processes.is_running(one) for one in map(processes.read_pid_file, files))

    def _fetch(self, parts: list[Part], report: Report) -> None:
        began = time.monotonic()
        fetch(
            self.cache,
            [name for part in parts for name in part.artifacts()],
            lambda name, detail: report(Progress(name, "fetching", detail, time.monotonic() - began)),
        )

    def _start_all(self, parts: list[Part], report: Report) -> None:
        healthy = {part.name: threading.Event() for part in parts}
        gave_up = threading.Event()

        def run(part: Part) -> None:
            try:
                for need in part.needs:
                    while not healthy[need].wait(HEALTH_INTERVAL_S):
                        if gave_up.is_set():
                            return
                self._start_one(part, report, gave_up)
                healthy[part.name].set()
            except BaseException:
                gave_up.set()
                raise

        threads = ThreadPoolExecutor(len(parts) or 1)
        try:
            running = [threads.submit(run, part) for part in parts]
            errors = [error for one in running if (error := one.exception()) is not None]
        except BaseException:  # Ctrl-C: the threads end at their next look
            gave_up.set()
            raise
        finally:
            threads.shutdown(wait=True)
        for error in errors:
            if not isinstance(error, ChronicleError):
                raise error
        if errors:
            raise StackError("\n".join(map(str, errors)))

    def _start_one(self, part: Part, report: Report, gave_up: threading.Event) -> None:
        began = time.monotonic()
        fresh = not self._is_running(part)
        try:
            if fresh:
                report(Progress(part.name, "starting"))
                processes.stop(part.owner)  # what a crash left: orphans that still hold the data directory
                part.prepare()
                self._rotate(self.site.log_file(part.name))
                processes.start(part.owner, part.command(), self.site.log_file(part.name))
            self._wait_healthy(part, report, began, gave_up)
        except ChronicleError as error:
            report(Progress(part.name, "failed", str(error).partition("\n")[0], time.monotonic() - began))
            raise
        if not gave_up.is_set():
            report(Progress(part.name, "ready" if fresh else "running", f"port {part.port}", time.monotonic() - began))

    def _wait_healthy(self, part: Part, report: Report, began: float, gave_up: threading.Event) -> None:
        log = self.site.log_file(part.name)
        shown = ""
        while not gave_up.is_set():
            if not self._is_running(part):
                raise StackError(f"read why {part.name} died; the end of {log}:\n{processes.tail(log)}")
            try:
                part.check()
                return
            except NotHealthyYet as reason:
                waited = time.monotonic() - began
                if waited > part.deadline_s:
                    raise StackError(
                        f"read why {part.name} is not healthy after {waited:.0f} s (waiting for {reason}); "
                        f"the end of {log}:\n{processes.tail(log)}"
                    ) from None
                if str(reason) != shown:
                    shown = str(reason)
                    report(Progress(part.name, "waiting", f"for {shown}", waited))
            gave_up.wait(HEALTH_INTERVAL_S)

    @staticmethod
    def _rotate(log: Path) -> None:
        if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
            log.replace(log.with_suffix(".log.1"))

    def _stop_one(self, part: Part, report: Report) -> None:
        began = time.monotonic()
        there = part.owner.pid_file.exists()
        if there:
            report(Progress(part.name, "stopping"))
        processes.stop(part.owner)
        if there:
            report(Progress(part.name, "stopped", "", time.monotonic() - began))

    def _status_of(self, part: Part) -> PartStatus:
        identity = processes.read_pid_file(part.owner.pid_file)
        if identity is None or not processes.is_running(identity):
            died = identity is not None
            return PartStatus(part.name, "died" if died else "stopped", None, part.port, 0, None, "died" if died else "")
        memory = processes.memory_bytes(list(processes.members(part.owner, identity)))
        try:
            part.check()
            state, health = "running", "ok"
        except NotHealthyYet as reason:
            state, health = "unhealthy", f"waiting for {reason}"
        uptime = processes.uptime_s(identity)
        return PartStatus(part.name, state, identity.pid, part.port, memory, uptime, health)  # type: ignore[arg-type]

    def _remembered(self) -> int | None:
        try:
            return int(json.loads((self.directory / "stack.json").read_text(encoding="utf-8"))["port_base"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _require_own_directory(self) -> None:
        """`reset` deletes the directory whole, so it must not be somebody's project."""
        ours = {"lock", "identity.key", "keys.toml", "chronicle.toml"}
        found = {path.name for path in self.directory.iterdir()} if self.directory.exists() else set()
        if "stack.json" not in found and found - ours:
            raise ConfigError(f"choose an empty or new --dir: {self.directory} holds other files, and reset would delete them")

    def _remember(self) -> None:
        write_if_changed(self.directory / "stack.json", json.dumps({"port_base": self.ports.base}) + "\n")

    def _write_settings(self) -> None:
        write_if_changed(
            self.settings_file,
            "# Written by `chronicle dev up` for this stack; changes are overwritten.\n"
            f"identity_key_file = {json.dumps(str(self.directory / 'identity.key'))}\n"
            f"key_ring_file = {json.dumps(str(self.directory / 'keys.toml'))}\n\n"
            f"[kafka]\nbootstrap_servers = {json.dumps(self.kafka)}\n\n"
            f"[registry]\nurl = {json.dumps(self.registry_url)}\n\n"
            f"[connect]\nurl = {json.dumps(self.connect_url)}\n\n"
            "[connect.environment]\n"
            + "".join(f"{name} = {json.dumps(value)}\n" for name, value in sorted(self.environment.items()))
            + "\n"
            f"[clickhouse]\nurl = {json.dumps(self.clickhouse_url)}\n\n"
            f"[worker]\nhttp_port = {self.ports.worker}\n\n"
            f"[api]\nport = {self.ports.api}\nspill_directory = {json.dumps(str(self.directory / 'spill' / 'api'))}\n",
        )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One `up`, `down`, `start` or `stop` of a stack at a time."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "lock").open("w") as lock:
            end = time.monotonic() + LOCK_DEADLINE_S
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        raise StackError(f"end the other chronicle dev command that works on {self.directory}") from None
                    time.sleep(HEALTH_INTERVAL_S)
            yield
