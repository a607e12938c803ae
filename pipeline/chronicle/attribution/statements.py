"""What an SQL text will do, as far as attribution cares: does it write rows, and can the transaction be another afterwards."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Dialect = Literal["postgres", "mysql"]
"""MariaDB is "mysql" here."""

_WRITES = {
    "postgres": frozenset({"INSERT", "UPDATE", "DELETE", "MERGE", "TRUNCATE"}),
    "mysql": frozenset({"INSERT", "UPDATE", "DELETE", "REPLACE", "LOAD"}),  # MySQL's TRUNCATE is DDL: it commits first
}
_QUERIES = frozenset({"SELECT", "WITH", "VALUES", "TABLE"})
_STAYS = {
    "postgres": frozenset(
        {
            *(
                "RELEASE",
                "COPY",
                "SHOW",
                "FETCH",
                "MOVE",
                "CLOSE",
                "DECLARE",
                "SET",
                "RESET",
                "EXPLAIN",
                "LOCK",
                "PREPARE",
                "DEALLOCATE",
            )
        }
        | {"LISTEN", "UNLISTEN", "NOTIFY"}
    ),
    "mysql": frozenset(
        {"RELEASE", "SHOW", "DESCRIBE", "DESC", "EXPLAIN", "HELP", "USE", "SET", "HANDLER", "PREPARE", "DEALLOCATE"}
    ),
}
_ENDS = frozenset(
    {*("BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "XA", "CREATE", "ALTER", "DROP", "GRANT", "REVOKE", "RENAME")}
    | {
        *(
            "TRUNCATE",
            "LOCK",
            "UNLOCK",
            "ANALYZE",
            "VACUUM",
            "CLUSTER",
            "REINDEX",
            "REFRESH",
            "COMMENT",
            "CHECKPOINT",
            "DISCARD",
        )
    }
    | {*("OPTIMIZE", "REPAIR", "CHECK", "FLUSH", "RESET", "INSTALL", "UNINSTALL", "SECURITY", "IMPORT", "KILL", "CACHE")}
)
_OUTER = frozenset({"WITH", "EXPLAIN", "ANALYZE", "DESCRIBE", "DESC", "SET"})
"""Statements that may hold another one, which may write."""
_TRANSACTION = frozenset({"BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "XA", "SAVEPOINT", "RELEASE"})

_FIRST = {
    "postgres": re.compile(r"(?>[\s(;]++|--[^\n]*+|/\*(?:(?!/\*).)*?\*/)*+([A-Za-z]+)", re.DOTALL),
    "mysql": re.compile(r"(?>[\s(;]++|(?:--(?=\s)|#)[^\n]*+|/\*(?!M?!).*?\*/|/\*M?!\d*+)*+([A-Za-z]+)", re.DOTALL),
}
_DOUBLED = r"'[^']*(?:''[^']*)*'"
_BACKSLASHED = r"'[^'\\]*(?:(?:\\.|'')[^'\\]*)*'"
_MARKS = {
    ("postgres", True): re.compile(
        rf"""--[^\n]*|/\*|(?<!\w)[eE]{_BACKSLASHED}|{_DOUBLED}|"[^"]*(?:""[^"]*)*"|(?<![\w$])\$(?:[^\W\d]\w*)?\$|['"]|;""",
        re.DOTALL,
    ),
    ("mysql", True): re.compile(
        rf"""--(?=\s|\Z)[^\n]*|\#[^\n]*|/\*M?!\d*|/\*|\*/|{_BACKSLASHED}|{_BACKSLASHED.replace("'", '"')}"""
        r"""|`[^`]*(?:``[^`]*)*`|['"`]|;""",
        re.DOTALL,
    ),
    ("mysql", False): re.compile(
        rf"""--(?=\s|\Z)[^\n]*|\#[^\n]*|/\*M?!\d*|/\*|\*/|{_DOUBLED}|{_DOUBLED.replace("'", '"')}"""
        r"""|`[^`]*(?:``[^`]*)*`|['"`]|;""",
        re.DOTALL,
    ),
}
_NESTING = re.compile(r"/\*|\*/")
_INNER_WRITE = re.compile(r"(?<!FOR )(?<!KEY )(?<!ON )\b(?:INSERT|UPDATE|DELETE|MERGE|REPLACE(?!\s*\())\b")
_ANY_WRITE = re.compile(r"\b(?:INSERT|UPDATE|DELETE|MERGE|REPLACE)\b")
_COPY = re.compile(r"[^()]*?(?:\([^()]*\))?\s*\b(FROM|TO)\b")
_SAVEPOINT = re.compile(r"SAVEPOINT\s+(\S+)")
_ROLLBACK_TO = re.compile(r"ROLLBACK\s+(?:WORK\s+|TRANSACTION\s+)?TO\s+(?:SAVEPOINT\s+)?(\S+)")


@dataclass(frozen=True, slots=True)
class Statement:
    """One call's SQL text. What is not known is taken to write, and to leave another transaction behind."""

    writes: bool = False
    queries: bool = False
    """Reads rows, and so may call functions that write."""
    ends: bool = False
    """Afterwards the transaction may be another."""
    savepoint: str | None = None
    """The savepoint that it sets."""
    rollback_to: str | None = None
    several: bool = False
    """More than one statement."""
    mixed: bool = False
    """Several statements that begin or end transactions, some of which write."""


def read(sql: str, dialect: Dialect, *, several: bool = True, backslashes: bool = True) -> Statement:
    """What `sql` will do.

    Args:
        sql: the text given to the driver, placeholders and all.
        dialect: whose rules of comments and literals.
        several: False: the server takes one statement a call, whatever semicolons there are.
        backslashes: False: MySQL's mode NO_BACKSLASH_ESCAPES is on.
    """
    first = _FIRST[dialect].match(sql)
    word = first.group(1).upper() if first else ""
    if word in _WRITES[dialect] and not (several and ";" in sql):
        return Statement(writes=True)  # the usual case, without a look at what may be megabytes of values
    parts, whole = _parts(sql, dialect, backslashes)
    if not several or not whole or (word == "CREATE" and any("BEGIN" in part.split() for part in parts)):
        parts = [" ".join(parts)]  # a routine's body has semicolons of its own
    found = [_one(part, dialect) for part in parts]
    if len(found) == 1:
        return found[0]
    if not found:
        return Statement()
    writes = any(one.writes for one in found)
    controls = any(part.split()[0] in _TRANSACTION for part in parts) or (
        dialect == "mysql" and any(one.ends and not one.writes for one in found)
    )
    return Statement(
        writes=writes,
        queries=any(one.queries for one in found),
        ends=controls or any(one.ends for one in found),
        several=True,
        mixed=writes and controls,
    )


def _one(part: str, dialect: Dialect) -> Statement:
    """One statement, in capitals, without comments and literals."""
    match = re.match(r"[\s(]*([A-Z]+)", part)
    word = match.group(1) if match else ""
    if _writes(word, part, dialect):
        return Statement(writes=True)
    if word == "SAVEPOINT" and (named := _SAVEPOINT.match(part)):
        return Statement(savepoint=named.group(1))
    if word == "ROLLBACK" and (named := _ROLLBACK_TO.match(part)):
        return Statement(rollback_to=named.group(1))
    if word in _QUERIES:
        return Statement(queries=True)
    if word in _STAYS[dialect]:
        return Statement(ends="AUTOCOMMIT" in part or "TRANSACTION" in part)
    return Statement(writes=word not in _ENDS, ends=True)  # CALL, DO, EXECUTE and what is not known: both


def _writes(word: str, part: str, dialect: Dialect) -> bool:
    if word == "COPY" and dialect == "postgres":
        return _copies_in(part)
    return word in _WRITES[dialect] or (word in _OUTER and _holds_a_write(word, part))


def _holds_a_write(word: str, part: str) -> bool:
    spaced = " ".join(part.split())
    if word == "SET":  # MariaDB: SET STATEMENT … FOR UPDATE …
        return spaced.startswith("SET STATEMENT") and _ANY_WRITE.search(spaced) is not None
    if word in ("EXPLAIN", "DESCRIBE", "DESC") and "ANALYZE" not in spaced:
        return False
    return _INNER_WRITE.search(spaced) is not None


def _copies_in(part: str) -> bool:
    rest = part.split("COPY", 1)[1].lstrip()
    if rest.startswith("("):
        return _INNER_WRITE.search(" ".join(rest.split())) is not None
    direction = _COPY.match(rest)
    return direction is None or direction.group(1) == "FROM"


def _parts(sql: str, dialect: Dialect, backslashes: bool) -> tuple[list[str], bool]:
    """The statements in capitals, comments gone and literals empty; and whether all of it could be read."""
    marks = _MARKS[dialect, backslashes or dialect == "postgres"]
    parts, kept, at = [], [], 0
    whole = True
    while mark := marks.search(sql, at):
        kept.append(sql[at : mark.start()])
        found, at = mark.group(), mark.end()
        if found == ";":
            parts.append("".join(kept))
            kept = []
        elif found == "/*":
            at = _after_comment(sql, at, nested=dialect == "postgres")
            kept.append(" ")
        elif found.startswith("$"):
            end = sql.find(found, at)
            at = end + len(found) if end >= 0 else len(sql) + 1
            kept.append(" '' ")
        elif found in ("'", '"', "`"):
            at = len(sql) + 1  # never closed
        elif found[0] == "`" or (found[0] == '"' and dialect == "postgres"):
            kept.append(found)  # a name
        else:
            kept.append(" " if found[0] in "-#/*" else " '' ")
        if at > len(sql):
            whole = False
            break
    else:
        kept.append(sql[at:])
    parts.append("".join(kept))
    return [part.strip().upper() for part in parts if part.strip()], whole


def _after_comment(sql: str, at: int, *, nested: bool) -> int:
    depth = 1
    while depth:
        mark = _NESTING.search(sql, at)
        if mark is None:
            return len(sql) + 1
        at = mark.end()
        if mark.group() == "*/":
            depth -= 1
        elif nested:
            depth += 1
    return at
