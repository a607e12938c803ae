"""`chronicle run`: the HTTP service and the worker together, or all of Chronicle in one process without any server."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chronicle.cli.terminal import command, err
from chronicle.errors import ConfigError

if TYPE_CHECKING:
    import uvicorn

    from chronicle.config import Settings

EPILOG = "Example: chronicle run --embedded"
DIRECTORY = Path(".chronicle/embedded")
_LOOK_S = 0.02


@command
def run(
    *,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="API, pipeline and store (chDB) in this one process; no broker, no server.")
    ] = False,
    directory: Annotated[
        Path | None,
        typer.Option("--dir", help=f"Where the embedded mode keeps everything: store, keys, policy. Default: {DIRECTORY}"),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Where the API listens; default: api.host of the settings.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Its port; 0: any free one. Default: api.port.")] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Stream workers beside the API; one per core.")] = 1,
    replay: Annotated[
        bool, typer.Option("--replay", help="Embedded: first process again what could not be processed before.")
    ] = False,
) -> None:
    """Run the HTTP service and what is behind it until told to stop (SIGTERM finishes what was handed in).

    Without --embedded: the API and stream workers as supervised processes, each started again when it dies. With it (or with
    transport = "memory") everything is in this process, and survives a restart and a kill -9.
    Exit codes: 0 stopped, 1 could not go on (nothing that was answered is lost), 2 misconfigured.
    """
    from chronicle import config
    from chronicle.observe import configure_logging

    settings = config.load()
    configure_logging(settings.worker.log_level)
    own = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    settings = settings.model_copy(update={"api": settings.api.model_copy(update=own)})
    if embedded or settings.transport == "memory":
        if workers != 1:
            raise ConfigError("leave out --workers: in the embedded mode everything is in one process")
        code = run_embedded(settings.embedded(directory or DIRECTORY) if embedded else settings, replay=replay)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # everything is on the disk: threads of libraries are left as they are
    if directory is not None or replay:
        raise ConfigError("add --embedded: --dir and --replay are of the embedded mode")
    if settings.store != "clickhouse":
        raise ConfigError('set transport to "memory" as well (or run --embedded): two processes cannot share an embedded store')
    from chronicle.cli.together import run_together

    listening = {"CHRONICLE_API__HOST": host, "CHRONICLE_API__PORT": None if port is None else str(port)}
    raise typer.Exit(
        run_together(commands(settings, workers), {name: value for name, value in listening.items() if value is not None})
    )


def commands(settings: Settings, workers: int) -> dict[str, list[str]]:
    """The processes by name: their arguments of `chronicle`. Workers' ports for health and metrics count up, past the API's."""
    found = {"api": ["api"]}
    free = (port for port in count(settings.worker.http_port) if port != settings.api.port)
    for number in range(workers):
        port = next(free) if settings.worker.http_port else 0
        found["worker" if workers == 1 else f"worker-{number + 1}"] = ["worker", "--http-port", str(port)]
    return found


def run_embedded(settings: Settings, *, replay: bool = False) -> int:
    """Serve from this process alone until told to stop; the exit code.

    Raises:
        ConfigError, TransientError: the first thing to correct before a start can succeed.
    """
    import structlog
    import uvicorn

    from chronicle.cli.api import bound, uvicorn_config
    from chronicle.observe import explain
    from chronicle.wiring_api import host_to_bind
    from chronicle.wiring_embedded import application, build, first_start

    log = structlog.get_logger("chronicle.run")
    for line in first_start(settings) if settings.store != "clickhouse" else prepared(settings):
        err.print(line, markup=False, soft_wrap=True)
    embedded = build(settings)
    if replay:
        through, failed = embedded.replay()
        err.print(f"replayed: {through} records went through, {failed} did not", markup=False)
    host = host_to_bind(settings, lambda text: log.warning("operator.warning", text=text))
    config = uvicorn_config(settings, host, application(settings, embedded))
    config.workers = 1  # of uvicorn: the store is this process' alone
    socket = bound(config)
    server = uvicorn.Server(config)
    # uvicorn takes both while it serves, finishes, and then raises them again, here
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    threading.Thread(target=_stop_on_failure, args=(embedded.status.failed, server), daemon=True).start()
    database = f"the database {settings.clickhouse.database} of ClickHouse"
    place = {"chdb": str(settings.chdb_path.parent), "clickhouse": database}.get(settings.store, settings.store)
    line = f"listening on http://{host}:{socket.getsockname()[1]}, everything in {place}"
    threading.Thread(target=_tell_when_ready, args=(server, line), daemon=True).start()
    server.run(sockets=[socket])
    embedded.close()
    failure = embedded.status.failure
    if failure is not None:
        log.error("pipeline.failed", **explain(failure))
    return 0 if server.started and failure is None else 1


def prepared(settings: Settings) -> list[str]:
    """Make tables and identity key on a server that has none; what was made, in lines. Raises as `chronicle.setup.run`."""
    from chronicle import setup

    made = [step for step in setup.run(settings) if (step.kind, step.action) == ("key", "created")]
    return [f"made {step.name}: the identity key; keep a copy, event ids follow from it" for step in made]


def _tell_when_ready(server: uvicorn.Server, line: str) -> None:
    while not server.started:
        time.sleep(_LOOK_S)
    err.print(line, markup=False, soft_wrap=True)


def _stop_on_failure(failed: threading.Event, server: uvicorn.Server) -> None:
    failed.wait()
    server.should_exit = True
