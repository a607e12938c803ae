"""The class of a column as a policy file writes it: a word, or a table with the class and its options."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from chronicle.policy.fields import Fields
from chronicle.policy.rules import REDACTED, Class, Treatment

SCANS = ("email", "card", "iban", "phone", "ip")
"""Kinds of personal data that are searched for inside text."""
KEEP_MAX = 100
_STEPS = ("hour", "day", "month", "year", "domain")
_NUMBERED = re.compile(r"(bucket|prefix):([1-9][0-9]{0,17})")
_NET = re.compile(r"net:(\d{1,2})(?:/(\d{1,3}))?")

OPTIONS: Mapping[str, Class] = {"keep": Class.MASK, "to": Class.GENERALIZE, "domain": Class.TOKEN, "scan": Class.CLEAR}
"""Option → the class that has it."""


def treatment(fields: Fields, name: str, allowed: Collection[Class] = tuple(Class)) -> Treatment:
    """The treatment under this key; REDACTED beside a noted mistake."""
    value = fields.take(name)
    if not isinstance(value, dict):
        kind = fields.word_of(name, value, Class, allowed)
        if kind is Class.GENERALIZE:
            fields.wrong(name, 'say to what: { class = "generalize", to = "month" }')
        return REDACTED if kind is None else Treatment(kind)
    inner = Fields(value, (*fields.path, name), fields.problems, fields.about)
    kind = inner.word("class", Class, allowed)
    if kind is None:
        if "class" not in inner:
            inner.wrong("", f"class is missing: choose from {', '.join(allowed)}")
        return REDACTED
    options = _options(inner, kind)
    inner.done()
    return Treatment(kind, **options)


def _options(inner: Fields, kind: Class) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for option, owner in OPTIONS.items():
        if option in inner and owner is not kind:
            inner.take(option)
            inner.wrong(option, f"only class {owner} has this option")
    if kind is Class.MASK and (keep := inner.whole("keep", 0, KEEP_MAX)) is not None:
        options["keep"] = keep
    if kind is Class.GENERALIZE:
        to = inner.text("to", required=True)
        if to is not None and not _step(to):
            inner.wrong("to", f"choose from {', '.join(_STEPS)}, bucket:N, prefix:N, net:24, net:24/48")
        options["to"] = to or ""
    if kind is Class.TOKEN and (domain := inner.text("domain")) is not None:
        options["domain"] = domain
    if kind is Class.CLEAR and (scan := inner.texts("scan")) is not None:
        if not set(scan) <= set(SCANS):
            inner.wrong("scan", f"choose from {', '.join(SCANS)}")
        options["scan"] = tuple(one for one in SCANS if one in scan)
    return options


def _step(to: str) -> bool:
    net = _NET.fullmatch(to)
    if net is not None:
        return int(net[1]) <= 32 and int(net[2] or 0) <= 128  # bits of an IPv4 and of an IPv6 address
    return to in _STEPS or _NUMBERED.fullmatch(to) is not None
