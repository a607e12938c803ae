"""The webhook against a real HTTP server: signed, ordered, repeated when it may help, and never to an address inside."""

from __future__ import annotations

import ipaddress
import json
import ssl
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import SecretStr

from chronicle import config
from chronicle.errors import ConfigError, SinkRejected, TransientError
from chronicle.sinks.addresses import reachable, refusal
from chronicle.sinks.webhook import WebhookSink
from tests.sinks import batches
from tests.sinks.endpoint import OK, SECRET, Answer, Endpoint, Posted


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """One that takes everything."""
    made = Endpoint()
    yield made
    made.close()


def settings(url: str, **others: Any) -> config.Webhook:
    """For an endpoint on this machine."""
    return config.Webhook.model_validate({"url": url, "secret": SECRET, "allow_private": True, "timeout_s": 5.0, **others})


def sink(endpoint: Endpoint, pause: Callable[[float], bool] = lambda _seconds: False, **others: Any) -> WebhookSink:
    """A sink on the endpoint."""
    return WebhookSink(settings(endpoint.url, **others), pause=pause)


def _noting(waited: list[float], stop: bool) -> Callable[[float], bool]:
    """A pause that does not wait, and says whether to stop."""

    def pause(seconds: float) -> bool:
        waited.append(seconds)
        return stop

    return pause


def ids(endpoint: Endpoint) -> list[str]:
    """Event ids in the order of their arrival."""
    return [record["core"]["metadata"]["uid"].replace("-", "") for record in endpoint.records]


def expected(count: int) -> list[str]:
    return [batches.digest("event", "shop", "customers", at).hex() for at in range(count)]


def test_changes_arrive_in_order_in_requests_of_bounded_size(endpoint: Endpoint) -> None:
    """Signed, one audit record a line, no more than asked for in one."""
    made = sink(endpoint, records_max=10)
    made.write(batches.plain("shop", 25))
    made.close()
    assert ids(endpoint) == expected(25)
    assert [len(posted.records) for posted in endpoint.posted] == [10, 10, 5]
    assert len({posted.headers["X-Chronicle-Id"] for posted in endpoint.posted}) == 3
    assert endpoint.posted[0].path == "/hook"
    assert endpoint.posted[0].headers["Host"] == f"127.0.0.1:{endpoint.port}"


def test_a_request_is_no_larger_than_asked_for(endpoint: Endpoint) -> None:
    """Unless a single record is."""
    made = sink(endpoint, bytes_max=5000)
    large = batches.change("shop", 3, after=json.dumps({"x": "y" * 9000}))
    made.write(batches.batch([batches.change("shop", at) for at in range(3)] + [large, batches.change("shop", 4)]))
    assert ids(endpoint) == expected(5)
    assert all(len(posted.body) <= 5100 or len(posted.records) == 1 for posted in endpoint.posted)
    assert len(endpoint.posted) < 5


def test_cloudevents_are_sent_as_a_batch_of_them(endpoint: Endpoint) -> None:
    """A JSON array, with its own content type."""
    sink(endpoint, format="cloudevents").write(batches.plain("shop", 3))
    (posted,) = endpoint.posted
    assert posted.headers["Content-Type"] == "application/cloudevents-batch+json"
    assert [event["type"] for event in json.loads(posted.body)] == ["chronicle.shop.public.customers.create"] * 3


def test_a_stub_is_not_delivered(endpoint: Endpoint) -> None:
    """The policy left it out."""
    sink(endpoint).write(batches.batch([batches.change("shop", 0), batches.change("shop", 1, stub="ignored")]))
    assert ids(endpoint) == expected(1)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503])
