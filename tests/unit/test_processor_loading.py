"""How processors are declared, and found by the settings."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from chronicle.errors import ConfigError
from chronicle.processors import load
from tests.unit.processing import SECRET, made, raises

# Declaring and loading -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"tables": "shop.public"}, "source.schema.table"),
        ({"on_error": "ignore"}, "on_error"),
        ({"extra": {"after": pl.String}}, "'after'"),
        ({"extra": {"_x": pl.String}}, "'_x'"),
        ({"name": "a b"}, "name the processor"),
        ({"grants": {"nothing": ["x"]}}, "source.schema.table"),
    ],
)
def test_a_declaration_that_cannot_be_is_refused(declared: dict[str, Any], said: str) -> None:
    """When the module is imported, so before the worker starts."""
    with pytest.raises(ConfigError, match=re.escape(said)):
        made(raises, **declared)


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def write(name: str, text: str) -> None:
        head = "import polars as pl\nfrom chronicle.processors import Counter, processor\n"
        (tmp_path / f"{name}.py").write_text(head + textwrap.dedent(text))

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_processors_are_loaded_in_the_order_of_modules_and_definition(
    modules: Callable[[str, str], None], tmp_path: Path
) -> None:
    """Also those that a module imports or makes by calling a function; a name with _ keeps one out."""
    body = '@processor(tables="**")\ndef {}(changes): return changes\n'
    modules("mine_a", body.format("z") + body.format("_hidden") + body.format("a"))
    modules(
        "mine_b",
        "from chronicle.examples.compliance import watch_bulk_deletes\nfrom mine_a import z\nbulk = watch_bulk_deletes(5)\n",
    )
    found = load(["mine_a", "mine_b"], directory=tmp_path)
    assert [one.name for one in found] == ["z", "a", "bulk_deletes"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\n", "has no function with @processor"),
        ("import nowhere_to_be_found\n", "there is no module nowhere_to_be_found"),
        ("def (:\n", "SyntaxError in broken.py, line 3"),
        (f'raise ValueError("{SECRET}")\n', "(ValueError)"),
        (
            '@processor(tables="**", name="x")\ndef a(c): return c\n@processor(tables="**", name="x")\ndef b(c): return c\n',
            "rename one of the two processors x",
        ),
        (
            '@processor(tables="**", metrics=[Counter("n", "x")])\ndef a(c): return c\n'
            '@processor(tables="**", metrics=[Counter("n", "x")])\ndef b(c): return c\n',
            "rename the metric n",
        ),
        ('@processor(tables="**", metrics=[Counter("rows", "x")])\ndef a(c): return c\n', "rename the metric rows"),
    ],
)
def test_a_module_that_cannot_be_loaded_says_why(
    modules: Callable[[str, str], None], tmp_path: Path, text: str, said: str
) -> None:
    """And nothing that its exception says."""
    modules("broken", text)
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        load(["broken"], directory=tmp_path)
    assert SECRET not in str(caught.value)
