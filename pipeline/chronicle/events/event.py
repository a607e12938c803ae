"""One event: its fields, its limits, and its one form as JSON, on HTTP as on the topic `chronicle.events`.

`schemas/events/event.avsc` says the same in Avro, with the payload as JSON text. What is not said is absent. Light: an
application imports this.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, get_args

import msgspec

from chronicle.errors import ChronicleError

Outcome = Literal["success", "failure", "unknown"]
Priority = Literal["low", "normal", "high"]
OUTCOMES: tuple[str, ...] = get_args(Outcome)
PRIORITIES: tuple[str, ...] = get_args(Priority)

EVENT_BYTES_MAX = 256 * 1024
"""Of one event as JSON."""
TEXT_LENGTH_MAX = 1_024
"""Characters of a field, as in a context; `description` may have `DESCRIPTION_LENGTH_MAX`, `type` `TYPE_LENGTH_MAX`."""
DESCRIPTION_LENGTH_MAX = 8_192
TYPE_LENGTH_MAX = 200
TAGS_MAX = 100
DEPTH_MAX = 16
"""Levels of objects and lists in payload and tags."""

YEARS = range(1900, 2300)
"""Of an event's time, in UTC: what ClickHouse's DateTime64 holds."""
WHOLE = range(-(2**63), 2**64)
"""Whole numbers that every JSON reader on the way keeps exact."""

TYPE_PATTERN = r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*"
UUID_PATTERN = r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
TIME_PATTERN = r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?(Z|[+-]\d{2}:[0-5]\d)"
TRACEPARENT_PATTERN = r"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
_TYPE, _UUID, _INSTANT, _TRACEPARENT = (
    re.compile(one, re.ASCII) for one in (TYPE_PATTERN, UUID_PATTERN, TIME_PATTERN, TRACEPARENT_PATTERN)
)
_CANONICAL = len("2026-02-01T12:00:00.000000Z")
_DIGITS = bytes.maketrans(b"123456789", b"0" * 9)
_LONG_NUMBER = b"0" * 19
"""With all digits as 0: perhaps a number beyond 64 bits."""


class EventRefused(ChronicleError, ValueError):
    """The caller: this is no event. `field` names what is wrong; neither it nor the message ever holds a value."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field
        self.problem = message

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.field, self.problem)


