"""`chronicle events`: say something by hand, watch what comes in, and try how much goes through."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from chronicle.cli import events_spilled
from chronicle.cli.events_to import AsJson, Key, Timeout, To, journal_to
from chronicle.cli.terminal import command, err, interruptible, out, print_json
from chronicle.errors import ChronicleError, ConfigError, TransientError

if TYPE_CHECKING:
    from chronicle.events.event import Event
    from chronicle.journal import Journal, Receipt

SOURCE = "chronicle-cli"
WAITING_MAX = 8_192
"""Events on their way at the same time."""
REFUSED_SHOWN_MAX = 20

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Application events: post one, watch them come in, flood.",
    epilog="Example: chronicle events post --type security.login --actor ann --outcome success",
)


@app.command(
    epilog="""Example: chronicle events post --type report.read --resource report:7 --payload '{"pages":3}' --tag region=eu"""
)
@command
def post(
    file: Annotated[str | None, typer.Argument(metavar="[FILE]", help="One event as JSON a line; -: standard input.")] = None,
    *,
    type_: Annotated[str, typer.Option("--type", help="security.login; without it: the resource's type and the action.")] = "",
    actor: Annotated[str | None, typer.Option(help="Who; without it: you, through this program.")] = None,
    actor_type: Annotated[str | None, typer.Option("--actor-type", help="user, service, …")] = None,
    actor_name: Annotated[str | None, typer.Option("--actor-name", help="For people to read.")] = None,
    resource: Annotated[str | None, typer.Option(help="What it is about: type, or type:id.")] = None,
    action: Annotated[str | None, typer.Option(help="What was done.")] = None,
    outcome: Annotated[str | None, typer.Option(help="success, failure or unknown.")] = None,
    description: Annotated[str | None, typer.Option(help="For people to read.")] = None,
    payload: Annotated[str | None, typer.Option(help="What happened in detail: a JSON object.")] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="name=value; may be given again.")] = None,
    request: Annotated[str | None, typer.Option(help="Request id.")] = None,
    traceparent: Annotated[str | None, typer.Option(help="W3C trace context.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why.")] = None,
    ip: Annotated[str | None, typer.Option(help="From where.")] = None,
    session: Annotated[str | None, typer.Option(help="In which session.")] = None,
    tenant: Annotated[str | None, typer.Option(help="For whom.")] = None,
    at: Annotated[str | None, typer.Option("--time", help="When: ISO 8601 with an offset; without it: now.")] = None,
    id_: Annotated[str | None, typer.Option("--id", help="UUID; the same one again is the same event.")] = None,
    source: Annotated[str, typer.Option(help="The application.")] = SOURCE,
    partition_key: Annotated[str | None, typer.Option("--partition-key", help="Events of one key keep their order.")] = None,
    priority: Annotated[str | None, typer.Option(help="low, normal or high.")] = None,
    topic: Annotated[str | None, typer.Option(help="With Kafka: another topic, chronicle.events.<name>.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse what the catalogue of types does not know.")] = False,
    to: To = None,
    key: Key = None,
    timeout: Timeout = 30.0,
    as_json: AsJson = False,
) -> None:
    """Send one event, or those of a file or of standard input, and say when they are confirmed."""
    said: dict[str, Any] = {"action": action, "outcome": outcome, "description": description, "request_id": request}
    said |= {
        "traceparent": traceparent,
        "reason": reason,
        "ip": ip,
        "session": session,
        "tenant": tenant,
        "time": at,
        "id": id_,
    }
    said |= {"partition_key": partition_key, "priority": priority, "topic": topic, "tags": _tags(tag or [])}
    said |= {"payload": _object(payload), "actor": _actor(actor, actor_type, actor_name), "resource": _resource(resource)}
    given = bool(type_) or any(value for value in said.values())
    if file is None and not given and not sys.stdin.isatty():
        file = "-"
    if file is not None and given:
        raise ConfigError("give either a file of events or the options of one: a file's events say all themselves")
    if file is None and not given:
        raise ConfigError("name the event: --type, or --resource and --action; or give a file, or - for standard input")
    with journal_to(to, key, source=source, strict=strict) as journal:
        if file is not None:
            _post_lines(journal, file, timeout, as_json=as_json)
            return
        receipt = _waited(journal.publish(type_, **said), timeout)
        _say_posted(type_ or f"{(resource or '').partition(':')[0]}.{action}", receipt, as_json=as_json)


@app.command(epilog="Example: chronicle events tail -n 20 --type 'security.**' --outcome failure")
@command
def tail(
    *,
    count: Annotated[int, typer.Option("-n", "--lines", min=0, max=10_000, help="First the newest so many.")] = 10,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Then what comes in, until Ctrl-C.")] = True,
    interval: Annotated[float, typer.Option(min=0.1, max=60, help="Seconds between two looks.")] = 1.0,
    type_: Annotated[
        list[str] | None, typer.Option("--type", help="A type, or a pattern as security.**; may be given again.")
    ] = None,
    source: Annotated[list[str] | None, typer.Option(help="An application; may be given again.")] = None,
    actor: Annotated[str | None, typer.Option(help="Id or name, as the trail holds it.")] = None,
    resource: Annotated[str | None, typer.Option(help="type, or type:id.")] = None,
    outcome: Annotated[str | None, typer.Option(help="success, failure or unknown.")] = None,
    request: Annotated[str | None, typer.Option(help="Only this request id.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant.")] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="name=value; all of them.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show events as the trail has them, sanitized, the newest last."""
    from chronicle.cli.asking import open_trail
    from chronicle.cli.shown_events import line
    from chronicle.events.event import OUTCOMES
    from chronicle.trail.following import Following, Wanted

    if outcome is not None and outcome not in OUTCOMES:
        raise ConfigError(f"choose an --outcome from {', '.join(OUTCOMES)}")
    about = _resource(resource)
    wanted = Wanted(
        types=tuple(type_ or ()),
        sources=tuple(source or ()),
        actor=actor,
        request=request,
        tenant=tenant,
        outcome=outcome,
        resource_type=about[0] if isinstance(about, tuple) else about,
        resource_id=about[1] if isinstance(about, tuple) else None,
        tags=_tags(tag or []),
    )

    def show(events: Iterable[dict[str, Any]]) -> None:
        for event in events:
            if as_json:
                print_json(event)
            else:
                out.print(line(event), soft_wrap=True)
        sys.stdout.flush()

    with open_trail() as trail:
        following = Following(trail.client, trail.database, wanted)
        show(following.newest(count))
        away = False
        try:
            while follow:
                try:
                    show(following.more())
                    away = False
                except TransientError as error:
                    if not away:
                        err.print(f"waiting: {error}", markup=False, soft_wrap=True)
                    away = True
                time.sleep(interval)
        except KeyboardInterrupt:
            return


