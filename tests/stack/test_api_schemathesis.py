"""The service against its own description: schemathesis in all its phases finds no error of ours and no answer that differs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chronicle.dev.stack import Stack
from tests.stack.api_process import ApiSite
from tests.stack.worker_process import until

pytestmark = pytest.mark.stack

ROOT = Path(__file__).parents[2]
EXAMPLES = 8 if "CHRONICLE_TEST_LONG" not in os.environ else 200
LEFT_OUT = "positive_data_acceptance,negative_data_rejection"
"""What a schema cannot say: that a cursor was given out, that since is before until, that ids differ; and that a wrong event
of a batch is refused in its own result."""


@pytest.fixture
def site(stack: Stack, unique: str, tmp_path: Path) -> Iterator[ApiSite]:
    """A service with a little of everything on its trail."""
    made = ApiSite(stack, unique, tmp_path)
    for n in range(10):
        made.add_event(n, actor_id="ann", resource_id="7", tenant="acme", description="denied", payload={"n": n})
        made.add_change(n, "create" if n == 0 else "update", actor_id="ann", after={"id": 7, "n": n}, changed=["n"])
    yield made
    made.close()


@pytest.mark.timeout(900)
def test_every_operation_keeps_to_its_description(site: ApiSite) -> None:
    """Examples, coverage, fuzzing and sequences of calls; the live tail, which does not end, is tested for itself."""
    key = site.key("admin")
    process = site.serve()
    until(lambda: site.get("/events", key).status_code == 200, "the key is known")
    run = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{site.url}/openapi.json"),
            *("-H", f"Authorization: {key['authorization']}", "--exclude-path", "/stream"),
            *("--phases", "examples,coverage,fuzzing,stateful", "--checks", "all", "--exclude-checks", LEFT_OUT),
            *("--max-examples", str(EXAMPLES), "--seed", "1", "--request-timeout", "60", "--no-color"),
        ],
        cwd=ROOT,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.stack.schemathesis_hooks"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert "Test Phases:" in run.stdout
    assert process.events("request.failed") == []
