"""Laws of the policy: what a file may say, what becomes of each column, and that nothing is clear by accident."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from chronicle.errors import ConfigError
from chronicle.policy.file import ALL_CLEAR, Policy, parse
from chronicle.policy.patterns import Glob, TablePattern
from chronicle.policy.rules import (
    CLEAR,
    REDACTED,
    Class,
    Enrich,
    Images,
    Label,
    OnBreak,
    Route,
    RowActor,
    TablePolicy,
    Treatment,
    ValueRule,
)

TOKEN = Treatment(Class.TOKEN)
DROP = Treatment(Class.DROP)


def customers(text: str, columns: Sequence[str] = ("id", "email", "name"), key: Sequence[str] = ("id",)) -> TablePolicy:
    """What a policy says about `shop.public.customers`."""
    return parse(text).table("shop", "public", "customers", columns, key)


def block(match: str, body: str) -> str:
    return f'[[tables]]\nmatch = "{match}"\n{body}\n'


def treatments(policy: TablePolicy) -> dict[str, Treatment]:
    return {name: column.treatment for name, column in policy.columns.items()}


def test_without_any_rule_columns_are_redacted_and_keys_are_tokens() -> None:
    """Fail closed; and the policy says which columns nobody classified."""
    policy = customers("")
    assert treatments(policy) == {"id": TOKEN, "email": REDACTED, "name": REDACTED}
    assert policy.unclassified == ("id", "email", "name")
    assert {column.origin for column in policy.columns.values()} == {"unclassified", "unclassified (a key: token)"}
    assert not policy.refuse


@pytest.mark.parametrize(("word", "treatment", "refuse"), [("drop", DROP, False), ("deadletter", REDACTED, True)])
def test_the_defaults_say_what_becomes_of_unclassified_columns(word: str, treatment: Treatment, refuse: bool) -> None:
    """`drop` leaves them out, `deadletter` holds the table's records back; neither lets them pass."""
    policy = customers(f'[defaults]\nunclassified = "{word}"\n' + block("shop.**", 'columns = { id = "clear" }'))
    assert policy.columns["email"].treatment == treatment
    assert policy.refuse is refuse
    complete = f'[defaults]\nunclassified = "{word}"\n' + block("shop.**", 'columns = { "*" = "clear" }')
    assert not customers(complete).refuse


def test_the_more_specific_block_wins_wherever_it_stands() -> None:
    """From everything to one table."""
    blocks = [
        block("**", 'columns = { email = "drop" }'),
        block("shop.**", 'columns = { email = "mask" }'),
        block("shop.public.*", 'columns = { email = "encrypt" }'),
        block("shop.public.c*", 'columns = { email = "token" }'),
        block("shop.public.customers", 'columns = { email = "clear" }'),
    ]
    expected = [Class.DROP, Class.MASK, Class.ENCRYPT, Class.TOKEN, Class.CLEAR]
    for count in range(1, len(blocks) + 1):
        for order in (blocks[:count], blocks[:count][::-1]):
            assert customers("".join(order)).columns["email"].treatment.kind is expected[count - 1]


def test_an_exact_column_goes_before_a_pattern_and_a_longer_pattern_before_a_shorter() -> None:
    """An exact name in a general block is not undone by a pattern in a specific one."""
    text = block("**", 'columns = { email = "mask" }') + block(
        "shop.public.customers", 'columns = { "*" = "clear", "n*" = "drop", "na*" = "redact", id = "clear" }'
    )
    policy = customers(text, ("id", "email", "name", "note", "tier"))
    kinds = {name: one.kind for name, one in treatments(policy).items()}
    assert kinds == {
        "id": Class.CLEAR,
        "email": Class.MASK,
        "name": Class.REDACT,
        "note": Class.DROP,
        "tier": Class.CLEAR,
    }
    assert policy.columns["email"].origin == "**: email"
    assert policy.columns["name"].origin == "shop.public.customers: na*"


