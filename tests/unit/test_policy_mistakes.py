"""Laws of wrong policies: every mistake ends the start, is named with its place, and shows no value."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronicle.errors import ConfigError
from chronicle.policy.file import parse

SECRET = "hunter2-geheim"
TABLES = '[[tables]]\nmatch = "shop.**"\n'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[defaults]\nunclassified = 'clear'", r"line 2, defaults\.unclassified: choose from redact, drop, deadletter"),
        ("[default]\n", r"line 1, default: no such option; did you mean defaults\?"),
        ("[defaults]\nimages = 3", r"line 2, defaults\.images: choose from full, changed, none"),
        ("[defaults]\nignore = 'x'", r"defaults\.ignore: write a list of texts"),
        ("[defaults]\nsnapshot_on_delete = 'yes'", "write true or false"),
        ("[defaults]\ncontract = 'flag'", "choose from deadletter, warn"),
        ("[[tables]]\ncolumns = {}", "match is missing"),
        ("[[tables]]\nmatch = 'shop'", r"write source\.schema\.table"),
        ("[tables]\nmatch = 'shop.**'", r"write \[\[tables\]\] blocks"),
        (TABLES + "column = { a = 'clear' }", r"line 3, tables #1\.column, shop\.\*\*: no such option; did you mean columns\?"),
        (TABLES + "columns = { a = 'clean' }", r"did you mean clear\?"),
        (TABLES + "columns = { a = true }", "choose from clear, drop"),
        (TABLES + "columns = { a = {} }", "class is missing"),
        (TABLES + "columns = { a = 'generalize' }", "say to what"),
        (TABLES + "columns = { a = { class = 'generalize' } }", "to is missing"),
        (TABLES + "columns = { a = { class = 'generalize', to = 'week' } }", "choose from hour"),
        (TABLES + "columns = { a = { class = 'generalize', to = 'net:33' } }", "choose from hour"),
        (TABLES + "columns = { a = { class = 'generalize', to = 'bucket:0' } }", "choose from hour"),
        (TABLES + "columns = { a = { class = 'mask', kep = 2 } }", r"did you mean keep\?"),
        (TABLES + "columns = { a = { class = 'mask', keep = -1 } }", "write a whole number from 0"),
        (TABLES + "columns = { a = { class = 'redact', keep = 2 } }", "only class mask has this option"),
        (TABLES + "columns = { a = { class = 'token', scan = ['ip'] } }", "only class clear has this option"),
        (TABLES + "columns = { a = { class = 'clear', scan = ['emails'] } }", "choose from email, card, iban, phone, ip"),
        (TABLES + "columns = { a = { class = 'token', domain = 'nosuch' } }", r"write \[domains\.NAME\]"),
        (TABLES + "columns = { '' = 'clear' }", "a column has no name"),
        (TABLES + "sample = 0", "above 0 and at most 1"),
        (TABLES + "sample = nan", "above 0 and at most 1"),
        (TABLES + "skip = 1", "write true or false"),
        (TABLES + "where = 5", "write a text"),
        (TABLES + "ignore = { ad = ['x'] }", r"did you mean add\?"),
        (TABLES + "ignore = { add = ['x'], remove = ['x'] }", "adds and removes the same column"),
        (TABLES + "actor = 'updated_by'", "or false"),
        (TABLES + "actor = { type = 'user' }", "column is missing"),
        (TABLES + "label = [{ columns = ['a'] }]", "as is missing"),
        (TABLES + "label = [{ as = 'x' }]", "say which columns"),
        (TABLES + "label = [{ as = 'x', off = true, columns = ['a'] }]", "switched off, and has columns"),
        (TABLES + "enrich = [{ column = 'a', entity = 'x', into = 'x' }]", "write one {}"),
        (TABLES + "enrich = [{ column = 'a', entity = 'x:{}' }]", "into is missing"),
        (TABLES + "enrich = [{ column = 'a', entity = 'x:{}', into = 'a b' }]", "letters, digits and _"),
        (TABLES + "rule = [{ column = 'a' }]", "say what good values are"),
        (TABLES + "rule = [{ in = ['a'] }]", "column is missing"),
        (TABLES + "rule = [{ column = 'a', in = [] }]", "write a list of texts, numbers or dates"),
        (TABLES + "rule = [{ column = 'a', in = [['x']] }]", "write a list of texts, numbers or dates"),
        (TABLES + "rule = [{ column = 'a', between = [2, 1] }]", "lowest and the highest"),
        (TABLES + "rule = [{ column = 'a', between = [1, 'b'] }]", "lowest and the highest"),
        (TABLES + "rule = [{ column = 'a', length = -1 }]", "most characters"),
        (TABLES + "rule = [{ column = 'a', not_null = false }]", "write true"),
        (TABLES + "rule = [{ column = 'a', not_null = true, on_break = 'warn' }]", "choose from deadletter, flag"),
        (TABLES + "rule = [{ column = 'a', rule = 'in', in = ['a'] }]", "with off = true"),
        (TABLES + "rule = [{ column = 'a', betwen = [1, 2] }]", r"did you mean between\?"),
        ("[domains.person]\n", r"line 1, domains\.person: key is missing"),
        ("[domains.person]\nkey = '5c1f7e0d9a3b48628f0e6d7c1b2a39485c1f7e0d9a3b48628f0e6d7c1b2a3948'", "never a key itself"),
        ("[encryption]\nkey = 'a b'", "write the id of a key"),
        ("[context]\nuser = 'clear'", "there are actor_id"),
        ("[context]\nip = 'encrypt'", "choose from clear"),
        ("[context]\ntags = 'token'", "choose from clear, redact, drop"),
        ("[[routes]]\nmatch = '#'\nto = 't'", "name is missing"),
        ("[[routes]]\nname = 'r'\nto = 't'", "match is missing"),
        ("[[routes]]\nname = 'r'\nmatch = 'a.b*'\nto = 't'", "words with dots"),
        ("[[routes]]\nname = 'r'\nmatch = '#'\nto = 'a topic'", "name of a topic"),
        ("[[routes]]\nname = 'r'\nmatch = '#'\nto = 't'\ndead_letters = 't'", "fed by a route as well"),
        ("[[routes]]\nname = 'r'\nmatch = '#'\nto = 't'\nformat = 'xml'", "choose from json"),
        ("[[routes]]\nname='r'\nmatch='#'\nto='t'\n[[routes]]\nname='r'\nmatch='#'\nto='t'", "another route has this name"),
        ("x = y", "line 1, column 5: not readable as TOML"),
    ],
)
def test_a_mistake_is_named_with_what_to_write(text: str, told: str) -> None:
    """Nothing misspelt is without effect, because its effect would be missed."""
    with pytest.raises(ConfigError, match=told) as caught:
        parse(text)
    assert str(caught.value).startswith("correct ")


def test_all_mistakes_are_told_at_once_each_with_its_line() -> None:
    """Blocks and their parts are found again in the text."""
    text = """
