"""What a policy makes of changes on the pure path: classes, stubs, labels, images, actors; and that nothing hidden leaves."""

from __future__ import annotations

import json
from dataclasses import replace
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from chronicle.codec.contract import Contract
from chronicle.model.batch import Batch
from chronicle.model.chunk import SourceSpec
from chronicle.model.dead_letters import Reason, Stage
from chronicle.policy.file import ALL_CLEAR, Policy, parse
from chronicle.policy.keyring import KeyRing
from chronicle.stages.ciphers import opened
from chronicle.stages.path import Path
from chronicle.testing import IDENTITY_KEY, Record, chunks, rules
from tests.unit.envelopes import Table

TEXT = ["null", "string"]
PEOPLE = Table(
    [
        *(("id", "long"), ("email", TEXT), ("name", TEXT), ("phone", TEXT), ("note", TEXT), ("salary", ["null", "long"])),
        *(("status", TEXT), ("updated_at", TEXT), ("updated_by", TEXT)),
    ],
    name="people",
    schema_id=700,
)
BY_EMAIL = Table([("email", "string"), ("v", TEXT)], key=("email",), name="logins", schema_id=710)
SHOP = SourceSpec("shop", "postgresql", full_identity=None)
RING = KeyRing.parse(
    """
[keys.people]
purpose = "token"
secret = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
created = 2026-11-01
[keys.vault]
purpose = "encrypt"
secret = "1f1e1d1c1b1a191817161514131211100f0e0d0c0b0a09080706050403020100"
created = 2026-11-01
"""
)
HEAD = """
[domains.people]
key = "people"
"""
_COLUMNS = (
    'id = "clear", status = "clear", updated_at = "clear", v = "clear", email = { class = "token", domain = "people" }, '
    'name = { class = "mask", keep = 2 }, phone = "drop", note = "encrypt", '
    'salary = { class = "generalize", to = "bucket:1000" }'
)
CLASSES = f'[[tables]]\nmatch = "shop.public.*"\ncolumns = {{ {_COLUMNS} }}\n'
ROW = {
    **{"id": 7, "email": "ada@example.com", "name": "Ada Lovelace", "phone": "+44 20 7946 0018", "note": "met in Turin"},
    **{"salary": 12_345, "status": "open", "updated_at": "1", "updated_by": "ben"},
}
HIDDEN = ("ada@example.com", "Ada Lovelace", "Lovela", "7946", "Turin", "12345", "ben")


def process(policy: Policy, *records: Record) -> Batch:
    path = Path([SHOP], IDENTITY_KEY, rules(policy, ring=RING))
    return path.run(chunks(records), PEOPLE.schemas | BY_EMAIL.schemas, 1)


def everything(batch: Batch) -> str:
    frames = [batch.changes, batch.transactions, *(table.frame for table in batch.tables)]
    return "\n".join([*(str(frame.to_dicts()) for frame in frames), str(batch.warnings), str(batch.left_out)])


def policy(text: str, head: str = HEAD) -> Policy:
    return parse(head + text)


def test_each_class_is_applied_in_every_place() -> None:
    """Images, key and mirror; `changed` still names the column, a dropped one too."""
    new = ROW | {"email": "b@example.com", "phone": "1", "note": None}
    batch = process(policy(CLASSES), PEOPLE.change("u", before=ROW, after=new))
    (change,) = batch.changes.to_dicts()
    before, after = json.loads(change["before"]), json.loads(change["after"])
    assert before | {"email": "", "note": ""} == {
        **{"id": 7, "status": "open", "updated_at": "1", "updated_by": "[FILTERED]"},
        **{"email": "", "name": "****ce", "note": "", "salary": 12_000},
    }
    assert before["email"].startswith("t1.") and after["email"].startswith("t1.") and before["email"] != after["email"]
    assert before["note"].startswith("e1.vault.") and after["note"] is None
    assert change["changed"] == ["email", "phone", "note"]
    assert change["policy"] == policy(CLASSES).hash
    (mirror,) = batch.tables
    assert [(column.name, column.clickhouse_type, column.how) for column in mirror.columns] == [
        ("id", "Int64", ""),
        ("email", "Nullable(String)", "token people"),
        ("name", "Nullable(String)", "mask 2"),
        ("note", "Nullable(String)", "encrypt"),
        ("salary", "Nullable(Int64)", "generalize bucket:1000"),
        ("status", "Nullable(String)", ""),
        ("updated_at", "Nullable(String)", ""),
    ]
    (row,) = mirror.frame.to_dicts()
    assert (row["email"], row["name"], row["note"], row["salary"]) == (after["email"], "****ce", None, 12_000)
    assert batch.unclassified == {"shop.public.people": 1}
    assert not any(one in everything(batch) for one in HIDDEN)