@app.command(epilog="Example: chronicle events flood 100000 --seed 7")
@command
def flood(
    count: Annotated[int, typer.Argument(metavar="N", min=1, max=100_000_000, help="How many events.")],
    *,
    seed: Annotated[int, typer.Option(help="The same seed says the same things; ids and times are new.")] = 0,
    workers: Annotated[int, typer.Option(min=1, max=16, help="Sending threads.")] = 1,
    to: To = None,
    key: Key = None,
    timeout: Timeout = 30.0,
    as_json: AsJson = False,
) -> None:
    """Send N made-up events as fast as they are confirmed, and say how fast that was."""
    from chronicle.dev.traffic_events import SOURCE as FLOOD
    from chronicle.dev.traffic_events import Requests

    with journal_to(to, key, source=FLOOD, workers=workers, queue_events=WAITING_MAX * 2, history_events=0) as journal:
        begun = time.monotonic()
        with _progress(count) as advance:
            for number in _confirmed(journal, Requests(seed).events(count), timeout):
                advance(number)
        seconds = time.monotonic() - begun
    found = {"events": count, "seconds": round(seconds, 3), "events_per_s": round(count / seconds)}
    if as_json:
        print_json(found)
    else:
        out.print(Text(f"{count:,} events confirmed in {seconds:,.1f} s: {count / seconds:,.0f}/s"))