[[tables]]
match = "shop.**"
[[tables.label]]
as = "x"
[[tables]]
match = "hiring.**"
[tables.columns]
a = "clear"
b = "clera"
[[tables.rule]]
column = "a"
[[tables.rule]]
column = "a"
lenght = 5
"""
    with pytest.raises(ConfigError) as caught:
        parse(text, name="p.toml")
    lines = str(caught.value).splitlines()
    assert lines[0] == "correct 5 mistakes in p.toml:"
    assert [line.split(",")[0].strip() for line in lines[1:]] == ["line 4", "line 10", "line 11", "line 15", "line 13"]
    assert "tables #2.columns.b, hiring.**: choose from" in lines[2]


VALUES = st.recursive(
    st.just(f'"{SECRET}"'),
    lambda inner: st.one_of(
        inner.map(lambda value: f"[{value}]"),
        inner.map(lambda value: f"{{ class = {value} }}"),
        inner.map(lambda value: f"{{ column = {value}, key = {value} }}"),
    ),
    max_leaves=3,
)
PLACES = st.sampled_from(
    [
        *("defaults.unclassified = {}", "defaults.ignore = {}", "defaults.images = {}", "domains.x.key = {}", "domains.x = {}"),
        *("encryption.key = {}", "encryption = {}", "context.ip = {}", "context = {}", "defaults = {}", "tables = {}"),
        *("routes = {}", "tables = [{{ match = {} }}]", "tables = [{{ match = 'a.b.c', columns = {{ a = {} }} }}]"),
        *("tables = [{{ match = 'a.b.c', skip = {} }}]", "tables = [{{ match = 'a.b.c', rule = [{}] }}]"),
        *("tables = [{{ match = 'a.b.c', sample = {} }}]", "tables = [{{ match = 'a.b.c', actor = {} }}]"),
        *("tables = [{{ match = 'a.b.c', rule = [{{ column = 'a', between = {} }}] }}]", "x = {} y"),
        *("routes = [{{ name = 'r', match = {}, to = {} }}]", "{} = 1 = 2"),
    ]
)


@given(PLACES, VALUES)
def test_no_mistake_shows_a_value(place: str, value: str) -> None:
    """What stands in the wrong place may be a secret. (Names of tables and columns are shown: they are no values.)"""
    text = place.replace("{}", value).replace("{{", "{").replace("}}", "}")
    try:
        parse(text)
    except ConfigError as error:
        shown = str(error)
        if "match" in place and "columns" not in place and "'a.b.c'" not in place:
            return  # a pattern is a name
        assert SECRET not in shown
        assert error.__cause__ is None
        assert error.__suppress_context__ or error.__context__ is None


@given(st.text(max_size=200))
def test_any_text_is_a_policy_or_a_mistake(text: str) -> None:
    """Nothing else is raised."""
    try:
        parse(text)
    except ConfigError as error:
        assert str(error).startswith("correct ")