def test_what_may_pass_is_repeated_from_where_it_failed(endpoint: Endpoint, status: int) -> None:
    """The same call again: nothing twice that was taken, nothing left out, and the same id for the same request."""
    busy = [True]
    endpoint.answer = lambda posted: (status, {}) if len(endpoint.posted) == 1 and busy and busy.pop() else OK
    made, batch = sink(endpoint, records_max=10), batches.plain("shop", 30)
    with pytest.raises(TransientError, match=f"HTTP {status}"):
        made.write(batch)
    made.write(batch)
    assert ids(endpoint) == expected(30)
    assert endpoint.refused[0].headers["X-Chronicle-Id"] == endpoint.posted[1].headers["X-Chronicle-Id"]


@pytest.mark.parametrize("asked", [lambda: "7", lambda: format_datetime(datetime.now(UTC) + timedelta(seconds=8), usegmt=True)])
def test_retry_after_is_obeyed(endpoint: Endpoint, asked: Callable[[], str]) -> None:
    """Seconds or a date, up to a bound; the wait ends when the worker is to stop."""
    waited: list[float] = []
    endpoint.answer = lambda _posted: (429, {"Retry-After": asked()})
    made = sink(endpoint, pause=_noting(waited, False))
    with pytest.raises(TransientError):
        made.write(batches.plain("shop", 1))
    endpoint.answer = lambda _posted: OK
    made.write(batches.plain("shop", 1))
    assert len(waited) == 1 and 5 < waited[0] <= 8
    assert ids(endpoint) == expected(1)


def test_a_long_retry_after_is_cut_and_ends_with_the_worker(endpoint: Endpoint) -> None:
    """An endpoint cannot send us away for a year."""
    waited: list[float] = []
    endpoint.answer = lambda _posted: (503, {"Retry-After": "99999999"})
    made = sink(endpoint, pause=_noting(waited, True), retry_after_max_s=2.0)
    for _ in range(2):
        with pytest.raises(TransientError):
            made.write(batches.plain("shop", 1))
    assert len(waited) == 1 and waited[0] <= 2
    assert len(endpoint.refused) == 1


@pytest.mark.parametrize("status", [400, 409, 413, 415, 422])
def test_a_refused_record_is_the_records_fault(endpoint: Endpoint, status: int) -> None:
    """For the engine to narrow down; the text holds no value."""
    endpoint.answer = lambda _posted: (status, {})
    endpoint.answer_body = b"row 0 is bad"
    with pytest.raises(SinkRejected, match=f"HTTP {status}") as refusal:
        sink(endpoint).write(batches.plain("shop", 1))
    assert refusal.value.reason == ("too_large" if status == 413 else "value_refused")
    assert "row 0" not in str(refusal.value)


@pytest.mark.parametrize("status", [301, 302, 307, 308, 401, 403, 404, 405, 410])
def test_a_wrong_address_or_secret_is_the_operators_and_no_redirect_is_followed(endpoint: Endpoint, status: int) -> None:
    """A thousand dead letters would be the wrong alarm."""
    elsewhere = Endpoint()
    endpoint.answer = lambda _posted: (status, {"Location": elsewhere.url})
    with pytest.raises(ConfigError, match=f"HTTP {status}"):
        sink(endpoint).write(batches.plain("shop", 1))
    elsewhere.close()
    assert not elsewhere.posted and not elsewhere.refused


def test_a_wrong_secret_is_found_out(endpoint: Endpoint) -> None:
    """The signature is over time and body, with the secret."""
    made = WebhookSink(settings(endpoint.url, secret="another secret of 16+"), pause=lambda _s: False)
    with pytest.raises(ConfigError, match="401"):
        made.write(batches.plain("shop", 1))


def test_silence_is_waited_out(endpoint: Endpoint) -> None:
    """A request without an answer may have been taken: it comes again, with the same id."""
    slow = [True]

    def answer(_posted: Posted) -> Answer:
        if slow and slow.pop():
            time.sleep(1.2)  # longer than the sink waits: this is what is being tested
        return OK

    endpoint.answer = answer
    made = sink(endpoint, timeout_s=0.4)
    with pytest.raises(TransientError):
        made.write(batches.plain("shop", 2))
    made.write(batches.plain("shop", 2))
    assert ids(endpoint)[:2] == expected(2)