def test_rules_that_contradict_each_other_redact_in_any_order() -> None:
    """Two blocks about the same tables, or two patterns of one length; agreement is no contradiction."""
    one, other = block("shop.**", 'columns = { email = "clear" }'), block("shop.**", 'columns = { email = "mask" }')
    for text in (one + other, other + one):
        column = customers(text).columns["email"]
        assert column.treatment == REDACTED
        assert column.origin.startswith("contradiction: shop.*.*: email")
    patterns = customers(block("**", 'columns = { "e*" = "clear", "*l" = "drop" }'))
    assert patterns.columns["email"].treatment == REDACTED
    assert customers(one + one).columns["email"].treatment == CLEAR


def test_a_secret_name_is_redacted_unless_it_is_named_itself() -> None:
    """No pattern reaches it."""
    columns = ("id", "password", "api_token")
    patterns = customers(block("**", 'columns = { "*" = "clear", "*password" = "clear", "api*" = "mask" }'), columns)
    assert patterns.columns["password"].treatment == REDACTED
    assert patterns.columns["api_token"].treatment == REDACTED
    assert patterns.columns["password"].origin == "secret name"
    assert patterns.unclassified == ()
    named = customers(block("**", 'columns = { "*" = "clear", password = "drop", api_token = "clear" }'), columns)
    assert named.columns["password"].treatment == DROP
    assert named.columns["api_token"].treatment == CLEAR


@pytest.mark.parametrize("kind", ["drop", "redact", "mask", "encrypt"])
def test_a_key_that_is_named_can_only_be_clear_or_token(kind: str) -> None:
    """Otherwise rows could not be told apart; the message names table, column and rule."""
    text = block("shop.**", f'columns = {{ id = "{kind}" }}')
    with pytest.raises(ConfigError, match=rf"shop\.public\.customers clear \(without scan\) or token: id \(class {kind}"):
        customers(text)
    assert customers(text, key=()).columns["id"].treatment.kind == kind


def test_a_key_that_a_pattern_hides_becomes_a_token() -> None:
    """Hidden all the same, and still a key; a scanned key would be clear."""
    for value in ('"redact"', '{ class = "clear", scan = ["email"] }'):
        policy = customers(block("**", f'columns = {{ "*" = {value} }}'))
        assert policy.columns["id"].treatment == TOKEN
    secret = customers(block("**", 'columns = { "*" = "clear" }'), ("card_number",), ("card_number",))
    assert secret.columns["card_number"].treatment == TOKEN


def test_a_key_column_that_the_row_lacks_has_a_policy_too() -> None:
    """Keys are read by their own schema."""
    policy = customers(block("**", 'columns = { a = "clear" }'), ("a",), ("k",))
    assert treatments(policy) == {"a": CLEAR, "k": TOKEN}
    assert policy.key_columns == ("k",)


FULL = """
[defaults]
ignore = ["updated_at", "created_at"]
images = "changed"
[[tables]]
match = "**"
columns = { "*" = "clear" }
where = "name != 'draft'"
sample = 0.1
where_deletes = true
contract = "warn"
actor = { column = "updated_by" }
[[tables.label]]
columns = ["email", "na*", "absent"]
as = "identity_change"
[[tables.label]]
columns = ["absent"]
as = "never"
[[tables.rule]]
column = "email"
not_null = true
matches = "@"
[[tables.rule]]
column = "name"
length = 40
on_break = "flag"
[[tables.enrich]]
column = "id"
entity = "customer:{}"
into = "customer"
"""
COLUMNS = ("id", "email", "name", "updated_by", "created_at")


def test_a_table_inherits_what_general_blocks_say() -> None:
    """And nothing about columns that it does not have."""
    policy = customers(FULL, COLUMNS)
    assert policy.ignore == {"created_at"}
    assert (policy.images, policy.contract) == (Images.CHANGED, OnBreak.WARN)
    assert (policy.where, policy.where_deletes, policy.sample) == ("name != 'draft'", True, 0.1)
    assert policy.labels == (Label(("email", "name"), "identity_change"),)
    assert policy.rules == (
        ValueRule("email", "matches", ("@",)),
        ValueRule("email", "not_null"),
        ValueRule("name", "length", (0, 40), OnBreak.FLAG),
    )
    assert policy.enrich == (Enrich("id", "customer:{}", "customer"),)
    assert policy.actor == RowActor("updated_by", "user")
    assert not policy.skip
    bare = customers(FULL, ("x",), ())
    assert (bare.labels, bare.rules, bare.enrich, bare.actor, bare.ignore) == ((), (), (), None, frozenset())


