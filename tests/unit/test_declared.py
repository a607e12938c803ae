"""What models declare becomes the policy's rules, for SQLAlchemy and Django, and nothing of it is lost on the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column, relationship

from chronicle import declared as module
from chronicle.declared import DeclarationRefused, Declarations, assert_journals_changes, audit_log, journal_changes
from chronicle.declared.models import Column
from chronicle.declared.rules import Rule, lacking, rules, written
from chronicle.policy.file import parse

NAMES = st.text(st.characters(exclude_characters='*"', exclude_categories=["C", "Z"]), min_size=1, max_size=20)


class Base(DeclarativeBase):
    pass


class Person(Base):
    __tablename__ = "people"
    __table_args__ = {"schema": "crm"}  # noqa: RUF012  # as SQLAlchemy has it
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    email: Mapped[str] = mapped_column("e_mail")
    shout = column_property(sa.func.upper(email))
    orders: Mapped[list[Order]] = relationship(back_populates="person")
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "person"}  # noqa: RUF012

    @hybrid_property
    def domain(self) -> str:
        return self.email.partition("@")[2]


class Manager(Person):
    __tablename__ = "managers"
    id: Mapped[int] = mapped_column(sa.ForeignKey("crm.people.id"), primary_key=True)
    level: Mapped[int]
    __mapper_args__ = {"polymorphic_identity": "manager"}  # noqa: RUF012


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    total: Mapped[int]
    touched_at: Mapped[int]
    person_id: Mapped[int] = mapped_column(sa.ForeignKey("crm.people.id"))
    person: Mapped[Person] = relationship(back_populates="orders")


LOG = sa.Table("log", sa.MetaData(), sa.Column("line", sa.Text, key="text"))


@pytest.fixture(autouse=True)
def declarations(monkeypatch: pytest.MonkeyPatch) -> Declarations:
    """Of this test alone."""
    fresh = Declarations()
    monkeypatch.setattr(module, "declared", fresh)
    return fresh


def found(declarations: Declarations) -> tuple[Rule, ...]:
    return rules(declarations, source="shop", schema="public")


def test_fields_become_columns_of_their_tables(declarations: Declarations) -> None:
    """An attribute may have another name than its column, a model another schema, a subclass a table of its own."""
    journal_changes(Person, "email", as_="identity_change")
    journal_changes(Manager, "level", "email", as_="promotion")
    journal_changes(LOG, "text", as_="said")
    audit_log(Order, ignore=["touched_at"])
    assert [(rule.match, dict(rule.labels), rule.ignored, rule.audited) for rule in found(declarations)] == [
        ("shop.crm.people", {"identity_change": ("e_mail",), "promotion": ("e_mail",)}, (), False),
        ("shop.public.log", {"said": ("line",)}, (), False),
        ("shop.public.managers", {"promotion": ("level",)}, (), False),
        ("shop.public.orders", {}, ("touched_at",), True),
    ]


def test_what_is_written_means_what_was_declared(declarations: Declarations) -> None:
    """The policy's own reader finds the labels, what is ignored, and no class of any column."""
    journal_changes(Person, "email", as_="identity_change")
    journal_changes(Person, "kind", as_="identity_change")
    audit_log(Person, ignore=["kind"])
    text = written(found(declarations), about="this")
    policy = parse(text)
    table = policy.table("shop", "crm", "people", ["id", "e_mail", "kind"], ["id"])
    assert [(label.name, set(label.columns)) for label in table.labels] == [("identity_change", {"e_mail", "kind"})]
    assert table.ignore == {"kind"}
    assert set(table.unclassified) == {"id", "e_mail", "kind"}
    assert list(lacking(policy, found(declarations))) == []
    assert text.startswith("# Made by `this`")


@given(
    st.lists(
        st.builds(
            Rule,
            st.just("shop"),
            NAMES,
            NAMES,
            st.dictionaries(NAMES, st.lists(NAMES, min_size=1, max_size=3, unique=True).map(tuple), max_size=3),
            st.lists(NAMES, max_size=3, unique=True).map(tuple),
            st.booleans(),
        ),
        max_size=4,
        unique_by=lambda rule: rule.match,
    )
)
def test_any_names_go_into_a_policy_and_are_found_there(made: list[Rule]) -> None:
    """Quotes, dots, brackets, hashes, other alphabets: whatever a database can call a table or a column."""
    text = written(made, about="x")
    assert list(lacking(parse(text), made)) == []
    assert len(list(lacking(parse(""), made))) >= sum(bool(rule.labels) or bool(rule.ignored) for rule in made)


