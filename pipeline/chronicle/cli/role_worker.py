"""`chronicle worker --role …`: workers of a role, in this process or as several under a supervisor."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chronicle.cli.terminal import err
from chronicle.errors import ChronicleError

if TYPE_CHECKING:
    from chronicle.config import Settings


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says about a role's worker."""

    role: str
    instances: int | None
    http_port: int | None
    accept_gap: bool
    until_drained: bool
    instance: int | None
    """Which of several this process is; None: it is none of several, or their parent."""
    parent: int | None
    """Process id of the supervisor."""
    json: bool
    """Summaries as JSON."""


def run_role(settings: Settings, options: Options, summary: Callable[[dict[str, Any]], None]) -> int:
    """Run one process of a role to its end, or supervise several; the exit code.

    Raises:
        ConfigError: the first thing to correct before a start can succeed.
    """
    from chronicle.observe import configure_logging

    configure_logging(settings.worker.log_level)
    role = settings.role(options.role)
    count = options.instances or role.instances
    if count == 1 or options.instance is not None:
        return _run(settings, options, summary)
    from chronicle.wiring_roles import role_routes
    from chronicle.worker.supervisor import Supervisor

    role_routes(settings, options.role)
    return Supervisor(count, lambda number: _command(options, number)).run()


def _run(settings: Settings, options: Options, summary: Callable[[dict[str, Any]], None]) -> int:
    import structlog

    from chronicle.observe import HttpServer, Metrics
    from chronicle.wiring_roles import build_role
    from chronicle.worker.roles import run

    metrics = Metrics()
    job = build_role(
        settings,
        metrics,
        options.role,
        accept_gap=options.accept_gap,
        until_drained=options.until_drained,
        parent=options.parent,
    )
    role = settings.role(options.role)
    first = role.http_port if options.http_port is None else options.http_port
    port = first + (options.instance or 0) if first else 0
    server = HttpServer(role.http_host, port, metrics, job.status.not_alive, job.status.not_ready)
    structlog.get_logger("chronicle.role").info("http.listening", host=role.http_host, port=server.port)
    code = run(job)
    failure = job.status.failure
    if isinstance(failure, ChronicleError):
        err.print(f"error: {failure}", markup=False, soft_wrap=True)
    if options.until_drained and code == 0:
        summary(job.totals.summary())
    return code


def _command(options: Options, number: int) -> list[str]:
    """One instance: this program again. Settings come by the environment, `--config` included."""
    port = [] if options.http_port is None else ["--http-port", str(options.http_port)]
    flags = [f"--{name.replace('_', '-')}" for name in ("accept_gap", "until_drained", "json") if getattr(options, name)]
    start = "from chronicle.cli import main; main()"
    own = ["--role", options.role, "--instance", str(number), "--parent", str(os.getpid())]
    return [sys.executable, "-c", start, "worker", *own, *port, *flags]
