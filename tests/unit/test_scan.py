"""Personal data inside text is found, masked, and nothing else is changed."""

from __future__ import annotations

import json
import string
import time
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chronicle.errors import ConfigError
from chronicle.policy.treatments import SCANS
from chronicle.stages.sanitize import FILTERED
from chronicle.stages.scan import Finder

ALL = Finder(SCANS)


def scanned(*texts: str | None, finder: Finder = ALL) -> list[str | None]:
    """As a column is scanned, vectorised look included."""
    return finder.texts(pl.Series("v", texts, dtype=pl.String)).to_list()


FOUND = [
    ("write to bob@example.org, please", "write to [EMAIL], please"),
    ("<Bob.O'Neil+x@mail.example.co.uk>", "<[EMAIL]>"),
    ("müller@bücher.example", "[EMAIL]"),
    ('"john doe"@example.org', "[EMAIL]"),
    ("root@[10.1.2.3]", "[EMAIL]"),
    ("a@b.example;c@d.example", "[EMAIL];[EMAIL]"),
    ("card 4111 1111 1111 1111 ok", "card [CARD] ok"),
    ("4111-1111-1111-1111", "[CARD]"),
    ("x4111111111111111y", "x[CARD]y"),
    ("3782 822463 10005", "[CARD]"),
    ("order 12, 5555 5555 5555 4444", "order 12, [CARD]"),
    ("2223003122003222", "[CARD]"),
    ("IBAN DE89 3704 0044 0532 0130 00 of Bob", "IBAN [IBAN] of Bob"),
    ("gb29nwbk60161331926819", "[IBAN]"),
    ("NO9386011117947.", "[IBAN]."),
    ("call +49 30 1234567 now", "call [PHONE] now"),
    ("+1 (555) 123-4567", "[PHONE]"),
    ("(555) 123-4567", "[PHONE]"),
    ("555.123.4567", "[PHONE]"),
    ("0049 30 1234567", "[PHONE]"),
    ("030/1234567", "[PHONE]"),
    ("(030) 123 4567", "[PHONE]"),
    ("+436641234567", "[PHONE]"),
    ("from 192.168.1.77:8080", "from [IP]:8080"),
    ("at 10.0.0.1.", "at [IP]."),
    ("[2001:db8::1]:443", "[[IP]]:443"),
    ("ip:fe80::1%eth0", "ip:[IP]%eth0"),
    ("::ffff:1.2.3.4", "[IP]"),
    ("2001:0db8:85a3:0000:0000:8a2e:0370:7334.", "[IP]."),
    # what only looks different
    ("bob\u200d@exa\u00admple.org", "[EMAIL]"),
    ("bob＠example．org", "[EMAIL]"),
    ("٤١١١ ١١١١ ١١١١ ١١١١", "[CARD]"),
    ("4111\u200b1111\u200b1111\u200b1111", "[CARD]"),
    ("4111\u00a01111\u20111111\u20131111", "[CARD]"),
    ("４１１１１１１１１１１１１１１１", "[CARD]"),
    ("ＤＥ８９３７０４００４４０５３２０１３０００", "[IBAN]"),
    ("über +४९ ३० १२३४५६७", "über [PHONE]"),
    ("ü: 192.168.1.77", "ü: [IP]"),
]


@pytest.mark.parametrize(("text", "expected"), FOUND)
def test_personal_data_in_a_text_is_found(text: str, expected: str) -> None:
    """Also in other scripts, and with invisible characters between; what stands around it stays."""
    assert scanned(text, "nothing", None, text) == [expected, "nothing", None, expected]


LEFT = [
    "",
    "The quick brown fox, 42 times",
    "foo@localhost and @mention",
    "2024-02-29 12:30:00.123456",
    "01.02.2024 12:30",
    "4111 1111 1111 1112",  # the check digit is wrong
    "1709251199123456",  # microseconds: no network begins with 1
    "FR13 2004 1010 0505 0001 3M02 606",
    "XX14 2004 1010 0505 0001 3M02 606",
    "0.12345678901",
    "1,234,567,890",
    "1.3.6.1.4.1.311",
    "999.1.1.1",
    "12:30:45",
    "aa:bb:cc:dd:ee:ff",
    "std::string",
    "{not json: 12}",
    "ünïcode — без цифр",
]


@pytest.mark.parametrize("text", LEFT)
def test_other_text_is_left_as_it_is(text: str) -> None:
    """Dates, versions with more parts, wrong check digits, hardware addresses."""
    assert scanned(text) == [text]


def test_only_the_kinds_asked_for_are_searched() -> None:
    """Each kind by itself; an unknown one is refused by name."""
    text = "bob@example.org 4111111111111111 DE89370400440532013000 +49301234567 10.0.0.1"
    for kind in SCANS:
        (found,) = scanned(text, finder=Finder([kind]))
        assert found is not None
        assert [f"[{one.upper()}]" in found for one in SCANS] == [one == kind for one in SCANS]
    with pytest.raises(ConfigError, match="choose from email"):
        Finder(["ssn"])