def test_a_policy_that_lacks_something_is_told(declarations: Declarations) -> None:
    """One line each: a label's column, an ignored one, a table that a general rule skips."""
    journal_changes(Order, "total", "person_id", as_="money")
    audit_log(Order, ignore=["touched_at"])
    policy = parse(
        '[[tables]]\nmatch = "**"\nskip = true\n[[tables]]\nmatch = "shop.public.orders"\n'
        '[[tables.label]]\ncolumns = ["total"]\nas = "money"\n'
    )
    assert list(lacking(policy, found(declarations))) == [
        "shop.public.orders: is skipped, and its model says audit_log",
        "shop.public.orders: changes of person_id have no label money",
        "shop.public.orders: touched_at are not ignored",
    ]


@pytest.mark.parametrize(
    ("model", "fields", "message"),
    [
        (Person, ("e_mail",), "Person has no field 'e_mail' with a column; it has shout, id, kind, email"),
        (Person, ("domain",), "no field 'domain'"),
        (Person, ("orders",), "no field 'orders'"),
        (Person, ("shout",), "Person.shout is computed"),
        (Person, ("email", "nothing"), "no field 'nothing'"),
        (Person, (), "say which fields"),
        (LOG, ("line",), "log has no field 'line'"),
        (object(), ("a",), "an object without a table"),
        (Base, ("a",), "a class without a table"),
        (dict, ("a",), "a class without a table"),
        (sa.Table("t*", sa.MetaData(), sa.Column("a", sa.Text)), ("a",), r"a name with \* in it"),
    ],
)
def test_what_cannot_be_declared_is_refused_at_once(
    declarations: Declarations, model: object, fields: tuple[str, ...], message: str
) -> None:
    """Where the model is written, and nothing of it is kept."""
    with pytest.raises(DeclarationRefused, match=message):
        journal_changes(model, *fields, as_="x")
    assert declarations.tables == ()


def test_audit_log_is_a_decorator_too(declarations: Declarations) -> None:
    """And gives the class back."""
    assert audit_log(ignore=["touched_at"])(Order) is Order
    assert audit_log()(Manager) is Manager
    assert declarations.tables == ((None, "orders"), ("crm", "people"), (None, "managers"))
    with pytest.raises(DeclarationRefused, match="a list of fields"):
        audit_log(Order, ignore="touched_at")


def test_the_guard_fails_when_a_declaration_goes() -> None:
    """It says what the model journals instead."""
    journal_changes(Person, "email", as_="identity_change")
    assert_journals_changes(Person, "email", as_="identity_change")
    with pytest.raises(
        AssertionError, match="Person does not journal changes of kind as 'identity_change'; it journals e_mail"
    ):
        assert_journals_changes(Person, "email", "kind", as_="identity_change")
    with pytest.raises(AssertionError, match="it journals nothing"):
        assert_journals_changes(Order, "total", as_="identity_change")
    with pytest.raises(DeclarationRefused):
        assert_journals_changes(Order, "totl", as_="x")


def test_saying_it_twice_is_saying_it_once(declarations: Declarations) -> None:
    """A module that is imported under two names, or again, changes nothing."""
    for _ in range(2):
        journal_changes(Order, "total", as_="money")
        audit_log(Order, ignore=["touched_at"])
    assert declarations.labels((None, "orders")) == {"money": ("total",)}
    assert declarations.ignored((None, "orders")) == ("touched_at",)


def test_declaring_is_light() -> None:
    """An application's models import it: neither a policy nor an ORM comes with it."""
    program = "import chronicle.declared, sys; print(sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert not any(f"'{name}'" in loaded for name in ("sqlalchemy", "django", "tomlkit", "polars", "msgspec", "asyncio"))


