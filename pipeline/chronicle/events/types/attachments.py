"""Payloads of `attachment.…`: that a file came or went, not its content."""

from __future__ import annotations

from typing import Annotated, ClassVar

from chronicle.events.payload import Kind, Payload, said

OnType = Annotated[str | None, said("What kind of thing it hangs on.", "work_item")]
OnId = Annotated[str | None, said("On which one.", "118")]
FileName = Annotated[str | None, said("Name of the file; its end stays readable.", "contract-ann.pdf", "mask")]


class AttachmentAdded(Payload, frozen=True):
    """A file was added."""

    KIND: ClassVar[Kind] = Kind.of("attachment.added")

    on_type: OnType = None
    on_id: OnId = None
    file_name: FileName = None
    media_type: Annotated[str | None, said("Media type of the content.", "application/pdf")] = None
    size_bytes: Annotated[int | None, said("Length of the content.", 48213)] = None
    sha256: Annotated[str | None, said("Of the content, in hexadecimal digits.", "9f86d081884c7d65", "token")] = None


class AttachmentRemoved(Payload, frozen=True):
    """A file was removed."""

    KIND: ClassVar[Kind] = Kind.of("attachment.removed")

    on_type: OnType = None
    on_id: OnId = None
    file_name: FileName = None
    cause: Annotated[str | None, said("Why, as a code.", "replaced")] = None
