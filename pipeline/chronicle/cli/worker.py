"""`chronicle worker`: one stream worker process, or the workers of a role."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from chronicle.cli.role_worker import Options, run_role
from chronicle.cli.terminal import command, err, out, print_json
from chronicle.errors import ChronicleError, ConfigError

if TYPE_CHECKING:
    from chronicle.config import Settings

EPILOG = "Example: chronicle worker --until-drained --http-port 0"

ENVIRONMENT = {
    # glibc would give memory back after every batch and ask for it again (fact 29)
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
    "MALLOC_TOP_PAD_": "67108864",
    # a set trim threshold freezes the mmap threshold at 128 KiB: every larger block would be mapped anew
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    # Polars' allocator would give pages back after every batch and fault them in again
    "_RJEM_MALLOC_CONF": "dirty_decay_ms:60000,muzzy_decay_ms:-1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    # one process per core: Polars' own threads only get in each other's way
    "POLARS_MAX_THREADS": "1",
}
"""Read by the C library and Polars when a process starts, so the worker starts itself once more with them."""


@command
def worker(
    *,
    sources: Annotated[
        str | None,
        typer.Option(
            help="Sources to read, by commas; `events` is what applications say. Default: all of connectors/, and events."
        ),
    ] = None,
    instance_id: Annotated[
        str | None, typer.Option("--instance-id", help="Static group membership: a killed worker returns without a rebalance.")
    ] = None,
    http_port: Annotated[int | None, typer.Option("--http-port", help="For health and metrics; 0: any free one.")] = None,
    accept_gap: Annotated[
        bool, typer.Option("--accept-gap", help="Go on although records are missing; the missing range is logged.")
    ] = False,
    until_drained: Annotated[
        bool, typer.Option("--until-drained", help="End when every partition is at its end, and print a summary.")
    ] = False,
    role: Annotated[
        str | None,
        typer.Option("--role", help="Read routes' topics instead of raw ones; a name of the settings' roles."),
    ] = None,
    instances: Annotated[
        int | None, typer.Option("--instances", min=1, max=64, help="Processes of the role, supervised; default: its setting.")
    ] = None,
    instance: Annotated[int | None, typer.Option("--instance", hidden=True)] = None,
    parent: Annotated[int | None, typer.Option("--parent", hidden=True)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The summary as one JSON document on standard output.")] = False,
) -> None:
    """Process changes until told to stop (SIGTERM drains and commits).

    Exit codes: 0 stopped or drained, 1 could not go on (nothing unprocessed was acknowledged), 2 misconfigured.
    """
    from chronicle import config

    _start_again_with(ENVIRONMENT)
    if role is not None:
        if sources is not None or instance_id is not None:
            raise ConfigError("leave out --sources and --instance-id: a role reads routes' topics")
        settings = config.load()
        chosen = Options(
            role, instances, http_port, accept_gap or settings.worker.accept_gap, until_drained, instance, parent, as_json
        )
        _end(run_role(settings, chosen, lambda summary: _print_summary(summary, as_json)))
    if instances is not None:
        raise ConfigError("name the role of these --instances with --role; of the stream worker start one process per core")
    options = {
        "instance_id": instance_id,
        "http_port": http_port,
        "accept_gap": accept_gap or None,
        "sources": _names(sources),
    }
    settings = _with(config.load(), {name: value for name, value in options.items() if value is not None})
    if settings.transport == "memory":
        raise ConfigError('start `chronicle run` instead: with transport = "memory" service and pipeline are one process')
    _run(settings, until_drained=until_drained, as_json=as_json)


def _run(settings: Settings, *, until_drained: bool, as_json: bool) -> NoReturn:
    from chronicle.observe import HttpServer, Metrics, configure_logging
    from chronicle.wiring import build_worker
    from chronicle.worker.run import run

    configure_logging(settings.worker.log_level)
    metrics = Metrics()
    job = build_worker(settings, metrics, until_drained=until_drained)
    HttpServer(settings.worker.http_host, settings.worker.http_port, metrics, job.status.not_alive, job.status.not_ready)
    code = run(job)
    failure = job.status.failure
    if isinstance(failure, ChronicleError):
        err.print(f"error: {failure}", markup=False, soft_wrap=True)
    if until_drained and code == 0:
        _print_summary(job.totals.summary(), as_json)
    _end(code)


def _end(code: int) -> NoReturn:
    """Threads of a failed worker are left as they are, so that nothing more is acknowledged."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _print_summary(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(summary)
        return
    from rich.table import Table

    table = Table(show_header=False, box=None)
    for name, value in summary.items():
        shown = ", ".join(f"{key} {count:,}" for key, count in value.items()) if isinstance(value, dict) else f"{value:,}"
        table.add_row(name.replace("_", " "), shown or "none")
    out.print(table)


def _names(sources: str | None) -> tuple[str, ...] | None:
    return None if sources is None else tuple(name.strip() for name in sources.split(",") if name.strip())


def _with(settings: Settings, options: dict[str, Any]) -> Settings:
    return settings.model_copy(update={"worker": settings.worker.model_copy(update=options)})


def _start_again_with(environment: dict[str, str]) -> None:
    """Replace this process by itself with these variables, unless each is set already (the user's values stay)."""
    missing = {name: value for name, value in environment.items() if name not in os.environ}
    if missing:
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **missing})  # noqa: S606 (no shell)
