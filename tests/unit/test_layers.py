"""The two laws of the layers: imports point inward, and pure layers do not touch the world."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "pipeline" / "chronicle"

RANK = {
    "errors": 0,
    "refusals": 1,
    "model": 1,
    "attribution": 1,
    "events": 1,
    "journal": 3,
    "declared": 3,
    "policy": 2,
    "codec": 2,
    "stages": 3,
    "engine": 4,
    "processors": 5,
    "config": 5,
    "observe": 5,
    "examples": 6,
    "testing": 6,
    "worker": 6,
    "capture": 6,
    "trail": 6,
    "sinks": 6,
    "registry": 6,
    "policy_files": 6,
    "raw_records": 6,
    "schema_files": 7,
    "captured_tables": 7,
    "setup": 7,
    "dead_letters": 7,
    "entities": 7,
    "reprocess": 7,
    "policy_replay": 7,
    "wiring": 8,
    "wiring_roles": 9,
    "api": 7,
    "wiring_api": 8,
    "embedded": 5,
    "wiring_embedded": 9,
    "dev": 9,
    "cli": 10,
}
"""A unit imports units of a lower rank, and itself. `config` and `observe` are leaves for the edge."""

ALLOWED = {("engine", "chronicle.sinks.Sink")}
"""The engine calls sinks through their protocol."""

PURE = ("model", "events", "codec", "policy", "stages")
WORLD = frozenset(
    {
        *(
            "time",
            "os",
            "sys",
            "socket",
            "ssl",
            "threading",
            "asyncio",
            "multiprocessing",
            "concurrent",
            "subprocess",
            "signal",
        ),
        *("random", "secrets", "logging", "structlog", "tempfile", "shutil", "urllib"),
        *("faust", "mode", "aiokafka", "confluent_kafka", "httpx", "requests", "clickhouse_connect"),
    }
)
"""Modules through which a function would read a clock, the environment, a file, a socket, or start a thread."""
CLOCKS = frozenset({"now", "utcnow", "today"})


def files(*units: str) -> Iterator[tuple[str, Path, ast.Module]]:
    for path in sorted(ROOT.rglob("*.py")):
        unit = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if not units or unit in units:
            yield unit, path, ast.parse(path.read_text())


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def inward_violations(unit: str, tree: ast.Module) -> list[str]:
    found = []
    for name in imported(tree):
        parts = name.split(".")
        if parts[0] != "chronicle" or len(parts) < 2 or parts[1] == unit or (unit, name) in ALLOWED:
            continue
        if parts[1] not in RANK or RANK[parts[1]] >= RANK[unit]:
            found.append(name)
    return found


def world_violations(tree: ast.Module) -> list[str]:
    found = [name for name in imported(tree) if name.split(".")[0] in WORLD]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Attribute) and function.attr in CLOCKS:
                found.append(f"{ast.unparse(function)}()")
            elif isinstance(function, ast.Name) and function.id in ("open", "input", "print"):
                found.append(f"{function.id}()")
    return found


def test_imports_point_inward() -> None:
    """cli → wiring → worker, capture, trail, sinks, registry → engine → stages → policy, codec → model → errors."""
    wrong = {
        str(path.relative_to(ROOT)): found
        for unit, path, tree in files()
        if unit != "__init__"
        if (found := inward_violations(unit, tree))
    }
    assert wrong == {}


def test_every_unit_has_a_place() -> None:
    """A new package must be given a rank before it can be imported."""
    assert {unit for unit, _, _ in files()} - {"__init__"} <= RANK.keys()


def test_the_package_itself_imports_nothing_heavy() -> None:
    """Applications import `chronicle`: neither Polars nor Faust may come with it."""
    tree = ast.parse((ROOT / "__init__.py").read_text())
    assert not {name.split(".")[0] for name in imported(tree)} & {"polars", "faust", "numpy", "pyarrow", "fastavro"}


def test_pure_layers_do_not_touch_the_world() -> None:
    """No clock, environment, file, socket, thread or event loop in model, codec, policy and stages."""
    wrong = {str(path.relative_to(ROOT)): found for _, path, tree in files(*PURE) if (found := world_violations(tree))}
    assert wrong == {}


@pytest.mark.parametrize(
    "text", ["import time", "from os import environ", "x = datetime.now()", "open('f')", "from faust import App"]
)
def test_the_world_is_noticed(text: str) -> None:
    """The test can fail."""
    assert world_violations(ast.parse(text))


def test_an_outward_import_is_noticed() -> None:
    """The test can fail."""
    assert inward_violations("codec", ast.parse("from chronicle.stages import path"))
    assert inward_violations("stages", ast.parse("import chronicle.config"))