def test_a_ciphertext_opens_in_its_place_and_stands_in_the_mirror_too() -> None:
    """The same change gives the same bytes; the mirror has the new row's."""
    records = (PEOPLE.change("c", after=ROW), PEOPLE.change("c", after=ROW | {"id": 8, "note": "b"}, order=2))
    batch, again = process(policy(CLASSES), *records), process(policy(CLASSES), *records)
    assert batch.changes.equals(again.changes)
    first, second = batch.changes.to_dicts()
    for change, clear in ((first, "met in Turin"), (second, "b")):
        text = json.loads(change["after"])["note"]
        place = {"table": "shop.public.people", "column": "note", "image": "after", "event_id": change["event_id"]}
        assert opened(text, RING, **place) == clear
    assert batch.tables[0].frame["note"].to_list() == [json.loads(one["after"])["note"] for one in (first, second)]
    assert UUID(bytes=first["event_id"]) != UUID(bytes=second["event_id"])


def test_a_key_is_tokenised_and_its_entity_stays() -> None:
    """A policy never renames a row; the mirror's key is the token."""
    record = BY_EMAIL.change("c", after={"email": "ada@example.com", "v": "x"})
    hidden, clear = process(policy(CLASSES), record), process(ALL_CLEAR, record)
    assert hidden.changes["entity"].to_list() == clear.changes["entity"].to_list()
    assert hidden.changes["event_id"].to_list() == clear.changes["event_id"].to_list()
    token = json.loads(hidden.changes["key"][0])["email"]
    assert token.startswith("t1.")
    assert hidden.tables[0].frame["email"].to_list() == [token]
    assert json.loads(clear.changes["key"][0]) == {"email": "ada@example.com"}


def test_without_a_rule_nothing_passes() -> None:
    """An empty policy redacts every column, and makes a token of the key."""
    batch = process(parse(""), PEOPLE.change("c", after=ROW))
    (change,) = batch.changes.to_dicts()
    after = json.loads(change["after"])
    assert after.pop("id").startswith("t1.")
    assert set(after.values()) == {"[FILTERED]"}
    assert batch.unclassified == {"shop.public.people": len(ROW)}
    assert not any(one in everything(batch) for one in HIDDEN)


def test_an_unclassified_column_can_refuse_its_records() -> None:
    """`unclassified = "deadletter"`: they wait with their bytes until the column has a class."""
    batch = process(parse('[defaults]\nunclassified = "deadletter"\n'), PEOPLE.change("c", after=ROW))
    (letter,) = batch.dead_letters
    assert (letter.stage, letter.reason) == (Stage.SANITIZE, Reason.UNCLASSIFIED)
    assert "email" in letter.detail and len(batch.changes) == 0


def test_an_update_of_ignored_columns_alone_is_a_stub() -> None:
    """Without images, so that counts close; the mirror follows all the same, and ignored columns are not in `changed`."""
    touched = ROW | {"updated_at": "2"}
    batch = process(
        policy(CLASSES),
        PEOPLE.change("u", before=ROW, after=touched),
        PEOPLE.change("u", before=touched, after=touched | {"status": "won", "updated_at": "3"}, order=2),
    )
    first, second = batch.changes.to_dicts()
    assert (first["stub"], first["before"], first["after"], first["changed"]) == ("ignored", None, None, [])
    assert (second["stub"], second["changed"]) == ("", ["status"])
    assert batch.tables[0].frame["updated_at"].to_list() == ["2", "3"]


def test_a_skipped_table_leaves_stubs_only() -> None:
    """No image, no mirror."""
    batch = process(policy('[[tables]]\nmatch = "shop.public.people"\nskip = true\n'), PEOPLE.change("c", after=ROW))
    assert batch.changes["stub"].to_list() == ["skipped"]
    assert batch.changes["after"].to_list() == [None] and batch.tables == ()


