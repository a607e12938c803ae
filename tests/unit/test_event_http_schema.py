"""The published JSON Schema and the code, on bodies that a generator of requests makes of the schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

from chronicle.events.event import DEPTH_MAX, EventRefused, completed, decoded, encoded

HTTP = json.loads((Path(__file__).parents[2] / "schemas" / "events" / "event.schema.json").read_text(encoding="utf-8"))
API = {
    "openapi": "3.1.0",
    "info": {"title": "events", "version": "1"},
    "paths": {
        "/events": {
            "post": {
                "requestBody": {"required": True, "content": {"application/json": {"schema": HTTP}}},
                "responses": {"202": {"description": "taken"}},
            }
        }
    },
}

NOT_SAID = ("write numbers beyond 64 bits as texts", f"at most {DEPTH_MAX} levels")
"""Of values at any depth: the schema does not say it."""


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_a_body_is_taken_if_the_schema_says_so_and_refused_if_not(mode: GenerationMode) -> None:
    """What the API's documentation promises is what the API does, both ways."""
    cases = schemathesis.openapi.from_dict(API)["/events"]["POST"].as_strategy(generation_mode=mode)

    @settings(suppress_health_check=list(HealthCheck))
    @given(cases)
    def check(case: Any) -> None:
        try:
            text = json.dumps(case.body)
        except TypeError:  # a body that is not there, or is no JSON
            return
        try:
            encoded(
                completed(decoded(text), id="5f0c0f6e-7f0e-4a53-9b7c-3a5e2f1d9c10", time="2026-02-01T00:00:00Z", source="s")
            )
        except EventRefused as error:
            assert mode is GenerationMode.NEGATIVE or error.problem in NOT_SAID, str(error)
        else:
            assert mode is GenerationMode.POSITIVE

    check()
