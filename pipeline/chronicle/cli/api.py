"""`chronicle api`: the HTTP service."""

from __future__ import annotations

import os
import signal
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chronicle.cli.terminal import command, out
from chronicle.errors import ConfigError

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

    from chronicle.config import Settings

EPILOG = "Example: chronicle api --port 8080 --workers 2"
STOP_S = 20
"""How long requests that are under way may take when the service stops."""


@command
def api(
    *,
    host: Annotated[str | None, typer.Option(help="Where to listen; default: api.host of the settings.")] = None,
    port: Annotated[int | None, typer.Option(help="Its port; 0: any free one, in the log.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, max=64, help="Processes that share the port.")] = None,
    grants: Annotated[
        bool, typer.Option("--grants", help="Print SQL that makes the read-only ClickHouse user, and end.")
    ] = False,
) -> None:
    """Take events over HTTP and answer questions about the trail, until told to stop (SIGTERM drains).

    Without any key (`chronicle keys create`) it listens on this machine only. Exit codes: 0 stopped, 1 failed,
    2 misconfigured.
    """
    from chronicle import config

    settings = config.load()
    if grants:
        from chronicle.wiring_api import grants as statements

        out.print(statements(settings), markup=False)
        return
    options: dict[str, Any] = {"host": host, "port": port, "workers": workers}
    given = {name: value for name, value in options.items() if value is not None}
    settings = settings.model_copy(update={"api": settings.api.model_copy(update=given)})
    if settings.transport == "memory" or settings.store != "clickhouse":
        raise ConfigError(
            "start `chronicle run` instead, or `chronicle run --embedded`: these are one process with their pipeline"
        )
    raise typer.Exit(serve(settings))


def serve(settings: Settings) -> int:
    """Serve until told to stop; the exit code.

    Raises:
        ConfigError: the port is taken, or something in the settings is wrong.
    """
    import structlog
    import uvicorn
    from uvicorn.supervisors import Multiprocess

    from chronicle.observe import configure_logging
    from chronicle.wiring_api import build_api, host_to_bind

    configure_logging(settings.worker.log_level)
    log = structlog.get_logger("chronicle.api")
    # what is wrong in the settings is told before a port is opened; as of one process, since this one serves nobody
    build_api(settings.model_copy(update={"api": settings.api.model_copy(update={"workers": 1})}))
    host = host_to_bind(settings, lambda text: log.warning("operator.warning", text=text))
    os.environ["CHRONICLE_API__HOST"] = host  # for `chronicle.config`, which the serving processes read
    server_config = uvicorn_config(settings, host)
    socket = bound(server_config)
    log.info("api.listening", host=host, port=socket.getsockname()[1], workers=settings.api.workers)
    if settings.api.workers > 1:
        os.environ["CHRONICLE_API__WORKERS"] = str(settings.api.workers)
        with tempfile.TemporaryDirectory(prefix="chronicle-metrics-") as metrics:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = metrics  # for prometheus_client, before the processes load it
            Multiprocess(server_config, sockets=[socket]).run()
        return 0
    # the server raises the signal once more when it has stopped, which would end this process with its number
    signal.signal(signal.SIGTERM, lambda _signal, _frame: None)
    server = uvicorn.Server(server_config)
    with suppress(KeyboardInterrupt):
        server.run(sockets=[socket])
    return 0 if server.started else 1


def uvicorn_config(settings: Settings, host: str, app: FastAPI | None = None) -> uvicorn.Config:
    """How uvicorn serves. `app`: made already, for this process; None: each serving process makes its own."""
    import uvicorn

    return uvicorn.Config(
        app or "chronicle.wiring_api:application",
        factory=app is None,
        host=host,
        port=settings.api.port,
        workers=settings.api.workers,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        proxy_headers=False,  # an address that the caller could write is no address
        server_header=False,
        date_header=False,
        limit_concurrency=settings.api.requests_max,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=STOP_S,
    )


def bound(server_config: uvicorn.Config) -> Any:
    """The socket to serve on. Raises ConfigError when the port is taken."""
    try:
        return server_config.bind_socket()
    except SystemExit:
        address = f"{server_config.host}:{server_config.port}"
        raise ConfigError(f"choose another api.port or api.host: {address} cannot be opened") from None