events_spilled.register(app)


def _confirmed(journal: Journal, events: Iterable[Event], timeout: float) -> Iterator[int]:
    """Publish all, at most `WAITING_MAX` ahead; how many more are confirmed, again and again."""
    waiting: deque[Receipt] = deque()
    for event in events:
        waiting.append(journal.publish(event))
        if len(waiting) >= WAITING_MAX:
            yield _settled(waiting, WAITING_MAX // 2, timeout)
    while waiting:
        yield _settled(waiting, WAITING_MAX // 2, timeout)


def _settled(waiting: deque[Receipt], count: int, timeout: float) -> int:
    done = 0
    while waiting and done < count:
        receipt = waiting.popleft()
        if receipt.disposition not in ("confirmed", "spilled"):
            _waited(receipt, timeout)
        done += 1
    return done


def _waited(receipt: Receipt, timeout: float) -> Receipt:
    from chronicle.journal import PublishTimeout

    try:
        return interruptible(lambda: receipt.wait(timeout))
    except PublishTimeout:
        raise ChronicleError(
            f"look whether the broker or service is there and takes your key: no answer in {timeout:g} s"
        ) from None


def _post_lines(journal: Journal, file: str, timeout: float, *, as_json: bool) -> None:
    from chronicle.events.event import EventRefused, decoded

    waiting: deque[tuple[str, Receipt]] = deque()
    posted, refused = 0, 0

    def settle(left: int) -> None:
        nonlocal posted
        while len(waiting) > left:
            kind, receipt = waiting.popleft()
            _say_posted(kind, _waited(receipt, timeout), as_json=as_json)
            posted += 1

    for number, text in enumerate(_lines(file), 1):
        if not text.strip():
            continue
        try:
            event = decoded(text)
            waiting.append((event.type or f"{event.resource_type}.{event.action}", journal.publish(event)))
        except EventRefused as error:
            refused += 1
            if refused <= REFUSED_SHOWN_MAX:
                err.print(f"line {number}: {error}", markup=False, soft_wrap=True)
        settle(WAITING_MAX)
    settle(0)
    if not posted and not refused:
        err.print("no events")
    if refused:
        raise ChronicleError(
            f"correct {'the line' if refused == 1 else f'{refused} lines'} named above: {posted} events were posted"
        )


def _lines(file: str) -> Iterator[bytes]:
    if file == "-":
        yield from sys.stdin.buffer
        return
    try:
        with Path(file).open("rb") as lines:
            yield from lines
    except OSError as error:
        raise ConfigError(f"name a file that can be read ({type(error).__name__})") from None


def _say_posted(kind: str, receipt: Receipt, *, as_json: bool) -> None:
    if as_json:
        print_json({"id": receipt.id, "type": kind, "disposition": receipt.disposition})
    else:
        out.print(Text(f"{receipt.disposition} {kind} {receipt.id}"), soft_wrap=True)


def _object(text: str | None) -> dict[str, Any] | None:
    import json

    if text is None:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ConfigError("write --payload as a JSON object, in quotes for the shell: '{\"pages\": 3}'")
    return found


def _tags(given: list[str]) -> dict[str, str]:
    if not all("=" in one for one in given):
        raise ConfigError("write --tag name=value")
    return {name: value for name, _, value in (one.partition("=") for one in given)}


def _resource(text: str | None) -> tuple[str, str] | str | None:
    if text is None or ":" not in text:
        return text
    kind, _, id_ = text.partition(":")
    return kind, id_


def _actor(id_: str | None, kind: str | None, name: str | None) -> dict[str, str | None] | str | None:
    if id_ is None:
        if kind or name:
            raise ConfigError("add --actor: a type or name alone is nobody")
        return None
    return {"id": id_, "type": kind, "name": name} if kind or name else id_


@contextmanager
def _progress(count: int) -> Iterator[Any]:
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("", total=count, rate="")
        begun = time.monotonic()
        done = 0

        def advance(number: int) -> None:
            nonlocal done
            done += number
            progress.update(task, advance=number, rate=f"{done / max(time.monotonic() - begun, 0.001):,.0f}/s")

        yield advance
