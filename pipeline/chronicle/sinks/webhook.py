"""The webhook sink: changes and events posted to an HTTPS endpoint: signed, repeated, and never to an address inside."""

from __future__ import annotations

import hashlib
import hmac
import math
import ssl
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from uuid import UUID

import httpx
import polars as pl

from chronicle import config
from chronicle.errors import ConfigError, SinkRejected, TransientError
from chronicle.model.batch import Batch
from chronicle.model.event_columns import IDENTITY
from chronicle.policy.rules import RouteFormat
from chronicle.sinks.addresses import Address, Resolve, reachable
from chronicle.stages.deliveries import delivery, event_delivery

ANSWER_BYTES_MAX = 64 * 1024
"""Of an answer's body, which nobody reads: a longer one costs its connection."""
REMEMBERED_MAX = 50_000
"""Changes and events that are known to be delivered, and not sent again by this process when their batch is repeated."""
_TRANSIENT = frozenset({408, 425, 429})
_OURS = frozenset({401, 403, 404, 405, 407, 410})
"""Answers about the address or the credentials, not about a record: dead letters would be the wrong alarm."""
_TYPES = {RouteFormat.JSON: "application/x-ndjson", RouteFormat.CLOUDEVENTS: "application/cloudevents-batch+json"}


def signature(secret: bytes, timestamp: int, body: bytes) -> str:
    """The header `X-Chronicle-Signature`: `t=<seconds since 1970>,v1=<hex HMAC-SHA256 of "<t>." and the body>`.

    A receiver makes it again with its secret and the header's `t`, compares with `hmac.compare_digest`, and refuses a `t`
    that is minutes away from its clock.
    """
    digest = hmac.new(secret, b"%d." % timestamp + body, hashlib.sha256).hexdigest()
    return f"t={timestamp},v1={digest}"


@dataclass(frozen=True, slots=True)
class _Request:
    """One request's worth of records."""

    marks: Sequence[bytes] = field(repr=False)
    """What names each change or event in each of its processings."""
    body: bytes = field(repr=False)

    @property
    def id(self) -> str:
        """The same when the same records are sent again."""
        return str(UUID(bytes=hashlib.blake2b(b"".join(self.marks), digest_size=16).digest()))


