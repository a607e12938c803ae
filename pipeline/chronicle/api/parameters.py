"""The query string as a question: every parameter is known, and all that are wrong are told at once, by name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from chronicle.api.access import Principal
from chronicle.api.parts import ReadLimits
from chronicle.api.problems import Problem
from chronicle.api.sight import sight
from chronicle.errors import ConfigError
from chronicle.trail.collections import CHANGES, Collection, Filter, Order
from chronicle.trail.filters import Filters, Where, where
from chronicle.trail.moments import parse
from chronicle.trail.reading import micros
from chronicle.trail.search import BadCursor, Cursor, Question
from chronicle.trail.words import anchored, expression

TEXT_LENGTH_MAX = 1_024
WORDS_MAX = 20
"""Of a full-text search."""
PAGE_SIZE = 50
DEFAULT_SORT = "-time"
PAGING = ("sort", "page", "page_size", "cursor")
CHANGES_BASE = "{database:Identifier}.changes FINAL"
WORDS_OF_TYPE = 8
"""Patterns on columns whose stars fit names of all lengths up to this one are taken to fit any."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of an answer."""

    number: int
    size: int
    by_cursor: bool

    @property
    def offset(self) -> int:
        """Rows before it."""
        return 0 if self.by_cursor else (self.number - 1) * self.size


@dataclass(slots=True)
class Asked:
    """Parameters as they came, and what is wrong with them."""

    values: dict[str, str]
    errors: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, items: Iterable[tuple[str, str]], known: Iterable[str]) -> Asked:
        """Of the pairs of a query string."""
        asked, names = cls({}), set(known)
        for name, value in items:
            if name not in names:
                asked.errors[name[:100]] = "there is no such parameter"
            elif name in asked.values:
                asked.errors[name] = "is given twice"
            elif len(value) > TEXT_LENGTH_MAX * (4 if name == "cursor" else 1):
                asked.errors[name] = f"at most {TEXT_LENGTH_MAX} characters"
            elif _CONTROL.search(value):
                asked.errors[name] = "holds a control character"
            elif not value:
                asked.errors[name] = "is empty: leave it out"
            else:
                asked.values[name] = value
        return asked

    def number(self, name: str, default: int, most: int) -> int:
        """A whole number from 1 on."""
        text = self.values.get(name)
        if text is None:
            return default
        if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) or not 1 <= int(text) <= most:
            self.errors[name] = f"write a number from 1 to {most}"
            return default
        return int(text)

    def choice(self, name: str, default: str, choices: Iterable[str]) -> str:
        """One of some words."""
        text = self.values.get(name, default)
        if text not in (found := tuple(choices)):
            self.errors[name] = f"choose one of {', '.join(found)}"
            return default
        return text

    def refuse_wrong(self) -> None:
        """Raises:
        Problem: 422, with all that is wrong.
        """
        if self.errors:
            raise Problem(422, self.errors)


@dataclass(frozen=True, slots=True)
class Narrowed:
    """Filters as conditions in SQL, by what answers them."""

    stored: tuple[str, ...] = ()
    """The collection's own table."""
    said: tuple[str, ...] = ()
    """Of changes: the view alone, because a context may have come late."""
    parameters: Mapping[str, Any] = field(default_factory=dict)


def narrowed(collection: Collection, asked: Asked, principal: Principal, now: datetime) -> Narrowed:
    """The filters in these parameters, for whoever looks at few rows anyway; what is wrong is noted in `asked`."""
    values = _values(collection, asked, principal, now)
    if asked.errors:
        return Narrowed()
    if collection is not CHANGES:
        conditions, parameters = _of_events(collection, values)
        return Narrowed(tuple(conditions), (), parameters)
    asked_for, by_id, given = _changes_asked(values)
    return Narrowed((asked_for.stored, *by_id), (asked_for.said,) if asked_for.said else (), given)


def question(collection: Collection, asked: Asked, principal: Principal, now: datetime, *, sort: str | None = None) -> Question:
    """The question in these parameters; what is wrong is noted in `asked`, so that it can be told together with the rest."""
    values = _values(collection, asked, principal, now)
    order = _order(collection, asked, sort)
    after = None
    if text := asked.values.get("cursor"):
        try:
            after = Cursor.read(text, order)
        except BadCursor:
            asked.errors["cursor"] = "take it from `next_cursor` of an answer with the same sort"
    if asked.errors:
        return Question(collection, order)
    seen = sight(principal)
    if collection is CHANGES:
        conditions, parameters, stored = _of_changes(values)
        base = CHANGES_BASE if stored and seen.tenants is None and not order.by.late else ""
    else:
        conditions, parameters = _of_events(collection, values)
        base = collection.relation
    return Question(collection, order, conditions, parameters, seen, after, base)


def page(asked: Asked, reads: ReadLimits) -> Page:
    """The page in these parameters; what is wrong is noted in `asked`."""
    size = asked.number("page_size", PAGE_SIZE, reads.page_rows_max)
    number = asked.number("page", 1, 1_000_000)
    by_cursor = "cursor" in asked.values
    if by_cursor and "page" in asked.values:
        asked.errors["page"] = "leave it out, or the cursor"
    elif number * size > reads.page_depth_max and "page" not in asked.errors:
        asked.errors["page"] = f"pages reach {reads.page_depth_max} records: go on with `next_cursor`"
    return Page(number, size, by_cursor)


