"""The Connect transforms' own JUnit tests, run by Maven."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.stack

PROJECT = Path(__file__).parents[2] / "connectors" / "transforms"


def test_the_transforms_pass_their_junit_tests(tmp_path: Path) -> None:
    """Maven runs every test of `connectors/transforms`, in a copy, so that the checkout stays clean."""
    work = tmp_path / "transforms"
    shutil.copytree(PROJECT, work, ignore=shutil.ignore_patterns("target"))
    done = subprocess.run(["mvn", "-B", "test"], cwd=work, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    counted = re.findall(r"Tests run: (\d+), Failures: 0, Errors: 0, Skipped: 0", done.stdout)
    assert int(counted[-1]) >= 50, "the tests were not found"
