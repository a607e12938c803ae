"""A policy file, parsed: the effective policy of any table, and a hash of what the file means.

Blocks of `[[tables]]` apply from general to specific (`patterns.TablePattern.specificity`), each adding to what is
inherited; of two about the same tables the later one wins. Nothing that a file says, or fails to say, makes a column
clear that no rule names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from enum import Enum
from typing import Any

from chronicle.policy.blocks import Block, Defaults, canonical_order, treatments
from chronicle.policy.events import EventBlock, EventPolicy
from chronicle.policy.events import matching as matching_events
from chronicle.policy.reading import Said, read
from chronicle.policy.requests import NOTHING, Requests
from chronicle.policy.resolve import matching, resolved
from chronicle.policy.rules import Class, Route, TablePolicy, Treatment, Unclassified

_HASH_VERSION = 1
NO_CLASSES: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Policy:
    """What may be seen. One for the life of a worker."""

    name: str
    """Of the file, for messages."""
    defaults: Defaults
    blocks: tuple[Block, ...]
    """In the order in which they apply."""
    domains: Mapping[str, str]
    """Token domain → id of its key. `default` may be absent: then its key follows from the identity key."""
    context: Mapping[str, Treatment]
    """Field of a context → its treatment; a field that is not there stays clear."""
    routes: tuple[Route, ...]
    encrypt_key: str | None
    """Id of the key that encrypts; None: the newest of that purpose."""
    hash: str
    """16 hex digits: equal for files that mean the same, whatever their comments, layout and order."""
    text: str = field(default="", repr=False, compare=False)
    """The file as it was read."""
    events: tuple[EventBlock, ...] = ()
    """What is said of events, in the order in which it applies."""
    requests: Requests = NOTHING
    """What contexts may ask for."""

    @property
    def unclassified(self) -> Unclassified:
        """What becomes of columns that no rule names."""
        return self.defaults.unclassified

    @property
    def encrypts(self) -> bool:
        """Whether any column, or any field of an event, is encrypted, so that a key is needed."""
        said = (rule.treatment for block in self.events for rule in block.columns)
        return any(one.kind is Class.ENCRYPT for one in (*treatments(self.blocks, self.context), *said))

    def table(self, source: str, schema: str, table: str, columns: Sequence[str], key: Sequence[str]) -> TablePolicy:
        """The effective policy of a table with these columns, of which `key` is the primary key. Not cached.

        Raises:
            ConfigError: a rule names a key column and gives it a class other than clear (without scan) or token.
        """
        return resolved(self.blocks, self.defaults, (source, schema, table), columns, key)

    def event(self, source: str, type_: str, classes: Mapping[str, str] = NO_CLASSES) -> EventPolicy:
        """What becomes of events of this type of an application. Not cached.

        `classes`: payload field → the class that the type's own schema proposes where no rule says more.
        """
        return EventPolicy(matching_events(self.events, source, type_), self.unclassified, classes)

    def about(self, source: str, schema: str, table: str) -> tuple[Block, ...]:
        """The blocks that are about a table, in the order in which they apply."""
        return matching(self.blocks, source, schema, table)


def parse(text: str, *, name: str = "policy.toml") -> Policy:
    """Read the text of a policy file.

    Raises:
        ConfigError: all mistakes in it, each with its line and what to write instead; never a value.
    """
    said = read(text, name)
    said = replace(said, blocks=canonical_order(said.blocks))
    parts = (said.defaults, said.blocks, said.domains, said.context, said.routes, said.encrypt_key)
    return Policy(name, *parts, hash=_hash(said), text=text, events=said.events, requests=said.requests)


def _hash(said: Said) -> str:
    text = json.dumps([_HASH_VERSION, _plain(said)], sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    """A noun of the policy as JSON that depends on its meaning only."""
    if isinstance(value, Block | EventBlock):
        parts = {one.name: getattr(value, one.name) for one in fields(value) if one.name not in ("place", "pattern")}
        columns = sorted((rule.column.text, _plain(rule.treatment)) for rule in value.columns)
        return _plain({**parts, "columns": columns, "pattern": str(value.pattern)})
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, str | int | float | bool) else [type(value).__name__, str(value)]


ALL_CLEAR = parse('[defaults]\nignore = []\n[[tables]]\nmatch = "**"\ncolumns = { "*" = "clear" }\n', name="ALL_CLEAR")
"""Everything clear but secret-looking names, nothing ignored: for tests."""