def test_what_is_inherited_can_be_switched_off_again() -> None:
    """Everything a general block says, by a more specific one that stands before it."""
    off = """
ignore = []
where = ""
sample = 1
where_deletes = false
contract = "deadletter"
actor = false
images = "full"
label = [{ as = "identity_change", off = true }]
rule = [{ column = "email", off = true }, { column = "name", rule = "length", off = true }]
enrich = [{ into = "customer", off = true }]
"""
    policy = customers(block("shop.**", off) + FULL.replace("[defaults]", "[defaults]", 1), COLUMNS)
    plain = customers(block("**", 'columns = { "*" = "clear" }\nignore = []'), COLUMNS)
    assert policy == plain


def test_what_is_inherited_can_be_extended() -> None:
    """Labels and ignored columns grow; a rule and an enrichment of the same name are replaced."""
    more = """
ignore = { add = ["n*"], remove = ["created_at"] }
label = [{ as = "identity_change", columns = ["id"] }, { as = "other", columns = ["name"] }]
rule = [{ column = "email", matches = "^.+@", on_break = "flag" }]
enrich = [{ into = "customer", column = "email", entity = "person:{}" }]
"""
    policy = customers(FULL + block("shop.**", more), COLUMNS)
    assert policy.ignore == {"name"}
    assert policy.labels == (Label(("id", "email", "name"), "identity_change"), Label(("name",), "other"))
    assert ValueRule("email", "matches", ("^.+@",), OnBreak.FLAG) in policy.rules
    assert len(policy.rules) == 3
    assert policy.enrich == (Enrich("email", "person:{}", "customer"),)


def test_a_skipped_table_can_be_taken_back() -> None:
    """`skip = false` in a more specific block."""
    text = block("shop.**", "skip = true")
    assert customers(text).skip
    assert not customers(text + block("shop.public.customers", "skip = false")).skip


def test_every_class_has_its_options() -> None:
    """As written, so treated."""
    text = block(
        "**",
        """
[tables.columns]
a = { class = "mask", keep = 2 }
b = { class = "token", domain = "person" }
c = { class = "generalize", to = "net:24/48" }
d = { class = "clear", scan = ["ip", "email"] }
e = "encrypt"
f = { class = "clear" }
""",
    )
    policy = customers(f'[domains.person]\nkey = "k1"\n{text}', "abcdef", ())
    assert list(treatments(policy).values()) == [
        Treatment(Class.MASK, keep=2),
        Treatment(Class.TOKEN, domain="person"),
        Treatment(Class.GENERALIZE, to="net:24/48"),
        Treatment(Class.CLEAR, scan=("email", "ip")),
        Treatment(Class.ENCRYPT),
        CLEAR,
    ]


def test_context_domains_routes_and_encryption_are_read() -> None:
    """What is not about one table."""
    policy = parse(
        """
[domains.person]
key = "token-2026"
[encryption]
key = "enc-1"
[context]
ip = { class = "generalize", to = "net:24" }
actor_name = "drop"
[[routes]]
name = "recruitment"
match = ["hiring.*.applications.#", "#.delete"]
to = "chronicle.recruitment"
dead_letters = "chronicle.recruitment.dead-letters"
format = "json"
where = "stage = 'hired'"
sample = 0.5
"""
    )
    assert policy.domains == {"person": "token-2026"}
    assert policy.encrypt_key == "enc-1"
    assert policy.context == {"ip": Treatment(Class.GENERALIZE, to="net:24"), "actor_name": DROP}
    assert policy.routes == (
        Route(
            "recruitment",
            ("#.delete", "hiring.*.applications.#"),
            "chronicle.recruitment",
            "chronicle.recruitment.dead-letters",
            where="stage = 'hired'",
            sample=0.5,
        ),
    )


