"""Source files and templates: what is read, and what is refused with the fix in the message."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path

import pytest

from chronicle.capture.apply import raise_epoch
from chronicle.capture.check import check_files
from chronicle.capture.sources import Source, load_source, load_sources
from chronicle.capture.templates import load_template, templates
from chronicle.errors import ConfigError

CONNECTORS = Path(__file__).parents[2] / "connectors"
PLACEHOLDER = "5c1f7e0d9a3b48628f0e6d7c1b2a3948"
DATABASE = """
[database]
host = "${env:DB_HOST}"
port = 5432
name = "shop"
user = "capture"
password = "${env:DB_PASSWORD}"
"""
POSTGRES = f'template = "postgres"\ntables = ["public.orders"]\nunavailable_value_placeholder = "{PLACEHOLDER}"\n'
MYSQL = 'template = "mysql"\ntables = ["shop.orders"]\n'


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory for source files, with the product's templates."""
    shutil.copytree(CONNECTORS / "templates", tmp_path / "templates")
    return tmp_path


def written(directory: Path, content: str, name: str = "shop") -> Source:
    path = directory / f"{name}.toml"
    path.write_text(content, encoding="utf-8")
    return load_source(path)


def test_every_option_of_a_template_says_why() -> None:
    """Each option stands under a comment of its own block: a setting nobody can explain is a setting nobody dares to change."""
    for path in (CONNECTORS / "templates").glob("*.toml"):
        explained = False
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if line.startswith("#"):
                explained = True
            elif not line.strip() or line.startswith("["):
                # The options of [refused] carry their reason as their value.
                explained = line == "[refused]"
            else:
                assert explained or line.startswith(("extends", "kind")) or " = " not in line, f"{path.name}:{number} {line}"
            if line == "[refused]":
                break


def test_the_demo_sources_are_right() -> None:
    """The two sources that come with the product load, and say what the demo's tables are."""
    found = load_sources(CONNECTORS)
    assert {name: source.kind for name, source in found.items()} == {"shop": "postgres", "hiring": "mariadb"}
    assert found["shop"].topics == {
        "shop.public.customers": "public.customers",
        "shop.public.orders": "public.orders",
        "shop.public.order_items": "public.order_items",
    }
    assert found["hiring"].topic("hiring.campaigns") == "hiring.hiring.campaigns"
    assert found["shop"].transaction_topic == "shop.transaction"


def test_only_templates_for_a_database_can_be_used() -> None:
    """What other templates extend is no template of its own."""
    assert templates(CONNECTORS / "templates") == ["mariadb", "mysql", "postgres"]
    with pytest.raises(ConfigError, match="part of other templates"):
        load_template(CONNECTORS / "templates", "binlog")


