"""Rendering and planning, which are pure: the same files give the same configuration, and no plan shows a secret."""

from __future__ import annotations

import json
import re
import string
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from chronicle.capture.plan import plan
from chronicle.capture.render import RenderEnvironment, environment_of, escaped, render
from chronicle.capture.sources import Source, is_secret, load_source
from chronicle.capture.templates import load_template
from chronicle.config import Kafka, Registry
from chronicle.errors import ConfigError
from chronicle.wiring import spec

CONNECTORS = Path(__file__).parents[2] / "connectors"
ENVIRONMENT = RenderEnvironment("broker:9092", "http://registry:8080/apis/ccompat/v7")
SHOP = load_source(CONNECTORS / "shop.toml")
HIRING = load_source(CONNECTORS / "hiring.toml")


def rendered(source: Source, environment: RenderEnvironment = ENVIRONMENT) -> dict[str, str]:
    return render(source, load_template(CONNECTORS / "templates", source.template), environment)


FORMATS = pytest.mark.parametrize("format_", ["avro-apicurio", "avro-confluent", "json"])


@FORMATS
@pytest.mark.parametrize(
    "source", [SHOP, HIRING, replace(HIRING, template="mysql", kind="mysql")], ids=["shop", "hiring", "my"]
)
def test_a_rendered_configuration_is_complete(source: Source, format_: str) -> None:
    """Nothing is left to fill in, nothing is empty, and the audit-grade options are there whatever the format."""
    options = rendered(replace(source, format=format_))
    assert not [option for option, value in options.items() if "{{" in value or not value]
    expected = {
        "skipped.operations": "none",
        "provide.transaction.metadata": "true",
        "decimal.handling.mode": "precise",
        "time.precision.mode": "adaptive_time_microseconds",
        "tombstones.on.delete": "true",
        "event.converting.failure.handling.mode": "fail",
        "errors.tolerance": "none",
        "offset.mismatch.strategy": "trust_offset",
        "topic.creation.transaction.partitions": "1",
        "extended.headers.enabled": "false",
        "transforms.epoch.value.literal": "0",
    }
    assert {option: options[option] for option in expected} == expected
    assert options["transforms"].split(",")[0] == "nulls" and options["transforms"].split(",")[-2:] == ["epoch", "registry"]
    assert list(options) == sorted(options)


def test_every_transform_that_is_listed_is_there() -> None:
    """`transforms` and `transforms.<name>.type` agree, with and without attribution comments."""
    for source in (SHOP, HIRING, replace(HIRING, attribution_comments=True)):
        options = rendered(source)
        types = {option.split(".")[1] for option in options if re.fullmatch(r"transforms\.\w+\.type", option)}
        assert types == set(options["transforms"].split(","))


def test_a_new_schema_waits_for_the_registry_after_all_other_transforms() -> None:
    """The last transform sees the schemas as the converter will; where there is no registry nothing is waited for."""
    asked = {"avro-apicurio": "/apis/registry/v2/system/info", "avro-confluent": "/apis/ccompat/v7", "json": "none"}
    for source in (SHOP, HIRING, replace(HIRING, attribution_comments=True)):
        for format_, end in asked.items():
            options = rendered(replace(source, format=format_))
            assert options["transforms"].endswith(",registry")
            assert options["transforms.registry.url"].endswith(end)


def test_comments_are_captured_only_when_asked_for_and_only_through_the_transform() -> None:
    """`include.query` without KeepComment would write whole statements: the two come and go together."""
    assert rendered(replace(HIRING, attribution_comments=False))["include.query"] == "false"
    options = rendered(replace(HIRING, attribution_comments=True))
    assert options["include.query"] == "true"
    assert options["transforms"] == "nulls,comment,context,inserts,outbox,epoch,registry"
    assert options["transforms.comment.type"] == "io.chronicle.connect.KeepComment"


def test_routes_take_contexts_and_leave_tables_alone() -> None:
    """Only the source's own messages and its context table are routed; a table may be called `message`."""
    options = rendered(SHOP)
    routed = [re.compile(options[f"transforms.{name}.regex"]) for name in ("messages", "context")]

    def goes(topic: str) -> bool:
        return any(pattern.fullmatch(topic) for pattern in routed)

    assert goes("shop.message") and goes("shop.public.chronicle_context")
    assert not goes("shop.public.message") and not goes("shop.public.orders") and not goes("shop.public.not_chronicle_context")
    assert not goes("workshop.message")


