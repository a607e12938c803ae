"""The text of a policy file to blocks: strict, and all mistakes at once."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chronicle.errors import ConfigError
from chronicle.policy.blocks import (
    ActorEntry,
    Block,
    ColumnRule,
    Defaults,
    EnrichEntry,
    Ignoring,
    LabelEntry,
    treatments,
)
from chronicle.policy.events import EventBlock, event_blocks
from chronicle.policy.fields import Fields, Lines, Problems
from chronicle.policy.patterns import Glob, TablePattern
from chronicle.policy.requests import NOTHING, Requests, requests
from chronicle.policy.resolve import Ruling
from chronicle.policy.routing import routes
from chronicle.policy.rules import Class, Enrich, Images, OnBreak, Route, RowActor, Treatment, Unclassified
from chronicle.policy.treatments import treatment
from chronicle.policy.value_rules import rule_entries

CONTEXT_FIELDS = (
    *("actor_id", "actor_type", "actor_name", "request_id", "reason", "ip", "session", "tenant"),
    "tags",
)
DEFAULT_DOMAIN = "default"
"""Needs no `[domains.default]`: its key is then derived from the deployment's identity key."""

CONTRACT_BREAKS = (OnBreak.DEADLETTER, OnBreak.WARN)
_OF_CONTEXT = tuple(one for one in Class if one is not Class.ENCRYPT)
"""A ciphertext is bound to a column of a change; a context has none."""
_OF_TAGS = (Class.CLEAR, Class.REDACT, Class.DROP)
"""An object of the application's own: all of it, or nothing."""
KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,40}")
"""Of a key in the key ring; shorter than a key is, so that no key is taken for one."""
_INTO = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


@dataclass(frozen=True, slots=True)
class Said:
    """What a policy file says."""

    defaults: Defaults
    domains: Mapping[str, str]
    context: Mapping[str, Treatment]
    encrypt_key: str | None
    blocks: tuple[Block, ...]
    """In the file's order, one per pattern."""
    routes: tuple[Route, ...]
    events: tuple[EventBlock, ...] = ()
    requests: Requests = NOTHING


