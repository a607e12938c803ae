"""Laws of `policy check` and `policy init`: what is wrong is found, and what is proposed is complete and hides in doubt."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronicle.policy.check import Finding, Level, findings
from chronicle.policy.file import parse
from chronicle.policy.keyring import EMPTY
from chronicle.policy.names import looks_secret
from chronicle.policy.proposal import proposal, proposed
from chronicle.policy.rules import Class, TablePolicy, Treatment
from chronicle.policy.tables import Kind, SeenColumn, SeenTable

ROOT = Path(__file__).parents[2]
CUSTOMERS = SeenTable("shop", "public", "customers", (SeenColumn("id", Kind.NUMBER), SeenColumn("email")), ("id",))
ORDERS = SeenTable("shop", "public", "orders", (SeenColumn("id", Kind.NUMBER), SeenColumn("status")), ("id",))
GOOD = '[[tables]]\nmatch = "shop.**"\ncolumns = { id = "clear", email = "mask", status = "clear" }\n'


def found(text: str) -> list[Finding]:
    return findings(parse(text), [CUSTOMERS, ORDERS])


def test_a_complete_policy_has_no_findings() -> None:
    """Columns that only some of a block's tables have are fine."""
    assert found(GOOD) == []


@pytest.mark.parametrize(
    ("text", "kind", "where", "fix"),
    [
        (GOOD.replace('email = "mask", ', ""), "unclassified", "shop.public.customers: email", "give it a class"),
        (GOOD.replace("id =", "idd ="), "no column", "line 1: shop.*.*: idd", "did you mean id?"),
        (GOOD.replace("shop.**", "shop.public.custmers") + GOOD, "no table", "line 1: shop.public.custmers", "customers?"),
        (GOOD + '[[tables]]\nmatch = "shop.**"\ncolumns = { email = "drop" }', "contradiction", "customers: email", "keep one"),
        (GOOD.replace('id = "clear"', 'id = "mask"'), "key", "shop.public.orders: id", "clear (without scan) or token"),
        (GOOD + "label = [{ columns = ['emial'], as = 'x' }]", "no column", "emial", "did you mean email?"),
        (GOOD + "enrich = [{ column = 'nosuch', entity = 'x:{}', into = 'x' }]", "no column", "nosuch", "take the rule out"),
        (GOOD + "rule = [{ column = 'stats', not_null = true }]", "no column", "stats", "did you mean status?"),
        (GOOD + "actor = { column = 'updated_by' }", "no column", "updated_by", "take the rule out"),
        (GOOD + "ignore = ['seen_at']", "no column", "seen_at", "take the rule out"),
        (GOOD + "label = [{ as = 'x', off = true }]", "nothing to switch off", "label x", "take it out"),
        (GOOD + "enrich = [{ into = 'x', off = true }]", "nothing to switch off", "enrich x", "take it out"),
        (GOOD + "rule = [{ column = 'status', rule = 'in', off = true }]", "nothing to switch off", "rule in of status", "out"),
    ],
)
def test_what_is_wrong_is_an_error_with_place_and_fix(text: str, kind: str, where: str, fix: str) -> None:
    """A CI stops there."""
    errors = [one for one in found(text) if one.kind == kind]
    assert errors
    assert {one.level for one in errors} == {Level.ERROR}
    assert any(where in f"{one.where} {one.what}" and fix in one.fix for one in errors)


def test_a_pattern_for_what_may_come_is_a_warning() -> None:
    """Nobody mistypes it into an exposure: what it does not name is redacted."""
    only = found(GOOD.replace("{ id", '{ "*_ip" = "drop", id'))
    assert [(one.level, one.kind) for one in only] == [(Level.WARNING, "no column")]


def test_a_clear_secret_and_a_hidden_key_are_warnings() -> None:
    """Both are allowed; both deserve a look."""
    table = SeenTable("s", "p", "t", (SeenColumn("pin"), SeenColumn("name")), ("name",))
    warned = findings(parse('[[tables]]\nmatch = "**"\ncolumns = { pin = "clear", "n*" = "mask" }'), [table])
    assert [(one.level, one.kind) for one in warned] == [(Level.WARNING, "secret"), (Level.WARNING, "key")]


def test_a_skipped_table_needs_classes_for_its_key_only() -> None:
    """Its stubs carry the key."""
    skipped = GOOD + '[[tables]]\nmatch = "shop.public.customers"\nskip = true\n'
    assert found(skipped.replace('email = "mask", ', "")) == []
    assert [one.where for one in found(skipped.replace('id = "clear", ', ""))] == [
        "shop.public.customers: id",
        "shop.public.orders: id",
    ]


def test_a_key_that_is_missing_is_an_error() -> None:
    """When the ring is asked for."""
    policy = parse(GOOD.replace('"mask"', '"encrypt"'))
    assert [one.kind for one in findings(policy, [CUSTOMERS, ORDERS], EMPTY)] == ["missing key"]
    assert findings(policy, [CUSTOMERS, ORDERS]) == []


