"""What may not leave the process: values under secret names, secrets inside of texts, and whatever an application adds.

A `Protection` is called with every event after it is complete and before it is encoded, kept, handed to subscribers, queued
or spilled. In this order:

1. names: in payload and tags, at any depth, what stands under a name that looks secret (the policy's built-in list,
   `authorization`, `cookie` and the like, and `names`) becomes `[FILTERED]`; also in `{"name": "password", "value": …}`.
2. custom: the functions given for a path.
3. texts: in every text of the event (and the keys of its objects) private keys, JSON Web Tokens, bearer tokens, known
   providers' keys, passwords in URLs, `name=value` and `"name": "value"` with a secret name, and `patterns`.
4. encryption of the payload, where asked.

Whatever goes wrong ends in `[FILTERED]` or in a refusal of the event, never in a clear value. Not found: what is spelled out
or encoded, an unquoted secret's words after the first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import msgspec

from chronicle.errors import ConfigError
from chronicle.events.event import DEPTH_MAX, DESCRIPTION_LENGTH_MAX, TEXT_LENGTH_MAX, Actor, Event, EventRefused
from chronicle.journal.encryption import Encryption, ring_of
from chronicle.journal.patterns import matches
from chronicle.policy.names import SECRET_PHRASES, SECRET_SUFFIXES, SECRET_WORDS, looks_secret, words

if TYPE_CHECKING:
    from chronicle.journal.settings import Settings

FILTERED = "[FILTERED]"


class _Drop:
    def __repr__(self) -> str:
        return "DROP"


DROP: Final = _Drop()
"""A custom sanitizer returns it to leave the field out."""

HEADER_WORDS = frozenset({"authorization", "cookie", "cookies", "bearer", "jwt", "csrf", "xsrf", "sessionid"})
"""Names that are secret in an application's events and harmless in a database's columns; also `session id`."""


def _roots() -> tuple[str, ...]:
    """Every secret name of one word has one of these in it, in lower case."""
    all_ = SECRET_WORDS | SECRET_SUFFIXES | HEADER_WORDS | {"session", "password", "passwd", "passphrase"}
    return tuple(sorted(root for root in all_ if not any(other in root for other in all_ - {root})))


_PHRASES: Mapping[str, re.Pattern[str]] = {
    second: re.compile(f"(?:{'|'.join(one for one, other in SECRET_PHRASES if other == second)})[^a-z]*{second}")
    for second in dict.fromkeys(second for _, second in SECRET_PHRASES)
}
"""And those of two: by the second word, both."""
_LABELS = frozenset({"name", "key", "field", "header", "parameter", "param"})
"""`{"name": "password", "value": "…"}`: such a key names what the others hold."""
_TEXTS = (
    *("action", "resource_type", "resource_id", "description", "request_id", "reason", "ip", "session", "tenant"),
    "partition_key",
)
_SHAPES = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----|\Z)"
    r"|\beyJ[\w-]{6,}\.[\w-]{6,}(?:\.[\w-]*)?"
    r"|(?<=\b[Bb]earer )[\w.~+/=-]{12,}|(?<=\bBEARER )[\w.~+/=-]{12,}"
    r"|(?<=://)[^\s/@:]*:[^\s/@]+(?=@)"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bgh[pousr]_\w{30,}|\bxox[abeprs]-[\w-]{10,}|\b[sr]k_(?:live|test)_\w{10,}",
    re.DOTALL | re.ASCII,
)
"""Texts that are a secret by their shape."""
_SIGNS = (
    "-----BEGIN",
    "eyJ",
    "earer ",
    "EARER ",
    "AKIA",
    "ASIA",
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "xox",
    "k_live_",
    "k_test_",
)
"""Each of these texts has one, or both `://` and `@`."""
_NAMED = re.compile(r"(?<![\w-])([^\W\d_][\w-]{0,100}+)(\\*[\"']?\s{0,20}+[:=]\s{0,20}+)")
_VALUE = re.compile(
    r"\"(?:[^\"\\]|\\.)*+(?:\"|\Z)|'(?:[^'\\]|\\.)*+(?:'|\Z)"
    r"|(?P<quote>\\+[\"'])(?:(?!(?<!\\)(?P=quote)).)*+(?:(?P=quote)|\Z)"
    r"|[{\[(].*"
    r"|(?i:(?:bearer|basic|digest|token|negotiate)\s{1,5}+)?[^\s&]++",
    re.DOTALL,
)
"""What stands after `name=`: a quoted text, one with escaped quotes, an object (to the end: where it closes is not told), a
word."""
_WORD_BEFORE = re.compile(r"([^\W\d_]\w{0,30})[ _-]\Z")


@dataclass(frozen=True, slots=True)
class Protection:
    """What is hidden of an event; call it with one, get the one that may leave. Safe in threads: it holds no state.

    Args:
        secrets: the built-in names and shapes of secrets. False: only what follows.
        names: further names that are secret: patterns with `*`, case does not matter (`*_note`).
        clear: paths whose name looks secret and is not (`payload.token_count`); what is in their texts is looked at still.
        custom: path → function of the value, whose result (JSON's types, or `DROP`) stands in its place. A path's parts have
            dots between them, `*` stands for one, `**` for any number; items of a list have the list's path
            (`payload.cards.number`). A function that raises gives `[FILTERED]`.
        patterns: regular expressions whose matches are hidden in every text.
        encryption: seals payloads, last.
    """

    secrets: bool = True
    names: tuple[str, ...] = ()
    clear: tuple[str, ...] = ()
    custom: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    patterns: tuple[str, ...] = ()
    encryption: Encryption | None = None

    def __post_init__(self) -> None:
        for pattern in self.patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ConfigError(f"correct a pattern of the journal's protection: {error.msg}") from None

    def __call__(self, event: Event) -> Event:
        """The event as it may leave the process. Its id, type, time and source are final and stay as they are.

        Raises:
            EventRefused: payload or tags hold what JSON has not, or are nested too deeply; sealing failed.
        """
        safe = event if self._simple and _harmless(event, secrets=self.secrets) else self._hidden(event)
        if self.encryption is not None and any(matches(pattern, safe.type) for pattern in self.encryption.types):
            return self.encryption.sealed(safe)
        return safe

    @property
    def _simple(self) -> bool:
        return not (self.names or self.custom or self.patterns)

    def _hidden(self, event: Event) -> Event:
        changed: dict[str, Any] = {}
        for name in _TEXTS:
            given = getattr(event, name)
            if given is not None:
                said = self._custom((name,), given)
                shown = self._text(said) if isinstance(said, str) else None if said is DROP else FILTERED
                changed[name] = shown and shown[: DESCRIPTION_LENGTH_MAX if name == "description" else TEXT_LENGTH_MAX]
        if event.actor is not None:
            changed["actor"] = self._actor(event.actor)
        for name in ("payload", "tags"):
            inner = getattr(event, name)
            if inner:
                changed[name] = self._object(name, inner)
        return msgspec.structs.replace(event, **changed)

    def _actor(self, actor: Actor | str) -> Actor | str | None:
        said = self._custom(("actor",), actor)
        if said is DROP:
            return None
        if isinstance(said, str):
            return self._text(said)[:TEXT_LENGTH_MAX]
        if not isinstance(said, Actor):
            return FILTERED
        shown = {
            name: self._text(part)[:TEXT_LENGTH_MAX]
            for name in ("id", "type", "name")
            if (part := getattr(said, name)) is not None
        }
        return Actor(**shown)

    def _object(self, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        try:
            plain = msgspec.to_builtins(given, str_keys=True)
        except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError):
            raise EventRefused(name, "holds only what JSON has") from None
        said = self._value((name,), plain, 0)
        if said is DROP:
            return {}
        return said if isinstance(said, dict) else {FILTERED: FILTERED}

    def _value(self, path: tuple[str, ...], given: Any, depth: int, *, item: bool = False) -> Any:
        """`item`: of a list, which has had its custom function; its items have its path."""
        if depth > DEPTH_MAX:
            raise EventRefused(path[0], f"at most {DEPTH_MAX} levels")
        said = given if item else self._custom(path, given)
        if isinstance(said, str):
            return self._text(said)
        if isinstance(said, dict):
            return self._members(path, said, depth)
        if isinstance(said, list | tuple):
            return [self._value(path, one, depth + 1, item=True) for one in said]
        return said

    def _members(self, path: tuple[str, ...], given: dict[str, Any], depth: int) -> dict[str, Any]:
        labelled = any(
            label.lower() in _LABELS and isinstance(text, str) and self._secret((*path, label), text)
            for label, text in given.items()
        )
        shown: dict[str, Any] = {}
        for name, inner in given.items():
            inside = (*path, name)
            hidden = self._secret(inside, name) or (labelled and name.lower() not in _LABELS)
            said = FILTERED if hidden and inner is not None else self._value(inside, inner, depth + 1)
            if said is not DROP:
                shown[_free(self._text(name), shown)] = said
        return shown

    def _secret(self, path: tuple[str, ...], name: str) -> bool:
        if not ((self.secrets and _is_secret(name)) or (self.names and _named(self.names).fullmatch(name))):
            return False
        return not any(matches(pattern, path) for pattern in self.clear)

    def _custom(self, path: tuple[str, ...], value: Any) -> Any:
        for pattern, function in self.custom.items():
            if matches(pattern, path):
                try:
                    said = function(value)
                    value = said if said is DROP or isinstance(said, Actor) else msgspec.to_builtins(said, str_keys=True)
                except Exception:  # noqa: BLE001 (the application's function; its error may hold the value)
                    return FILTERED
                if value is DROP:
                    return DROP
        return value

    def _text(self, text: str) -> str:
        if text[:1] in ("{", "["):
            text = self._document(text)
        if self.secrets:
            if _may_have_shape(text):
                text = _SHAPES.sub(FILTERED, text)
            if ("=" in text or ":" in text) and _may_have_name(text.lower()):
                text = _unassigned(text)
        for pattern in self.patterns:
            text = _compiled(pattern).sub(FILTERED, text)
        return text

    def _document(self, text: str) -> str:
        """A text that is JSON itself: by its names, as the payload."""
        try:
            inner = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            return text
        try:
            shown = self._value(("",), inner, 0)
        except (EventRefused, RecursionError):
            return FILTERED
        return text if shown == inner else msgspec.json.encode(shown).decode()


DEFAULT = Protection()
"""Built-in names and shapes."""


def of_settings(settings: Settings) -> Protection | None:
    """What `CHRONICLE_JOURNAL_PROTECT`, `…_SECRET_NAMES`, `…_ENCRYPT` and `…_KEY_RING` ask for; None: nothing.

    Raises:
        ConfigError: payloads are to be encrypted, and there is no key for it.
    """
    encryption = None
    if settings.encrypt:
        from pathlib import Path

        file = Path(settings.key_ring_file) if settings.key_ring_file else None
        ring = ring_of(text=settings.key_ring or None, file=file)
        encryption = Encryption.of(ring, settings.encrypt_key or None, types=tuple(settings.encrypt.split()))
    names = tuple(settings.secret_names.split())
    if not (settings.protect or names or encryption):
        return None
    return Protection(secrets=settings.protect, names=names, encryption=encryption)


def _harmless(event: Event, *, secrets: bool) -> bool:
    """Whether nothing in the event can be a secret by name or shape: a quick look at all of it as one text."""
    if not secrets:
        return True
    try:
        text = _encode([getattr(event, name) for name in _SEARCHED]).decode()  # without the envelope's names: `session`
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise EventRefused("", "payload and tags hold only what JSON has") from None
    return not (_may_have_shape(text) or _may_have_name(text.lower()))


def _may_have_shape(text: str) -> bool:
    if "://" in text and "@" in text:
        return True
    for sign in _SIGNS:  # noqa: SIM110 (a generator costs more than the search)
        if sign in text:
            return True
    return False


def _may_have_name(lower: str) -> bool:
    for root in _ROOTS:
        if root in lower:
            return True
    return any(second in lower and found.search(lower) for second, found in _PHRASES.items())


_ROOTS = _roots()
_SEARCHED = (*_TEXTS, "actor", "payload", "tags")
_encode = msgspec.json.Encoder().encode


@lru_cache(maxsize=65_536)
def _is_secret(name: str) -> bool:
    if looks_secret(name):
        return True
    parts = words(name)
    return any(part in HEADER_WORDS for part in parts) or ("session" in parts and "id" in parts)


@lru_cache(maxsize=256)
def _named(patterns: tuple[str, ...]) -> re.Pattern[str]:
    texts = (".*".join(map(re.escape, pattern.split("*"))) for pattern in patterns)
    return re.compile("|".join(f"(?:{text})" for text in texts), re.IGNORECASE | re.DOTALL)


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _unassigned(text: str) -> str:
    """`name=value` with the value hidden when the name, or it and the word before it (`api key: …`), look secret."""
    parts, copied, at = [], 0, 0
    while found := _NAMED.search(text, at):
        at = found.end()  # of a harmless name the value is looked at next: `note: password=…`
        if not _is_secret(found[1]):
            before = _WORD_BEFORE.search(text, max(0, found.start() - 32), found.start())
            if before is None or not _is_secret(f"{before[1]}_{found[1]}"):
                continue
        value = _VALUE.match(text, at)
        if value is None or value[0] == FILTERED:
            continue
        quote = value["quote"] or (value[0][0] if value[0][0] in "\"'" else "")
        parts.append(f"{text[copied:at]}{quote}{FILTERED}{quote}")
        copied = at = value.end()
    return "".join((*parts, text[copied:]))


def _free(name: str, taken: Mapping[str, Any]) -> str:
    """Two names that are hidden alike are kept apart."""
    if name not in taken:
        return name
    number = 2
    while f"{name} {number}" in taken:
        number += 1
    return f"{name} {number}"
