"""Opening ClickHouse, the same way for every part that talks to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.httputil import get_pool_manager

from chronicle import config
from chronicle.errors import ConfigError
from chronicle.refusals import certificates
from chronicle.sinks.clickhouse_errors import translated

CONNECTIONS_MAX = 16
"""Kept open to one server by one client: more than the threads that insert at the same time."""
_CONNECT_TIMEOUT_S = 5


def connect(clickhouse: config.ClickHouse, *, database: str | None = None) -> Client:
    """A client that several threads may share (it has no session). `database`: default for unqualified names.

    Under `CHRONICLE_STORE=chdb` or `memory` the URL is `chdb://…`, and ClickHouse is a library in this process.

    Raises:
        TransientError: nobody answers at `clickhouse.url`.
        ConfigError: the URL is no HTTP URL, or user or password are refused; or another process has the embedded store open.
    """
    url = urlsplit(clickhouse.url)
    if url.scheme == "chdb":
        from chronicle.embedded.chdb_client import ChdbClient

        path = None if url.netloc == "memory" else Path(unquote(url.path))
        return cast(Client, ChdbClient(path, database=database))
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ConfigError("set clickhouse.url to an address like http://host:8123 or https://host:8443")
    secure = url.scheme == "https"
    trust: dict[str, Any] = {}
    if secure and clickhouse.ca_location:
        certificates(clickhouse.ca_location, "clickhouse.ca_location")  # or the pool would take a missing file for an outage
        trust = {"ca_cert": str(clickhouse.ca_location)}
    with translated("connecting"):
        return clickhouse_connect.get_client(
            interface=url.scheme,
            host=url.hostname,
            port=url.port or (8443 if secure else 8123),
            username=clickhouse.username,
            password=clickhouse.password.get_secret_value(),
            database=database or "__default__",
            proxy_path=url.path.strip("/"),
            connect_timeout=_CONNECT_TIMEOUT_S,
            send_receive_timeout=int(clickhouse.timeout_s),
            query_retries=0,  # retries are the engine's: declared, visible in /readyz
            compress=False,  # lz4 costs more CPU here than the network it saves (fact 27)
            autogenerate_session_id=False,  # a session would serialize the threads
            autogenerate_query_id=False,
            client_name="chronicle",
            pool_mgr=get_pool_manager(maxsize=CONNECTIONS_MAX, num_pools=4, **trust),
        )
