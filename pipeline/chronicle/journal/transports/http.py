"""Events to `chronicle api` over HTTP: batches as NDJSON, a connection kept open by each sending thread."""

from __future__ import annotations

import http.client
import re
import threading
import zlib
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from chronicle.errors import ConfigError
from chronicle.journal.transports import TransportAway

if TYPE_CHECKING:
    import ssl

    from chronicle.journal.outgoing import Outgoing
    from chronicle.journal.settings import Settings

COMPRESSED_FROM_BYTES = 4_096
ANSWER_BYTES_MAX = 16 << 20
_PRINTABLE = re.compile(r"[!-~]*")
_STALE = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError, ConnectionAbortedError)


class Http:
    """`POST <url>/events`. What the service has answered `202` for is confirmed: its broker or its disk has it.

    Away: no answer, 408, 425, 429, 5xx (with what `Retry-After` asks for), and 401, 403, 404, 405, 415 and redirects, which
    an operator can put right without losing an event. Refused: what the service refuses by item, and an event that is
    answered 400, 413 or 422 alone; a batch that is answered so is halved until the events that cause it are alone.

    Args:
        url: `http://host:port` or `https://…`, with a path before `/events` if there is one.
        key: API key.
        ca: file of certificates to trust; None: the system's.
        timeout_s: for connecting, and for each wait for the other side.
        compress: gzip bodies of `COMPRESSED_FROM_BYTES` and more.

    Raises:
        ConfigError: the URL is none, or the key cannot be one.
    """

    name = "http"
    durable = True

    def __init__(
        self, url: str, *, key: str = "", ca: str | None = None, timeout_s: float = 10.0, compress: bool = True
    ) -> None:
        try:
            parts = urlsplit(url)
            self._host, self._port = parts.hostname or "", parts.port
        except ValueError:
            self._host = ""
        if not self._host or parts.username or parts.password or parts.query or parts.fragment or not _PRINTABLE.fullmatch(url):
            raise ConfigError("write the journal's transport as http://host:port; the key has a setting of its own")
        if not _PRINTABLE.fullmatch(key):
            raise ConfigError("write the journal's API key as it was shown, without spaces or line ends")
        self._path = parts.path.rstrip("/") + "/events"
        self._tls = _tls(ca) if parts.scheme == "https" else None
        self._timeout_s = timeout_s
        self._compress = compress
        self._headers = {
            "Content-Type": "application/x-ndjson",
            "Accept": "application/json",
            "User-Agent": "chronicle-journal",
        }
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._mine = threading.local()

    def send(self, batch: Sequence[Outgoing]) -> Sequence[str | None]:
        """As `Transport.send`."""
        status, headers, answer = self._posted(b"\n".join(out.text for out in batch))
        if status in (202, 200, 422):
            results = _results(answer, len(batch))
            if results is not None:
                return results
            if status != 422:
                raise TransportAway(f"the service answers {status} and something that is not its own")
        if status in (400, 413, 422):
            if len(batch) == 1:
                return [_problem(answer) or f"answered {status}"]
            return self._halved(batch)
        raise TransportAway(f"the service answers {status}", retry_after=_retry_after(headers))

    def close(self) -> None:
        """Of the calling thread; the others' connections end with their threads."""
        self._drop()

    def forked(self) -> None:
        """The parent's connections stay the parent's."""
        self._mine = threading.local()

    def _halved(self, batch: Sequence[Outgoing]) -> Sequence[str | None]:
        middle = len(batch) // 2
        first = list(self.send(batch[:middle]))
        try:
            return [*first, *self.send(batch[middle:])]
        except TransportAway as away:
            confirmed = {at for at, problem in enumerate(first) if problem is None} | {middle + at for at in away.confirmed}
            raise TransportAway(str(away), retry_after=away.retry_after, confirmed=confirmed) from None

    def _posted(self, body: bytes) -> tuple[int, http.client.HTTPMessage, bytes]:
        headers = self._headers
        if self._compress and len(body) >= COMPRESSED_FROM_BYTES:
            packing = zlib.compressobj(1, zlib.DEFLATED, 31)  # 31: as gzip
            body = packing.compress(body) + packing.flush()
            headers = {**headers, "Content-Encoding": "gzip"}
        while True:
            connection: http.client.HTTPConnection | None = getattr(self._mine, "connection", None)
            kept_open = connection is not None
            if connection is None:
                connection = self._mine.connection = self._connection()
            try:
                connection.request("POST", self._path, body, headers)
                response = connection.getresponse()
                answer = response.read(ANSWER_BYTES_MAX + 1)
                if response.will_close or len(answer) > ANSWER_BYTES_MAX:
                    self._drop()
                return response.status, response.headers, answer
            except _STALE as error:
                self._drop()
                if not kept_open:
                    raise TransportAway(f"the service ended the connection: {type(error).__name__}") from None
                # the other side had closed a quiet connection: once more, on a new one
            except (OSError, http.client.HTTPException) as error:
                self._drop()
                # by its name, because `ssl` is not loaded for those who use plain HTTP
                untrusted = type(error).__name__ == "SSLCertVerificationError"
                fix = ": correct CHRONICLE_JOURNAL_CA, or the transport's host" if untrusted else ""
                raise TransportAway(f"the service is away: {type(error).__name__}{fix}") from None

    def _connection(self) -> http.client.HTTPConnection:
        if self._tls is not None:
            return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout_s, context=self._tls)
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)

    def _drop(self) -> None:
        connection: http.client.HTTPConnection | None = getattr(self._mine, "connection", None)
        self._mine.connection = None
        if connection is not None:
            connection.close()


def opened(url: str, settings: Settings) -> Http:
    """`http://…`, `https://…`."""
    return Http(url, key=settings.key, ca=settings.ca or None, timeout_s=settings.timeout_s, compress=settings.compress)


def _tls(ca: str | None) -> ssl.SSLContext:
    import ssl

    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError):
        raise ConfigError("CHRONICLE_JOURNAL_CA: no file of certificates") from None


def _json(answer: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(answer)
    except (msgspec.DecodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _results(answer: bytes, count: int) -> list[str | None] | None:
    """For each event, as the service answers; None when this is not an answer about so many."""
    found = _json(answer)
    items = found.get("results")
    if items is None and found.get("status") == "accepted" and count == 1:
        return [None]
    if not isinstance(items, list) or len(items) != count or not all(isinstance(item, dict) for item in items):
        return None
    return [
        None if item.get("status") == "accepted" else _said(item.get("error")) or "refused by the service" for item in items
    ]


def _problem(answer: bytes) -> str:
    return _said(_json(answer).get("error"))


def _said(error: object) -> str:
    """`{"field": "problem"}` in one line. The service promises that neither holds a value."""
    if not isinstance(error, dict):
        return ""
    return "; ".join(f"{field}: {problem}" for field, problem in list(error.items())[:10])[:500]


def _retry_after(headers: http.client.HTTPMessage) -> float | None:
    text = headers.get("Retry-After", "").strip()
    if not text:
        return None
    if text.isdecimal():
        return float(text[:9])
    import time

    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
