"""Payloads of `work_item.…`: tasks, tickets, cases; the event's resource id says which one."""

from __future__ import annotations

from typing import Annotated, ClassVar

from chronicle.events.payload import Kind, Payload, said

Project = Annotated[str | None, said("Where it belongs.", "website")]
ItemType = Annotated[str | None, said("task, bug, case …", "task")]
Assignee = Annotated[str, said("Who is to do it.", "user:7", "token")]
Value = bool | int | float | str | None


class WorkItemCreated(Payload, frozen=True):
    """There is a new one."""

    KIND: ClassVar[Kind] = Kind.of("work_item.created")

    project: Project = None
    item_type: ItemType = None
    title: Annotated[str | None, said("For people to read.", "Order form loses the address", "redact")] = None
    status: Annotated[str | None, said("State that it begins in.", "open")] = None
    urgency: Annotated[str | None, said("How soon it is wanted.", "high")] = None
    parent: Annotated[str | None, said("Id of the one that it is a part of.", "118")] = None
    labels: Annotated[list[str] | None, said("Its labels.", ["checkout"])] = None
    reporter: Annotated[str | None, said("Who asked for it, where that is not who acts.", "user:9", "token")] = None
    assignee: Annotated[str | None, said("Who is to do it.", "user:7", "token")] = None


class WorkItemUpdated(Payload, frozen=True):
    """Something of it is not as it was."""

    KIND: ClassVar[Kind] = Kind.of("work_item.updated")

    project: Project = None
    item_type: ItemType = None
    changed: Annotated[list[str] | None, said("Names of the fields that changed.", ["status"])] = None
    status: Annotated[str | None, said("State that it has now.", "closed")] = None
    previous_status: Annotated[str | None, said("State that it had.", "open")] = None


class WorkItemDeleted(Payload, frozen=True):
    """It is gone."""

    KIND: ClassVar[Kind] = Kind.of("work_item.deleted")

    project: Project = None
    item_type: ItemType = None
    cause: Annotated[str | None, said("Why, as a code.", "duplicate")] = None
    permanent: Annotated[bool | None, said("Whether it cannot be brought back.", False)] = None


class WorkItemAssigned(Payload, frozen=True):
    """Somebody is to do it."""

    KIND: ClassVar[Kind] = Kind.of("work_item.assigned")

    assignee: Assignee
    previous: Annotated[str | None, said("Who was to do it before.", "user:9", "token")] = None
    project: Project = None


class WorkItemUnassigned(Payload, frozen=True):
    """Somebody is no longer to do it."""

    KIND: ClassVar[Kind] = Kind.of("work_item.unassigned")

    assignee: Assignee
    project: Project = None


class WorkItemCustomFieldSet(Payload, frozen=True):
    """A field that the users made themselves has another value."""

    KIND: ClassVar[Kind] = Kind.of("work_item.custom_field_set")

    field: Annotated[str, said("Name of the field.", "customer_impact")]
    value: Annotated[Value, said("What it says now: anything.", "severe", "redact")] = None
    previous: Annotated[Value, said("What it said before.", 3, "redact")] = None
    project: Project = None