class WebhookSink:
    """Holds a batch when the endpoint has answered 2xx for every record of it, in their order.

    An answer may be lost, so a record may come again: the receiver knows a change by its event id, an event by source, type
    and event id, and a whole request that is repeated by `X-Chronicle-Id`. 408, 425, 429, 5xx and silence are the world's
    (`Retry-After` is obeyed); 401, 403, 404, 405, 407, 410 and redirects are the operator's; any other 4xx is about a record,
    which the engine narrows down.
    """

    name = "webhook"

    def __init__(
        self,
        webhook: config.Webhook,
        *,
        pause: Callable[[float], bool],
        clock: Callable[[], float] = time.time,
        resolve: Resolve | None = None,
    ) -> None:
        """`pause` waits so many seconds, and says whether to stop. `clock`: seconds since 1970.

        Raises:
            ConfigError: the url is no https address, or one that may not be reached.
        """
        self._settings = webhook
        self._format = RouteFormat(webhook.format)
        self._secret = webhook.secret.get_secret_value().encode()
        self._pause, self._clock, self._resolve = pause, clock, resolve
        self._version = version("chronicle")
        self._url = _checked(webhook)
        self._client: httpx.Client | None = None
        self._not_before = 0.0
        self._delivered: OrderedDict[bytes, None] = OrderedDict()

    def write(self, batch: Batch) -> None:
        """As `Sink.write`. Raises ConfigError as well. Transactions, mirror rows and dead letters are not for endpoints."""
        marks, records = self._fresh(batch)
        if not records:
            return
        for request in self._requests(marks, records):
            self._deliver(request)
            for mark in request.marks:
                self._delivered[mark] = None
            while len(self._delivered) > REMEMBERED_MAX:
                self._delivered.popitem(last=False)

    def close(self) -> None:
        """Give back the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _fresh(self, batch: Batch) -> tuple[list[bytes], list[bytes]]:
        """What is not known to be delivered: marks and records, those of one partition in its order."""
        changes = batch.changes.filter(pl.col("stub") == "")
        marks: list[bytes] = []
        records: list[bytes] = []
        places: list[tuple[str, int, int]] = []
        for rows, marked, make in ((changes, _marks, delivery), (batch.events, _event_marks, event_delivery)):
            if not len(rows):
                continue
            mine = marked(rows)
            fresh = [row for row, mark in enumerate(mine) if mark not in self._delivered]
            if fresh:
                part = rows[fresh]
                marks += [mine[row] for row in fresh]
                records += make("", self._format, part, 1, version=self._version).records.values
                places += part.select("topic", "partition", "offset").iter_rows()
        if len(changes) and len(batch.events):  # a route may take both, and they came in one order
            order = sorted(range(len(places)), key=places.__getitem__)
            return [marks[at] for at in order], [records[at] for at in order]
        return marks, records

    def _requests(self, marks: Sequence[bytes], records: Sequence[bytes]) -> Iterator[_Request]:
        start, size = 0, 0
        for row, record in enumerate(records):
            if row > start and (row - start == self._settings.records_max or size + len(record) > self._settings.bytes_max):
                yield self._request(marks[start:row], records[start:row])
                start, size = row, 0
            size += len(record) + 1
        yield self._request(marks[start:], records[start:])

    def _request(self, marks: Sequence[bytes], records: Sequence[bytes]) -> _Request:
        if self._format is RouteFormat.CLOUDEVENTS:
            return _Request(marks, b"[" + b",".join(records) + b"]")
        return _Request(marks, b"\n".join(records) + b"\n")

    def _deliver(self, request: _Request) -> None:
        left = self._not_before - time.monotonic()
        if left > 0 and self._pause(left):
            raise TransientError("asked to stop while the webhook wants us to wait")
        timestamp = int(self._clock())
        headers = {
            "Host": self._url.netloc.decode("ascii"),
            "Content-Type": _TYPES[self._format],
            "User-Agent": f"chronicle/{self._version}",
            "X-Chronicle-Id": request.id,
            "X-Chronicle-Signature": signature(self._secret, timestamp, request.body),
        }
        status, retry_after = self._posted(request.body, headers)
        self._judge(status, retry_after)

    def _posted(self, body: bytes, headers: dict[str, str]) -> tuple[int, str | None]:
        """Status and Retry-After of the first address that can be connected to."""
        host = self._url.raw_host.decode("ascii")
        port = self._url.port or (443 if self._url.scheme == "https" else 80)
        addresses = reachable(host, port, allow_private=self._settings.allow_private, resolve=self._resolve)
        if self._url.scheme == "http" and not all(address.is_loopback for address in addresses):
            raise ConfigError(f"write https in the webhook's url: {host} is not this machine")
        error: httpx.TransportError | None = None
        for address in addresses:
            try:
                return self._exchange(address, host, body, headers)
            except (httpx.ConnectError, httpx.ConnectTimeout) as failure:
                error = failure
            except httpx.TransportError as failure:
                error = failure
                break
        if isinstance(error, httpx.ConnectError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise ConfigError(f"correct the webhook's url or ca_location: the certificate of {host} cannot be trusted")
        raise TransientError(f"the webhook at {host} does not answer ({type(error).__name__})")

    def _exchange(self, address: Address, host: str, body: bytes, headers: dict[str, str]) -> tuple[int, str | None]:
        client = self._connected()
        url = self._url.copy_with(host=str(address))
        # the certificate is checked against the name, the connection goes to the address that was looked at
        with client.stream("POST", url, content=body, headers=headers, extensions={"sni_hostname": host}) as answer:
            deadline, size = time.monotonic() + self._settings.timeout_s, 0
            for piece in answer.iter_raw():
                size += len(piece)
                if size > ANSWER_BYTES_MAX or time.monotonic() > deadline:
                    break
            return answer.status_code, answer.headers.get("Retry-After")

    def _judge(self, status: int, retry_after: str | None) -> None:
        if 200 <= status < 300:
            self._not_before = 0.0
            return
        host = self._url.raw_host.decode("ascii")
        if status in _TRANSIENT or status >= 500:
            self._not_before = time.monotonic() + self._wait(retry_after)
            raise TransientError(f"the webhook at {host} is busy (HTTP {status})")
        if status < 400 or status in _OURS:
            hint = "redirects are not followed" if 300 <= status < 400 else "is it the right address, and may we post there?"
            raise ConfigError(f"correct the webhook's url or secret: {host} answers HTTP {status} ({hint})")
        raise SinkRejected(f"the webhook at {host} refuses a record (HTTP {status})", reason=_REASONS.get(status, _REFUSED))

    def _wait(self, retry_after: str | None) -> float:
        """Seconds, of a number or a date; 0 when it says nothing of use."""
        if retry_after is None:
            return 0.0
        try:
            seconds = float(retry_after)
        except ValueError:
            try:
                seconds = parsedate_to_datetime(retry_after).timestamp() - self._clock()
            except (ValueError, OverflowError):
                return 0.0
        return min(max(0.0, seconds), self._settings.retry_after_max_s) if math.isfinite(seconds) else 0.0

    def _connected(self) -> httpx.Client:
        if self._client is None:
            try:
                ca = self._settings.ca_location
                context = ssl.create_default_context(cafile=None if ca is None else str(ca))
            except (OSError, ssl.SSLError) as error:
                raise ConfigError(f"correct the webhook's ca_location: it cannot be read ({type(error).__name__})") from None
            self._client = httpx.Client(
                verify=context,
                timeout=self._settings.timeout_s,
                follow_redirects=False,
                trust_env=False,  # a proxy would resolve the name again
            )
        return self._client


_REFUSED = "value_refused"
_REASONS = {413: "too_large"}


def _marks(changes: pl.DataFrame) -> list[bytes]:
    """What names each change in each of its processings."""
    rows = changes.select("event_id", "policy", pl.col("processed_at").to_physical()).iter_rows()
    return [event + f"{policy}{processed}".encode() for event, policy, processed in rows]


def _event_marks(events: pl.DataFrame) -> list[bytes]:
    """The same for events, whose ids are their applications': none names a change."""
    rows = events.select(*IDENTITY, "policy", pl.col("processed_at").to_physical()).iter_rows()
    return [
        event + f"{source}\0{tenant or ''}\0{type_}\0{policy}{processed}".encode()
        for source, tenant, type_, event, policy, processed in rows
    ]


def _checked(webhook: config.Webhook) -> httpx.URL:
    try:
        url = httpx.URL(webhook.url)
    except (httpx.InvalidURL, ValueError):
        raise ConfigError("correct the webhook's url: it is none") from None
    if url.scheme not in ("https", "http") or not url.host or url.userinfo or url.fragment:
        raise ConfigError("write the webhook's url as https://host/path, without a user or a fragment")
    if url.scheme == "http" and not webhook.allow_private:
        raise ConfigError("write https in the webhook's url (http only to this machine, with allow_private)")
    with suppress(TransientError):  # a name is resolved at every use; an address can be judged now
        reachable(url.host, 0, allow_private=webhook.allow_private, resolve=lambda _host, _port: [])
    return url
