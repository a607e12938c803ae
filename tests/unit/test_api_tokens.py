"""Access tokens of an issuer: its real signatures, checked; everything else about a token refused."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from chronicle.api.access import Limits, Role
from chronicle.api.tokens import KEYS_STALE_S, KEYS_TTL_S, REFRESH_MIN_S, Oidc, Tokens
from chronicle.errors import ConfigError, TransientError
from tests.unit.api_double import NOW, Clock, Service, bearer

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
CURVE = ec.generate_private_key(ec.SECP256R1())


class Issuer:
    """A real issuer's two documents over HTTP."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {"one": RSA.public_key()}
        self.broken = False
        self.asked = 0
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked += 1
                body = json.dumps(issuer.document(self.path)).encode()
                self.send_response(500 if issuer.broken else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def document(self, path: str) -> dict[str, Any]:
        if path == "/.well-known/openid-configuration":
            return {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        algorithms = jwt.algorithms
        found = []
        for name, key in self.keys.items():
            kind = algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPublicKey) else algorithms.ECAlgorithm
            found.append({**kind.to_jwk(key, as_dict=True), "kid": name, "use": "sig"})
        return {"keys": [*found, {"kty": "unknown", "kid": "x"}]}

    def token(self, key: Any = RSA, algorithm: str = "RS256", kid: str | None = "one", **claims: Any) -> str:
        said = {
            "iss": self.url,
            "aud": "chronicle",
            "sub": "ann",
            "exp": int((NOW + timedelta(days=36_500)).timestamp()),
            "roles": ["reader", "unknown"],
            **claims,
        }
        said = {name: value for name, value in said.items() if value is not None}
        return jwt.encode(said, key, algorithm, headers={"kid": kid} if kid else {})

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    """An issuer of its own."""
    made = Issuer()
    yield made
    made.close()


def tokens(issuer: Issuer, clock: Clock | None = None, **options: Any) -> Tokens:
    return Tokens(Oidc(issuer.url, "chronicle", **options), clock or Clock())


def none(_roles: frozenset[Role]) -> tuple[Limits, ...]:
    return ()


def test_a_token_of_the_issuer_opens_what_its_roles_open(issuer: Issuer) -> None:
    """Names that are no roles of ours mean nothing."""
    found = tokens(issuer).principal(issuer.token(), NOW, none)
    assert found is not None
    assert (found.id, found.kind, found.roles, found.limits) == ("user:ann", "user", frozenset({Role.READER}), ())


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "another"},
        {"aud": None},
        {"iss": "http://evil.example"},
        {"iss": None},
        {"exp": 1},
        {"exp": None},
        {"sub": None},
        {"sub": ""},
        {"sub": "a\nb"},
        {"nbf": 99_999_999_999},
    ],
)
def test_a_token_that_is_not_for_us_is_refused(issuer: Issuer, claims: dict[str, Any]) -> None:
    """Audience, issuer, time and subject must be there and right."""
    assert tokens(issuer).principal(issuer.token(**claims), NOW, none) is None


def test_a_signature_of_nobody_is_refused(issuer: Issuer) -> None:
    """No algorithm, another key, the public key as a shared secret, a changed text, another algorithm of the right key."""
    checked = tokens(issuer)
    head, body, signature = issuer.token().split(".")
    none_head = jwt.utils.base64url_encode(b'{"alg":"none","typ":"JWT","kid":"one"}').decode()
    shared = jwt.utils.base64url_encode(b'{"alg":"HS256","typ":"JWT","kid":"one"}').decode()
    wrong = [
        f"{none_head}.{body}.",
        f"{shared}.{body}.{signature}",
        issuer.token(OTHER),
        f"{head}.{body}.{signature[:-4]}AAAA",
        f"{head}.{body[:-2]}AA.{signature}",
        issuer.token(RSA, "PS256"),
        issuer.token(CURVE, "ES256"),
        "a.b.c",
        "",
        "." * 20_000,
        f"{head}.{body}",
    ]
    for text in wrong:
        assert checked.principal(text, NOW, none) is None, text[:50]


