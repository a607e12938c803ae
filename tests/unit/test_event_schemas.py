"""The files of `schemas/events/`: made from the Structs, never changed once released, and free of secrets."""

from __future__ import annotations

import importlib
import io
import json
from pathlib import Path
from typing import Any

import fastavro
import msgspec
import pytest

from chronicle.dev.demo_events import TYPES as DEMO
from chronicle.dev.event_schemas import DIRECTORY, files
from chronicle.errors import ConfigError
from chronicle.events import types
from chronicle.events.avro import avro_of, example_of, written
from chronicle.events.catalogue import Catalogue
from chronicle.events.event import TYPE_PATTERN, Event, completed, encoded
from chronicle.events.payload import Kind, Payload, said
from chronicle.events.types import TYPES, payload_of
from chronicle.policy.names import looks_secret
from chronicle.schema_files import EVENTS, HISTORY, event_breaks, event_types

ISSUE = {
    "http": {"request.received", "response.sent", "route.not_found", "method.not_allowed"},
    "auth": {"register", "login", "logout", "token.issued", "token.revoked", "credentials.checked"},
    "database": {
        *("connected", "init", "error", "query", "exec"),
        *("transaction.started", "transaction.committed", "transaction.rolled_back"),
    },
    "work_item": {"created", "updated", "deleted", "assigned", "unassigned", "custom_field_set"},
    "comment": {"added", "deleted"},
    "attachment": {"added", "removed"},
    "user": {"created", "updated", "deleted", "logged_in", "logged_out"},
    "team": {"created", "updated", "deleted", "member_added", "member_removed"},
    "log": {"info", "warning", "debug", "error", "fatal", "assertion_failed"},
    "chronicle": {"history.read"},  # its own
}


def test_the_files_say_what_the_structs_say() -> None:
    """After a change: python -m chronicle.dev.event_schemas --write. A released version stays as it was. Beside them are the
    demo's own."""
    expected = dict(files(DIRECTORY))
    found = {path: path.read_text(encoding="utf-8") for end in ("avsc", "json") for path in DIRECTORY.rglob(f"*.{end}")}
    assert {path.name for path, text in expected.items() if found.get(path) != text} == set()
    kept = {path for path in found.keys() - expected.keys() if path.parent.name != HISTORY}
    own = {f"{name}.{end}" for name in ("event", *DEMO) for end in ("avsc", "example.json")}
    assert {path.name for path in kept} == own


def test_every_type_that_was_asked_for_is_there() -> None:
    """And no other."""
    assert {f"{family}.{one}" for family, found in ISSUE.items() for one in found} == TYPES == set(Catalogue.shipped().types)


@pytest.mark.parametrize("name", sorted(TYPES))
def test_a_payload_knows_its_type(name: str) -> None:
    """Its resource and action make the type; its own field names are no secrets, so that no policy hides them."""
    payload = payload_of(name)
    kind = payload.KIND
    assert (f"{kind.resource_type}.{kind.action}", kind.type) == (name, name)
    assert getattr(types, payload.__name__) is payload
    schema = avro_of(payload)
    assert f"{schema['namespace']}.{schema['name']}" == name and schema["version"] == kind.version
    fields = payload.__struct_encode_fields__
    assert [one for one in fields if looks_secret(one)] == []
    event = Event(
        resource_type=kind.resource_type, action=kind.action, payload=msgspec.convert(example_of(payload), payload).fields()
    )
    assert completed(event, id="5f0c0f6e-7f0e-4a53-9b7c-3a5e2f1d9c10", time="2026-02-01T00:00:00Z", source="s").type == name
    assert json.loads(encoded(event))["payload"] == example_of(payload)


def test_every_payload_is_in_the_catalogue() -> None:
    """A Struct that is forgotten there would never be looked at."""
    families = [path.stem for path in Path(types.__file__).parent.glob("*.py") if path.stem != "__init__"]
    found = [
        one
        for family in families
        for one in vars(importlib.import_module(f"chronicle.events.types.{family}")).values()
        if isinstance(one, type) and issubclass(one, Payload) and "KIND" in vars(one)
    ]
    assert sorted(one.KIND.type for one in found) == sorted(TYPES)
    assert {one.__name__ for one in found} <= set(dir(types))
    with pytest.raises(AttributeError):
        _ = types.NoSuchPayload


def test_the_newest_version_of_every_type_takes_what_earlier_ones_wrote() -> None:
    """By the rules, and by Avro itself: written by each released schema, read by the newest."""
    assert event_breaks(DIRECTORY.parent) == {}
    released = sorted((DIRECTORY / HISTORY).glob("*.avsc"))
    assert {path.name.rpartition(".v")[0] for path in released} == {*TYPES, "event"}
    for path in released:
        name = path.name.rpartition(".v")[0]
        old, new = (fastavro.parse_schema(json.loads(one.read_text())) for one in (path, DIRECTORY / f"{name}.avsc"))
        if name == "event":
            value = json.loads((DIRECTORY / "event.example.json").read_text())
        else:
            value = {key: one for key, one in example_of(payload_of(name)).items() if key != "expires_at"}
        for row in (value, {key: one for key, one in value.items() if "default" not in _field(old, key)}):
            file = io.BytesIO()
            fastavro.schemaless_writer(file, old, row)
            file.seek(0)
            read: Any = fastavro.schemaless_reader(file, old, new)
            assert {key: str(read[key]) for key in row} == {key: str(one) for key, one in row.items()}


