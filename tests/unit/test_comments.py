"""Comments on statements: which are read, and that nothing else is."""

from __future__ import annotations

import json
import time
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronicle.codec.comments import COMMENT_CHARS_MAX, context_of_statement, contexts_of_comments

OURS = '/* chronicle: {"actor":"ada"} */'
ADA = {"actor": "ada"}
TRACE = "0af7651916cd43dd8448eb211c80319c"


def said(statement: str) -> dict[str, Any] | None:
    text = context_of_statement(statement)
    return None if text is None else json.loads(text)


@pytest.mark.parametrize(
    "statement",
    [
        f"{OURS} UPDATE t SET a = 1",
        f"UPDATE t {OURS} SET a = 'x'",
        f"UPDATE t SET a = '--' {OURS}",
        'UPDATE t SET a = 1 -- chronicle: {"actor":"ada"}',
        'UPDATE t # chronicle: {"actor":"ada"}\nSET a = 1',
        f"/*! STRAIGHT_JOIN */ {OURS}",
        f"/*!50110 KEY_BLOCK_SIZE = 1 {OURS} */",
        f"UPDATE t SET a = 5--3 {OURS}",
        f"SELECT 1 */{OURS}",
        f"UPDATE t SET a = 'it''s', b = 'a\\'b', c = \"\\\"\" {OURS}",
        f"UPDATE `odd`` /* table` SET a = 1 {OURS}",
        f"/* a comment */ /* name='x' OR 1=1 */ {OURS}",
        '/*chronicle:{"actor":"ada"}*/',
        "UPDATE t SET a = 1 /*actor='ada'*/",
        '/* actor=\'nobody\' */ /* chronicle: {"actor":"ada"} */',
    ],
)
def test_a_comment_is_read_wherever_it_stands(statement: str) -> None:
    """Leading, inner, trailing, in each form of comment; the object beats the pairs."""
    assert said(statement) == ADA


@pytest.mark.parametrize(
    "statement",
    [
        f"UPDATE t SET a = '{OURS}'",
        f'UPDATE t SET a = "{OURS}"',
        f"UPDATE `{OURS}` SET a = 1",
        f"UPDATE t SET a = 'it\\'s {OURS}'",
        f"UPDATE t SET a = 'it''s {OURS}'",
        f"UPDATE t SET a = 'never closed {OURS}",
        '/*! chronicle: {"actor":"ada"} */ SELECT 1',
        '/*M! chronicle: {"actor":"ada"} */ SELECT 1',
        '/*+ chronicle: {"actor":"ada"} */ SELECT 1',
        f"/* outer {OURS}",
        '/* chronicle: {"actor":"ada"} never closed',
        '/* note: chronicle: {"actor":"ada"} */',
        '/* chronicle: ["ada"] */',
        '/* chronicle: {"actor": */',
        "/* actor='ada' OR 1=1 */",
        "/* actor='ada', */",
        "/* actor=ada */",
        "/* actor='ada */",
        "actor='ada'",
        f"/* chronicle: {json.dumps({'actor': 'a' * COMMENT_CHARS_MAX})} */",
        "",
    ],
)
def test_what_is_no_comment_or_no_context_is_not_read(statement: str) -> None:
    """Literals, identifiers, version comments, hints, commented-out SQL, comments too long."""
    assert said(statement) is None


def test_pairs_are_decoded_as_sqlcommenter_writes_them() -> None:
    """Percent-encoded UTF-8, quotes behind a backslash; the trace id is the request unless one is named."""
    statement = f"SELECT 1 /*actor='J%C3%BCrgen%20O\\'Hara',traceparent='00-{TRACE}-b7ad6b7169203331-01',route='%2Fa'*/"
    assert said(statement) == {
        "actor": "Jürgen O'Hara",
        "request_id": TRACE,
        "route": "/a",
        "traceparent": f"00-{TRACE}-b7ad6b7169203331-01",
    }
    assert said(f"/*request_id='r',traceparent='00-{TRACE}-b7ad6b7169203331-01'*/ SELECT 1")["request_id"] == "r"  # type: ignore[index]
    assert said("/*traceparent='00-abc-01'*/ SELECT 1") == {"traceparent": "00-abc-01"}


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"]))))
def test_any_object_comes_back_from_its_comment(context: dict[str, str]) -> None:
    """Written as the client writes it: the end of a comment is escaped inside the JSON."""
    body = json.dumps(context).replace("*/", "*\\/")
    expected = context if context and len(f"chronicle: {body}") <= COMMENT_CHARS_MAX else None
    assert said(f"/* chronicle: {body} */ UPDATE t SET a = '/* chronicle: {{}} */'") == expected


@given(
    st.lists(
        st.sampled_from(
            ["'", '"', "`", "\\", "/*", "*/", "/*!", "--", " ", "#", "\n", "chronicle:", "{", "}", "a='b'", "%", ","]
        )
    )
)
def test_hostile_statements_never_raise(parts: list[str]) -> None:
    """Whatever is opened, closed, nested or escaped."""
    text = context_of_statement("".join(parts))
    assert text is None or isinstance(json.loads(text), dict)


@pytest.mark.parametrize("part", ["\\'", "/*", "*/", "'", "''", "`", "/*!", "--", "/* a='b',", "/* chronicle: {", "%", "*"])
def test_a_megabyte_of_anything_takes_linear_time(part: str) -> None:
    """No pattern backtracks: seconds would be hours."""
    for opening in ("", "'", "/*", "/* a='"):
        began = time.process_time()
        context_of_statement(f"{opening}{part * (1_000_000 // len(part))}='chronicle:")
        assert time.process_time() - began < 10


def test_rows_of_one_statement_share_its_context() -> None:
    """Null stays null, order stays."""
    queries = pl.Series("query", [OURS, None, "/* x='1' */", OURS, "SELECT 1"])
    found = contexts_of_comments(queries)
    assert found.name == "query"
    assert found.to_list() == ['{"actor":"ada"}', None, '{"x":"1"}', '{"actor":"ada"}', None]
