"""What two policies say differently, without a record: named by table, column, class and rule."""

from __future__ import annotations

from chronicle.policy.differences import differences
from chronicle.policy.file import parse
from chronicle.policy.tables import SeenColumn, SeenTable

CUSTOMERS = SeenTable("shop", "public", "customers", (SeenColumn("id"), SeenColumn("email"), SeenColumn("note")), ("id",))
ORDERS = SeenTable("shop", "public", "orders", (SeenColumn("id"), SeenColumn("total")), ("id",))
OPEN = parse("""
[[tables]]
match = "shop.**"
columns = { "*" = "clear" }
""")


def test_a_policy_does_not_differ_from_itself_whatever_its_comments() -> None:
    """Equal meaning is no difference."""
    same = parse('# a comment\n[[tables]]\nmatch = "shop.**"\ncolumns = { "*" = "clear" }\n')
    found = differences(OPEN, same, [CUSTOMERS, ORDERS])
    assert not found
    assert found.as_json() == {"tables": (), "general": ()}


def test_a_column_of_another_class_is_named_with_both_rules() -> None:
    """And no other column or table."""
    stricter = parse("""
[[tables]]
match = "shop.**"
columns = { "*" = "clear" }
[[tables]]
match = "shop.public.customers"
columns = { email = { class = "mask", keep = 2 } }
""")
    found = differences(OPEN, stricter, [CUSTOMERS, ORDERS])
    [table] = found.tables
    [column] = table.columns
    assert (table.table, table.options, found.general) == ("shop.public.customers", (), ())
    assert (column.column, column.old, column.new) == ("email", "clear", "mask 2")
    assert (column.old_rule, column.new_rule) == ("shop.*.*: *", "shop.public.customers: email")


def test_what_holds_for_a_table_and_for_all_is_named_too() -> None:
    """Skipping, filters, labels and contexts change what is seen as much as classes do."""
    other = parse("""
[defaults]
unclassified = "drop"
[context]
ip = "redact"
[[tables]]
match = "shop.**"
columns = { "*" = "clear" }
[[tables]]
match = "shop.public.orders"
where = "total > 0"
[[tables.label]]
columns = ["total"]
as = "price_change"
""")
    found = differences(OPEN, other, [CUSTOMERS, ORDERS])
    [table] = found.tables
    assert table.columns == ()
    assert {one.what: (one.old, one.new) for one in table.options} == {
        "where": ("", "total > 0"),
        "label price_change": ("", "total"),
    }
    assert {one.what: (one.old, one.new) for one in found.general} == {
        "unclassified": ("redact", "drop"),
        "context ip": ("", "redact"),
    }
