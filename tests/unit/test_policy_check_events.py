"""What `policy check` says of `[[events]]`: types and fields that there are not, fields that nobody has classified."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from chronicle.captured_tables import Captured, route_findings
from chronicle.cli import app
from chronicle.events.catalogue import Catalogue
from chronicle.policy.check import Level
from chronicle.policy.check_events import event_findings
from chronicle.policy.file import parse
from chronicle.policy.proposal import proposal

SCHEMA = {
    "type": "record", "name": "placed",
    "fields": [{"name": "total", "type": "double", "chronicle.class": "clear"}, {"name": "token", "type": ["null", "string"]}],
}  # fmt: skip
TYPES = Catalogue.shipped().extended({"order.placed": json.dumps(SCHEMA)})


def found(text: str, catalogue: Catalogue = TYPES, *, strict: bool = False) -> list[tuple[str, str, str]]:
    return [(one.level, one.kind, one.where) for one in event_findings(parse(text), catalogue, strict=strict)]


def test_the_shipped_types_need_no_line() -> None:
    """Their schemas say what may be seen of every field, and a proposal says so."""
    assert found("", Catalogue.shipped(), strict=True) == []
    assert "Events need no line" in proposal(())


def test_a_field_that_nobody_classifies_is_an_error() -> None:
    """As a column is: until then it is hidden. A rule, or the type's schema, or a secret name is enough."""
    other = Catalogue.shipped().extended({"a.b": '{"type":"record","name":"b","fields":[{"name":"x","type":"string"}]}'})
    assert found("", other) == [("error", "unclassified", "events:a.b: payload.x")]
    assert found('[[events]]\nmatch = "a.*"\ncolumns = { "payload.*" = "mask" }\n', other) == []
    assert found('[[events]]\nmatch = "a.*"\nskip = true\n', other) == []
    assert found("") == []  # `token` looks secret


def test_a_rule_of_one_application_does_not_classify_for_another() -> None:
    """Without one, the others' fields stay hidden."""
    other = Catalogue.shipped().extended({"a.b": '{"type":"record","name":"b","fields":[{"name":"x","type":"string"}]}'})
    mine = '[[events]]\nmatch = "a.b"\nsource = "shop"\ncolumns = { "payload.x" = "clear" }\n'
    assert found(mine, other) == [("error", "unclassified", "events:a.b: payload.x")]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("match", ["order.plced", "nobody.**"])
def test_a_type_that_nobody_has_described_is_a_warning_and_in_strict_mode_an_error(match: str, strict: bool) -> None:
    """In open mode there may be such events; in strict mode they are refused."""
    level = Level.ERROR if strict else Level.WARNING
    text = f'[[events]]\nmatch = "{match}"\ncolumns = {{ "payload.x" = "clear" }}\n'
    assert found(text, strict=strict) == [(level, "no type", f"line 1: {match}")]


def test_a_field_that_the_type_does_not_have_is_an_error() -> None:
    """Of a pattern a warning, for it may mean types that nobody has described; unless those are refused."""
    exact = '[[events]]\nmatch = "order.placed"\ncolumns = { "payload.totl" = "clear", resource_id = "token" }\n'
    assert found(exact) == [("error", "no field", "line 1: order.placed: payload.totl")]
    (one,) = event_findings(parse(exact), TYPES, strict=False)
    assert one.fix == "did you mean payload.total?"
    wide = '[[events]]\nmatch = "order.**"\ncolumns = { "payload.totl" = "clear", "payload.t*" = "clear", "*" = "clear" }\n'
    assert [level for level, _, _ in found(wide)] == ["warning"]
    assert [level for level, _, _ in found(wide, strict=True)] == ["error"]
    seal = '[[events]]\nmatch = "order.placed"\ncolumns = { "payload.$encrypted" = "clear" }\n'
    assert found(seal) == []


def test_rules_that_contradict_each_other_and_clear_secrets_are_told() -> None:
    """As of columns."""
    two = [f'[[events]]\nmatch = "order.{end}"\ncolumns = {{ "payload.total" = "{kind}" }}\n' for end, kind in
           (("*ed", "clear"), ("pl*", "drop"))]  # fmt: skip
    said = found("".join(two))
    assert said == [("error", "contradiction", "events:order.placed: payload.total")]
    clear = '[[events]]\nmatch = "order.placed"\ncolumns = { "payload.token" = "clear" }\n'
    assert found(clear) == [("warning", "secret", "events:order.placed: payload.token")]


def test_a_route_of_events_matches_something() -> None:
    """It needs no captured table."""
    route = '[[routes]]\nname = "a"\nmatch = "{}"\nto = "t"\n'
    nothing = Captured((), {}, ())
    assert route_findings(parse(route.format("order.#")), nothing, TYPES.types) == []
    assert len(route_findings(parse(route.format("ordr.#")), nothing, TYPES.types)) == 1


def test_check_runs_without_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deployment with events alone asks no registry; what is wrong with its events fails the check."""
    (tmp_path / "connectors").mkdir()
    schemas = tmp_path / "schemas" / "events"
    schemas.mkdir(parents=True)
    (schemas / "order.placed.avsc").write_text(json.dumps(SCHEMA))
    policy = tmp_path / "policy.toml"
    policy.write_text('[[events]]\nmatch = "order.placed"\ncolumns = { "payload.totl" = "clear" }\n')
    monkeypatch.setenv("CHRONICLE_CONNECT__DIRECTORY", str(tmp_path / "connectors"))
    monkeypatch.setenv("CHRONICLE_SCHEMAS_DIR", str(tmp_path / "schemas"))
    monkeypatch.setenv("CHRONICLE_REGISTRY__URL", "http://localhost:1")
    done = CliRunner().invoke(app, ["policy", "check", "--policy", str(policy), "--no-keys", "--json"])
    assert done.exit_code == 1, done.output
    said: dict[str, Any] = json.loads(done.stdout)
    assert [one["kind"] for one in said["findings"]] == ["no field"]