def test_a_row_outside_the_filter_is_a_stub_and_gone_from_the_mirror() -> None:
    """A mirror holds the rows for which the filter is true; deletes are told whatever it says."""
    text = CLASSES + "where = \"status != 'draft'\"\n"
    draft = ROW | {"status": "draft"}
    batch = process(
        policy(text),
        PEOPLE.change("c", after=draft),
        PEOPLE.change("u", before=draft, after=ROW, order=2),
        PEOPLE.change("u", before=ROW, after=ROW | {"status": None}, order=3),
        PEOPLE.change("d", before=draft, order=4),
    )
    assert batch.changes["stub"].to_list() == ["filtered", "", "filtered", ""]
    assert batch.tables[0].frame.select("status", "_deleted").rows() == [(None, 1), ("open", 0), (None, 1), (None, 1)]


def test_sampling_keeps_a_row_whole_or_not_at_all() -> None:
    """By entity: every change of a row has one fate, and about the share is kept."""
    text = CLASSES + "sample = 0.5\n"
    records = [PEOPLE.change("c", after=ROW | {"id": number}, order=2 * number + at) for number in range(200) for at in (1, 2)]
    stubs = process(policy(text), *records).changes["stub"].to_list()
    assert stubs[::2] == stubs[1::2]
    assert 50 < stubs.count("") // 2 < 150
    assert set(stubs) == {"", "sampled"}


def test_labels_name_what_a_change_means() -> None:
    """Creates, deletes, and updates that touch one of the columns; several may apply."""
    text = CLASSES + (
        '[[tables.label]]\ncolumns = ["email", "name"]\nas = "identity_change"\n'
        '[[tables.label]]\ncolumns = ["salary"]\nas = "pay"\n'
    )
    batch = process(
        policy(text),
        PEOPLE.change("c", after=ROW),
        PEOPLE.change("u", before=ROW, after=ROW | {"name": "A"}, order=2),
        PEOPLE.change("u", before=ROW, after=ROW | {"status": "x"}, order=3),
        PEOPLE.change("r", after=ROW, order=4),
    )
    assert batch.changes["labels"].to_list() == [["identity_change", "pay"], ["identity_change"], [], []]


def test_images_keep_what_the_policy_wants() -> None:
    """`changed`: key and changed columns of an update; `none`: nothing but the last row of a delete."""
    update, delete = PEOPLE.change("u", before=ROW, after=ROW | {"status": "x"}), PEOPLE.change("d", before=ROW, order=2)
    changed = process(policy(CLASSES + 'images = "changed"\n'), update, delete).changes
    assert json.loads(changed["before"][0]) == {"id": 7, "status": "open"}
    assert json.loads(changed["after"][0]) == {"id": 7, "status": "x"}
    assert json.loads(changed["before"][1])["name"] == "****ce"
    none = process(policy(CLASSES + 'images = "none"\n'), update, delete).changes
    assert (none["before"][0], none["after"][0]) == (None, None) and none["stub"].to_list() == ["", ""]
    assert json.loads(none["before"][1])["name"] == "****ce"
    bare = process(policy(CLASSES + 'images = "changed"\nsnapshot_on_delete = false\n'), update, delete).changes
    assert json.loads(bare["before"][1]) == {"id": 7}


def test_the_row_may_say_who_did_it() -> None:
    """The lowest rung; as the policy writes that column, and never for a snapshot."""
    text = CLASSES + 'actor = { column = "updated_by", type = "employee" }\n'
    clear = text.replace('status = "clear"', 'status = "clear", updated_by = "clear"')
    records = (PEOPLE.change("c", after=ROW), PEOPLE.change("r", after=ROW, order=2))
    fields = ("attribution", "actor_id", "actor_type")
    assert process(policy(clear), *records).changes.select(fields).rows() == [("row", "ben", "employee"), ("none", None, None)]
    assert process(policy(text), *records).changes.select(fields).rows()[0] == ("row", "[FILTERED]", "employee")


