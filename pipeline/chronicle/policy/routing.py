"""Routes as a policy file writes them: topics that are fed with some of the changes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from chronicle.policy.fields import Fields
from chronicle.policy.rules import Route, RouteFormat

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_MATCH = re.compile(r"(\*|#|[^.*#\s]+)(\.(\*|#|[^.*#\s]+))*")


def routes(top: Fields) -> tuple[Route, ...]:
    """All `[[routes]]`, by name."""
    found: dict[str, Route] = {}
    for fields in top.tables("routes"):
        for route in _route(fields):
            if route.name in found:
                fields.wrong("name", "another route has this name")
            found[route.name] = route
    fed = {route.to for route in found.values()}
    if fed & {route.dead_letters for route in found.values()}:
        top.wrong("routes", "a topic for dead letters is fed by a route as well")
    return tuple(found[name] for name in sorted(found))


def _route(fields: Fields) -> Iterator[Route]:
    name = fields.text("name", required=True)
    fields.about = name or ""
    match = fields.texts("match", one=True)
    to, dead_letters = fields.text("to", required=True), fields.text("dead_letters")
    form = fields.word("format", RouteFormat) or RouteFormat.JSON
    where, where_deletes, sample = fields.text("where"), fields.flag("where_deletes"), fields.share("sample")
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
        yield Route(name, tuple(sorted(match)), to, dead_letters, form, where, bool(where_deletes), share)
