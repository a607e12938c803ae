"""Routes: topics that are fed with some of the changes, as a policy file writes them, and which of them a change takes.

A change has an event type, `<source>.<schema>.<table>.<operation>`, always four words; an event has its own. Patterns are
those of AMQP's topic exchange: words with dots between them, `*` for exactly one word, `#` for any number of words, none
included.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from chronicle.policy.fields import Fields
from chronicle.policy.rules import Route, RouteFormat

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_MATCH = re.compile(r"(\*|#|[^.*#\s]+)(\.(\*|#|[^.*#\s]+))*")
_NO_WORD = re.compile(r"[.*#\s]")
_OPERATIONS = ("snapshot", "create", "update", "delete", "truncate")


def event_type(source: str, schema: str, table: str, operation: str) -> str:
    """What patterns match. A name is one word: a dot, `*`, `#` or white space in it stands as `_`."""
    return ".".join(_NO_WORD.sub("_", name) or "_" for name in (source, schema, table, operation))


def matches(patterns: Iterable[str], event: str) -> bool:
    """Whether an event type is one of those that any of the patterns stands for."""
    return any(_compiled(pattern).fullmatch(f".{event}" if event else "") is not None for pattern in patterns)


def about_table(route: Route, source: str, schema: str, table: str) -> bool:
    """Whether a route may take a change of this table."""
    return any(matches(route.match, event_type(source, schema, table, operation)) for operation in _OPERATIONS)


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    """Over the event type with a dot before it, so that every word has one."""
    words: list[str] = []
    for word in pattern.split("."):
        if word == "#" and words[-1:] == [_ANY]:
            continue  # `#.#` is `#`, and twice the work
        words.append(_ANY if word == "#" else r"\.[^.]+" if word == "*" else re.escape(f".{word}"))
    return re.compile("".join(words), re.DOTALL)


_ANY = r"(?:\.[^.]+)*"


def routes(top: Fields) -> tuple[Route, ...]:
    """All `[[routes]]`, by name."""
    found: dict[str, Route] = {}
    for fields in top.tables("routes"):
        for route in _route(fields):
            if route.name in found:
                fields.wrong("name", "another route has this name")
            found[route.name] = route
    fed: dict[str, RouteFormat] = {}
    for route in found.values():
        if fed.setdefault(route.to, route.format) is not route.format:
            top.wrong("routes", f"routes {route.name} and another feed one topic in two formats")
    if fed.keys() & {route.dead_letters for route in found.values()}:
        top.wrong("routes", "a topic for dead letters is fed by a route as well")
    return tuple(found[name] for name in sorted(found))


def _route(fields: Fields) -> Iterator[Route]:
    name = fields.text("name", required=True)
    fields.about = name or ""
    match = fields.texts("match", one=True)
    to, dead_letters = fields.text("to", required=True), fields.text("dead_letters")
    form = fields.word("format", RouteFormat) or RouteFormat.JSON
    where, where_deletes, sample = fields.text("where"), fields.flag("where_deletes"), fields.share("sample")
    labels = fields.texts("labels", one=True)
    fields.done()
    if name is not None and not _NAME.fullmatch(name):
        fields.wrong("name", "write letters, digits, _ and -")
    if match is None and "match" not in fields:
        fields.wrong("", "match is missing")
    if not all(_MATCH.fullmatch(one) for one in match or ()):
        fields.wrong("match", "write words with dots between them; * is one word, # any number of words")
    for option, topic in (("to", to), ("dead_letters", dead_letters)):
        if topic is not None and not _TOPIC.fullmatch(topic):
            fields.wrong(option, "write the name of a topic")
    if name and match and to:
        share = sample if sample != 1 else None
        yield Route(
            name,
            tuple(sorted(match)),
            to,
            dead_letters,
            form,
            where,
            bool(where_deletes),
            share,
            tuple(sorted(labels or ())),
        )