def test_a_template_that_extends_itself_is_refused(directory: Path) -> None:
    """A circle of `extends` is named, not followed for ever."""
    for name, other in (("one", "two"), ("two", "one")):
        (directory / "templates" / f"{name}.toml").write_text(f'extends = "{other}"\nkind = "postgres"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="one → two → one"):
        load_template(directory / "templates", "one")


def test_a_template_of_ones_own_changes_what_it_extends(directory: Path) -> None:
    """The last layer wins, and an option is either fixed or a default, never both."""
    (directory / "templates" / "mine.toml").write_text(
        'extends = "postgres"\n[fixed]\n"poll.interval.ms" = 50\n[default]\n"tasks.max" = 2\n', encoding="utf-8"
    )
    mine = load_template(directory / "templates", "mine")
    assert mine.kind == "postgres"
    assert mine.fixed["poll.interval.ms"] == "50" and "poll.interval.ms" not in mine.default
    assert mine.default["tasks.max"] == "2" and "tasks.max" not in mine.fixed


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (POSTGRES + DATABASE.replace("${env:DB_PASSWORD}", "hunter2"), r'password = "\$\{env:SHOP_DB_PASSWORD\}"'),
        (POSTGRES + DATABASE.replace('name = "shop"\n', ""), "needs exactly these keys"),
        (POSTGRES + "tabels = []\n" + DATABASE, "unknown key tabels"),
        ('template = "oracle"\n' + DATABASE, "use one of mariadb, mysql, postgres"),
        ("tables = []\n", "add `template"),
        (POSTGRES.replace("public.orders", "orders") + DATABASE, "schema.table"),
        (POSTGRES.replace("public.orders", "public.a,b") + DATABASE, "without commas"),
        (
            POSTGRES.replace('"public.orders"', '"public.a b", "public.a-b", "public.a?b"') + DATABASE,
            "topics would have one name",
        ),
        (POSTGRES.replace('"public.orders"', '"public.a", "public.a"') + DATABASE, "once"),
        (POSTGRES + "epoch = 256\n" + DATABASE, "from 0 to 255"),
        (POSTGRES + "epoch = true\n" + DATABASE, "whole number"),
        (POSTGRES + 'format = "protobuf"\n' + DATABASE, "avro-apicurio, avro-confluent, json"),
        (POSTGRES + "attribution_comments = true\n" + DATABASE, "no statements"),
        (POSTGRES + "server_id = 4\n" + DATABASE, "only MySQL and MariaDB"),
        (POSTGRES + 'context_table = "public.audit"\n' + DATABASE, "called chronicle_context"),
        (POSTGRES + 'outbox_table = "public.outbox"\n' + DATABASE, "called chronicle_outbox"),
        (
            POSTGRES.replace('"public.orders"', '"public.chronicle_outbox"')
            + 'outbox_table = "public.chronicle_outbox"\n'
            + DATABASE,
            "take public.chronicle_outbox out of `tables`",
        ),
        (POSTGRES + 'signal_table = "public.orders"\n' + DATABASE, "named by its own key"),
        (MYSQL + f'unavailable_value_placeholder = "{PLACEHOLDER}"\n' + DATABASE, "only PostgreSQL"),
        (MYSQL.replace("shop.orders", "other.orders") + DATABASE, "not in the database shop"),
        (POSTGRES + DATABASE + '[options]\n"skipped.operations" = "t"\n', "fixes it"),
        (POSTGRES + DATABASE + '[options]\n"transforms.mine.type" = "x.Y"\n', "order of transforms"),
        (POSTGRES + DATABASE + '[options]\n"predicates.outbox.pattern" = ".*"\n', "fixes it"),
        (POSTGRES + DATABASE + '[options]\n"datatype.propagate.source.type" = ".*"\n', "clear text leaks"),
        (POSTGRES + DATABASE + '[options]\n"value.converter" = "x.Y"\n', "converters follow"),
        (POSTGRES + DATABASE + '[options]\n"database.sslpassword" = "hunter2"\n', r"\$\{env:NAME\}"),
        (POSTGRES + DATABASE + "[options]\npoll.interval.ms = 5\n", "quote the whole option"),
        ("template = ", "not readable as TOML"),
    ],
)
def test_a_wrong_source_file_is_refused_with_what_to_write(directory: Path, content: str, says: str) -> None:
    """Each mistake is named with its fix, and no message repeats a secret."""
    with pytest.raises(ConfigError, match=says) as caught:
        written(directory, content)
    assert "hunter2" not in str(caught.value)


def test_only_captured_tables_can_be_said_to_have_full_identity(directory: Path) -> None:
    """What is trusted of a deleted row follows from this list: a misspelt name must not pass."""
    assert written(directory, POSTGRES + 'full_identity = ["public.orders"]\n' + DATABASE).full_identity == ("public.orders",)
    assert written(directory, POSTGRES + DATABASE).full_identity == ()
    with pytest.raises(ConfigError, match="full_identity"):
        written(directory, POSTGRES + 'full_identity = ["public.order"]\n' + DATABASE)
    with pytest.raises(ConfigError, match="keyless"):
        written(directory, POSTGRES + 'keyless = ["public.order"]\n' + DATABASE)
    with pytest.raises(ConfigError, match="full_identity"):
        written(directory, MYSQL + 'full_identity = ["shop.orders"]\n' + DATABASE)


