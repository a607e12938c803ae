"""Payloads of `auth.…`: who proved to be who, and the tokens they got. Who acts and the outcome stand in the event itself."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar

from chronicle.events.payload import Kind, Payload, said

Method = Annotated[str | None, said("How it is proved: password, passkey, oidc, certificate …", "passkey")]
Provider = Annotated[str | None, said("Who vouches, where that is somebody else.", "accounts.example.com")]
Username = Annotated[str | None, said("The name that was given; not always a known one.", "ann@example.com", "token")]
Failure = Annotated[str | None, said("Why it failed, as a code.", "wrong_answer")]
Fingerprint = Annotated[
    str | None,
    said("Of the token: beginning of its SHA-256 in hexadecimal digits, or its id; never of the token itself.", "9f86d081"),
]
TokenKind = Annotated[str, said("access, refresh, api_key, invitation …", "refresh")]
Cause = Annotated[str | None, said("Why, as a code.", "user")]


class AuthRegister(Payload, frozen=True):
    """An account was asked for."""

    KIND: ClassVar[Kind] = Kind.of("auth.register")

    method: Method = None
    provider: Provider = None
    username: Username = None
    invited_by: Annotated[str | None, said("Who invited.", "user:7", "token")] = None
    failure: Failure = None


class AuthLogin(Payload, frozen=True):
    """Somebody asked to be let in."""

    KIND: ClassVar[Kind] = Kind.of("auth.login")

    method: Method = None
    provider: Provider = None
    username: Username = None
    second_factor: Annotated[str | None, said("The second proof: app, key, message …", "app")] = None
    attempt: Annotated[int | None, said("Number of the try in a row.", 1)] = None
    remembered: Annotated[bool | None, said("Whether the session outlives the browser.", False)] = None
    failure: Failure = None


class AuthLogout(Payload, frozen=True):
    """A session ended."""

    KIND: ClassVar[Kind] = Kind.of("auth.logout")

    cause: Cause = None
    session_s: Annotated[float | None, said("Seconds that the session lasted.", 1800.0)] = None


class AuthTokenIssued(Payload, frozen=True):
    """A token was given out."""

    KIND: ClassVar[Kind] = Kind.of("auth.token.issued")

    kind: TokenKind
    fingerprint: Fingerprint = None
    subject: Annotated[str | None, said("For whom.", "user:7", "token")] = None
    audience: Annotated[str | None, said("For which service.", "orders")] = None
    scopes: Annotated[list[str] | None, said("What it allows.", ["orders:read"])] = None
    expires_at: Annotated[datetime | None, said("When it ends.", "2026-02-01T01:00:00Z")] = None


class AuthTokenRevoked(Payload, frozen=True):
    """A token was taken back."""

    KIND: ClassVar[Kind] = Kind.of("auth.token.revoked")

    kind: TokenKind
    fingerprint: Fingerprint = None
    subject: Annotated[str | None, said("Whose it was.", "user:7", "token")] = None
    cause: Cause = None


class AuthCredentialsChecked(Payload, frozen=True):
    """A proof was looked at, without a session that begins."""

    KIND: ClassVar[Kind] = Kind.of("auth.credentials.checked")

    method: Method = None
    provider: Provider = None
    username: Username = None
    failure: Failure = None
