"""The README's quick start for applications runs as it is written; so does the journal's transport without a service."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("chdb")

from tests.acceptance.embedded_process import Embedded, environment

ROOT = Path(__file__).parents[2]
PORT = 28009
"""`api.port`, as the README's lines have it."""

IN_PROCESS = """
import os, sys
from chronicle.journal import Journal, actor

journal = Journal(source="shop", transport="embedded://" + sys.argv[1], spill=sys.argv[1] + "-spill")
with actor("ann"):
    assert journal.publish_sync("order.placed", resource=("order", 1)).disposition == "confirmed"
    for number in range(2, 501):
        journal.publish("order.placed", resource=("order", number))
    assert journal.flush(60)
if sys.argv[2] == "kill":
    os.kill(os.getpid(), 9)
if sys.argv[2] == "fork":
    child = os.fork()
    if not child:
        assert journal.publish("order.placed", resource=("order", 501), timeout=20).disposition == "spilled"
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    journal.publish_sync("order.placed", resource=("order", 502))
journal.close()
"""


def quick_start() -> tuple[str, str]:
    """The Python lines, and what they print."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.partition("## Quick start for applications\n")[2].partition("\n## ")[0]
    [code] = re.findall(r"^```python\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    printed = re.findall(r"^prints\n\n```\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    assert len(printed) == 1
    return code, printed[0]


def port_for(code: str) -> tuple[int, str]:
    """The README's own port, and its lines as they are; while somebody else has it, another one in both."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", PORT))
        except OSError:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
            return port, code.replace(str(PORT), str(port))
    return PORT, code


def test_the_ten_lines_of_the_readme_print_what_the_readme_says(tmp_path: Path) -> None:
    """With `chronicle run --embedded` and nothing else."""
    code, printed = quick_start()
    assert len(code.splitlines()) == 10
    port, code = port_for(code)
    with Embedded(tmp_path, port=port):
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout == printed


@pytest.mark.parametrize(
    ("end", "orders"), [("close", range(1, 501)), ("kill", range(1, 501)), ("fork", [*range(1, 501), 502])]
)
def test_a_journal_without_a_service_keeps_what_it_confirmed(tmp_path: Path, end: str, orders: range | list[int]) -> None:
    """`embedded://`: closed, killed or forked, `chronicle run --embedded` on the same directory finds each event once."""
    data = tmp_path / "data"
    done = subprocess.run(
        [sys.executable, "-c", IN_PROCESS, str(data), end],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == (-9 if end == "kill" else 0), done.stderr
    with Embedded(tmp_path) as embedded:
        found = embedded.get("/events", type="order.placed", page_size=1000)["events"]
    assert sorted(int(one["resource_id"]) for one in found) == list(orders)


@pytest.mark.skipif(not os.environ.get("CHRONICLE_TEST_LONG"), reason="installs a gigabyte: CHRONICLE_TEST_LONG=1")
@pytest.mark.timeout(1800)
def test_the_wheel_alone_is_enough(tmp_path: Path) -> None:
    """Built, installed with `[embedded]` into a fresh environment away from the checkout: one command, POST, GET."""
    subprocess.run(["uv", "build", "--wheel", "--out-dir", str(tmp_path), str(ROOT)], check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    venv = tmp_path / "venv"
    subprocess.run(["uv", "venv", "--python", sys.executable, str(venv)], check=True, capture_output=True)
    python = venv / "bin" / "python"
    subprocess.run(["uv", "pip", "install", "--python", str(python), f"{wheel}[embedded]"], check=True, capture_output=True)
    code, printed = quick_start()
    port, code = port_for(code)
    with Embedded(tmp_path, port=port, command=str(venv / "bin" / "chronicle")) as embedded:
        done = subprocess.run(
            [str(python), "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120, check=False
        )
        assert done.stdout == printed, done.stderr
        assert embedded.stop() == 0
