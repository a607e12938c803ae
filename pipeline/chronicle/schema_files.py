"""The directory `schemas/` of a deployment: contracts of captured tables, types of events, and examples beside schemas.
Reads and writes files.

A contract is `<subject>.avsc`, as `shop.public.customers-value.avsc`; an event type's payload is `events/<type>.avsc`, as
`events/report.read.avsc`; an example is `<name>.example.json` beside `<name>.avsc`.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import fastavro

from chronicle.codec.contract import VALUE, Break, Contract, breaks_of
from chronicle.errors import ConfigError
from chronicle.events.avro import written
from chronicle.events.catalogue import ENVELOPE, Catalogue
from chronicle.events.event import TYPE_LENGTH_MAX, TYPE_PATTERN, Event
from chronicle.events.shapes import SchemaRefused

_AVRO, _EXAMPLE = ".avsc", ".example.json"
EVENTS = "events"
"""Directory of event types in `schemas/`. `event.avsc` in it is the event itself."""
HISTORY = "history"
"""Directory in `EVENTS` of every version that was released."""


class Saved(StrEnum):
    """What became of a file."""

    WRITTEN = "written"
    PRESENT = "present"  # it says the same already
    KEPT = "kept"  # it says something else, and was not to be overwritten


@dataclass(frozen=True, slots=True)
class Mismatch:
    """An example that does not fit its schema."""

    file: str
    what: str
    fix: str

    def as_json(self) -> dict[str, str]:
        """For `--json`."""
        return asdict(self)


def path_of(directory: Path, subject: str) -> Path:
    """The file of a subject's contract.

    Raises:
        ConfigError: the subject's name is no name of a file.
    """
    if not subject or subject.startswith(".") or any(one in subject for one in "/\\\0"):
        raise ConfigError(f"a contract's subject is a name of a file, as shop.public.customers{VALUE}")
    return directory / (subject + _AVRO)


def contracts(directory: Path) -> dict[str, Contract]:
    """The contracts in a directory, by subject; none where there is no directory.

    Raises:
        ConfigError: a file cannot be read, or is no Avro schema of a record.
    """
    found = sorted(directory.glob(f"*{VALUE}{_AVRO}"))
    return {path.name.removesuffix(_AVRO): Contract.parse(_text(path), name=str(path)) for path in found}


def event_types(directory: Path) -> Catalogue:
    """The shipped event types and those of `events/` in this directory, each named as its file is.

    A shipped type may be written again with more fields, as long as every payload of the shipped one still fits.

    Raises:
        ConfigError: a file cannot be read, is no Avro schema of a record, is not named as a type, or takes something away
            from a shipped type.
    """
    found: dict[str, str] = {}
    shipped = Catalogue.shipped()
    for path in sorted((directory / EVENTS).glob(f"*{_AVRO}")):
        name = path.name.removesuffix(_AVRO)
        if name == ENVELOPE:
            continue
        if len(name) > TYPE_LENGTH_MAX or not re.fullmatch(TYPE_PATTERN, name):
            raise ConfigError(f"name {path} as its event type: letters, digits, _ and - with dots between")
        text = _text(path)
        if not shipped.known(name) or not _same(text, written(shipped.schema(name))):
            found[name] = text
    try:
        made = shipped.extended(found)
    except SchemaRefused as error:
        raise ConfigError(f"correct {directory / EVENTS / (error.name + _AVRO)}: {error.problem}") from None
    for name in found:
        if shipped.known(name):
            lost = _lost(written(shipped.schema(name)), written(made.schema(name)), name)
            if lost:
                told = "; ".join(f"{one.column}: {one.what}" for one in lost)
                raise ConfigError(f"correct {directory / EVENTS / (name + _AVRO)}, a type that Chronicle brings: {told}")
    return made


def event_breaks(directory: Path) -> dict[str, tuple[Break, ...]]:
    """Event types of this directory whose schema does not take every payload of an earlier version, and where it does not.

    Earlier versions are `events/history/<type>.v<number>.avsc`, as they were released.

    Raises:
        ConfigError: a file cannot be read, or is no Avro schema of a record.
    """
    found: dict[str, tuple[Break, ...]] = {}
    for path in sorted((directory / EVENTS / HISTORY).glob(f"*{_AVRO}")):
        name, dot, version = path.name.removesuffix(_AVRO).rpartition(".v")
        newest = directory / EVENTS / (name + _AVRO)
        if not dot or not version.isdecimal():
            raise ConfigError(f"name {path} as <type>.v<number>{_AVRO}")
        if not newest.exists():
            broken = [Break("", f"it is gone, there was a version {version}", f"bring {newest.name} back")]
        else:
            broken = _lost(_text(path), _text(newest), name)
        if broken:
            found[name] = tuple(dict.fromkeys((*found.get(name, ()), *broken)))
    return found


def _lost(old: str, new: str, name: str) -> list[Break]:
    """What payloads of a type could say by the old schema and can no longer, column by column."""
    reader, writer = (Contract.parse(text, name=name + _AVRO) for text in (new, old))
    gone = [Break(one, "it is gone", "bring it back") for one in writer.columns if one not in reader.columns]
    lacking = set(reader.columns) - set(writer.columns)
    return gone + [
        Break(one.column, "payloads of earlier versions lack it", "give it a default")
        if one.column in lacking
        else Break(one.column, one.what.replace("it is ", "it was ").replace("the contract says", "now"), "change it back")
        for one in breaks_of(reader, old)
    ]


def save(directory: Path, subject: str, text: str, *, force: bool = False) -> Saved:
    """Write a contract; what a person changed stays, unless `force`.

    Raises:
        ConfigError: the directory cannot be written to.
    """
    path = path_of(directory, subject)
    if path.exists():
        if _same(_text(path), text):
            return Saved.PRESENT
        if not force:
            return Saved.KEPT
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=directory, prefix=".", delete=False) as file:
            file.write(text)
        whole = Path(file.name)
        whole.chmod(0o644)
        whole.replace(path)
    except OSError as error:
        raise ConfigError(f"make {directory} a directory you can write to: {type(error).__name__}") from None
    return Saved.WRITTEN


def mismatches(directory: Path) -> tuple[int, list[Mismatch]]:
    """How many examples there are beside Avro schemas, and which do not fit; each must have all fields, and no other. The
    example of an event type is a payload, and must be one.

    Raises:
        ConfigError: a file cannot be read, or a schema of an event type is wrong (`event_types`).
    """
    events = directory / EVENTS
    types = event_types(directory)
    count = 0
    found: list[Mismatch] = []
    for example in sorted([*directory.glob(f"*{_EXAMPLE}"), *events.glob(f"*{_EXAMPLE}")]):
        name = example.name.removesuffix(_EXAMPLE)
        schema = example.with_name(name + _AVRO)
        if not schema.exists():
            continue
        count += 1
        if example.parent == events and name != ENVELOPE:
            found += _unfit_payload(example, name, types)
        else:
            found += _mismatch(example, schema)
    return count, found


def _unfit_payload(example: Path, name: str, types: Catalogue) -> Iterator[Mismatch]:
    try:
        value = json.loads(_text(example))
    except ValueError:
        yield Mismatch(str(example), "it is not JSON", "correct it")
        return
    marks = types.problems(Event(type=name, payload=value)) if isinstance(value, dict) else ("wrong_type:payload",)
    for mark in marks:
        yield Mismatch(str(example), f"{mark} by {name}{_AVRO}", "correct the example, or the schema")


def _mismatch(example: Path, schema: Path) -> Iterator[Mismatch]:
    try:
        parsed = fastavro.parse_schema(_as_json(json.loads(_text(schema))))
    except (ValueError, KeyError, TypeError, AttributeError, fastavro.schema.SchemaParseException) as error:
        yield Mismatch(str(schema), f"it is no Avro schema ({type(error).__name__})", "correct it")
        return
    try:
        value = json.loads(_text(example))
    except ValueError:
        yield Mismatch(str(example), "it is not JSON", "correct it")
        return
    for field in dict.fromkeys(_unfit(value, parsed)):
        yield Mismatch(str(example), f"{field} does not fit {schema.name}", "correct the example, or the schema")


def _unfit(value: Any, schema: Any) -> Iterator[str]:
    """Names of fields; `it` where that is not all."""
    if isinstance(value, dict) and schema["type"] == "record":
        yield from value.keys() ^ {str(one["name"]) for one in schema["fields"]}
    try:
        if not fastavro.validate(value, schema, strict=True):
            yield "it"
    except fastavro.validation.ValidationError as error:  # its text holds the value
        yield from (str(one.field).rpartition(".")[2] or "it" for one in error.errors)


def _as_json(schema: Any) -> Any:
    """The schema for values as JSON has them: bytes are texts, and a time is its number."""
    if isinstance(schema, list):
        kinds = [_as_json(one) for one in schema]
        return [one for at, one in enumerate(kinds) if one not in kinds[:at]]
    if not isinstance(schema, dict):
        return "string" if schema == "bytes" else schema
    if schema.get("type") == "fixed":
        return "string"
    made = {key: value for key, value in schema.items() if key != "logicalType"}
    for key in ("type", "items", "values"):
        if key in made:
            made[key] = _as_json(made[key])
    if "fields" in made:
        made["fields"] = [{**one, "type": _as_json(one["type"])} for one in made["fields"]]
    return made


def _same(one: str, other: str) -> bool:
    """Whether two texts are the same JSON, however they are laid out."""
    try:
        return bool(json.loads(one) == json.loads(other))
    except ValueError:
        return False


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"make {path} readable: {type(error).__name__}") from None
