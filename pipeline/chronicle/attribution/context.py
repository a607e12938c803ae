"""What an application says about its transaction: checked, bounded and written as JSON that no database can misread."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Literal

from chronicle.errors import ChronicleError

if TYPE_CHECKING:
    from uuid import UUID

CONTEXT_BYTES_MAX = 65_536
"""The longest context, as JSON in ASCII: what is longer belongs into the application's own tables, with a key in a tag."""
_COMMENT_MARK = "chronicle: "
COMMENT_BYTES_MAX = 8_192 - len(_COMMENT_MARK)
"""The longest context in a comment, as JSON in ASCII; the connector drops a longer comment whole (`AttributionComments`)."""
TAG_DEPTH_MAX = 5
REASON_LENGTH_MAX = 200
"""Characters of the name of an operation that is left out."""
CONTEXT_TABLE = "chronicle_context"
AUDIT_TAG = "chronicle.audit"
"""The tag that says what a transaction asks of the trail."""
_TABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}(\.[A-Za-z_][A-Za-z0-9_]{0,63})?")
_WHOLE = range(-(2**63), 2**64)
"""Whole numbers that every JSON reader on the way keeps exact."""


class AttributionError(ChronicleError):
    """The developer: this connection, this statement or this block cannot be attributed as it is; the message says the fix."""


class ContextRefused(AttributionError, ValueError):
    """The caller: these values cannot be a context (too large, a lone surrogate, not JSON); raised before any statement."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: `id` is stable, `type` (user, service, job …) and `name` (for people) are optional."""

    id: str | int | UUID
    type: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Audit:
    """What a transaction asks of the trail: `without_audit(…)` or `with_snapshots()`."""

    without: str | None = None
    snapshots: bool = False


def without_audit(reason: str) -> Audit:
    """This transaction is a bulk operation of that name, whose changes are only to be counted: they leave lines without
    images, and one summary of the transaction stands on the trail. The policy must allow the reason
    (`[context] allow_without_audit`); else it is all recorded as ever, and that is counted.

    Raises:
        ContextRefused: no reason is given, or it is none that a context can hold.
    """
    if not isinstance(reason, str) or not reason.strip() or len(reason) > REASON_LENGTH_MAX:
        raise ContextRefused(f"name the operation: without_audit takes a text of at most {REASON_LENGTH_MAX} characters")
    return Audit(without=_whole_characters("the reason", reason))


def with_snapshots() -> Audit:
    """This transaction's changes keep their images whole where the policy says `images = "changed"`. The policy must allow
    it (`[context] allow_snapshots`)."""
    return Audit(snapshots=True)


def fields(
    *,
    actor: object = None,
    named: Mapping[str, object],
    tags: Mapping[str, object] | None = None,
    audit: Audit | None = None,
) -> dict[str, Any]:
    """A context's fields as plain JSON values, None left out.

    Args:
        actor: an `Actor`, or its id alone.
        named: `request_id`, `reason`, `ip`, `session`, `tenant`.
        tags: anything else, by name.
        audit: what is asked of the trail; said in a tag of that name.

    Raises:
        ContextRefused: a value is none that a context can hold. The value itself is never in the message.
    """
    said: dict[str, Any] = {}
    if isinstance(actor, Actor):
        parts = {"id": actor.id, "type": actor.type, "name": actor.name}
        said["actor"] = {part: _text(f"actor's {part}", value) for part, value in parts.items() if value is not None}
        if "id" not in said["actor"]:
            raise ContextRefused("give the actor an id: None names nobody")
    elif actor is not None:
        said["actor"] = _text("actor", actor)
    for name, value in named.items():
        if value is not None:
            said[name] = _text(name, value)
    if tags:
        said["tags"] = _plain("tags", dict(tags), 0)
    if audit is not None:
        asked: dict[str, Any] = {"snapshots": True} if audit.snapshots else {"without": audit.without}
        said.setdefault("tags", {})[AUDIT_TAG] = asked
    return said


def merged(outer: Mapping[str, Any], inner: Mapping[str, Any]) -> dict[str, Any]:
    """The inner block's fields over the outer's; tags one by one."""
    both = {**outer, **inner}
    if "tags" in outer and "tags" in inner:
        both["tags"] = {**outer["tags"], **inner["tags"]}
    return both


