"""The directory `schemas/` of a deployment: contracts of captured tables, and examples beside schemas. Reads and writes files.

A contract is `<subject>.avsc`, as `shop.public.customers-value.avsc`; an example is `<name>.example.json` beside
`<name>.avsc`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import fastavro

from chronicle.codec.contract import VALUE, Contract
from chronicle.errors import ConfigError

_AVRO, _EXAMPLE = ".avsc", ".example.json"


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
    """How many examples there are beside Avro schemas, and which do not fit; each must have all fields, and no other.

    Raises:
        ConfigError: a file cannot be read.
    """
    pairs = [
        (path, path.with_name(path.name.removesuffix(_EXAMPLE) + _AVRO)) for path in sorted(directory.glob(f"*{_EXAMPLE}"))
    ]
    pairs = [(example, schema) for example, schema in pairs if schema.exists()]
    return len(pairs), [found for example, schema in pairs for found in _mismatch(example, schema)]


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
