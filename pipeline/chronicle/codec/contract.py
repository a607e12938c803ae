"""Contracts: the columns of a table that its readers rely on, and whether a writer schema still keeps them.

A contract is an Avro record schema, one field a column. It is compared with what a connector writes by Avro's rules for
reading with one schema what was written with another, and by meaning: a date that becomes a number of seconds is read by
every Avro library, and wrong. Columns that the contract does not name are free.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from chronicle.codec.columns import DECIMAL, WriterSchema
from chronicle.codec.connect_avro import avro_of
from chronicle.errors import ConfigError

Schema = Any
"""An Avro schema as JSON: a name, a union (list) or a definition (object)."""
Names = Mapping[str, Mapping[str, Any]]

VALUE = "-value"
"""End of the subjects that have contracts: `shop.public.customers-value`."""

_PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
_PROMOTED: Mapping[str, frozenset[str]] = {
    "int": frozenset({"long", "float", "double"}),
    "long": frozenset({"float", "double"}),
    "float": frozenset({"double"}),
    "string": frozenset({"bytes"}),
    "bytes": frozenset({"string"}),
}
"""Writer's type → what it may be read as."""


@dataclass(frozen=True, slots=True)
class Break:
    """One way in which a writer schema does not keep a contract."""

    column: str
    """With a dot before each field inside it."""
    what: str
    fix: str

    def as_json(self) -> dict[str, str]:
        """For `--json`."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Contract:
    """A parsed contract. Equal and hashed by its text, so that what was compared once can be kept."""

    name: str = field(compare=False)
    """Of its file, for messages."""
    text: str
    row: Mapping[str, Any] = field(compare=False, repr=False)
    """The record of the columns."""
    names: Names = field(compare=False, repr=False)

    @property
    def columns(self) -> tuple[str, ...]:
        """What it names."""
        return tuple(str(one["name"]) for one in self.row["fields"])

    @staticmethod
    def parse(text: str, *, name: str) -> Contract:
        """Read the text of a contract: a record of columns, or a whole envelope of which the row counts.

        Raises:
            ConfigError: it is no Avro schema of a record.
        """
        try:
            schema = json.loads(text)
            names = dict(_defined(schema, ""))
            row = row_of(schema, names)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ConfigError(f"correct {name}: it is no Avro schema of a record ({type(error).__name__})") from None
        return Contract(name, text, row, names)


def breaks(contract: Contract, writer: WriterSchema) -> tuple[Break, ...]:
    """Where the rows of a writer schema (Avro, or Connect's in JSON) cannot be read as the contract says. Not cached.

    JSON without a schema promises nothing, and breaks nothing. Texts name columns and types, never a value.
    """
    if writer.schemaless:
        return ()
    schema = json.loads(writer.text)
    return _broken(contract, avro_of(schema) if writer.reader is None else schema)


def breaks_of(contract: Contract, text: str) -> tuple[Break, ...]:
    """As `breaks`, of a writer schema in Avro as text."""
    return _broken(contract, json.loads(text))


def _broken(contract: Contract, schema: Schema) -> tuple[Break, ...]:
    names = dict(_defined(schema, ""))
    try:
        row = row_of(schema, names)
    except (KeyError, TypeError, ValueError):
        return (Break("", "these are no rows of a table", f"take {contract.name} away"),)
    check = _Check(contract, names)
    return tuple(check.fields(row, contract.row, ""))


def told(found: Sequence[Break]) -> str:
    """All breaks on one line, for a dead letter or a log."""
    return "; ".join(f"{one.column or 'the schema'}: {one.what}" for one in found)


def row_of(schema: Schema, names: Names) -> Mapping[str, Any]:
    """The record of a row's columns: `after` of an envelope, else the record itself.

    Raises:
        ValueError: there is none.
    """
    if isinstance(schema, dict) and schema.get("type") == "record":
        blocks = {str(one["name"]): one["type"] for one in schema["fields"]}
        if not {"before", "after", "op"} <= blocks.keys():
            return schema
        for branch in _branches(blocks["after"]):
            found = _definition(branch, names)
            if isinstance(found, dict) and found.get("type") == "record":
                return found
    raise ValueError("no record of columns")


# Avro's rules --------------------------------------------------------------------------------------------------------


class _Check:
    """One comparison."""

    def __init__(self, contract: Contract, writer_names: Names) -> None:
        self._file = contract.name
        self._reader_names, self._writer_names = contract.names, writer_names
        self._open: set[tuple[int, int]] = set()
        """Records being compared: a recursive schema does not end otherwise."""

    def fields(self, writer: Mapping[str, Any], reader: Mapping[str, Any], path: str) -> Iterator[Break]:
        """Records, field by field."""
        pair = (id(writer), id(reader))
        if pair in self._open:
            return
        self._open.add(pair)
        there = {str(one["name"]): one for one in writer["fields"]}
        for one in reader["fields"]:
            name = str(one["name"])
            column = f"{path}{name}"
            given = next((there[known] for known in (name, *one.get("aliases", ())) if known in there), None)
            if given is not None:
                yield from self.types(given["type"], one["type"], column)
            elif "default" not in one:
                yield self._break(column, "it is gone", "bring it back", "take it out of")
        self._open.discard(pair)

    def types(self, writer: Schema, reader: Schema, column: str) -> Iterator[Break]:
        """Each branch that may be written needs one it can be read as."""
        for branch in _branches(writer):
            kind = self._kind(branch)
            kinds = [(self._kind(other, reader=True), other) for other in _branches(reader)]
            like = [other for wanted, other in kinds if wanted == kind or wanted in _PROMOTED.get(kind, ())]
            found = [list(self._one(branch, other, column)) for other in like]
            if not like:
                yield self._other(column, branch, reader)
            elif all(found):
                yield from min(found, key=len)

    def _one(self, writer: Schema, reader: Schema, column: str) -> Iterator[Break]:
        """One branch against one of its kind, or of one it can be read as."""
        old, new = self._full(reader, reader=True), self._full(writer)
        yield from self._meaning(new, old, column)
        if _type(new) != _type(old):
            return
        match _type(new):
            case "record":
                yield from self._named(new, old, column)
                yield from self.fields(new, old, f"{column}.")
            case "array":
                yield from self.types(new["items"], old["items"], f"{column}[]")
            case "map":
                yield from self.types(new["values"], old["values"], f"{column}[]")
            case "enum":
                yield from self._named(new, old, column)
                yield from self._symbols(new, old, column)
            case "fixed":
                yield from self._named(new, old, column)
                if new["size"] != old["size"]:
                    yield self._changed(column, f"{new['size']} bytes", f"{old['size']} bytes")

    def _named(self, new: Mapping[str, Any], old: Mapping[str, Any], column: str) -> Iterator[Break]:
        names = {str(name).rpartition(".")[2] for name in (old["name"], *old.get("aliases", ()))}
        if str(new["name"]).rpartition(".")[2] not in names:
            yield self._changed(column, f"a {new['type']} {new['name']}", f"a {old['type']} {old['name']}")

    def _symbols(self, new: Mapping[str, Any], old: Mapping[str, Any], column: str) -> Iterator[Break]:
        more = [one for one in new["symbols"] if one not in old["symbols"]]
        if more and "default" not in old:
            yield self._break(column, f"it may be {', '.join(map(str, more))}", "take them back", "write them into")

    def _meaning(self, new: Schema, old: Schema, column: str) -> Iterator[Break]:
        """What Avro's own rules do not look at: Connect's and Debezium's names of types."""
        name, wanted = _semantic(new), _semantic(old)
        if wanted is None:
            return
        if name != wanted:
            yield self._changed(column, name or f"just {_type(new)}", wanted)
            return
        given, expected = _parameters(new), _parameters(old)
        if wanted in (DECIMAL, "decimal"):
            yield from self._decimal(given, expected, column)
        allowed, known = _words(given), _words(expected)
        if known and (more := [word for word in allowed if word not in known]):
            yield self._break(column, f"it may be {', '.join(more)}", "take them back", "write them into")

    def _decimal(self, given: Mapping[str, str], expected: Mapping[str, str], column: str) -> Iterator[Break]:
        scale, then = given.get("scale", "0"), expected.get("scale", "0")
        if scale != then:
            what = f"it has {scale} digits after the point, the contract says {then}"
            yield self._break(column, what, "change it back", "write it into")
        digits, most = (one.get("connect.decimal.precision") or one.get("precision") for one in (given, expected))
        if digits and most and int(digits) > int(most):
            what = f"it has up to {digits} digits, the contract says {most}"
            yield self._break(column, what, "change it back", "write it into")

    def _full(self, schema: Schema, *, reader: bool = False) -> Schema:
        return _definition(schema, self._reader_names if reader else self._writer_names)

    def _kind(self, schema: Schema, *, reader: bool = False) -> str:
        return _type(self._full(schema, reader=reader))

    def _other(self, column: str, writer: Schema, reader: Schema) -> Break:
        now = self._kind(writer)
        if now == "null":
            return self._break(column, "it may be NULL, the contract says never", "make it NOT NULL", 'write ["null", …] into')
        then = " or ".join(dict.fromkeys(self._kind(one, reader=True) for one in _branches(reader)))
        return self._changed(column, now, then)

    def _changed(self, column: str, now: str, then: str) -> Break:
        return self._break(column, f"it is {now}, the contract says {then}", "change it back", "write it into")

    def _break(self, column: str, what: str, back: str, or_: str) -> Break:
        return Break(column, what, f"{back}, or {or_} {self._file} when all readers know")


# Writing one ---------------------------------------------------------------------------------------------------------

_KEPT = ("type", "name", "namespace", "fields", "items", "values", "symbols", "size", "logicalType", "scale", "precision")


def pinned(text: str) -> str:
    """A contract of all columns of a writer schema in Avro, each of which has to stay (none has a default).

    Raises:
        ValueError: these are no rows of a table.
    """
    schema = json.loads(text)
    try:
        names = dict(_defined(schema, ""))
        row = row_of(schema, names)
        space = row.get("namespace", schema.get("namespace", ""))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no rows of a table ({type(error).__name__})") from None
    return json.dumps(_pinned({**row, "namespace": space}), indent=2, ensure_ascii=False) + "\n"


def _pinned(schema: Schema) -> Schema:
    """Without what is no part of the promise: versions, defaults, documentation, the source's own type names."""
    if isinstance(schema, list):
        return [_pinned(one) for one in schema]
    if isinstance(schema, str):
        return schema
    out = {key: schema[key] for key in _KEPT if key in schema and schema[key] != ""}
    for key in ("type", "items", "values"):
        if key in out:
            out[key] = _pinned(out[key])
    if "fields" in out:
        out["fields"] = [{"name": one["name"], "type": _pinned(one["type"])} for one in out["fields"]]
    else:
        named = schema.get("connect.name")
        parameters = {k: v for k, v in (schema.get("connect.parameters") or {}).items() if not k.startswith("__debezium")}
        out |= ({"connect.name": named} if named else {}) | ({"connect.parameters": parameters} if parameters else {})
    return out["type"] if set(out) == {"type"} and isinstance(out["type"], str) else out


# Avro's JSON ---------------------------------------------------------------------------------------------------------


def _branches(schema: Schema) -> list[Schema]:
    return schema if isinstance(schema, list) else [schema]


def _defined(schema: Schema, namespace: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Named types, by full and by short name; references in them stay as they are."""
    for one in _branches(schema):
        if not isinstance(one, dict):
            continue
        space = namespace
        if one.get("type") in ("record", "enum", "fixed"):
            name = str(one["name"])
            space = name.rpartition(".")[0] or str(one.get("namespace", namespace))
            short = name.rpartition(".")[2]
            yield short, one
            yield f"{space}.{short}" if space else short, one
        inner = [two["type"] for two in one.get("fields", ())]
        inner += [one[key] for key in ("items", "values") if key in one]
        if isinstance(one.get("type"), dict | list):
            inner.append(one["type"])
        for two in inner:
            yield from _defined(two, space)


def _definition(schema: Schema, names: Names) -> Schema:
    """What a name stands for; `{"type": {…}}` and `{"type": "name"}` without the wrapping."""
    if isinstance(schema, str):
        return schema if schema in _PRIMITIVES else names[schema]
    inner = schema["type"]
    if isinstance(inner, str) and (inner in _PRIMITIVES or inner in ("record", "enum", "fixed", "array", "map")):
        return schema
    return _definition(inner, names)


def _type(schema: Schema) -> str:
    return schema if isinstance(schema, str) else str(schema["type"])


def _semantic(schema: Schema) -> str | None:
    """The name of a meaning: Connect's, else Avro's logical type."""
    if isinstance(schema, str) or schema["type"] in ("record", "enum"):
        return None
    name = schema.get("connect.name") or schema.get("logicalType")
    return None if name is None else str(name)


def _parameters(schema: Schema) -> dict[str, str]:
    given = {key: str(schema[key]) for key in ("scale", "precision") if key in schema}
    return given | {key: str(value) for key, value in (schema.get("connect.parameters") or {}).items()}


def _words(parameters: Mapping[str, str]) -> list[str]:
    """Values of Debezium's Enum and EnumSet."""
    allowed = parameters.get("allowed", "")
    return [one.replace("\0", ",") for one in allowed.replace("\\,", "\0").split(",")] if allowed else []
