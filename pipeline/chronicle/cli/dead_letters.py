"""`chronicle dead-letters`: records that could not be processed: list them, look at one, send them back."""

from __future__ import annotations

import os
import pwd
import socket
import sys
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from chronicle.cli import shown
from chronicle.cli.asking import moment, open_trail
from chronicle.cli.terminal import command, err, interruptible, out, print_json
from chronicle.errors import ChronicleError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chronicle.config import Kafka
    from chronicle.dead_letters import Reader

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Records that could not be processed: list them, look at one, send them back.",
    epilog="Example: chronicle dead-letters list",
)

Reason = Annotated[str | None, typer.Option(help="Only this reason: wrong_frame, unknown_schema, not_decodable, …")]
Topic = Annotated[str | None, typer.Option(help="Only records of this raw topic.")]
Source = Annotated[str | None, typer.Option(help="Only records of this source's topics.")]
Since = Annotated[str | None, typer.Option(help="Failed since: 10m, 2h, 3d ago, or ISO 8601.")]


@app.command("list", epilog="Example: chronicle dead-letters list --reason wrong_frame --since 1d")
@command
def list_(
    *,
    reason: Reason = None,
    topic: Topic = None,
    source: Source = None,
    since: Since = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="The newest so many.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line and letter, on standard output.")] = False,
) -> None:
    """List dead letters, the newest last, and how many have which reason. Metadata only, never what is in a record."""
    from chronicle.trail import letters

    filters = letters.Filters(_known(reason), topic, source, moment(since))
    with open_trail() as trail:
        found = letters.letters(trail.client, trail.database, filters, limit=limit)
        counts = letters.counts(trail.client, trail.database, filters)
    if as_json:
        for letter in found:
            print_json(letter.as_json())
        return
    if not found:
        err.print("no dead letters" + (" match" if any((reason, topic, source, since)) else ""))
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("failed (UTC)", "topic", "partition", "offset", "reason", "stage", "detail", "since then"):
        table.add_column(
            title, no_wrap=title not in ("topic", "detail"), overflow="fold", justify="right" if title == "offset" else "left"
        )
    for letter in found:
        cells = (shown.instant(letter.failed_at), letter.topic, str(letter.partition), str(letter.offset))
        state = Text("processed", "green") if letter.change_since else Text("-", "dim")
        table.add_row(*cells, Text(letter.reason, "red"), letter.stage, Text(letter.detail), state)
    shown.print_table(table)
    total = sum(counts.values())
    out.print(Text(f"\n{total} in all: " + ", ".join(f"{count} {name}" for name, count in counts.items())))
    if total > len(found):
        err.print(f"(the newest {len(found)} are shown: --limit)")


@app.command(epilog="Example: chronicle dead-letters show --raw")
@command
def show(
    topic: Annotated[str | None, typer.Argument(help="Raw topic of the record.", show_default=False)] = None,
    partition: Annotated[int | None, typer.Argument(min=0, help="Its partition there.", show_default=False)] = None,
    offset: Annotated[int | None, typer.Argument(min=0, help="Its offset there.", show_default=False)] = None,
    *,
    raw: Annotated[
        bool,
        typer.Option(
            "--raw",
            help="Also the original key, value and headers: clear text, so that you looked is recorded on the audit topic.",
        ),
    ] = False,
    role: Annotated[str | None, typer.Option(help="With --raw: one of this role's workers.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output; bytes in base64.")] = False,
) -> None:
    """Show one dead letter, the newest when none is named: where it is, why it failed, and on request what is in it."""
    from chronicle.trail import letters

    if topic is not None and offset is None:
        raise ConfigError("name topic, partition and offset, as `chronicle dead-letters list` shows them, or none of them")
    with open_trail() as trail:
        if topic is None or partition is None or offset is None:
            newest = letters.letters(trail.client, trail.database, letters.Filters(), limit=1)
            if not newest:
                raise ChronicleError("nothing to show: there are no dead letters")
            topic, partition, offset = newest[0].coordinates
        filters = letters.Filters(topic=topic, partition=partition, offset=offset)
        found = letters.letters(trail.client, trail.database, filters, limit=100)
    if not found and not raw:
        raise ChronicleError(
            f"look with `chronicle dead-letters list`: there is no dead letter of {topic} {partition} {offset}"
        )
    told: dict[str, Any] = found[-1].as_json() if found else {"topic": topic, "partition": partition, "offset": offset}
    told["reasons"] = [letter.reason for letter in found]
    if raw:
        told["raw"] = _raw(_places(role), topic, partition, offset)
    if as_json:
        print_json(told)
        return
    shown.print_record([(name, shown.cell(value)) for name, value in told.items() if name != "raw"])
    for name in ("key", "value") if raw else ():
        out.print(f"\n{name} (hex and text)", style="bold")
        out.print(Text(_dump(told["raw"][name])), soft_wrap=True)
    if raw:
        out.print("\nheaders (base64)", style="bold")
        out.print(Text("\n".join(f"{name}: {value}" for name, value in told["raw"]["headers"]) or "(none)"), soft_wrap=True)


