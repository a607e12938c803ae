"""What the workload's applications say about their transactions, and how the trail has to show it. No two say the same."""

from __future__ import annotations

import json
from typing import Any

from tests.faults.canonical import FILTERED
from tests.faults.catalog import SECRET
from tests.faults.values import Values

RANKS = {"message": 2, "table": 1}
"""The better one of two contexts of a transaction; of the same rung the later one."""
_RUNGS = ((), ("message",), ("table",), ("message", "table"), ("message", "message"), ("table", "table"))
_WEIGHTS = (60, 20, 8, 6, 4, 2)


class Contexts:
    """Draws contexts for one source; equal seeds draw equal ones."""

    def __init__(self, values: Values, source: str) -> None:
        self.values, self.source = values, source
        self.random = values.random
        self.number = 0

    def rungs(self) -> tuple[str, ...]:
        """The rungs of the contexts that the next transaction gets, in this order: none for most, several for some."""
        return self.random.choices(_RUNGS, _WEIGHTS)[0]

    def document(self) -> dict[str, Any]:
        """A context: `request` makes it different from all others."""
        self.number += 1
        made: dict[str, Any] = {"request": f"{self.source}-{self.number}", "actor": self.values.word()}
        if self.random.random() < 0.5:
            made["reason"] = self.values.text()
        if self.random.random() < 0.2:
            made["api_token"] = self.values.maybe("tok-" + self.values.word())
        if self.random.random() < 0.2:
            made["more"] = {"tags": self.values.texts(), "n": self.values.integer(53), "api_token": "tok-inner"}
        return made

    def written(self, document: dict[str, Any]) -> str:
        """The JSON an application sends: keys in its own order, other characters escaped or not."""
        return json.dumps(document, ensure_ascii=self.random.random() < 0.5)


def shown(document: Any) -> str:
    """A context (as an object or as JSON text) as the trail has to show it: secrets filtered at any depth, keys sorted, an
    actor as an object, and what has no field of its own as tags."""
    value = _filtered(json.loads(document) if isinstance(document, str | bytes) else document)
    said = {"actor": {"id": value["actor"]}, "reason": value.get("reason"), "request_id": value["request"]}
    said["tags"] = {name: one for name, one in value.items() if name not in ("actor", "reason", "request")}
    return json.dumps({n: v for n, v in said.items() if v}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _filtered(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: FILTERED if name in SECRET and one is not None else _filtered(one) for name, one in value.items()}
    return [_filtered(one) for one in value] if isinstance(value, list) else value