def _field(schema: Any, name: str) -> Any:
    return next(one for one in schema["fields"] if one["name"] == name)


def _record(*fields: dict[str, Any], name: str = "read") -> str:
    return json.dumps({"type": "record", "name": name, "namespace": "report", "fields": fields})


PAGE, NOTE = {"name": "page", "type": "int"}, {"name": "note", "type": ["null", "string"], "default": None}


@pytest.mark.parametrize(
    ("newest", "what"),
    [
        (_record(PAGE, NOTE), None),
        (_record(NOTE, {**PAGE, "type": "long"}), None),
        (_record(PAGE, NOTE, {"name": "more", "type": "int", "default": 0}), None),
        (_record(PAGE), ("note", "it is gone")),
        (_record({**PAGE, "type": "string"}, NOTE), ("page", "it was int, now string")),
        (_record(PAGE, {"name": "note", "type": "string"}), ("note", "it may be NULL, now never")),
        (_record(PAGE, NOTE, {"name": "more", "type": "int"}), ("more", "payloads of earlier versions lack it")),
        (None, ("", "it is gone, there was a version 1")),
    ],
)
def test_a_version_that_cannot_read_an_earlier_one_is_told(
    newest: str | None, what: tuple[str, str] | None, tmp_path: Path
) -> None:
    """A deployment's own types are held to it as the shipped ones are."""
    history = tmp_path / EVENTS / HISTORY
    history.mkdir(parents=True)
    (history / "report.read.v1.avsc").write_text(_record(PAGE, NOTE))
    if newest:
        (tmp_path / EVENTS / "report.read.avsc").write_text(newest)
    found = event_breaks(tmp_path)
    if what is None:
        assert found == {}
    else:
        [broken] = found["report.read"]
        assert (broken.column, broken.what) == what


def test_a_deployments_own_types_are_beside_the_shipped_ones(tmp_path: Path) -> None:
    """Named by their files; no directory is none."""
    assert event_types(tmp_path).types == Catalogue.shipped().types
    (tmp_path / EVENTS).mkdir()
    (tmp_path / EVENTS / "report.read.avsc").write_text(_record(PAGE))
    (tmp_path / EVENTS / "event.avsc").write_text("not looked at")
    catalogue = event_types(tmp_path)
    assert catalogue.problems(Event(type="report.read", payload={"page": 1})) == ()
    assert catalogue.problems(Event(type="event")) == ("unknown_type",)


def test_a_shipped_type_can_be_written_again_with_more_but_not_with_less(tmp_path: Path) -> None:
    """What Chronicle's own parts send keeps fitting."""
    (tmp_path / EVENTS).mkdir()
    path = tmp_path / EVENTS / "auth.logout.avsc"
    shipped = avro_of(payload_of("auth.logout"))
    more = {**shipped, "fields": [*shipped["fields"], NOTE]}
    path.write_text(written(more))
    assert event_types(tmp_path).columns("auth.logout") == ("cause", "session_s", "note")
    path.write_text(written({**shipped, "fields": shipped["fields"][:1]}))
    with pytest.raises(ConfigError, match=r"auth\.logout\.avsc, a type that Chronicle brings: session_s: it is gone"):
        event_types(tmp_path)
    path.write_text(written({**shipped, "fields": [*shipped["fields"], PAGE]}))
    with pytest.raises(ConfigError, match="page: payloads of earlier versions lack it"):
        event_types(tmp_path)


@pytest.mark.parametrize(
    ("file", "text"), [("report.read.avsc", "{"), ("a b.avsc", _record(PAGE)), ("report..read.avsc", _record(PAGE))]
)
def test_a_file_that_is_no_event_type_is_named(file: str, text: str, tmp_path: Path) -> None:
    """Before the first event, and without what is in it."""
    (tmp_path / EVENTS).mkdir()
    (tmp_path / EVENTS / file).write_text(text)
    with pytest.raises(ConfigError, match=file.replace(".", r"\.")):
        event_types(tmp_path)


def test_a_struct_that_no_payload_can_be_is_refused() -> None:
    """A field without words, with a default that is not null, or of a type that JSON has not."""
    from typing import Annotated

    for field in (("x", int), ("x", Annotated[int, said("d", 1)], 7), ("x", Annotated[complex, said("d", 1)])):
        made = msgspec.defstruct("Made", [field], bases=(Payload,), namespace={"KIND": Kind.of("a.b")})
        with pytest.raises(TypeError):
            avro_of(made)  # type: ignore[arg-type]


def test_the_names_of_types_are_names_of_types() -> None:
    """As the event's own pattern has it."""
    import re

    assert all(re.fullmatch(TYPE_PATTERN, name) for name in TYPES)
