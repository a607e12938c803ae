"""Reference data: an entity, what is allowed in it, and its record on the compacted topic.

A record's key is the entity's id in UTF-8, its value `{"id","metadata","name"}` as JSON; no value: deleted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from chronicle.errors import ConfigError

ID_CHARS_MAX = 512
NAME_CHARS_MAX = 1_024
METADATA_BYTES_MAX = 16_384
"""As JSON text. All of it stands on every change that names the entity."""

_ID = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}:[^\x00-\x1f\x7f]+")


class InvalidEntity(ConfigError):
    """Whoever writes an entity must change it; the text names the field and what it takes, never a value."""


@dataclass(frozen=True, slots=True)
class Entity:
    """A thing that changes mention by a key: a customer, an organisation, a person.

    Raises:
        InvalidEntity: see the limits of this module.
    """

    id: str
    """`kind:value`, as a policy's pattern makes it from a column (`customer:{}`)."""
    name: str = field(repr=False)
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """A JSON object."""

    def __post_init__(self) -> None:
        check_id(self.id)
        if not isinstance(self.name, str) or not 0 < len(self.name) <= NAME_CHARS_MAX:
            raise InvalidEntity(f"give name a text of 1 to {NAME_CHARS_MAX} characters")
        if not isinstance(self.metadata, Mapping):
            raise InvalidEntity('give metadata a JSON object, as in {"tier":"enterprise"}')
        if len(_text("metadata", self.metadata).encode()) > METADATA_BYTES_MAX:
            raise InvalidEntity(f"shorten metadata: as JSON it may have {METADATA_BYTES_MAX} bytes")
        _text("name", self.name)

    @property
    def body(self) -> str:
        """Canonical members after `id`: `"metadata":{…},"name":"…"}`."""
        return f'"metadata":{_text("metadata", self.metadata)},"name":{_text("name", self.name)}}}'

    @property
    def key(self) -> bytes:
        """Of its record."""
        return self.id.encode()

    @property
    def value(self) -> bytes:
        """Of its record."""
        return f'{{"id":{_text("id", self.id)},{self.body}'.encode()

    def as_json(self) -> dict[str, Any]:
        """For people and pipes."""
        return {"id": self.id, "name": self.name, "metadata": dict(self.metadata)}


def _text(field_: str, value: Any) -> str:
    try:
        return msgspec.json.encode(value, order="deterministic").decode()
    except (ValueError, TypeError, RecursionError):
        raise InvalidEntity(f"correct {field_}: not to be written as JSON in UTF-8, or nested too deeply") from None


@dataclass(frozen=True, slots=True)
class Record:
    """An entity's latest state as the topic has it."""

    id: str = field(repr=False)
    body: str | None = field(repr=False)
    """As `Entity.body`; None: there is no such entity (any more)."""
    at_ms: int
    """Kafka's record time, milliseconds since 1970."""
    offset: int
    readable: bool = True
    """False: the value is no entity (another program wrote it); its id then names none."""


class _Value(msgspec.Struct):
    id: str
    name: str
    metadata: dict[str, Any] = {}


_DECODER = msgspec.json.Decoder(_Value)


def record_of(key: bytes | None, value: bytes | None, at_ms: int, offset: int) -> Record | None:
    """A record of the topic as it came; None: its key is no id, so that it is about no entity."""
    try:
        id_ = (key or b"").decode()
        check_id(id_)
    except (UnicodeDecodeError, InvalidEntity):
        return None
    if value is None:
        return Record(id_, None, at_ms, offset)
    try:
        found = _DECODER.decode(value)
        body = Entity(found.id, found.name, found.metadata).body
    except (msgspec.MsgspecError, RecursionError, InvalidEntity):
        return Record(id_, None, at_ms, offset, readable=False)
    if found.id != id_:
        return Record(id_, None, at_ms, offset, readable=False)
    return Record(id_, body, at_ms, offset)


def entity_of(id_: str, body: str) -> Entity:
    """The entity whose `body` this is."""
    members = msgspec.json.decode("{" + body)
    return Entity(id_, members["name"], members["metadata"])


def metadata_of(text: str) -> dict[str, Any]:
    """Metadata as a person writes it: a JSON object.

    Raises:
        InvalidEntity: it is none.
    """
    try:
        found = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InvalidEntity('give metadata a JSON object, as in {"tier":"enterprise"}')
    return found


def check_id(id_: object) -> None:
    """Raises InvalidEntity when this is not `kind:value`."""
    if not isinstance(id_, str) or len(id_) > ID_CHARS_MAX or not _ID.fullmatch(id_):
        raise InvalidEntity(
            f"write id as kind:value, as in org:acme: the kind in letters, digits, _ . and -, at most {ID_CHARS_MAX} "
            "characters in all, none of them a control character"
        )
    try:
        id_.encode()
    except UnicodeEncodeError:
        raise InvalidEntity("write id in UTF-8") from None
