"""The directory of contracts and examples; the project's own schemas; and what changed between versions, in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fastavro
import jsonschema
import pytest

from chronicle.attribution.context import Actor, fields
from chronicle.codec.contract import VALUE
from chronicle.codec.schema import parse_avro
from chronicle.codec.schema_diff import differences
from chronicle.dev.demo_events import TYPES as DEMO
from chronicle.errors import ConfigError
from chronicle.events.types import TYPES
from chronicle.schema_files import Saved, contracts, mismatches, path_of, save

SCHEMAS = Path(__file__).parents[2] / "schemas"
ROW = {
    "type": "record",
    "name": "Value",
    "fields": [{"name": "id", "type": "long"}, {"name": "note", "type": ["null", "bytes"]}],
}
SUBJECT = f"shop.public.t{VALUE}"


def test_every_schema_of_the_project_has_an_example_that_fits() -> None:
    """Avro or JSON Schema, of event types too; an example that does not fit misleads."""
    count, unfit = mismatches(SCHEMAS)
    avro = {path.stem for path in SCHEMAS.glob("*.avsc")}
    events = {path.name.removesuffix(".avsc") for path in (SCHEMAS / "events").glob("*.avsc")}
    assert avro == {"context", "entity", "transaction"}
    assert events == {"event", *TYPES, *DEMO}
    assert (count, unfit) == (len(avro) + len(events), [])
    examples = {path.name.removesuffix(".example.json") for path in SCHEMAS.glob("*.example.json")}
    schemas = {path.name.removesuffix(".schema.json") for path in SCHEMAS.glob("*.schema.json")}
    assert avro | schemas <= examples
    for name in schemas:
        schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))
        jsonschema.validate(json.loads((SCHEMAS / f"{name}.example.json").read_text(encoding="utf-8")), schema)


def _schema(name: str) -> Any:
    return json.loads((SCHEMAS / ("events" if name == "event" else ".") / f"{name}.avsc").read_text(encoding="utf-8"))


@pytest.mark.parametrize("actor", ["ann", Actor("ann"), Actor(7, type="service", name="Nightly"), None])
def test_what_the_library_writes_is_a_context(actor: object) -> None:
    """`chronicle.attribution` and the published schema agree, with what is not said filled in."""
    named = {"request_id": "r", "reason": "why", "ip": "203.0.113.7", "session": "s", "tenant": "t"}
    said = fields(actor=actor, named=named, tags={"ticket": 4711, "share": 0.5, "dry": True, "none": None})
    schema = _schema("context")
    if isinstance(said.get("actor"), dict):
        said["actor"] = {"type": None, "name": None, **said["actor"]}
    whole = {field["name"]: said.get(field["name"], field["default"]) for field in schema["fields"]}
    assert said.keys() <= whole.keys()
    assert fastavro.validate(whole, fastavro.parse_schema(schema), strict=True)


def test_an_event_says_who_and_why_as_a_context_does() -> None:
    """One vocabulary: the fields of a context, with the same types, stand in an event."""
    context, event = ({one["name"]: one["type"] for one in _schema(name)["fields"]} for name in ("context", "event"))
    assert {name: event.get(name) for name in context} == context


def test_a_contract_a_person_changed_is_kept(tmp_path: Path) -> None:
    """Unless asked; layout is no change. What is written can be read."""
    directory = tmp_path / "schemas"
    assert save(directory, SUBJECT, json.dumps(ROW)) is Saved.WRITTEN
    assert save(directory, SUBJECT, json.dumps(ROW, indent=2)) is Saved.PRESENT
    cut = json.dumps({**ROW, "fields": ROW["fields"][:1]})
    assert save(directory, SUBJECT, cut) is Saved.KEPT
    assert contracts(directory)[SUBJECT].columns == ("id", "note")
    assert save(directory, SUBJECT, cut, force=True) is Saved.WRITTEN
    assert contracts(directory)[SUBJECT].columns == ("id",)
    assert [path.name for path in directory.iterdir()] == [f"{SUBJECT}.avsc"]


def test_no_directory_is_no_contract(tmp_path: Path) -> None:
    """Contracts are for those who want them; the project's own schemas are none."""
    assert contracts(tmp_path / "schemas") == {}
    assert contracts(SCHEMAS) == {}