def document(text: str, name: str) -> dict[str, Any]:
    """The TOML document.

    Raises:
        ConfigError: it is none; names the line, never what stands there.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"\(at (line \d+, column \d+|end of document)\)", str(error))
        raise ConfigError(f"correct {name}{f', {at[1]}' if at else ''}: not readable as TOML") from None


def refuse(name: str, problems: Problems) -> None:
    """Tell all mistakes.

    Raises:
        ConfigError: there is one.
    """
    found = list(dict.fromkeys(problems.found))
    if len(found) == 1:
        raise ConfigError(f"correct {name}, {found[0]}")
    if found:
        raise ConfigError("\n  ".join([f"correct {len(found)} mistakes in {name}:", *found]))


def read(text: str, name: str) -> Said:
    """Read a policy file; see the repository's `policy.toml` for all it can say.

    Raises:
        ConfigError: it cannot be read, or something in it is not known, of another type or not possible.
    """
    problems = Problems(Lines(text))
    top = Fields(document(text, name), (), problems)
    defaults = _defaults(top)
    domains = _domains(top)
    context, asked = _context(top)
    encrypt_key = None
    if (encryption := top.table("encryption")) is not None:
        encrypt_key = _key_id(encryption)
        encryption.done()
    blocks = tuple(block for each in top.tables("tables") for block in _blocks(each))
    said = Said(defaults, domains, context, encrypt_key, blocks, routes(top), event_blocks(top), asked)
    top.done()
    _known_domains(said, problems)
    refuse(name, problems)
    return said


def _defaults(top: Fields) -> Defaults:
    fields = top.table("defaults")
    if fields is None:
        return Defaults()
    ignore = _names(fields, "ignore")
    given: dict[str, Any] = {
        "unclassified": fields.word("unclassified", Unclassified),
        "ignore": ignore,
        "images": fields.word("images", Images),
        "snapshot_on_delete": fields.flag("snapshot_on_delete"),
        "contract": fields.word("contract", OnBreak, CONTRACT_BREAKS),
    }
    fields.done()
    return Defaults(**{name: value for name, value in given.items() if value is not None})


def _names(fields: Fields, name: str) -> tuple[str, ...] | None:
    """A list of columns; its order means nothing."""
    given = fields.texts(name)
    return None if given is None else tuple(sorted(given))


def _domains(top: Fields) -> dict[str, str]:
    fields = top.table("domains")
    domains: dict[str, str] = {}
    for name in fields.given if fields else ():
        one = fields.table(name) if fields else None
        if one is not None:
            domains[name] = _key_id(one) or ""
            one.done()
    return domains


def _key_id(fields: Fields) -> str | None:
    key = fields.text("key", required=True)
    if key is not None and not KEY_ID.fullmatch(key):
        fields.wrong("key", "write the id of a key in the key ring (letters, digits, _ and -), never a key itself")
    return key


def _context(top: Fields) -> tuple[dict[str, Treatment], Requests]:
    fields = top.table("context")
    if fields is None:
        return {}, NOTHING
    found = {
        name: treatment(fields, name, _OF_TAGS if name == "tags" else _OF_CONTEXT) for name in CONTEXT_FIELDS if name in fields
    }
    for name in CONTEXT_FIELDS:
        fields.take(name)
    asked = requests(fields)
    fields.done()
    return found, asked


def _blocks(fields: Fields) -> list[Block]:
    """A block for each of its patterns."""
    texts = fields.texts("match", one=True)
    if texts is None:
        if "match" not in fields:
            fields.wrong("", 'match is missing: say which tables, as in match = "shop.public.*"')
        texts = ()
    fields.about = ", ".join(texts)
    patterns = []
    for text in texts:
        try:
            patterns.append(TablePattern.parse(text))
        except ValueError as error:
            fields.wrong("match", str(error))
    options: dict[str, Any] = {
        "columns": _columns(fields),
        "ignore": _ignoring(fields),
        "labels": tuple(entry for one in fields.tables("label") if (entry := _label(one))),
        "enrich": tuple(each for one in fields.tables("enrich") if (each := _enrich(one))),
        "rules": tuple(entry for one in fields.tables("rule") for entry in rule_entries(one)),
        "actor": _actor(fields),
        "images": fields.word("images", Images),
        "snapshot_on_delete": fields.flag("snapshot_on_delete"),
        "contract": fields.word("contract", OnBreak, CONTRACT_BREAKS),
        "where": fields.text("where", empty=True),
        "where_deletes": fields.flag("where_deletes"),
        "sample": fields.share("sample"),
        "skip": fields.flag("skip"),
    }
    fields.done()
    line = fields.problems.lines.of(fields.path)
    place = f"line {line}" if line else f"[[tables]] #{int(fields.path[-1]) + 1}"
    return [Block(pattern, place, **options) for pattern in patterns]


def _columns(fields: Fields) -> tuple[ColumnRule, ...]:
    inner = fields.table("columns")
    if inner is None:
        return ()
    if "" in inner:
        inner.wrong("", "a column has no name")
    return tuple(ColumnRule(Glob(name), treatment(inner, name)) for name in inner.given)


def _ignoring(fields: Fields) -> Ignoring | None:
    if not isinstance(fields.given.get("ignore"), dict):
        replace = _names(fields, "ignore")
        return None if replace is None else Ignoring(replace)
    inner = fields.table("ignore")
    if inner is None:
        return None
    change = Ignoring(None, _names(inner, "add") or (), _names(inner, "remove") or ())
    inner.done()
    if set(change.add) & set(change.remove):
        inner.wrong("", "adds and removes the same column")
    return change


def _label(fields: Fields) -> LabelEntry | None:
    name, columns, off = fields.text("as", required=True), _names(fields, "columns"), fields.flag("off")
    fields.done()
    if off and columns:
        fields.wrong("", "switched off, and has columns")
    if not off and not columns:
        fields.wrong("", "say which columns")
    return None if name is None else LabelEntry(name, tuple(map(Glob, columns or ())), bool(off))


def _enrich(fields: Fields) -> EnrichEntry | None:
    into, off = fields.text("into", required=True), fields.flag("off")
    column, entity = (fields.text(name, required=not off) for name in ("column", "entity"))
    fields.done()
    if off and (column or entity):
        fields.wrong("", "switched off, and says what to join")
    if into is not None and not _INTO.fullmatch(into):
        fields.wrong("into", "write a name of letters, digits and _")
    if entity is not None and (entity.count("{}") != 1 or entity.replace("{}", "").strip("{}") != entity.replace("{}", "")):
        fields.wrong("entity", "write one {} for the column's value, as in customer:{}")
    if into is None or (not off and (column is None or entity is None)):
        return None
    return EnrichEntry(into, Enrich(column, entity, into) if column and entity else None)


def _actor(fields: Fields) -> ActorEntry | None:
    value = fields.given.get("actor")
    if value is False:
        fields.take("actor")
        return ActorEntry()
    if value is not None and not isinstance(value, dict):
        fields.take("actor")
        fields.wrong("actor", 'write { column = "updated_by", type = "user" }, or false')
        return None
    inner = fields.table("actor")
    if inner is None:
        return None
    column, kind = inner.text("column", required=True), inner.text("type")
    inner.done()
    return None if column is None else ActorEntry(RowActor(column, kind or "user"))


def _known_domains(said: Said, problems: Problems) -> None:
    known = {DEFAULT_DOMAIN, *said.domains}
    blocks: tuple[Ruling, ...] = (*said.blocks, *said.events)
    for block in blocks:
        for rule in block.columns:
            if rule.treatment.domain not in known:
                about = f"{block.pattern}, {rule.column.text}"
                problems.add(("domains",), f"write [domains.NAME] with a key for the token domain of {about}")
    used = {one.domain for one in treatments((), said.context)}
    if not used <= known:
        problems.add(("context",), "write [domains.NAME] with a key for its token domain")
