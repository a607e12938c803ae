"""The catalogue: which event types there are, what their payloads hold, and whether an event's does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any

import msgspec

from chronicle.events.event import Event, EventRefused
from chronicle.events.sealed import is_sealed, is_sealed_text
from chronicle.events.shapes import Fields, SchemaRefused, marks, record_of
from chronicle.events.types import TYPES, payload_of

CLASSES = ("clear", "drop", "redact", "mask", "token", "encrypt")
"""What a schema may propose for a field by its property `chronicle.class`: a policy's classes that need no option."""
UNKNOWN_TYPE = "unknown_type"
ENVELOPE = "event"
"""The name beside the types' schemas that is no type: the event itself."""
_PATH = "payload"
_NOTHING: Mapping[str, str] = MappingProxyType({})


class _Entry:
    """One type, compiled."""

    __slots__ = ("_decoder", "_struct", "classes", "record", "schema")

    def __init__(self, text: str, name: str) -> None:
        self.record, self.schema = record_of(text, name)
        self.classes = MappingProxyType(dict(_classes(self.schema, name)))
        from chronicle.events.compiled import type_of

        self._struct = type_of(self.record)
        self._decoder = None if self._struct is None else msgspec.json.Decoder(self._struct)

    def of_values(self, payload: Mapping[str, Any]) -> tuple[str, ...]:
        if self._struct is not None:
            try:
                msgspec.convert(payload, self._struct)
            except (msgspec.ValidationError, RecursionError):
                pass
            else:
                return ()
        if is_sealed(payload):
            return ()  # whoever opens it will see
        try:
            return _found(self.record, msgspec.to_builtins(payload))
        except (TypeError, ValueError, RecursionError):
            return (f"wrong_type:{_PATH}",)

    def of_text(self, payload: str | bytes) -> tuple[str, ...]:
        if self._decoder is not None:
            try:
                self._decoder.decode(payload)
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                pass
            else:
                return ()
        if is_sealed_text(payload if isinstance(payload, str) else payload.decode("utf-8", "replace")):
            return ()
        try:
            return _found(self.record, msgspec.json.decode(payload))
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return (f"wrong_type:{_PATH}",)


class Catalogue:
    """Event types by name. Immutable; a type is compiled when it is first asked for.

    Marks say what is wrong with an event without a word of it: `unknown_type`, `missing:payload.x`, `wrong_type:payload.x`,
    and `unknown_fields:payload:2` (how many; their names are not the schema's). `payload.items[]` is any item of a list. A
    sealed payload (`events.sealed`) fits any type.
    """

    __slots__ = ("_entries", "_own")

    def __init__(self, own: Mapping[str, str] = _NOTHING) -> None:
        """`own`: type → Avro record schema, beside the shipped types or in the place of one; `shipped` and `extended` make
        catalogues."""
        self._own = own
        self._entries: dict[str, _Entry | None] = {}

    @staticmethod
    def shipped() -> Catalogue:
        """The types that Chronicle brings."""
        return _shipped()

    def extended(self, schemas: Mapping[str, str]) -> Catalogue:
        """This catalogue and these types: name → text of an Avro record schema. One that is there already is replaced.

        Raises:
            SchemaRefused: a text is no Avro schema of a record, or proposes a class that there is not.
        """
        made = Catalogue(MappingProxyType({**self._own, **schemas}))
        for name, text in schemas.items():
            made._entries[name] = _Entry(text, name)  # mistakes are told now, not at the first event
        return made

    @property
    def types(self) -> tuple[str, ...]:
        """Every type, sorted."""
        return tuple(sorted(TYPES | self._own.keys()))

    def known(self, type: str) -> bool:
        """Whether this is one of the types."""
        return type in self._own or type in TYPES

    def problems(self, event: Event) -> tuple[str, ...]:
        """Marks of what does not fit the event's type; empty: it fits. No payload is an empty one."""
        entry = self._entry(event.type)
        return (UNKNOWN_TYPE,) if entry is None else entry.of_values(event.payload or {})

    def marks(self, types: Sequence[str], payloads: Sequence[str | None]) -> dict[int, tuple[str, ...]]:
        """As `problems`, for columns of types and of payloads as JSON text: row → marks, rows that fit are absent.

        Decoding a payload into its type is all that a row costs that fits, and none is kept. Joining rows into one text would
        be no faster, and two texts that are no JSON could make one that is.
        """
        entries: dict[str, _Entry | None] = {}
        found: dict[int, tuple[str, ...]] = {}
        for row, (type, payload) in enumerate(zip(types, payloads, strict=True)):
            if type not in entries:
                entries[type] = self._entry(type)
            entry = entries[type]
            problems = (UNKNOWN_TYPE,) if entry is None else entry.of_text(payload or "{}")
            if problems:
                found[row] = problems
        return found

    def refuse(self, event: Event) -> None:
        """Strict mode: an event that has problems is none.

        Raises:
            EventRefused: its type is unknown, or its payload does not fit; all marks are in the message.
        """
        found = self.problems(event)
        if found == (UNKNOWN_TYPE,):
            raise EventRefused("type", "there is no such type in the catalogue")
        if found:
            raise EventRefused(_PATH, ", ".join(found))

    def classes(self, type: str) -> Mapping[str, str]:
        """Field of the payload → class (one of `CLASSES`) that its schema proposes, for those of which it says one."""
        entry = self._entry(type)
        return _NOTHING if entry is None else entry.classes

    def columns(self, type: str) -> tuple[str, ...]:
        """The payload's fields.

        Raises:
            KeyError: no known type.
        """
        return tuple(self._known(type).record.fields)

    def schema(self, type: str) -> Mapping[str, Any]:
        """The payload's Avro record schema.

        Raises:
            KeyError: no known type.
        """
        return self._known(type).schema

    def _known(self, type: str) -> _Entry:
        entry = self._entry(type)
        if entry is None:
            raise KeyError(type)
        return entry

    def _entry(self, type: str) -> _Entry | None:
        found = self._entries.get(type)
        if found is None and self.known(type):  # unknown types are not remembered: there is no end of them
            found = self._entries[type] = _Entry(self._own[type], type) if type in self._own else _shipped_entry(type)
        return found


@cache
def _shipped() -> Catalogue:
    return Catalogue()


@cache
def _shipped_entry(type: str) -> _Entry:
    from chronicle.events.avro import avro_of

    return _Entry(msgspec.json.encode(avro_of(payload_of(type))).decode(), type)


def _found(record: Fields, payload: object) -> tuple[str, ...]:
    return tuple(dict.fromkeys(marks(record, payload, _PATH)))


def _classes(schema: Mapping[str, Any], name: str) -> Iterator[tuple[str, str]]:
    for one in schema["fields"]:
        proposed = one.get("chronicle.class")
        if proposed is None:
            continue
        if proposed not in CLASSES:
            raise SchemaRefused(name, f"chronicle.class is one of {', '.join(CLASSES)}")
        yield str(one["name"]), proposed
