"""The description of the service is the service: every route, every parameter, examples that are accepted."""

from __future__ import annotations

import re
from typing import Any

import jsonschema
import pytest
from fastapi import FastAPI

from chronicle.api.app import create
from chronicle.api.openapi import document
from chronicle.events.event import FIELDS
from tests.unit.api_double import Service

PATHS: dict[str, dict[str, Any]] = document()["paths"]


def described() -> set[tuple[str, str]]:
    return {(method.upper(), path) for path, methods in PATHS.items() for method in methods}


def test_every_route_is_described_and_nothing_else() -> None:
    """Documentation that lies is worse than none."""
    app: FastAPI = create(Service().parts())
    routes = {("POST", "/events")}
    for route in app.routes:
        for method in getattr(route, "methods", None) or ():
            if method != "HEAD" and getattr(route, "endpoint", None) and not str(route.path).startswith(("/docs", "/openapi")):  # type: ignore[attr-defined]
                routes.add((method, re.sub(r":path\}", "}", route.path)))  # type: ignore[attr-defined]
    assert routes == described()


def test_the_document_is_served() -> None:
    """As FastAPI serves it."""
    [answer] = Service().ask(("GET", "/openapi.json"))
    assert answer.json() == document()


def test_every_described_parameter_is_known() -> None:
    """Each example alone is answered with 200, or that there is no such thing."""
    service = Service()
    for path, methods in PATHS.items():
        if "get" not in methods or path in ("/stream", "/export"):
            continue
        filled = re.sub(r"\{(\w+)\}", lambda found: {"id": "org:acme"}.get(found[1], "a"), path)
        for parameter in methods["get"].get("parameters", ()):
            if parameter["in"] != "query" or "example" not in parameter:
                continue
            [answer] = service.ask(("GET", filled, {"params": {parameter["name"]: parameter["example"]}}))
            assert answer.status_code in (200, 404), (path, parameter["name"], answer.text)


def test_every_example_of_a_body_is_accepted() -> None:
    """And fits its own schema."""
    service = Service()
    for path in ("/events", "/entities"):
        for kind, content in PATHS[path]["post"]["requestBody"]["content"].items():
            for name, example in content["examples"].items():
                body = example["value"]
                options: dict[str, Any] = {"content": body} if isinstance(body, str) else {"json": body}
                [answer] = service.ask(("POST", path, {**options, "headers": {"content-type": kind}}))
                assert answer.status_code in (200, 202), (path, name, answer.text)
                if kind == "application/json":
                    whole = {**content["schema"], "components": document()["components"]}
                    jsonschema.Draft202012Validator(whole).validate(body)


def test_an_event_has_the_fields_that_are_described() -> None:
    """All of them."""
    assert set(document()["components"]["schemas"]["Event"]["properties"]) == set(FIELDS)


@pytest.mark.parametrize("name", sorted(document()["components"]["schemas"]))
def test_every_schema_is_one(name: str) -> None:
    """In JSON Schema's own words."""
    jsonschema.Draft202012Validator.check_schema(document()["components"]["schemas"][name])


def test_a_method_that_there_is_not_is_told_with_those_that_there_are() -> None:
    """405, in the form of all errors."""
    answers = Service().ask(("PUT", "/events"), ("POST", "/changes"), ("GET", "/nothing"))
    assert [answer.status_code for answer in answers] == [405, 405, 404]
    assert "POST" in answers[0].headers["allow"]
    assert all(answer.json()["error"] for answer in answers)