def test_a_file_that_is_no_contract_is_named(tmp_path: Path) -> None:
    """Before the first record."""
    (tmp_path / f"{SUBJECT}.avsc").write_text('{"type": "record"')
    with pytest.raises(ConfigError, match=SUBJECT):
        contracts(tmp_path)


@pytest.mark.parametrize("subject", ["", "../x-value", "a/b-value", ".hidden-value", "a\0b"])
def test_a_subject_stays_in_its_directory(subject: str, tmp_path: Path) -> None:
    """A registry's subjects are not ours to trust."""
    with pytest.raises(ConfigError):
        path_of(tmp_path, subject)


@pytest.mark.parametrize(
    ("example", "what"),
    [
        ('{"id": 1, "note": "x"}', None),
        ('{"id": 1, "note": null}', None),
        ('{"id": "secretvalue", "note": null}', "id does not fit"),
        ('{"id": 1}', "note does not fit"),
        ('{"id": 1, "note": null, "more": 2}', "does not fit"),
        ("[]", "does not fit"),
        ("{", "not JSON"),
    ],
)
def test_an_example_that_does_not_fit_is_told_by_field(example: str, what: str | None, tmp_path: Path) -> None:
    """Without its values: a real row may have been taken for it."""
    (tmp_path / f"{SUBJECT}.avsc").write_text(json.dumps(ROW))
    (tmp_path / f"{SUBJECT}.example.json").write_text(example)
    count, found = mismatches(tmp_path)
    assert count == 1
    if what is None:
        assert found == []
    else:
        assert what in found[0].what and "secretvalue" not in str(found)


@pytest.mark.parametrize(
    ("example", "what"),
    [
        ('{"page": 1}', []),
        ('{"page": 1, "at": "2026-02-01T00:00:00Z"}', []),
        ("{}", ["missing:payload.page by report.read.avsc"]),
        ('{"page": "secretvalue", "secretname": 2}', ["wrong_type:payload.page", "unknown_fields:payload:1"]),
        ('{"page": 1, "at": 1767225600000}', ["wrong_type:payload.at"]),
        ('["secretvalue"]', ["wrong_type:payload by"]),
        ("{", ["not JSON"]),
    ],
)
def test_an_event_types_example_is_looked_at_as_its_payloads_are(example: str, what: list[str], tmp_path: Path) -> None:
    """By the catalogue, not by Avro's encoding: a time is a text there."""
    time = {"name": "at", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}], "default": None}
    schema = {"type": "record", "name": "read", "fields": [{"name": "page", "type": "int"}, time]}
    (tmp_path / "events").mkdir()
    (tmp_path / "events" / "report.read.avsc").write_text(json.dumps(schema))
    (tmp_path / "events" / "report.read.example.json").write_text(example)
    count, found = mismatches(tmp_path)
    assert count == 1 and len(found) == len(what)
    assert all(part in one.what for one, part in zip(found, what, strict=True))
    assert "secret" not in str(found)


def test_differences_are_told_by_column() -> None:
    """Added, removed and changed, with types as people know them; a rename is two of them."""
    decimal = {"type": "bytes", "connect.name": "org.apache.kafka.connect.data.Decimal"}
    old = [
        {"name": "id", "type": "int"},
        {"name": "name", "type": ["null", "string"]},
        {"name": "total", "type": {**decimal, "connect.parameters": {"scale": "2", "connect.decimal.precision": "10"}}},
        {"name": "at", "type": {"type": "int", "connect.name": "io.debezium.time.Date"}},
    ]
    new = [
        {"name": "id", "type": "long"},
        {"name": "title", "type": ["null", "string"]},
        {"name": "total", "type": {**decimal, "connect.parameters": {"scale": "4", "connect.decimal.precision": "10"}}},
        {"name": "at", "type": ["null", {"type": "int", "connect.name": "io.debezium.time.Date"}]},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
    ]
    one, two = (parse_avro(1, json.dumps({"type": "record", "name": "V", "fields": fields_})) for fields_ in (old, new))
    assert [each.words for each in differences(one, two)] == [
        "- name string, nullable",
        "~ id int → long",
        "+ title string, nullable",
        "~ total Decimal(10, 2) → Decimal(10, 4)",
        "~ at Date → Date, nullable",
        "+ tags list of string",
    ]
    assert differences(one, one) == ()
