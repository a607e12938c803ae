"""`chronicle events recover` and `refused`: what journals left in a spill directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from chronicle.cli.events_to import AsJson, Key, Timeout, To, journal_to
from chronicle.cli.terminal import command, err, interruptible, out, print_json
from chronicle.errors import ChronicleError, ConfigError

if TYPE_CHECKING:
    from chronicle.journal import Journal
    from chronicle.journal.outgoing import Outgoing
    from chronicle.journal.spill import Spill

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="The applications' spill directory (CHRONICLE_JOURNAL_SPILL).")]


def register(app: typer.Typer) -> None:
    """Make them commands of the group."""
    app.command(epilog="Example: chronicle events recover /var/lib/shop/spill --to http://localhost:8080")(recover)
    app.command(epilog="Example: chronicle events refused /var/lib/shop/spill --again")(refused)


@command
def recover(directory: Directory, *, to: To = None, key: Key = None, timeout: Timeout = 30.0, as_json: AsJson = False) -> None:
    """Send what processes that are gone have left in a spill directory, in order. A journal that starts there does so too."""
    _there(directory)
    with journal_to(to, key, source="chronicle-cli", spill=directory, history_events=0) as journal:
        interruptible(lambda: journal.recover(timeout))
        counts, left = journal.counts, _left(directory, journal)
    found = {"sent": counts["recovered"], "refused": counts["refused"], "damaged": counts["damaged"], "left": left}
    if as_json:
        print_json(found)
    else:
        out.print(Text(", ".join(f"{count:,} {name}" for name, count in found.items())))
    if left:
        raise ChronicleError(f"look whether the broker or service is there and takes your key: {left:,} events are left")


@command
def refused(
    directory: Directory,
    *,
    again: Annotated[bool, typer.Option("--again", help="Send them again; what is refused again stays.")] = False,
    to: To = None,
    key: Key = None,
    timeout: Timeout = 30.0,
    as_json: AsJson = False,
) -> None:
    """List what the service or broker refused for good: id, time, type and why; never what is in it."""
    from chronicle.journal.spill import Spill, SpillLocked
    from chronicle.journal.spilling import REFUSED, parts

    _there(directory)
    sent = kept = 0
    for part in parts(directory):
        if not (part / REFUSED).is_dir():
            continue
        try:
            spill = Spill(part / REFUSED)
        except SpillLocked:
            err.print(f"part {part.name}: its process is at work; stop it to see what it was refused", markup=False)
            continue
        try:
            if again:
                more, stayed = _sent_again(spill, to, key, timeout)
                sent, kept = sent + more, kept + stayed
            for problem, one in _events(spill):
                event = one.event
                if as_json:
                    print_json({"id": event.id, "time": event.time, "type": event.type, "problem": problem})
                else:
                    out.print(Text(f"{event.id}  {event.time}  {event.type}  {problem}"), soft_wrap=True)
        finally:
            spill.close()
    if again:
        err.print(f"{sent:,} sent, {kept:,} refused again")
    if kept:
        raise ChronicleError(f"correct what is said above, and send them again: {kept:,} events were refused again")


def _sent_again(spill: Spill, to: str | None, key: str | None, timeout: float) -> tuple[int, int]:
    """Those that are there now: how many went, and how many were refused again, which are at the end then."""
    from chronicle.journal.receipt import PublishRefused

    sent = kept = 0
    last = spill.forgotten + spill.count
    # they are protected, sealed and sampled already
    with journal_to(to, key, source="chronicle-cli", protect=False, sample="", routes="", history_events=0) as journal:
        for position, records in spill.read(records_max=1):
            for problem, one in _read(records):
                try:
                    journal.publish(one.event, topic=one.topic, timeout=timeout)
                    sent += 1
                except PublishRefused as error:
                    kept += 1
                    spill.append([(error.receipt.problem or problem).encode(errors="replace") + b"\n" + one.spilled()])
            spill.forget(position)
            if position >= last:
                break
    return sent, kept


def _events(spill: Spill) -> Iterator[tuple[str, Outgoing]]:
    for _, records in spill.read():
        yield from _read(records)


def _read(records: list[bytes]) -> Iterator[tuple[str, Outgoing]]:
    from chronicle.journal.outgoing import Outgoing

    for record in records:
        problem, _, rest = record.partition(b"\n")
        try:
            yield problem.decode(errors="replace"), Outgoing.read(rest)
        except ChronicleError:
            err.print("a record is damaged, and passed over")


def _left(directory: Path, journal: Journal) -> int:
    """Events in parts that nobody has, and in the journal's own."""
    from chronicle.journal.spill import Spill, SpillLocked
    from chronicle.journal.spilling import parts

    left = journal.spilled[0]
    for part in parts(directory):
        try:
            spill = Spill(part)
        except (SpillLocked, OSError):  # the journal's own, or another process's, which sends them itself
            continue
        left += spill.count
        spill.close()
    return left


def _there(directory: Path) -> None:
    if not directory.is_dir():
        raise ConfigError(f"name a directory that is there: {directory}")