def test_the_outbox_is_routed_and_nothing_else_is() -> None:
    """Both of its transforms stand under a predicate of its topic alone, before the epoch; it is captured, and no topic of it
    is one of the source's tables."""
    for source in (SHOP, HIRING, replace(HIRING, template="mysql", kind="mysql")):
        options = rendered(source, replace(ENVIRONMENT, events_topic="my.events"))
        schema = source.tables[0].partition(".")[0]
        pattern = re.compile(options["predicates.outbox.pattern"])
        assert pattern.fullmatch(f"{source.name}.{schema}.chronicle_outbox")
        others = (
            "other.public.chronicle_outbox",
            f"{source.name}.a.b.chronicle_outbox",
            f"{source.name}.a.not_chronicle_outbox",
        )
        assert not any(pattern.fullmatch(topic) for topic in (*source.topics, source.transaction_topic, *others))
        assert options["predicates"] == "outbox"
        assert options["transforms.inserts.predicate"] == options["transforms.outbox.predicate"] == "outbox"
        order = options["transforms"].split(",")
        assert order.index("nulls") < order.index("inserts") < order.index("outbox") < order.index("epoch")
        assert options["transforms.outbox.route.topic.replacement"] == "my.events${routedByValue}"
        made = re.compile(options["topic.creation.events.include"])
        assert made.fullmatch("my.events") and made.fullmatch("my.events.security")
        assert not made.fullmatch("myxevents") and not made.fullmatch("my.eventsx")
        assert options["topic.creation.events.partitions"] == "4"
        assert escaped(f"{schema}.chronicle_outbox") in options["table.include.list"].split(",")
        assert source.topic(f"{schema}.chronicle_outbox") not in source.topics
    assert "chronicle_outbox" not in rendered(replace(SHOP, outbox_table=None))["table.include.list"]


def test_an_outbox_that_is_added_is_no_table_to_snapshot() -> None:
    """`apply` asks for a snapshot of added tables: an outbox has no rows that were there before."""
    before = rendered(replace(SHOP, outbox_table=None, context_table=None))
    added = plan(SHOP, rendered(SHOP), before).tables_added
    assert set(added) == {"public.chronicle_context", "public.chronicle_outbox"} == set(SHOP.routed)


def test_rows_of_the_outbox_are_no_changes() -> None:
    """Neither do END's counts of a transaction have them, nor are they written, should one be read all the same."""
    assert spec(SHOP).signal_tables == {"chronicle_signal", "chronicle_outbox"}
    assert spec(replace(SHOP, outbox_table=None)).signal_tables == {"chronicle_signal"}


@given(st.text(alphabet=string.ascii_letters + string.digits + ".^$*+?()[]{}|\\ -_ü", min_size=1))
def test_an_escaped_name_matches_itself_only(name: str) -> None:
    """The dot in public.orders is a dot: publicXorders is not captured by accident."""
    assert re.fullmatch(escaped(name), name)
    assert not re.fullmatch(escaped(name), name + "x")
    if "." in name:
        assert not re.fullmatch(escaped(name), name.replace(".", "x"))


def test_options_of_the_source_win_over_defaults() -> None:
    """What a template only suggests, a source file changes."""
    options = rendered(replace(SHOP, options={"poll.interval.ms": "77", "slot.name": "mine"}))
    assert (options["poll.interval.ms"], options["slot.name"]) == ("77", "mine")


def test_the_schema_history_belongs_to_one_epoch() -> None:
    """After a server started over, DDL of the old binlog must not be read again; all internal topics are outside the prefix."""
    names = {rendered(replace(HIRING, epoch=epoch))["schema.history.internal.kafka.topic"] for epoch in (0, 1)}
    assert names == {"chronicle.schema-history.hiring.0", "chronicle.schema-history.hiring.1"}
    assert rendered(HIRING)["schema.history.internal.kafka.topic"] == HIRING.schema_history_topic
    assert rendered(HIRING)["signal.kafka.topic"] == HIRING.signal_topic
    assert rendered(HIRING)["signal.kafka.groupId"] == HIRING.signal_group
    assert rendered(HIRING)["notification.sink.topic.name"] == HIRING.notification_topic