def test_an_endpoint_that_is_away_is_waited_for() -> None:
    """The world's fault."""
    gone = Endpoint()
    gone.close()
    with pytest.raises(TransientError):
        sink(gone).write(batches.plain("shop", 1))


def test_an_endless_answer_is_not_read(endpoint: Endpoint) -> None:
    """Its status is what counts."""
    endpoint.answer = lambda _posted: (200, {})
    endpoint.answer_body = b"x" * 50_000_000
    began = time.monotonic()
    sink(endpoint).write(batches.plain("shop", 1))
    assert time.monotonic() - began < 4


# --- addresses


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254", "169.254.1.1",
        "0.0.0.0", "0.1.2.3",  # noqa: S104
        "224.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "168.63.129.16", "100.100.100.200",
        "::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
        "::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b::7f00:1", "2002:7f00:1::1", "2002:a00:1::",
    ],
)  # fmt: skip
def test_an_address_inside_is_refused(address: str) -> None:
    """In each of the ways to write it."""
    assert refusal(ip_address(address), allow_private=False)


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "64:ff9b::101:101"])
def test_a_public_address_is_reachable(address: str) -> None:
    """The rule refuses only what it should."""
    assert refusal(ip_address(address), allow_private=False) is None


def test_private_may_be_allowed_but_credentials_and_links_never() -> None:
    """Clouds give keys to whoever asks there."""
    for address in ("127.0.0.1", "10.0.0.1", "fd12::1", "::ffff:192.168.0.1", "100.64.0.9"):
        assert refusal(ip_address(address), allow_private=True) is None
    for address in ("169.254.169.254", "fd00:ec2::254", "168.63.129.16", "fe80::1", "224.0.0.1", "0.1.2.3", "100.100.100.200"):
        assert refusal(ip_address(address), allow_private=True)


def test_one_address_inside_is_enough_to_refuse_a_name() -> None:
    """Which of several is taken must not be luck."""
    with pytest.raises(ConfigError, match=r"10\.0\.0\.1"):
        reachable("hook.example", 443, allow_private=False, resolve=lambda _h, _p: ["1.1.1.1", "10.0.0.1"])


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/", "ftp://example.com/", "https://10.0.0.1/", "https://[::1]/", "https://u:p@example.com/",
        "https://example.com/#x", "example.com", "https://", "https://2130706433/", "https://0x7f.1/", "https://169.254.169.254/",
    ],
)  # fmt: skip
def test_a_url_that_may_not_be_is_refused_and_not_shown(url: str) -> None:
    """Before a worker starts, or at the first use of a name."""
    webhook = config.Webhook(url=url, secret=SecretStr(SECRET))
    with pytest.raises(ConfigError) as refusal:
        WebhookSink(webhook, pause=lambda _s: False).write(batches.plain("shop", 1))
    assert "u:p" not in str(refusal.value)


def test_plain_http_only_to_this_machine() -> None:
    """Also where private addresses are allowed."""
    made = WebhookSink(settings("http://inside.example/"), pause=lambda _s: False, resolve=lambda _h, _p: ["10.0.0.1"])
    with pytest.raises(ConfigError, match="https"):
        made.write(batches.plain("shop", 1))


def test_a_name_that_changes_its_mind_reaches_nothing(endpoint: Endpoint) -> None:
    """DNS rebinding: what was looked at is what is connected to; the next request is looked at again."""
    answers = [["127.0.0.1"], ["169.254.169.254"]]
    asked: list[str] = []

    def resolve(host: str, _port: int) -> list[str]:
        asked.append(host)
        return answers[len(asked) - 1]

    url = endpoint.url.replace("127.0.0.1", "hook.example")
    made = WebhookSink(settings(url, records_max=1), pause=lambda _s: False, resolve=resolve)
    with pytest.raises(ConfigError, match=r"169\.254\.169\.254"):
        made.write(batches.plain("shop", 2))
    assert asked == ["hook.example", "hook.example"]
    assert ids(endpoint) == expected(1)
    assert endpoint.posted[0].headers["Host"] == f"hook.example:{endpoint.port}"