def test_a_shared_secret_is_no_choice() -> None:
    """Who can check such a token can make one; and a token for anyone is a token for nobody."""
    with pytest.raises(ConfigError, match="oidc_algorithms"):
        Oidc("https://issuer.example", "chronicle", algorithms=("HS256",))
    with pytest.raises(ConfigError, match="oidc_audience"):
        Oidc("https://issuer.example", "")


def test_the_issuer_may_change_its_keys(issuer: Issuer) -> None:
    """An unknown key id has them read again; one that is gone opens nothing once they were."""
    clock = Clock()
    checked = tokens(issuer, clock)
    assert checked.principal(issuer.token(), NOW, none)
    issuer.keys = {"two": CURVE.public_key()}
    clock.seconds += REFRESH_MIN_S
    assert checked.principal(issuer.token(CURVE, "ES256", "two"), NOW, none)
    assert checked.principal(issuer.token(), NOW, none) is None


def test_strangers_cannot_have_the_issuer_asked_all_the_time(issuer: Issuer) -> None:
    """Unknown key ids, many of them."""
    checked = tokens(issuer)
    for number in range(100):
        assert checked.principal(issuer.token(kid=f"unknown {number}"), NOW, none) is None
    assert checked.keys.fetches == 1


def test_an_issuer_that_is_away_is_done_without_for_a_while(issuer: Issuer) -> None:
    """Known keys are used on, for a day; without any the answer is that nobody can tell."""
    clock = Clock()
    checked = tokens(issuer, clock)
    issuer.broken = True
    with pytest.raises(TransientError):
        checked.principal(issuer.token(), NOW, none)
    issuer.broken = False
    clock.seconds += REFRESH_MIN_S
    assert checked.principal(issuer.token(), NOW, none)
    issuer.broken = True
    clock.seconds += KEYS_TTL_S
    assert checked.principal(issuer.token(), NOW, none)
    clock.seconds += KEYS_STALE_S
    with pytest.raises(TransientError):
        checked.principal(issuer.token(), NOW, none)


def test_a_configuration_of_another_issuer_is_not_believed(issuer: Issuer) -> None:
    """It could name another one's keys."""
    checked = Tokens(Oidc(issuer.url + "/", "chronicle"), Clock())
    with pytest.raises(TransientError):
        checked.principal(issuer.token(), NOW, none)


def test_tenants_come_from_the_token(issuer: Issuer) -> None:
    """A text or a list; a token without any is refused."""
    checked = tokens(issuer, tenants_claim="org.tenants", roles_claim="https://chronicle.example/roles")
    said: dict[str, Any]
    for said, wanted in (({"tenants": "acme corp"}, ("acme corp",)), ({"tenants": ["a", "b"]}, ("a", "b"))):
        found = checked.principal(issuer.token(org=said, **{"https://chronicle.example/roles": "reader ingest"}), NOW, none)
        assert found is not None
        assert found.only("tenants") == wanted
        assert found.roles == {Role.READER, Role.INGEST}
    for said in ({}, {"tenants": []}, {"tenants": [7]}, {"tenants": ""}, {"tenants": [""]}):
        assert checked.principal(issuer.token(org=said), NOW, none) is None, said


def test_a_token_opens_the_service(issuer: Issuer) -> None:
    """Through the whole application, for which a configured issuer means that nobody gets in without."""
    service = Service(tokens=tokens(issuer))
    headers = bearer(issuer.token(roles=["ingest"]))
    event = {"type": "security.login", "source": "shop"}
    assert service.post(event, headers=headers).status_code == 202
    assert service.post(event).status_code == 401
    assert service.post(event, headers=bearer(issuer.token())).status_code == 403
    issuer.broken = True
    service = Service(tokens=tokens(issuer))
    assert service.post(event, headers=headers).status_code == 503


def test_a_known_token_is_not_computed_again_and_ends_in_time(issuer: Issuer) -> None:
    """For a minute at most, and not beyond its end."""
    clock = Clock()
    checked = tokens(issuer, clock)
    text = issuer.token()
    assert checked.known(text) is None
    assert checked.principal(text, NOW, none) == checked.known(text)
    clock.seconds += 61
    assert checked.known(text) is None