def test_secured_services_are_reached_with_references_only() -> None:
    """A configuration for a broker and a registry with passwords names the variables, never the passwords."""
    kafka = Kafka(
        security_protocol="SASL_SSL", sasl_mechanism="SCRAM-SHA-512", sasl_username="cdc", sasl_password=SecretStr("hunter2"),
        ssl_ca_location=Path("/ca.pem"),
    )  # fmt: skip
    registry = Registry(url="https://registry/apis/ccompat/v7/", username="cdc", password=SecretStr("hunter3"))
    environment = environment_of(kafka, registry)
    for format_ in ("avro-apicurio", "avro-confluent"):
        options = rendered(replace(HIRING, format=format_), environment)
        text = json.dumps(options)
        assert "hunter" not in text
        for prefix in ("signal.consumer.", "schema.history.internal.consumer.", "schema.history.internal.producer."):
            assert "${env:CHRONICLE_KAFKA_SASL_PASSWORD}" in options[f"{prefix}sasl.jaas.config"]
            assert options[f"{prefix}ssl.truststore.location"] == "/ca.pem"
        assert "${env:CHRONICLE_REGISTRY_PASSWORD}" in text
    assert environment.apicurio_url == "https://registry/apis/registry/v2"


def test_what_is_deployed_needs_no_change() -> None:
    """Connect adds the connector's name to what it was given; that is no difference."""
    wanted = rendered(SHOP)
    assert plan(SHOP, wanted, {**wanted, "name": "shop"}).action == "none"


def test_a_new_connector_is_created_with_all_its_options() -> None:
    """The plan of a create shows everything that Connect will get."""
    wanted = rendered(SHOP)
    created = plan(SHOP, wanted, None)
    assert created.action == "create"
    assert {change.option: change.after for change in created.changes} == wanted


def test_a_plan_names_added_and_removed_tables() -> None:
    """Tables are compared by name, not by their escaped pattern; what goes is warned about."""
    before = rendered(replace(SHOP, tables=("public.customers", "public.old")))
    after = plan(SHOP, rendered(SHOP), before)
    assert after.action == "update"
    assert after.tables_added == ("public.orders", "public.order_items")
    assert after.tables_removed == ("public.old",)
    assert any("not captured from now on" in warning for warning in after.warnings)


def test_an_epoch_only_rises() -> None:
    """A higher one starts over; a lower one would make every new change older than those recorded, and is refused."""
    one, two = replace(SHOP, epoch=1), replace(SHOP, epoch=2)
    assert plan(two, rendered(two), rendered(one)).action == "new-epoch"
    with pytest.raises(ConfigError, match="epoch = 2"):
        plan(one, rendered(one), rendered(two))


def test_another_server_without_a_new_epoch_is_warned_about() -> None:
    """A changed address may mean a log that starts over."""
    moved = replace(SHOP, database=replace(SHOP.database, host="elsewhere"))
    assert any("--new-epoch" in warning for warning in plan(moved, rendered(moved), rendered(SHOP)).warnings)


@given(st.text(alphabet=string.ascii_letters + string.digits, min_size=8, max_size=20))
def test_no_plan_shows_a_secret(secret: str) -> None:
    """A secret that somebody put into Connect by hand is hidden on both sides of the diff; a reference is shown."""
    secret = f"s3cr3t{secret}"
    deployed = {
        **rendered(SHOP),
        "database.password": secret,
        "signal.consumer.sasl.jaas.config": f'login required password="{secret}";',
        "value.converter.basic.auth.user.info": f"cdc:{secret}",
        "value.converter.apicurio.auth.client.secret": secret,
        "some.api.token": secret,
        "database.ssl.truststore.password": f"{secret}${{env:X}}",
    }
    shown = json.dumps(plan(SHOP, rendered(SHOP), deployed).as_json())
    assert secret not in shown
    assert "${env:SHOP_DB_PASSWORD}" in shown


@pytest.mark.parametrize(
    ("option", "secret"),
    [
        ("database.password", True),
        ("database.sslpassword", True),
        ("value.converter.apicurio.auth.client.secret", True),
        ("signal.consumer.sasl.jaas.config", True),
        ("key.converter.basic.auth.user.info", True),
        ("key.converter", False),
        ("key.converter.apicurio.registry.url", False),
        ("message.key.columns", False),
        ("signal.kafka.topic", False),
    ],
)
def test_secrets_are_known_by_their_names(option: str, secret: bool) -> None:
    """Names with password, secret, token and the like; a key's converter is none of them."""
    assert is_secret(option) is secret