DOCUMENTS = [
    ('{"to": "bob@example.org", "n": 1.50}', '{"to": "[EMAIL]", "n": 1.50}'),
    ('{"card": 4111111111111111,"e":[ 12 ]}', '{"card": "[CARD]","e":[ 12 ]}'),
    ('["a\\u0040b.example"]', '["[EMAIL]"]'),
    ('{"bob@example.org": {"x": null}}', '{"bob@example.org": {"x": null}}'),
    ('{"k":"{\\"inner\\":\\"bob@example.org\\"}"}', '{"k":"{\\"inner\\":\\"[EMAIL]\\"}"}'),
    ('{"p":"030\\/1234567"}', '{"p":"[PHONE]"}'),
    ('{"s":"\\ud800 bob@example.org"}', '{"s":"\\ud800 [EMAIL]"}'),
    ('"bob@example.org"', '"[EMAIL]"'),
    ('{"a":1,"a":"10.0.0.1"}', '{"a":1,"a":"[IP]"}'),
]


@pytest.mark.parametrize(("text", "expected"), DOCUMENTS)
def test_json_is_searched_inside_and_stays_json(text: str, expected: str) -> None:
    """Values at any depth, escapes and JSON within strings; keys, spaces and other numbers stay as they are."""
    assert ALL.documents(pl.Series([text])).to_list() == [expected]
    if "ud800" not in text:  # no JSON for those who know their Unicode, so as text it is searched as such
        assert scanned(text) == [expected]


def test_text_that_only_begins_like_json_is_searched_as_text() -> None:
    """No quote is needed where there is no JSON."""
    assert scanned("{bob@example.org", '["a", bob@example.org]') == ["[EMAIL]", '["a", [EMAIL]]']


CHARACTERS = st.characters(exclude_categories=["Cs"])
PIECES = st.sampled_from(
    [
        *("bob@example.org", "4111 1111 1111 1111", "DE89 3704 0044 0532 0130 00", "+49 30 1234567", "10.0.0.1", "fe80::1"),
        *("4111", "1111", "0", "00", "+", "(", ")", "-", ".", ":", "::", "@", '"', "\\", "\\u0040", "{", "}", "[", "]", ","),
        *("\u200b", "٤", "１", "＠", "\n", "é", "\ud7ff", "\U0001f600", "a", "DE", "[EMAIL]", " "),
    ]
)
HOSTILE = st.lists(PIECES | st.text(CHARACTERS, max_size=3), max_size=14).map("".join)


@given(HOSTILE)
@example("1.2.3.4::5")
@example('"bob@example.org"@example.org')
@example("+4111 1111 1111 1111 0")
def test_what_was_scanned_is_clean(text: str) -> None:
    """A second scan finds nothing, whatever stands side by side after the first; and none ever fails."""
    (once,) = scanned(text)
    assert scanned(once) == [once]
    assert ALL.text(text) == once, "the vectorised look passes over nothing that the search would find"


_documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | HOSTILE
    | st.just(4111111111111111),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(string.printable, max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(_documents, st.booleans())
def test_scanned_json_is_json_of_the_same_shape(document: Any, escaped: bool) -> None:
    """Keys, order and types of what was not hit are the same; a second scan finds nothing."""
    text = json.dumps(document, ensure_ascii=escaped)
    (once,) = ALL.documents(pl.Series([text])).to_list()

    def alike(old: Any, new: Any) -> bool:
        if isinstance(old, dict):
            return list(old) == list(new) and all(alike(old[key], new[key]) for key in old)
        if isinstance(old, list):
            return len(old) == len(new) and all(map(alike, old, new))
        return bool(old == new) or (isinstance(new, str) and (isinstance(old, str | int | float)))

    assert alike(document, json.loads(once))
    assert ALL.documents(pl.Series([once])).to_list() == [once]


HUGE = 100_000


@pytest.mark.parametrize(
    "text",
    [
        "a" * HUGE + "@",
        "@" * HUGE,
        "a@" * (HUGE // 2),
        "a." * (HUGE // 2) + "@b.c",
        "4" * HUGE,
        "4111 " * (HUGE // 5),
        "4 " * (HUGE // 2),
        "+1" * (HUGE // 2),
        "0" + "1-" * (HUGE // 2),
        "DE89" * (HUGE // 4),
        "DE89 " * (HUGE // 5),
        "1.2.3." * (HUGE // 6),
        ":" * HUGE,
        "f:" * (HUGE // 2),
        "::1 " * (HUGE // 4),
        '"' * HUGE,
        "[" * HUGE,
        '["' + "\\u0040" * (HUGE // 6) + '"]',
        "٤\u200b" * (HUGE // 2),
        '"@' * (HUGE // 2),
    ],
    ids=lambda text: f"{text[:8]!r}",
)
def test_a_huge_hostile_text_takes_time_linear_in_its_length(text: str) -> None:
    """Four times as long takes less than ten times as much; what were quadratic would take sixteen."""
    assert ALL.text(ALL.text(text)) == ALL.text(text)
    short, long = (min(_seconds(text[:length]) for _ in range(2)) for length in (HUGE // 4, HUGE))
    assert long < max(0.2, 10 * short)


def _seconds(text: str) -> float:
    begun = time.thread_time()
    ALL.text(text)
    return time.thread_time() - begun


def test_a_text_made_to_bring_up_hits_again_and_again_is_hidden_whole() -> None:
    """The search ends, and nothing is let through for it."""
    domain = "@" + "long." * 30 + "example"

    def nested(depth: int) -> str:
        return '"' * depth + "a" + domain + ('"' + domain) * depth

    assert ALL.text(nested(2)) == "[EMAIL]"
    assert ALL.text(nested(20)) == FILTERED
