"""`chronicle policy keys`: the key ring: make keys, list them. No command shows a secret."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from chronicle import config
from chronicle.cli import shown
from chronicle.cli.terminal import command, err, print_json
from chronicle.policy.keyring import Purpose

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="The key ring of tokens and encryption: make keys, list them. No command shows a secret.",
    epilog="Example: chronicle policy keys list",
)

RingFile = Annotated[Path | None, typer.Option("--key-ring", help="The key ring; default: key_ring_file of the settings.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


@app.command(epilog="Example: chronicle policy keys new token-2026 --purpose token")
@command
def new(
    id: Annotated[str, typer.Argument(help="Its name in the policy: letters, digits, _ and -.")],
    purpose: Annotated[Purpose, typer.Option(help="What it may be used for.")],
    key_ring: RingFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a random key and append it to the key ring, a file that only you can read."""
    from chronicle.policy_files import add_key

    settings = config.load()
    path = key_ring or settings.key_ring_file
    now = datetime.now(UTC).replace(microsecond=0)
    add_key(path, id, purpose, now)
    if as_json:
        print_json({"id": id, "purpose": purpose, "created": now, "file": str(path)})
    else:
        err.print(f"{path}: key {id} ({purpose}). Keep a copy of the file in a safe place", markup=False)
    if key_ring is None and settings.key_ring is not None:
        err.print("warning: CHRONICLE_KEY_RING is set, and is used instead of the file")


@app.command("list", epilog="Example: chronicle policy keys list --json")
@command
def list_(key_ring: RingFile = None, as_json: AsJson = False) -> None:
    """List ids, purposes and dates; never secrets."""
    from chronicle.policy_files import read_key_ring

    settings = config.load()
    ring = read_key_ring(settings, key_ring)
    newest = {ring.newest(purpose) for purpose in Purpose}
    keys = sorted(ring.keys.values(), key=lambda key: (key.purpose, key.created))
    if as_json:
        print_json([{"id": one.id, "purpose": one.purpose, "created": one.created, "newest": one.id in newest} for one in keys])
        return
    path = key_ring or settings.key_ring_file
    with suppress(OSError):
        if path.stat().st_mode & 0o077:
            err.print(f"warning: others can read {path}: chmod 600 {path}", markup=False)
    if not keys:
        err.print("no keys: `chronicle policy keys new ID --purpose token`", markup=False)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("id", "purpose", "created (UTC)", ""):
        table.add_column(title, overflow="fold")
    for key in keys:
        mark = Text("newest" if key.id in newest else "", "dim")
        table.add_row(Text(key.id), Text(key.purpose), Text(shown.instant(key.created)[:19]), mark)
    shown.print_table(table)