@app.command(epilog="Example: chronicle dead-letters replay --reason unknown_schema --since 2h --dry-run")
@command
def replay(
    *,
    reason: Reason = None,
    topic: Topic = None,
    source: Source = None,
    since: Since = None,
    role: Annotated[str | None, typer.Option(help="Those of this role's workers, back to them.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what would be sent, send nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Send dead letters back to be processed, once what made them fail is mended.

    Their original bytes go to the retry topic, which every worker reads. Repeating a replay changes nothing; a record
    that fails again becomes a dead letter again.
    """
    from chronicle import dead_letters

    places = _places(role)
    selection = dead_letters.Selection(_known(reason), topic, source, moment(since))
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("reading dead letters")

        def told(count: int, chosen: int) -> None:
            progress.update(task, description=f"{count:,} dead letters read, {chosen:,} chosen")

        every = [
            interruptible(lambda kafka=kafka: dead_letters.replay(kafka, selection, dry_run=dry_run, progress=told))  # type: ignore[misc]
            for kafka in places
        ]
    done, chosen, sent = (sum(getattr(one, name) for one in every) for name in ("read", "chosen", "sent"))
    by_reason = dict(sum((Counter(one.by_reason) for one in every), Counter[str]()))
    if as_json:
        print_json({"read": done, "chosen": chosen, "sent": sent, "by_reason": by_reason, "dry_run": dry_run})
        return
    reasons = ", ".join(f"{count} {name}" for name, count in by_reason.items())
    verb = "would be sent" if dry_run else f"sent to {places[0].retry_topic}"
    read = f"{done} dead letter{'' if done == 1 else 's'} read"
    out.print(Text(f"{read}, {chosen} {verb}" + (f": {reasons}" if reasons else "")))


def _places(role: str | None) -> list[Kafka]:
    """Where the letters are, and where they are to go back to: a role has its own, and those of its routes."""
    from chronicle import config

    settings = config.load()
    if role is None:
        return [settings.kafka]
    from chronicle.wiring_roles import role_routes

    own = settings.role_kafka(role)
    topics = dict.fromkeys(
        [own.dead_letter_topic, *(one.dead_letters for one in role_routes(settings, role) if one.dead_letters)]
    )
    return [own.model_copy(update={"dead_letter_topic": topic}) for topic in topics]


def _known(reason: str | None) -> str | None:
    """A reason that there is: a misspelt one would quietly match nothing."""
    from chronicle.model.dead_letters import Reason as Known

    if reason is not None and reason not in set(Known):
        raise ConfigError(f"choose a --reason from {', '.join(Known)}: there is no {reason!r}")
    return reason


def _raw(places: Sequence[Kafka], topic: str, partition: int, offset: int) -> dict[str, Any]:
    """The original bytes; that someone looked is on the audit topic, and in the log, before they are shown."""
    from base64 import b64encode

    from chronicle import dead_letters

    reader = _reader()
    letter = interruptible(lambda: dead_letters.read_raw(places, topic, partition, offset, reader))
    _log_look(topic, partition, offset, reader)

    def text(data: bytes | None) -> str | None:
        return None if data is None else b64encode(data).decode()

    return {
        "key": text(letter.key),
        "value": text(letter.value),
        "headers": [(name, text(data)) for name, data in letter.headers],
    }


def _reader() -> Reader:
    """Whose process this is: asked of the system, because LOGNAME and USER say what one likes."""
    from chronicle.dead_letters import Reader

    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:  # a container's user need not have a name
        name = str(uid)
    return Reader(name, uid, socket.gethostname())


def _log_look(topic: str, partition: int, offset: int, reader: Reader) -> None:
    import structlog

    from chronicle.observe import configure_logging

    configure_logging("info")
    who = {"user": reader.user, "host": reader.host}
    structlog.get_logger().info("dead_letter.raw_read", topic=topic, partition=partition, offset=offset, **who)


def _dump(encoded: str | None) -> str:
    """Like `hexdump -C`, so that no byte steers the terminal."""
    from base64 import b64decode

    if encoded is None:
        return "(null)"
    data = b64decode(encoded)
    lines = []
    for start in range(0, len(data), 16):
        part = data[start : start + 16]
        lines.append(f"{start:08x}  {part.hex(' '):<47}  {''.join(chr(one) if 32 <= one < 127 else '.' for one in part)}")
    return "\n".join(lines) or "(empty)"
