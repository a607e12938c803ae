"""Payloads of `comment.…`: that something was said, not what."""

from __future__ import annotations

from typing import Annotated, ClassVar

from chronicle.events.payload import Kind, Payload, said

OnType = Annotated[str | None, said("What kind of thing it stands on.", "work_item")]
OnId = Annotated[str | None, said("On which one.", "118")]


class CommentAdded(Payload, frozen=True):
    """Somebody said something."""

    KIND: ClassVar[Kind] = Kind.of("comment.added")

    on_type: OnType = None
    on_id: OnId = None
    reply_to: Annotated[str | None, said("Id of the comment that it answers.", "41")] = None
    length: Annotated[int | None, said("Characters of its text.", 240)] = None
    mentions: Annotated[int | None, said("How many people it names.", 1)] = None


class CommentDeleted(Payload, frozen=True):
    """It is gone."""

    KIND: ClassVar[Kind] = Kind.of("comment.deleted")

    on_type: OnType = None
    on_id: OnId = None
    author: Annotated[str | None, said("Who had said it.", "user:9", "token")] = None
    cause: Annotated[str | None, said("Why, as a code.", "off_topic")] = None