def test_who_a_row_names_is_hidden_as_contexts_hide_it_and_never_a_mark() -> None:
    """What `[context]` says of an actor's id holds on the lowest rung too; an encrypted column names nobody."""
    text = CLASSES.replace('status = "clear"', 'status = "clear", updated_by = "clear"')
    text += 'actor = { column = "updated_by" }\n[context]\nactor_id = "redact"\n'
    changes = process(policy(text), PEOPLE.change("c", after=ROW)).changes
    assert changes.select("attribution", "actor_id").rows() == [("row", "[FILTERED]")]
    text = CLASSES + 'actor = { column = "note" }\n'
    changes = process(policy(text), PEOPLE.change("c", after=ROW)).changes
    assert changes.select("attribution", "actor_id").rows() == [("none", None)]


def test_a_broken_value_rule_names_rule_and_column_only() -> None:
    """A dead letter, or a flag, as the rule says; its neighbours go through."""
    text = CLASSES + (
        '[[tables.rule]]\ncolumn = "status"\nin = ["open"]\n'
        '[[tables.rule]]\ncolumn = "salary"\nbetween = [0, 20000]\non_break = "flag"\n'
    )
    batch = process(
        policy(text),
        PEOPLE.change("c", after=ROW),
        PEOPLE.change("c", after=ROW | {"status": "lost-4711"}, order=2),
        PEOPLE.change("c", after=ROW | {"salary": 99_999}, order=3),
    )
    assert batch.changes["violations"].to_list() == [[], ["between:salary"]]
    (letter,) = batch.dead_letters
    assert letter.reason is Reason.RULE_BROKEN and "status" in letter.detail and "4711" not in letter.detail


def test_a_schema_that_breaks_its_contract_waits_or_warns() -> None:
    """Every record of that schema is a dead letter that names the column, or there is one warning, as the policy says."""
    promised = {
        "type": "record",
        "name": "people",
        "fields": [{"name": "id", "type": "long"}, {"name": "iban", "type": "string"}],
    }
    contracts = {"shop.public.people-value": Contract.parse(json.dumps(promised), name="shop.public.people-value.avsc")}
    for word, changes in (("deadletter", 0), ("warn", 1)):
        found = replace(rules(policy(CLASSES + f'contract = "{word}"\n'), ring=RING), contracts=contracts)
        batch = Path([SHOP], IDENTITY_KEY, found).run(chunks([PEOPLE.change("c", after=ROW)]), PEOPLE.schemas, 1)
        assert len(batch.changes) == changes
        text = " ".join([*batch.warnings, *(f"{one.reason}: {one.detail}" for one in batch.dead_letters)])
        assert "iban" in text and ("contract_broken" in text) == (changes == 0)


def test_a_policy_that_does_not_fit_the_schema_any_more_hides_or_refuses() -> None:
    """A class that makes no sense for a column's type redacts it; a filter over a column that is gone makes dead letters."""
    classes = CLASSES.replace('status = "clear"', 'status = { class = "generalize", to = "month" }')
    hidden = process(policy(classes), PEOPLE.change("c", after=ROW))
    assert json.loads(hidden.changes["after"][0])["status"] == "[FILTERED]"
    assert any("status" in warning for warning in hidden.warnings)
    refused = process(policy(CLASSES + "where = \"gone = 'x'\"\n"), PEOPLE.change("c", after=ROW))
    assert [letter.reason for letter in refused.dead_letters] == [Reason.RULE_BROKEN] and len(refused.changes) == 0


MARK = "Zq7Xk"
texts = st.text(min_size=0, max_size=20).map(lambda text: MARK + text + MARK)


@given(
    email=texts,
    name=texts,
    phone=texts,
    note=texts,
    actor=texts,
    salary=st.integers(10**12, 10**15).map(lambda number: number * 1000 + 731),
    op=st.sampled_from("cudr"),
)
def test_no_output_contains_a_protected_input(
    email: str, name: str, phone: str, note: str, actor: str, salary: int, op: str
) -> None:
    """Whatever the row: no frame, mirror, warning or dead letter's detail holds a value that the policy hides."""
    row = ROW | {"email": email, "name": name, "phone": phone, "note": note, "updated_by": actor, "salary": salary}
    text = CLASSES + 'actor = { column = "updated_by" }\nwhere = "salary > 5"\n'
    before, after = (row if op in "ud" else None), (row if op in "cur" else None)
    if op == "u":
        after = row | {"status": "x"}
    batch = process(policy(text), PEOPLE.change(op, before=before, after=after))
    seen = everything(batch) + str([letter.detail for letter in batch.dead_letters])
    assert len(batch.changes) == 1
    assert MARK not in seen and str(salary) not in seen
