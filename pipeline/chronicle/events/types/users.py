"""Payloads of `user.…`: accounts of people and services; the event's resource id says whose."""

from __future__ import annotations

from typing import Annotated, ClassVar

from chronicle.events.payload import Kind, Payload, said

Roles = Annotated[list[str] | None, said("What the user may do, afterwards.", ["editor"])]
Cause = Annotated[str | None, said("Why, as a code.", "asked")]


class UserCreated(Payload, frozen=True):
    """There is a new account."""

    KIND: ClassVar[Kind] = Kind.of("user.created")

    username: Annotated[str | None, said("Name for logging in.", "ann", "token")] = None
    email: Annotated[str | None, said("Address.", "ann@example.com", "token")] = None
    name: Annotated[str | None, said("For people to read.", "Ann Lee", "mask")] = None
    user_type: Annotated[str | None, said("person, service …", "person")] = None
    roles: Roles = None
    invited_by: Annotated[str | None, said("Who invited.", "user:7", "token")] = None


class UserUpdated(Payload, frozen=True):
    """Something of an account is not as it was."""

    KIND: ClassVar[Kind] = Kind.of("user.updated")

    changed: Annotated[list[str] | None, said("Names of the fields that changed.", ["roles"])] = None
    roles: Roles = None


class UserDeleted(Payload, frozen=True):
    """An account is gone."""

    KIND: ClassVar[Kind] = Kind.of("user.deleted")

    cause: Cause = None
    permanent: Annotated[bool | None, said("Whether it cannot be brought back.", True)] = None


class UserLoggedIn(Payload, frozen=True):
    """A session of this user began."""

    KIND: ClassVar[Kind] = Kind.of("user.logged_in")

    method: Annotated[str | None, said("How it was proved: password, passkey, oidc …", "passkey")] = None
    first: Annotated[bool | None, said("Whether it is the first time.", False)] = None


class UserLoggedOut(Payload, frozen=True):
    """A session of this user ended."""

    KIND: ClassVar[Kind] = Kind.of("user.logged_out")

    cause: Cause = None
    session_s: Annotated[float | None, said("Seconds that the session lasted.", 1800.0)] = None