MODELS = {
    "shop/__init__.py": "",
    "shop/settings.py": 'INSTALLED_APPS = ["shop"]\nDATABASES = {}\n',
    "shop/models.py": """
from django.db import models
from chronicle.declared import audit_log, journal_changes

class Base(models.Model):
    touched = models.DateTimeField(db_column="touched_at")
    class Meta:
        abstract = True

@audit_log(ignore=["touched"])
class Customer(Base):
    email = models.TextField()
    tags = models.ManyToManyField("Tag")

class Tag(models.Model):
    name = models.TextField()

class Vip(Customer):
    since = models.DateField()
    friend = models.ForeignKey(Tag, models.CASCADE)
    class Meta:
        db_table = 'crm"."vips'

journal_changes(Customer, "email", as_="identity_change")
journal_changes(Vip, "email", "since", "friend", "friend_id", as_="vip_change")
for model, field in ((Customer, "tags"), (Base, "touched")):
    try:
        journal_changes(model, field, as_="x")
    except TypeError as error:
        import sys
        print(error, file=sys.stderr)
""",
}


def from_models(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "CHRONICLE_CONFIG": str(directory / "chronicle.toml"),
        "DJANGO_SETTINGS_MODULE": "shop.settings",
    }
    (directory / "chronicle.toml").write_text("")
    return subprocess.run(
        [sys.executable, "-m", "chronicle.cli", "policy", "from-models", *arguments],
        capture_output=True, text=True, check=False, cwd=directory, env=environment,
    )  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A Django application."""
    for name, content in MODELS.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path


def test_django_models_are_read_by_the_command(project: Path) -> None:
    """Columns by fields, foreign keys by either name, parents' tables, a schema in db_table; what has no column is refused."""
    done = from_models(project, "shop.models", "--source", "shop")
    assert done.returncode == 0, done.stderr
    assert "Customer has no field 'tags' with a column; it has id, touched, email" in done.stderr
    assert "Base is abstract" in done.stderr
    customer = parse(done.stdout).table("shop", "public", "shop_customer", ["id", "email", "touched_at"], ["id"])
    assert [(label.name, label.columns) for label in customer.labels] == [
        ("identity_change", ("email",)),
        ("vip_change", ("email",)),
    ]
    assert "touched_at" in customer.ignore
    vip = json.loads(from_models(project, "shop.models", "--source", "shop", "--json").stdout)["tables"][0]
    assert vip == {
        "match": "shop.crm.vips", "ignore": [], "labels": [{"as": "vip_change", "columns": ["since", "friend_id"]}]
    }  # fmt: skip


def test_the_command_compares_a_policy_with_the_models(project: Path) -> None:
    """Exit 1 while something is missing; what it printed, appended to the policy, is enough."""
    policy = project / "policy.toml"
    policy.write_text('[[tables]]\nmatch = "**"\ncolumns = { id = "clear" }\n')
    before = from_models(project, "shop.models", "--source", "shop", "--check", "policy.toml")
    assert before.returncode == 1
    assert "shop.public.shop_customer: changes of email have no label identity_change" in before.stderr
    policy.write_text(policy.read_text() + from_models(project, "shop.models", "--source", "shop").stdout)
    assert from_models(project, "shop.models", "--source", "shop", "--check", "policy.toml").returncode == 0


def test_the_command_says_what_is_wrong(project: Path) -> None:
    """A module that is not there, a model that declares nothing."""
    missing = from_models(project, "shop.modles", "--source", "shop")
    assert missing.returncode == 2
    assert "error: name a module that can be imported from here: there is no shop.modles" in missing.stderr
    (project / "shop" / "models.py").write_text("")
    nothing = from_models(project, "shop.models", "--source", "shop")
    assert nothing.returncode == 2
    assert "declare something first" in nothing.stderr


def test_columns_of_other_tables_are_not_mixed_up(declarations: Declarations) -> None:
    """The same table name in two schemas is two tables."""
    declarations.label(Column("a", "t", "x"), "l")
    declarations.label(Column(None, "t", "y"), "l")
    assert [(rule.match, rule.labels["l"]) for rule in found(declarations)] == [
        ("shop.a.t", ("x",)),
        ("shop.public.t", ("y",)),
    ]
