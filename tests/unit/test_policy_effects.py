"""The same records under two policies: what looks different is counted, and no clear value is shown."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chronicle.model.chunk import SourceSpec
from chronicle.policy.file import ALL_CLEAR, Policy, parse
from chronicle.policy.keyring import EMPTY
from chronicle.policy.rules import Class
from chronicle.policy_replay import compare
from chronicle.stages.policy_effects import ABSENT, Comparison, shown_form
from chronicle.testing import IDENTITY_KEY, Record, chunks
from tests.unit.envelopes import Table

NULLABLE = ["null", "string"]
PEOPLE = Table([("id", "long"), ("email", NULLABLE), ("note", NULLABLE)], name="people")
SOURCES = [SourceSpec("shop", "postgresql", full_identity=None)]


class Known:
    """The schemas of these tests."""

    def resolve(self, ids: object) -> dict[int, str | None]:
        return dict(PEOPLE.schemas)


def policy(columns: str, more: str = "") -> Policy:
    return parse(f'[defaults]\nignore = []\n[[tables]]\nmatch = "**"\n{more}\ncolumns = {{ id = "clear", {columns} }}\n')


OPEN = policy('email = "clear", note = "clear"')


def compared(old: Policy, new: Policy, *records: Record) -> Comparison:
    return compare(
        (old, new),
        [chunks(records)],
        Known(),
        specs=SOURCES,
        ring=EMPTY,
        identity_key=IDENTITY_KEY,
        contracts={},
    )


def person(id_: int, email: str | None, note: str | None = "n") -> Record:
    return PEOPLE.change("c", after={"id": id_, "email": email, "note": note}, lsn=100 + id_)


def test_the_same_policy_looks_the_same() -> None:
    """Nothing is counted that does not differ."""
    found = compared(OPEN, OPEN, person(1, "ann@example.org"))
    assert not found
    assert (found.records, found.tables, found.dead_letters) == (1, {}, {})


def test_a_column_of_another_class_is_counted_by_change_and_shown_by_its_tail_at_most() -> None:
    """A NULL stays one and is no difference."""
    stricter = policy('email = "redact", note = "clear"')
    found = compared(OPEN, stricter, person(1, "ann@example.org"), person(2, None), person(3, "ab"))
    table = found.tables["shop.public.people"]
    assert table.changes == 3
    assert list(table.columns) == ["email"]
    effect = table.columns["email"]
    assert (effect.old, effect.new, effect.changes) == ("clear", "redact", 2)
    assert list(effect.samples) == [("…rg", "[FILTERED]"), ("…", "[FILTERED]")]


def test_two_hidden_forms_are_shown_as_they_are() -> None:
    """Both are meant to be seen."""
    found = compared(
        policy('email = { class = "mask", keep = 4 }, note = "clear"'),
        policy('email = "drop", note = "clear"'),
        person(1, "ann@example.org"),
    )
    [(old, new)] = found.tables["shop.public.people"].columns["email"].samples
    assert (old.endswith(".org"), "ann" in old, new) == (True, False, ABSENT)


def test_a_key_that_becomes_a_token_differs() -> None:
    """It stands in the key and in the images; the change is one."""
    found = compared(OPEN, parse('[[tables]]\nmatch = "**"\ncolumns = { "*" = "clear", id = "token" }\n'), person(1, "a"))
    effect = found.tables["shop.public.people"].columns["id"]
    assert effect.changes == 1
    [(old, new)] = effect.samples
    assert (old, new[:3]) == ("…", "t1.")


def test_what_is_left_out_or_dead_under_one_policy_is_told_by_rule() -> None:
    """Columns are not compared then: one side has none."""
    filtered = policy('email = "clear", note = "clear"', "where = \"note = 'n'\"")
    found = compared(OPEN, filtered, person(1, "a", "n"), person(2, "b", "other"))
    table = found.tables["shop.public.people"]
    assert (dict(table.stubs), table.columns) == ({("", "filtered"): 1}, {})
    refusing = parse('[defaults]\nunclassified = "deadletter"\n[[tables]]\nmatch = "**"\ncolumns = { id = "clear" }\n')
    found = compared(OPEN, refusing, person(1, "a"))
    assert found.tables == {}
    assert dict(found.dead_letters) == {("shop.public.people", "", "unclassified"): 1}
    assert found


def test_labels_that_differ_are_counted() -> None:
    """Both ways."""
    labelled = parse(
        '[[tables]]\nmatch = "**"\ncolumns = { "*" = "clear" }\n[[tables.label]]\ncolumns = ["email"]\nas = "identity"\n'
    )
    assert dict(compared(OPEN, labelled, person(1, "a")).tables["shop.public.people"].labels) == {("identity", "gained"): 1}
    assert dict(compared(labelled, OPEN, person(1, "a")).tables["shop.public.people"].labels) == {("identity", "lost"): 1}


@settings(max_examples=60)
@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), min_size=3, max_size=60))
def test_no_sample_holds_a_value_that_a_policy_hides(value: str) -> None:
    """Whichever of the two hides it, three characters of it in a row are nowhere."""
    hidden = policy('email = "token", note = "redact"')
    for old, new in ((ALL_CLEAR, hidden), (hidden, ALL_CLEAR)):
        table = compared(old, new, person(1, f"canary{value}canary", value)).tables["shop.public.people"]
        texts = [form for effect in table.columns.values() for sample in effect.samples for form in sample]
        clear = [text for text in texts if text.startswith("…")]
        assert len(clear) == 2
        assert all(len(text) <= 3 for text in clear)
        assert not any("canary" in text for text in texts)


@pytest.mark.parametrize("form", [True, False, 42, 12345, "ab", "abcde"])
def test_short_clear_forms_show_nothing(form: object) -> None:
    """Two characters of a truth value or a small number would be all of it."""
    assert shown_form(form, Class.CLEAR) == "…"