@pytest.mark.parametrize(
    ("text", "matching", "other"),
    [
        ("**", ("a", "b", "c"), None),
        ("shop.**", ("shop", "x", "y"), ("shopping", "x", "y")),
        ("**.customers", ("a", "b", "customers"), ("a", "customers", "b")),
        ("shop.*.c*s", ("shop", "p", "customers"), ("shop", "p", "customer")),
        ('shop.public."a.b"', ("shop", "public", "a.b"), ("shop", "public", "a")),
        ('shop.public."odd täble"', ("shop", "public", "odd täble"), ("shop", "public", "odd table")),
    ],
)
def test_a_pattern_means_what_it_says(text: str, matching: tuple[str, str, str], other: tuple[str, str, str] | None) -> None:
    """Names are whole; a wildcard stays in its part."""
    pattern = TablePattern.parse(text)
    assert pattern.matches(*matching)
    assert other is None or not pattern.matches(*other)


@pytest.mark.parametrize("text", ["", "shop", "a.b", "a.b.c.d", "a..c", ".a.b", "a.b.", "**.**", "a**.b.c", 'a."b.c'])
def test_what_is_no_pattern_is_refused(text: str) -> None:
    """A block that means no table by mistake would leave its columns redacted, and its owner puzzled."""
    with pytest.raises(ValueError, match="write"):
        TablePattern.parse(text)


def test_a_name_with_wildcards_in_it_is_matched_literally() -> None:
    """What regular expressions take for more than it is, is taken for itself."""
    assert Glob("a+*").matches("a+b")
    assert not Glob("a+*").matches("aab")
    assert Glob("*").matches("line\nbreak")


@pytest.mark.parametrize(
    "change",
    [
        ('"email"', '"mail"'),
        ('"clear"', '"redact"'),
        ("keep = 2", "keep = 3"),
        ('key = "k1"', 'key = "k2"'),
        ('match = "**"', 'match = "shop.**"'),
        ("sample = 0.1", "sample = 0.2"),
        ('to = "t"', 'to = "u"'),
        ("ip =", "session ="),
        ("between = [1, 2]", "between = [1, 3]"),
        ('as = "l"', 'as = "m"'),
    ],
)
def test_a_change_of_meaning_changes_the_hash(change: tuple[str, str]) -> None:
    """Rows carry it: two meanings under one hash would be told apart by nobody."""
    text = """
domains.person.key = "k1"
context = { ip = "drop" }
routes = [{ name = "r", match = "#", to = "t" }]
[[tables]]
match = "**"
sample = 0.1
columns = { "email" = "clear", name = { class = "mask", keep = 2 } }
rule = [{ column = "id", between = [1, 2] }]
label = [{ columns = ["email"], as = "l" }]
"""
    assert change[0] in text
    before = parse(text).hash
    assert len(before) == 16
    assert int(before, 16) >= 0
    assert parse(text.replace(*change)).hash != before


def test_blocks_about_the_same_tables_apply_in_the_files_order() -> None:
    """There the order has a meaning, and so the hash has."""
    one, other = block("shop.**", 'images = "none"'), block("shop.**", 'images = "changed"')
    assert customers(one + other).images is Images.CHANGED
    assert customers(other + one).images is Images.NONE
    assert parse(one + other).hash != parse(other + one).hash


def test_all_clear_shows_everything_but_secrets() -> None:
    """For tests: nothing is ignored, keys stay, secret names are redacted."""
    policy: Policy = ALL_CLEAR
    table = policy.table("a", "b", "c", ("id", "created_at", "ssn"), ("id",))
    assert treatments(table) == {"id": CLEAR, "created_at": CLEAR, "ssn": REDACTED}
    assert table.ignore == frozenset()


@pytest.mark.timeout(60)
def test_a_thousand_blocks_are_read_and_resolved_in_a_moment() -> None:
    """A policy of a large shop."""
    text = "".join(block(f"shop.public.t{n}", 'columns = { id = "clear", email = "mask" }') for n in range(1000))
    policy = parse(text)
    assert policy.table("shop", "public", "t999", ("id", "email"), ("id",)).unclassified == ()