def test_an_address_that_does_not_answer_is_followed_by_the_next(endpoint: Endpoint) -> None:
    """A name may have several."""
    url = endpoint.url.replace("127.0.0.1", "hook.example")
    made = WebhookSink(settings(url), pause=lambda _s: False, resolve=lambda _h, _p: ["127.0.0.9", "127.0.0.1"])
    made.write(batches.plain("shop", 2))
    assert ids(endpoint) == expected(2)


# --- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and self-signed certificate of hook.example, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hook.example")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("hook.example")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "hook.pem"
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file


@pytest.fixture
def secure(certificate: Path) -> Iterator[Endpoint]:
    """An HTTPS endpoint of the name hook.example."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    made = Endpoint(tls=context)
    yield made
    made.close()


def test_the_certificate_is_checked_against_the_name_not_the_address(secure: Endpoint, certificate: Path) -> None:
    """Although the connection goes to the address."""
    url = f"https://hook.example:{secure.port}/hook"
    chosen = settings(url, ca_location=certificate)
    made = WebhookSink(chosen, pause=lambda _s: False, resolve=lambda _h, _p: ["127.0.0.1"])
    made.write(batches.plain("shop", 3))
    assert ids(secure) == expected(3)
    wrong = settings(url.replace("hook.example", "other.example"), ca_location=certificate)
    other = WebhookSink(wrong, pause=lambda _s: False, resolve=lambda _h, _p: ["127.0.0.1"])
    with pytest.raises(ConfigError, match="certificate"):
        other.write(batches.plain("shop", 1))


def test_an_unknown_certificate_is_not_trusted(secure: Endpoint) -> None:
    """There is no switch for it."""
    made = WebhookSink(
        settings(f"https://hook.example:{secure.port}/hook"), pause=lambda _s: False, resolve=lambda _h, _p: ["127.0.0.1"]
    )
    with pytest.raises(ConfigError, match="certificate"):
        made.write(batches.plain("shop", 1))
    assert ipaddress.ip_address("127.0.0.1").is_loopback and not secure.posted


def test_events_are_posted_with_changes_each_in_its_place(endpoint: Endpoint) -> None:
    """As their audit records, those of one partition in its order, and none again when the batch comes again."""
    changes = [batches.change("shop", at, topic="routed") for at in (0, 3)]
    events = [batches.event("shop", at, topic="routed", partition=0, offset=at) for at in (1, 2, 4)]
    made = sink(endpoint, records_max=2)
    for _ in range(2):
        made.write(batches.batch(changes, events=events))
    made.close()
    assert [record["meta"]["offset"] for record in endpoint.records] == [0, 1, 2, 3, 4]
    assert [record["core"]["unmapped"].get("kind") for record in endpoint.records] == [None, "event", "event", None, "event"]


def test_events_are_posted_as_cloud_events(endpoint: Endpoint) -> None:
    """The type is the application's; events of one id and several types or tenants are several events, also for who goes by
    `source` and `id`, as CloudEvents says."""
    names = [("order.placed", None), ("order.lost", None), ("order.lost", 'a"b')]
    events = [batches.event("shop", 1, type=type_, tenant=tenant) for type_, tenant in names]
    made = sink(endpoint, format="cloudevents")
    made.write(batches.batch(events=events))
    made.close()
    (posted,) = endpoint.posted
    said = json.loads(posted.body)
    assert [one["type"] for one in said] == ["chronicle.order.placed", "chronicle.order.lost", "chronicle.order.lost"]
    uid = said[0]["data"]["core"]["metadata"]["uid"]
    assert [one["id"] for one in said] == [f"event:shop:{tenant or ''}:{type_}:{uid}" for type_, tenant in names]
