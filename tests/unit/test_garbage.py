"""Well-formed JSON that is no well-formed record: whatever stands in its fields, it is one dead letter at most."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chronicle.model.chunk import SourceSpec
from chronicle.testing import Record, run
from tests.unit.envelopes import ENVELOPE

SHOP = SourceSpec("shop", "postgresql", full_identity=None)
MARKER: dict[str, Any] = {
    "status": "END",
    "id": "7:1",
    "event_count": 1,
    "data_collections": [{"data_collection": "a.b", "event_count": 1}],
    "ts_ms": 5,
}
MESSAGE: dict[str, Any] = {
    "op": "m",
    "ts_ms": 2,
    "source": ENVELOPE["source"],
    "message": {"prefix": "chronicle", "content": "e30="},
}
ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.just([]), st.just({}), st.just({"id": 1})
)


def bent(data: st.DataObject, template: dict[str, Any]) -> dict[str, Any]:
    """The template with one field, at any depth, of another type or gone."""
    record: dict[str, Any] = json.loads(json.dumps(template))
    within: dict[str, Any] = record
    while True:
        name = data.draw(st.sampled_from(sorted(within)))
        if not isinstance(within[name], dict) or not data.draw(st.booleans()):
            break
        within = within[name]
    if data.draw(st.booleans()):
        within[name] = data.draw(ANYTHING)
    else:
        del within[name]
    return record


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), st.sampled_from([ENVELOPE, MARKER, MESSAGE]))
def test_json_of_any_types_has_one_disposition(data: st.DataObject, template: dict[str, Any]) -> None:
    """Without a schema any field may be anything: never an error, and good records of the batch go through."""
    texts = [json.dumps(bent(data, template)) for _ in range(data.draw(st.integers(1, 3)))] + [json.dumps(template)]
    key = data.draw(st.sampled_from([b'{"id":1}', b'{"id":"x"}', b"{}", b"[]", None]))
    batch = run((Record("shop.x", text.encode(), key) for text in texts), sources=[SHOP])
    assert batch.rows() == len(texts)
