"""Payloads of `team.…`: groups of users; the event's resource id says which one."""

from __future__ import annotations

from typing import Annotated, ClassVar

from chronicle.events.payload import Kind, Payload, said

Name = Annotated[str | None, said("Name of the team.", "Support")]
Member = Annotated[str, said("Who.", "user:7", "token")]
Cause = Annotated[str | None, said("Why, as a code.", "reorganised")]


class TeamCreated(Payload, frozen=True):
    """There is a new team."""

    KIND: ClassVar[Kind] = Kind.of("team.created")

    name: Name = None
    parent: Annotated[str | None, said("Id of the team that it is a part of.", "3")] = None
    members: Annotated[int | None, said("How many members it begins with.", 4)] = None


class TeamUpdated(Payload, frozen=True):
    """Something of a team is not as it was."""

    KIND: ClassVar[Kind] = Kind.of("team.updated")

    name: Name = None
    changed: Annotated[list[str] | None, said("Names of the fields that changed.", ["name"])] = None


class TeamDeleted(Payload, frozen=True):
    """A team is gone."""

    KIND: ClassVar[Kind] = Kind.of("team.deleted")

    name: Name = None
    cause: Cause = None


class TeamMemberAdded(Payload, frozen=True):
    """Somebody belongs to it."""

    KIND: ClassVar[Kind] = Kind.of("team.member_added")

    member: Member
    role: Annotated[str | None, said("As what.", "maintainer")] = None


class TeamMemberRemoved(Payload, frozen=True):
    """Somebody no longer belongs to it."""

    KIND: ClassVar[Kind] = Kind.of("team.member_removed")

    member: Member
    cause: Cause = None