def test_without_tables_every_block_means_nothing() -> None:
    """An empty registry is no success."""
    assert [one.kind for one in findings(parse(GOOD), [])] == ["no table"]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (SeenColumn("email"), Treatment(Class.TOKEN, domain="person")),
        (SeenColumn("contactEmail"), Treatment(Class.TOKEN, domain="person")),
        (SeenColumn("phone"), Treatment(Class.MASK, keep=2)),
        (SeenColumn("phone", Kind.NUMBER), Treatment(Class.REDACT)),
        (SeenColumn("born_on", Kind.DATE), Treatment(Class.GENERALIZE, to="year")),
        (SeenColumn("client_ip"), Treatment(Class.GENERALIZE, to="net:24/48")),
        (SeenColumn("salary", Kind.NUMBER), Treatment(Class.GENERALIZE, to="bucket:10000")),
        (SeenColumn("password_hash"), Treatment(Class.REDACT)),
        (SeenColumn("api_token", Kind.NUMBER), Treatment(Class.REDACT)),
        (SeenColumn("status"), Treatment(Class.CLEAR)),
        (SeenColumn("status_note"), Treatment(Class.REDACT)),
        (SeenColumn("total", Kind.NUMBER), Treatment(Class.CLEAR)),
        (SeenColumn("u", Kind.UUID), Treatment(Class.CLEAR)),
        (SeenColumn("doc", Kind.DOCUMENT), Treatment(Class.REDACT)),
        (SeenColumn("blob", Kind.BYTES), Treatment(Class.DROP)),
        (SeenColumn("spot", Kind.PLACE), Treatment(Class.REDACT)),
        (SeenColumn("whatever"), Treatment(Class.REDACT)),
    ],
)
def test_a_proposal_follows_from_name_and_kind(column: SeenColumn, expected: Treatment) -> None:
    """Text that nothing is known of is hidden."""
    assert proposed(column)[0] == expected


COLUMNS = st.lists(
    st.builds(
        SeenColumn,
        st.one_of(st.text(max_size=12), st.sampled_from(["id", "email", "name", "ssn", "*", "a*b", 'q"', "a.b", "note", "ip"])),
        st.sampled_from(Kind),
    ),
    max_size=6,
    unique_by=lambda one: one.name,
)


@given(COLUMNS, st.integers(0, 3))
def test_a_proposal_is_a_policy_that_classifies_everything_and_clears_no_secret(columns: list[SeenColumn], keys: int) -> None:
    """Whatever names a database has. A name with a wildcard in it cannot be written: it stays redacted."""
    usable = tuple(one for one in columns if one.name)
    key = tuple(one.name for one in usable[:keys])
    policy = parse(proposal([SeenTable("shop", "pu.blic", "t", usable, key)]))
    resolved = policy.table("shop", "pu.blic", "t", [one.name for one in usable], key)
    assert set(resolved.unclassified) == {one.name for one in usable if "*" in one.name and not looks_secret(one.name)}
    for name, column in resolved.columns.items():
        if looks_secret(name) or "*" in name:
            assert column.treatment.kind in (Class.REDACT, Class.TOKEN)


def demo_tables() -> list[SeenTable]:
    """The tables of the demo's two databases, out of their DDL."""
    tables = []
    for source, schema, file in (("shop", "public", "demo_shop.sql"), ("hiring", "hiring", "demo_hiring.sql")):
        text = (ROOT / "pipeline" / "chronicle" / "dev" / file).read_text(encoding="utf-8")
        text = "\n".join(line.partition("--")[0] for line in text.splitlines())
        for table, body in re.findall(r"CREATE TABLE (\w+) \((.*?)\n\)", text, re.DOTALL):
            if table.startswith("chronicle_"):
                continue
            columns = [SeenColumn(name) for name in re.findall(r"^    ([a-z_]+) ", body, re.MULTILINE)]
            named = re.search(r"PRIMARY KEY \(([^)]+)\)", body)
            key = named[1].split(", ") if named else re.findall(r"^    (\w+) .*PRIMARY KEY", body, re.MULTILINE)
            tables.append(SeenTable(source, schema, table, tuple(columns), tuple(key)))
    return tables


def demo(name: str) -> TablePolicy:
    policy = parse((ROOT / "policy.toml").read_text(encoding="utf-8"))
    table = next(one for one in demo_tables() if one.name == name)
    return policy.table(*table.parts, table.names, table.key)


def test_the_demos_policy_is_complete() -> None:
    """No finding of any kind for the tables of both databases."""
    tables = demo_tables()
    assert [one.name for one in tables] == [
        *(f"shop.public.{name}" for name in ("customers", "orders", "order_items")),
        *(f"hiring.hiring.{name}" for name in ("campaigns", "candidates", "applications")),
    ]
    assert all(one.key for one in tables)
    assert findings(parse((ROOT / "policy.toml").read_text(encoding="utf-8")), tables) == []


def test_the_demos_policy_shows_each_kind_of_rule() -> None:
    """What the demo is to show; the same address has the same token in both databases."""
    customers, orders, candidates = (
        demo(f"{name}") for name in ("shop.public.customers", "shop.public.orders", "hiring.hiring.candidates")
    )
    assert (
        customers.columns["email"].treatment == candidates.columns["email"].treatment == Treatment(Class.TOKEN, domain="person")
    )
    kinds = {one.treatment.kind for each in (customers, orders, candidates) for one in each.columns.values()}
    assert kinds == set(Class)
    assert [label.name for label in customers.labels] == ["identity_change"]
    assert "note" in orders.ignore
    assert orders.enrich
    assert customers.rules
    assert candidates.columns["api_token"].origin == "secret name"