def _order(collection: Collection, asked: Asked, sort: str | None) -> Order:
    found = collection.order(sort or asked.values.get("sort", DEFAULT_SORT))
    if found is None:
        asked.errors["sort"] = "invalid sort value"
        found = collection.order(DEFAULT_SORT)
    assert found is not None  # noqa: S101  (every collection has a time)
    return found


def _values(collection: Collection, asked: Asked, principal: Principal, now: datetime) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in collection.filters:
        text = asked.values.get(one.name)
        if text is None:
            continue
        try:
            found[one.name] = _READ[one.kind](one, text, now)
        except ValueError as error:
            asked.errors[one.name] = str(error)
    if found.get("since") and found.get("until") and found["since"] >= found["until"]:
        asked.errors["until"] = "is not after since"
    if principal.column_limited:
        _refuse_hidden(collection, asked, found, principal)
    return found


def _refuse_hidden(collection: Collection, asked: Asked, found: dict[str, Any], principal: Principal) -> None:
    """Who may not see a column may not ask about it either: the answer would tell what is in it."""
    source = found.get("source", "")
    places = [f"{found.get('schema', '')}.{found.get('table', '')}"]
    if collection is not CHANGES:  # a type has any number of words
        places = [".".join([""] * count) for count in range(1, WORDS_OF_TYPE + 1)]
    named: dict[str, list[str]] = {"column": [found.get("column", "")], "q": ["description"], "resource_id": ["resource_id"]}
    named["key"] = list(json.loads(found["key"])) if "key" in found else []
    named["violation"] = [""]  # it names any
    for name, columns in named.items():
        if name in found and not all(principal.sees_column(source, at, column) for at in places for column in columns):
            asked.errors[name] = "is about a column that this key does not see"


def _of_events(collection: Collection, values: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    conditions, parameters = [], dict[str, Any]()
    for one in collection.filters:
        if one.name not in values:
            continue
        value = values[one.name]
        if one.kind == "query":
            for number, word in enumerate(value):
                conditions.append(f"positionCaseInsensitiveUTF8(ifNull(description, ''), {{q{number}:String}}) > 0")
                parameters[f"q{number}"] = word
        else:
            conditions.append(one.condition)
            parameters[one.name] = micros(value) if isinstance(value, datetime) else value
    return conditions, parameters


def _of_changes(values: dict[str, Any]) -> tuple[list[str], dict[str, Any], bool]:
    """Conditions, their values, and whether the changes themselves answer all of them, no context is needed."""
    asked, by_id, parameters = _changes_asked(values)
    return [asked.text, *by_id], parameters, not (asked.said or asked.narrowing)


def _changes_asked(values: dict[str, Any]) -> tuple[Where, list[str], dict[str, Any]]:
    """Conditions, the one on the id, and the values of all."""
    filters = Filters(
        source=values.get("source"),
        schema=values.get("schema"),
        table=values.get("table"),
        keys=(values["key"],) if "key" in values else (),
        operations=tuple(values.get("operation", ())),
        column=values.get("column"),
        transaction=values.get("transaction"),
        since=values.get("since"),
        until=values.get("until"),
        entities=(values["entity"],) if "entity" in values else (),
        labels=(values["label"],) if "label" in values else (),
        actor=values.get("actor"),
        request=values.get("request"),
        tenant=values.get("tenant"),
        attributions=tuple(values.get("attribution", ())),
        stubs=bool(values.get("stubs", False)),
    )
    asked = where(filters)
    by_id, parameters = list[str](), dict(asked.parameters)
    if "id" in values:
        by_id.append("event_id = {id:UUID}")
        parameters["id"] = values["id"]
    return asked, by_id, parameters


def _text(_one: Filter, text: str, _now: datetime) -> str:
    return text


def _words(one: Filter, text: str, _now: datetime) -> list[str]:
    found = [word.strip() for word in text.split(",") if word.strip()]
    if not found or not set(found) <= set(one.choices):
        raise ValueError(f"choose from {', '.join(one.choices)}, by commas")
    return list(dict.fromkeys(found))


def _pattern(_one: Filter, text: str, _now: datetime) -> str:
    return anchored(expression([text]))


def _uuid(_one: Filter, text: str, _now: datetime) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", text, re.ASCII):
        raise ValueError("is no UUID")
    return str(UUID(text))


def _instant(_one: Filter, text: str, now: datetime) -> datetime:
    try:
        found = parse(text, now)
    except ConfigError:
        raise ValueError("write ISO 8601, or 30s, 10m, 2h, 3d, 1w") from None
    if not 1900 <= found.year < 2299:
        raise ValueError("choose a year from 1900 to 2298")
    return found


def _query(_one: Filter, text: str, _now: datetime) -> list[str]:
    words = text.split()
    if not 1 <= len(words) <= WORDS_MAX:
        raise ValueError(f"write 1 to {WORDS_MAX} words")
    return words


def _key(_one: Filter, text: str, _now: datetime) -> str:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or not value:
        raise ValueError('write the key as a JSON object, as {"id":7}; /history takes the bare value')
    try:
        made = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        made.encode()
    except (ValueError, RecursionError):
        raise ValueError("is no key") from None
    return made


def _flag(_one: Filter, text: str, _now: datetime) -> bool:
    if text not in ("true", "false"):
        raise ValueError("write true or false")
    return text == "true"


_READ: dict[str, Callable[[Filter, str, datetime], Any]] = {
    "text": _text,
    "column": _text,
    "words": _words,
    "pattern": _pattern,
    "uuid": _uuid,
    "since": _instant,
    "until": _instant,
    "query": _query,
    "key": _key,
    "flag": _flag,
}
