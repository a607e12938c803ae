"""Payloads of `chronicle.…`: what Chronicle itself puts on the trail."""

from __future__ import annotations

from typing import Annotated, ClassVar

from chronicle.events.payload import Kind, Payload, said


class ChronicleHistoryRead(Payload, frozen=True):
    """Somebody read the trail: a history, an export, a transaction, what somebody did."""

    KIND: ClassVar[Kind] = Kind.of("chronicle.history.read")

    endpoint: Annotated[str, said("What was asked, without values.", "/history/{table}/{key}")]
    filters: Annotated[list[str] | None, said("Names of the filters, never their values.", ["actor", "since"])] = None