def written(said: Mapping[str, Any], *, comment: bool = False) -> str:
    """The context as JSON text: ASCII, keys sorted.

    ASCII, so that neither a NUL (`\\u0000` here) nor a connection's, a column's or a database's character set can change or
    refuse it. For a comment `*` and `%` are escaped as well: nothing can end it, and no driver finds a placeholder.

    Raises:
        ContextRefused: nothing is said, or it is longer than `CONTEXT_BYTES_MAX` (`COMMENT_BYTES_MAX` for a comment).
    """
    if not said:
        raise ContextRefused("say who or why: attribute(connection, actor=…) or any other field")
    text = json.dumps(said, ensure_ascii=True, allow_nan=False, sort_keys=True, separators=(",", ":"))
    if comment:
        text = text.replace("*", "\\u002a").replace("%", "\\u0025")
    limit, name = (COMMENT_BYTES_MAX, "a comment") if comment else (CONTEXT_BYTES_MAX, "a context")
    if len(text) > limit:
        raise ContextRefused(f"shorten the context: it has {len(text)} bytes as JSON, {name} can have {limit}")
    return text


def as_comment(text: str) -> str:
    """The comment that stands before a statement; `text` as `written(…, comment=True)` gave it."""
    return f"/* {_COMMENT_MARK}{text} */ "


def token(text: str) -> str:
    """A short name of a context, for the database to remember within a transaction; nothing of it can be read back."""
    return blake2b(text.encode(), digest_size=16).hexdigest()


def quoted_table(name: str) -> str:
    """A context table's name for MySQL and MariaDB.

    Raises:
        AttributionError: not a plain name (letters, digits, underscores; a schema before a dot).
    """
    if not _TABLE_NAME.fullmatch(name):
        raise AttributionError(
            "name the context table in letters, digits and underscores, with at most one dot: `schema.table`"
        )
    return ".".join(f"`{part}`" for part in name.split("."))


def context_table_ddl(dialect: Literal["postgres", "mysql", "mariadb"], table: str = CONTEXT_TABLE) -> str:
    """The CREATE TABLE statement of the context table; it may be repeated.

    On MySQL and MariaDB `attribute` writes one row a transaction into it; the application's user needs INSERT on it. Rows
    may be deleted at any age once they are captured (`DELETE … WHERE created_at < …`): a deletion says nothing. The key is
    no AUTO_INCREMENT, so that `LAST_INSERT_ID()` stays the application's own. On Postgres `attribute` needs no table; one
    is for applications that write it themselves.

    Raises:
        AttributionError: the dialect is unknown, or the name is not plain.
    """
    quoted = quoted_table(table)
    if dialect == "postgres":
        quoted = quoted.replace("`", '"')
        return (
            f"CREATE TABLE IF NOT EXISTS {quoted} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "
            "context text NOT NULL, created_at timestamptz NOT NULL DEFAULT now())"
        )
    if dialect not in ("mysql", "mariadb"):
        raise AttributionError("name the dialect: postgres, mysql or mariadb")
    return (
        f"CREATE TABLE IF NOT EXISTS {quoted} (id CHAR(36) NOT NULL DEFAULT (UUID()) PRIMARY KEY, "
        "context LONGTEXT NOT NULL, created_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6)) "
        "ENGINE = InnoDB CHARACTER SET utf8mb4"
    )


def _text(name: str, value: object) -> str:
    if isinstance(value, str):
        return _whole_characters(name, value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(_exact(name, value))
    if type(value).__module__ in ("uuid", "ipaddress"):  # not imported for this
        return str(value)
    raise ContextRefused(f"pass {name} as text: a {type(value).__name__} is none")


def _whole_characters(name: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ContextRefused(f"decode {name} properly: it has half a character (a lone surrogate)") from None
    return str(value)


def _exact(name: str, value: int) -> int:
    if value not in _WHOLE:
        raise ContextRefused(f"pass {name} as text: it has a number beyond 64 bits")
    return value


def _plain(name: str, value: object, depth: int) -> Any:
    """The value as JSON has it; nothing is converted that would not come back as what it was."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return _exact(name, value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ContextRefused(f"leave NaN and infinity out of {name}: JSON has neither")
        return value
    if isinstance(value, Mapping | list | tuple):
        if depth == TAG_DEPTH_MAX:
            raise ContextRefused(f"flatten {name}: more than {TAG_DEPTH_MAX} levels")
        if isinstance(value, Mapping):
            if not all(isinstance(key, str) for key in value):
                raise ContextRefused(f"use text for the names in {name}")
            return {_whole_characters(name, key): _plain(name, inner, depth + 1) for key, inner in value.items()}
        return [_plain(name, inner, depth + 1) for inner in value]
    return _text(name, value)
