"""The worker as a part of the local stack: started by the demo, stopped with everything else by `chronicle dev down`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import ClassVar

import httpx

from chronicle.dev.parts import NotHealthyYet, Part, base_environment
from chronicle.dev.processes import Command

CONTRACTS = "contracts"
"""In the stack's directory: the contracts that this worker holds the tables to, the demo's own."""


class Worker(Part):
    """One `chronicle worker` on the stack's settings and on the source files of the directory it was started from."""

    name: ClassVar[str] = "worker"
    needs: ClassVar[tuple[str, ...]] = ("kafka", "registry", "clickhouse")

    def prepare(self) -> None:
        """Make its working directory."""
        self.home.mkdir(parents=True, exist_ok=True)

    def command(self) -> Command:
        """The worker of this very installation."""
        environment = {
            **base_environment(),
            "CHRONICLE_CONFIG": str(self.site.directory / "chronicle.toml"),
            "CHRONICLE_CONNECT__DIRECTORY": str(Path("connectors").absolute()),
            "CHRONICLE_POLICY_FILE": str(Path("policy.toml").absolute()),
            "CHRONICLE_SCHEMAS_DIR": str((self.site.directory / CONTRACTS).absolute()),
            "CHRONICLE_PROCESSORS": json.dumps(["chronicle.examples.recruitment", "chronicle.examples.compliance"]),
        }
        start = "from chronicle.cli import main; main()"
        return Command((sys.executable, "-c", start, "worker", "--instance-id", "local"), environment)

    def check(self) -> None:
        """Ready means: it has its partitions, and no service it needs is away."""
        url = f"http://127.0.0.1:{self.port}/readyz"
        try:
            httpx.get(url, timeout=5.0, trust_env=False).raise_for_status()
        except httpx.HTTPError as error:
            raise NotHealthyYet(f"{url} to answer ({type(error).__name__})") from None
