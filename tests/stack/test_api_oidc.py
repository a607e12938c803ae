"""Access tokens of an OIDC issuer at a running service: discovery, keys and signatures are real, and so is the clock."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from chronicle.dev.stack import Stack
from tests.stack.api_process import ApiSite
from tests.stack.worker_process import WorkerProcess
from tests.unit.test_api_tokens import OTHER, RSA, Issuer

pytestmark = pytest.mark.stack

LOGIN = {"type": "security.login", "source": "shop"}
CIPHERTEXT, TOKEN = "e1.e-1.AAAA", "t1.9oYQLyA48ZxtmVcrcU9Tk_"


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    """An HTTP server with the issuer's two documents."""
    made = Issuer()
    yield made
    made.close()


@pytest.fixture(scope="module")
def site(stack: Stack, issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiSite]:
    """A service that takes the issuer's tokens, over a trail of two tenants."""
    made = ApiSite(stack, f"t{time.time_ns() % 10**8:08}x", tmp_path_factory.mktemp("oidc"))
    try:
        for minute, tenant in enumerate(("acme", "blue", None)):
            payload = {"iban": CIPHERTEXT, "email": TOKEN}
            made.add_event(minute, tenant=tenant, payload=payload, actor_id="bob", description=f"of {tenant}")
        made.served = made.serve(  # type: ignore[attr-defined]
            oidc_issuer=issuer.url, oidc_audience="chronicle", oidc_roles_claim="realm.roles", oidc_tenants_claim="tenant"
        )
        yield made
    finally:
        made.close()


def bearer(text: str) -> dict[str, str]:
    """As a header."""
    return {"authorization": f"Bearer {text}"}


def claims(*roles: str, **others: Any) -> dict[str, Any]:
    """Of somebody with these roles, for an hour."""
    return {"roles": None, "realm": {"roles": list(roles)}, "exp": int(time.time()) + 3600, "tenant": "acme", **others}


def unsigned(issuer: Issuer) -> str:
    """`alg: none`, as everybody can write it."""
    return f"{_said(issuer, 'none')}."


def shared(issuer: Issuer) -> str:
    """Signed by HS256 with the issuer's public key as the secret: everybody knows it."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    key = RSA.public_key().public_bytes(serialization.Encoding.PEM, form)
    text = _said(issuer, "HS256")
    return f"{text}.{_written(hmac.digest(key, text.encode(), hashlib.sha256))}"


def _said(issuer: Issuer, algorithm: str) -> str:
    said = {"iss": issuer.url, "aud": "chronicle", "sub": "ann", **claims("admin")}
    return ".".join(_written(json.dumps(one).encode()) for one in ({"alg": algorithm, "typ": "JWT", "kid": "one"}, said))


def _written(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).decode().rstrip("=")


def test_the_ingest_role_hands_in_events_of_its_tenant_and_reads_nothing(site: ApiSite, issuer: Issuer) -> None:
    """What it does not say of the tenant is filled in."""
    token = bearer(issuer.token(**claims("ingest")))
    answer = site.post(LOGIN, token)
    assert (answer.status_code, answer.json()["durability"]) == (202, "confirmed")
    [posted] = [one for one in site.events_on_topic() if one["id"] == answer.json()["id"]]
    assert posted["tenant"] == "acme"
    assert site.post(LOGIN | {"tenant": "blue"}, token).status_code == 422
    assert site.get("/events", token).status_code == 403


def test_a_reader_sees_tokens_only_and_of_its_tenant_only(site: ApiSite, issuer: Issuer) -> None:
    """Ciphertexts are an auditor's; neither hands in."""
    reader, auditor = (bearer(issuer.token(**claims(role))) for role in ("reader", "auditor"))
    [event] = site.get("/events", reader, actor="bob").json()["events"]
    assert (event["description"], event["payload"]) == ("of acme", {"iban": "[ENCRYPTED]", "email": TOKEN})
    [event] = site.get("/events", auditor, actor="bob").json()["events"]
    assert event["payload"] == {"iban": CIPHERTEXT, "email": TOKEN}
    [other] = site.get("/events", bearer(issuer.token(**claims("reader", tenant=["blue"]))), actor="bob").json()["events"]
    assert other["description"] == "of blue"
    assert site.get("/export", reader).status_code == 403
    assert site.post(LOGIN, auditor).status_code == 403


@pytest.mark.parametrize(
    "others",
    [
        {"aud": "another"}, {"aud": None}, {"exp": 1}, {"exp": None}, {"iss": "https://another.example"}, {"sub": None},
        {"nbf": 4102444800}, {"tenant": None}, {"key": OTHER}, {"kid": "two"},
        {"key": rsa.generate_private_key(65537, 2048), "kid": None},
    ],
)  # fmt: skip
def test_a_token_that_is_wrong_in_one_thing_opens_nothing(site: ApiSite, issuer: Issuer, others: dict[str, Any]) -> None:
    """Audience, time, issuer, subject, tenant, key: 401 for handing in and for reading, and no word of the token."""
    token = issuer.token(**claims("admin") | others)
    for answer in (site.post(LOGIN, bearer(token)), site.get("/events", bearer(token))):
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert token not in answer.text


@pytest.mark.parametrize("forged", [unsigned, shared])
def test_who_signs_with_nothing_or_with_what_everybody_knows_is_nobody(site: ApiSite, issuer: Issuer, forged: Any) -> None:
    """The header of a token chooses no algorithm."""
    assert site.post(LOGIN, bearer(forged(issuer))).status_code == 401
    assert site.get("/events", bearer(forged(issuer))).status_code == 401


def test_nothing_is_open_without_a_token_and_no_token_is_in_the_log(site: ApiSite, issuer: Issuer) -> None:
    """An issuer is a lock, also before any key was made; a role that is none of ours opens nothing."""
    served: WorkerProcess = site.served  # type: ignore[attr-defined]
    assert site.post(LOGIN).status_code == 401
    token = issuer.token(**claims("root", "writer"))
    assert site.post(LOGIN, bearer(token)).status_code == 403
    assert site.get("/events", bearer(token)).status_code == 403
    log = served.log_text()
    assert token not in log
    assert token.rpartition(".")[2] not in log


def test_an_issuer_that_is_away_is_no_open_door(site: ApiSite, issuer: Issuer) -> None:
    """Its keys that are known go on; who comes with another's is refused, not let in."""
    issuer.broken = True
    try:
        assert site.post(LOGIN, bearer(issuer.token(**claims("ingest", sub="new")))).status_code == 202
        assert site.post(LOGIN, bearer(issuer.token(OTHER, **claims("ingest")))).status_code == 401
    finally:
        issuer.broken = False