class Actor(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Who acts, in JSON: an object, or its id alone."""

    id: str
    type: str | None = None
    name: str | None = None


class Event(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, forbid_unknown_fields=True):
    """Something that an application says happened."""

    id: str = ""
    """UUID: the same event sent twice is one. Empty: whoever takes the event makes it."""
    type: str = ""
    """Words with dots between them, the general ones first: `security.login`. Empty: `<resource_type>.<action>`."""
    time: str = ""
    """When it happened: ISO 8601 with an offset or Z. Empty: when it is taken."""
    source: str = ""
    """The application."""
    actor: Actor | str | None = None
    action: str | None = None
    resource_type: str | None = None
    resource_id: str | None = None
    outcome: Outcome | None = None
    description: str | None = None
    """For people to read."""
    payload: dict[str, Any] | None = None
    """What happened in detail, by its type's own schema."""
    tags: dict[str, Any] = {}
    """Anything else worth filtering by."""
    request_id: str | None = None
    traceparent: str | None = None
    """W3C trace context: version-trace-parent-flags."""
    reason: str | None = None
    ip: str | None = None
    session: str | None = None
    tenant: str | None = None
    partition_key: str | None = None
    """Events of one key keep their order."""
    priority: Priority = "normal"


FIELDS: tuple[str, ...] = Event.__struct_fields__
_LENGTHS: Mapping[str, int] = {"type": TYPE_LENGTH_MAX, "description": DESCRIPTION_LENGTH_MAX}
LENGTHS: Mapping[str, int] = {
    name: _LENGTHS.get(name, TEXT_LENGTH_MAX) for name in FIELDS if name not in ("actor", "payload", "tags")
}
"""Field that is a text → how many characters it has at most."""
_LIMITS = tuple((name, LENGTHS.get(name, 0)) for name in FIELDS)
_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(Event)


def decoded(text: bytes | str) -> Event:
    """The event in a JSON text. Fields are of their types; `completed` looks at the rest.

    Raises:
        EventRefused: not JSON, not an object, an unknown field, or a field of another type.
    """
    if len(text) > EVENT_BYTES_MAX:
        raise EventRefused("", f"an event has at most {EVENT_BYTES_MAX} bytes as JSON")
    try:
        return _decoder.decode(text)
    except msgspec.ValidationError as error:
        raise refused(error) from None
    except (msgspec.DecodeError, UnicodeError):
        raise EventRefused("", "not JSON") from None
    except RecursionError:
        raise EventRefused("", f"payload and tags have at most {DEPTH_MAX} levels") from None


def converted(value: object) -> Event:
    """As `decoded`, of a JSON value that is read already.

    Raises:
        EventRefused: as `decoded`.
    """
    try:
        return msgspec.convert(value, Event)
    except msgspec.ValidationError as error:
        raise refused(error) from None
    except RecursionError:
        raise EventRefused("", f"payload and tags have at most {DEPTH_MAX} levels") from None


def refused(error: msgspec.ValidationError) -> EventRefused:
    """msgspec's error as ours. Its texts name types and fields, of which only known names are repeated: a value that stands
    where a name belongs stays unsaid."""
    text = str(error)
    place = re.search(r"at `\$\.?([A-Za-z_]*)", text)
    field = place[1] if place and place[1] in FIELDS else ""
    if "unknown field" in text:
        return EventRefused(field, "has a field that there is not" if field else "there is a field that an event does not have")
    expected = re.match(r"Expected `([a-z |]+)`, got `([a-z]+)`", text)
    if expected:
        return EventRefused(field, f"expected {expected[1]}, got {expected[2]}")
    if "Invalid enum value" in text:
        words = {"outcome": OUTCOMES, "priority": PRIORITIES}.get(field, ())
        return EventRefused(field, f"choose one of {', '.join(words)}" if words else "there is no such word")
    return EventRefused(field, "does not fit")


def completed(event: Event, *, id: str, time: str, source: str = "") -> Event:
    """The event as everything behind reads it: `id`, `time` and `source` are used where it has none, its type is named, its
    id is in lower case, and its time is in UTC with six digits (`instant`).

    Raises:
        EventRefused: as `checked`.
    """
    _check_texts(event)
    kind = event.type
    if not kind and event.resource_type and event.action:
        kind = f"{event.resource_type}.{event.action}"
    at = event.time or time
    whole = msgspec.structs.replace(
        event, id=(event.id or id).lower(), type=kind, time=instant(at) or "", source=event.source or source
    )
    _check_forms(whole, timed=bool(whole.time))
    return whole


def checked(event: Event) -> None:
    """Look at everything that a type does not say, the types too: an application makes events without a decoder.

    Raises:
        EventRefused: a field is missing, malformed, too long, or of another type.
    """
    _check_texts(event)
    _check_forms(event, timed=instant(event.time) is not None)


def _check_texts(event: Event) -> None:
    for (name, most), value in zip(_LIMITS, msgspec.structs.astuple(event), strict=True):
        if value is None or not most:
            continue
        if not isinstance(value, str):
            raise EventRefused(name, "expected a text")
        if len(value) > most:
            raise EventRefused(name, f"at most {most} characters")
    actor = event.actor
    if actor is not None:
        _check_actor(actor)
    if not isinstance(event.tags, dict) or not (event.payload is None or isinstance(event.payload, dict)):
        raise EventRefused("payload" if isinstance(event.tags, dict) else "tags", "expected an object")
    if len(event.tags) > TAGS_MAX:
        raise EventRefused("tags", f"at most {TAGS_MAX}")


def _check_actor(actor: Actor | str) -> None:
    for part in (actor,) if isinstance(actor, str) else (actor.id, actor.type, actor.name):
        if part is not None and not isinstance(part, str):
            raise EventRefused("actor", "expected an object, or its id as a text")
        if part is not None and len(part) > TEXT_LENGTH_MAX:
            raise EventRefused("actor", f"at most {TEXT_LENGTH_MAX} characters")


def _check_forms(event: Event, *, timed: bool) -> None:
    if not event.id or not _UUID.fullmatch(event.id):
        raise EventRefused("id", "is no UUID" if event.id else "is missing")
    if not event.type:
        raise EventRefused("type", "name it, or resource_type and action")
    if len(event.type) > TYPE_LENGTH_MAX or not _TYPE.fullmatch(event.type):
        raise EventRefused("type", f"write letters, digits, _ and - with dots between, at most {TYPE_LENGTH_MAX} characters")
    if not timed:
        years = f"{YEARS.start} to {YEARS.stop - 1}"
        raise EventRefused("time", f"write ISO 8601 with an offset, as 2026-02-01T12:00:00Z, from {years}")
    if not event.source:
        raise EventRefused("source", "is missing: the application's name")
    if event.outcome is not None and event.outcome not in OUTCOMES:
        raise EventRefused("outcome", f"choose one of {', '.join(OUTCOMES)}")
    if event.priority not in PRIORITIES:
        raise EventRefused("priority", f"choose one of {', '.join(PRIORITIES)}")
    if event.traceparent is not None and not _TRACEPARENT.fullmatch(event.traceparent):
        raise EventRefused("traceparent", "write it as the W3C does: 00-<32 hex digits>-<16 hex digits>-<2 hex digits>")


def encoded(event: Event) -> bytes:
    """The event as JSON: UTF-8, keys sorted; what is not said is absent.

    Raises:
        EventRefused: payload or tags hold what JSON has not (a lone surrogate, NaN, an object of a class) or does not keep (a
            whole number beyond 64 bits), have too many levels, or the event is too large.
    """
    try:
        text = _encoder.encode(event)
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise EventRefused("", "payload and tags hold only what JSON has") from None
    if len(text) > EVENT_BYTES_MAX:
        raise EventRefused("", f"an event has at most {EVENT_BYTES_MAX} bytes as JSON")
    # counting and searching the text is many times faster than walking through values; a suspicion is looked into
    deep = text.count(b"{") + text.count(b"[") > DEPTH_MAX
    if deep or b"null" in text or _LONG_NUMBER in text.translate(_DIGITS):  # null: perhaps NaN
        for name, inner in (("payload", event.payload), ("tags", event.tags)):
            problem = _problem(msgspec.to_builtins(inner), DEPTH_MAX)
            if problem:
                raise EventRefused(name, problem)
    return text


def instant(text: str) -> str | None:
    """An ISO 8601 time with an offset as UTC with six digits (`2026-02-01T12:00:00.000000Z`: texts that sort as the times do);
    None: it is none, or its year in UTC is not in `YEARS`. Digits beyond microseconds are cut; a leap second is no time.
    """
    if not _INSTANT.fullmatch(text):
        return None
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is not UTC:
            at = at.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    if at.year not in YEARS:
        return None
    return (
        text
        if len(text) == _CANONICAL and text[-1] == "Z"
        else at.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
    )


def _problem(value: object, levels: int) -> str:
    """What is wrong with a value of payload or tags; the empty text: nothing."""
    if isinstance(value, dict | list | tuple | set | frozenset):
        if not levels:
            return f"at most {DEPTH_MAX} levels"
        inner = value.values() if isinstance(value, dict) else value
        return next(filter(None, (_problem(one, levels - 1) for one in inner)), "")
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN and infinity are not in JSON"
    if isinstance(value, int) and value not in WHOLE:
        return "write numbers beyond 64 bits as texts"
    return ""