def test_a_missing_placeholder_comes_with_a_random_one(directory: Path) -> None:
    """The fix can be pasted, and is another one each time."""
    made = []
    for _ in range(2):
        with pytest.raises(ConfigError) as caught:
            written(directory, POSTGRES.splitlines()[0] + '\ntables = ["public.a"]\n' + DATABASE)
        made += re.findall(r'unavailable_value_placeholder = "([0-9a-f]{32})"', str(caught.value))
    assert len(set(made)) == 2


@pytest.mark.parametrize("name", ["Shop", "1shop", "my-shop", "chronicle", "x" * 49])
def test_a_name_that_is_no_slot_or_topic_is_refused(directory: Path, name: str) -> None:
    """A source's name is part of a slot's and of every topic's."""
    with pytest.raises(ConfigError, match="rename"):
        written(directory, POSTGRES + DATABASE, name)


def test_options_are_text_to_connect(directory: Path) -> None:
    """Numbers and truth values of TOML are what Connect reads."""
    source = written(directory, POSTGRES + DATABASE + '[options]\n"poll.interval.ms" = 5\n"slot.failover" = true\n')
    assert source.options == {"poll.interval.ms": "5", "slot.failover": "true"}


def test_topics_are_named_as_debezium_names_them(directory: Path) -> None:
    """What Kafka does not allow in a name becomes an underscore."""
    source = written(directory, POSTGRES.replace("public.orders", "public.weird täb-le") + DATABASE)
    assert source.topics == {"shop.public.weird_t_b-le": "public.weird täb-le"}


def test_server_ids_differ_and_stay(directory: Path) -> None:
    """The default follows from the name: two sources do not throw each other out, and a second look gives the same."""
    one, two = written(directory, MYSQL + DATABASE, "one"), written(directory, MYSQL + DATABASE, "two")
    assert one.server_id != two.server_id
    assert one.server_id == written(directory, MYSQL + DATABASE, "one").server_id
    assert written(directory, "server_id = 7\n" + MYSQL + DATABASE, "one").server_id == 7


def test_raising_the_epoch_leaves_the_rest_of_the_file_alone(directory: Path) -> None:
    """Comments and order stay; a file that had no epoch gets one that TOML reads as the file's, not as a section's."""
    path = directory / "shop.toml"
    path.write_text("# mine\n" + POSTGRES + "epoch = 4 # why\n" + DATABASE, encoding="utf-8")
    assert raise_epoch(path).epoch == 5
    assert path.read_text(encoding="utf-8") == "# mine\n" + POSTGRES + "epoch = 5 # why\n" + DATABASE
    path.write_text("# mine\n" + POSTGRES + DATABASE, encoding="utf-8")
    assert raise_epoch(path).epoch == 1
    assert tomllib.loads(path.read_text(encoding="utf-8"))["epoch"] == 1
    path.write_text("epoch = 255\n" + POSTGRES + DATABASE, encoding="utf-8")
    with pytest.raises(ConfigError, match="255"):
        raise_epoch(path)


def test_sources_that_would_disturb_each_other_are_found(directory: Path) -> None:
    """Two connectors on one slot, one server id or one signal table each take what is the other's."""
    shared = '[options]\n"slot.name" = "one"\n'
    for name in ("first", "second"):
        (directory / f"{name}.toml").write_text(POSTGRES + DATABASE + shared, encoding="utf-8")
        (directory / f"my_{name}.toml").write_text("server_id = 9\n" + MYSQL + DATABASE, encoding="utf-8")
    _, findings = check_files(directory, [])
    said = " ".join(finding.what for finding in findings)
    assert "uses the slot of first" in said
    assert "has the server_id of my_first" in said
    assert "has the signal table of first" in said


def test_one_wrong_file_does_not_hide_the_others(directory: Path) -> None:
    """`check` reports a file that is not right and goes on to its neighbours."""
    (directory / "bad.toml").write_text("template = 3\n", encoding="utf-8")
    (directory / "good.toml").write_text(POSTGRES + DATABASE, encoding="utf-8")
    sources, findings = check_files(directory, [])
    assert list(sources) == ["good"]
    assert [(finding.source, finding.level) for finding in findings] == [("bad", "error")]
    with pytest.raises(ConfigError, match="name one of bad, good"):
        check_files(directory, ["absent"])
