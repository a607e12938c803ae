"""Sanitizing: what looks like a secret leaves in no place."""

from __future__ import annotations

import json

import pytest

from chronicle.model.batch import Batch
from chronicle.model.chunk import SourceSpec
from chronicle.policy.names import looks_secret, words
from chronicle.testing import Record, run
from tests.unit.envelopes import Table

NULLABLE = ["null", "string"]
SECRETS = Table(
    [("id", "long"), ("password", NULLABLE), ("apiKey", NULLABLE), ("keep", NULLABLE)], name="accounts", schema_id=200
)
BY_TOKEN = Table([("token", "string"), ("v", NULLABLE)], key=("token",), name="sessions", schema_id=300)
SCHEMAS = SECRETS.schemas | BY_TOKEN.schemas
SHOP = SourceSpec("shop", "postgresql", full_identity=None)


def process(*records: Record) -> Batch:
    return run(records, schemas=SCHEMAS, sources=[SHOP])


SECRET = "correct horse battery"


def everything(batch: Batch) -> str:
    frames = [batch.changes, batch.transactions, *(table.frame for table in batch.tables)]
    return "\n".join([*(str(frame.to_dicts()) for frame in frames), str(batch.warnings), str(batch.left_out)])


def test_no_secret_leaves() -> None:
    """Not in before, after, key, mirror or context; NULL stays NULL, and changed still names the column."""
    old = {"id": 1, "password": SECRET, "apiKey": None, "keep": "k"}
    new = old | {"password": SECRET + "2", "apiKey": SECRET}
    batch = process(
        SECRETS.change("u", before=old, after=new),
        BY_TOKEN.change("c", after={"token": SECRET, "v": "x"}),
        BY_TOKEN.change(
            "c",
            after={"token": SECRET + "3", "v": "x"},
            headers=(("__debezium.oldkey", json.dumps({"token": SECRET}).encode()),),
        ),
    )
    assert batch.dead_letters == ()
    assert SECRET not in everything(batch)
    first, second, third = batch.changes.to_dicts()
    assert json.loads(first["before"]) == {"apiKey": None, "id": 1, "keep": "k", "password": "[FILTERED]"}
    assert json.loads(first["after"]) == {"apiKey": "[FILTERED]", "id": 1, "keep": "k", "password": "[FILTERED]"}
    assert first["changed"] == ["password", "apiKey"]
    assert json.loads(second["key"])["token"].startswith("t1.")
    assert len(json.loads(second["key"])["token"]) == 25
    assert third["previous_key"] == second["key"]
    assert third["previous_entity"] == second["entity"]
    mirrors = {table.table: table.frame for table in batch.tables}
    assert mirrors["accounts"].columns[:2] == ["id", "keep"]
    assert mirrors["sessions"]["token"].to_list() == [json.loads(row["key"])["token"] for row in (second, third)]


def test_a_token_depends_on_the_deployment() -> None:
    """It could be guessed back otherwise; and equal values have equal tokens."""
    record = BY_TOKEN.change("c", after={"token": SECRET, "v": "x"})
    tokens = [run([record], schemas=SCHEMAS, identity_key=key * 32).changes["key"][0] for key in (b"a", b"a", b"b")]
    assert tokens[0] == tokens[1] != tokens[2]


@pytest.mark.parametrize(
    "name",
    [
        *(
            "password",
            "Password",
            "user_password",
            "passwordHash",
            "pwd",
            "api_key",
            "apiKey",
            "APIKEY",
            "api-key",
            "ssn",
            "SSN",
        ),
        *("client_secret", "accessToken", "cardNumber", "card_number", "cvv", "private_key"),
        *("email_hmac", "ssn_digest", "file_crypt"),
        *("api_keys", "privateKeys", "pins", "ssns", "card_num", "jwt", "recovery_codes"),
    ],
)
def test_names_that_look_secret(name: str) -> None:
    """Word by word, in snake, kebab and camel case."""
    assert looks_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "id",
        "keep",
        "passport",
        "compass",
        "secretary",
        "tokenizer",
        "digest",
        "crypt",
        "key",
        "card",
        "classname",
        "spinner",
        "",
    ],
)
def test_names_that_do_not_look_secret(name: str) -> None:
    """Only whole words count."""
    assert not looks_secret(name)


def test_words_of_a_name() -> None:
    """Capitals that belong together stay together."""
    assert words("HTTPApiKey2_value-größe") == ("http", "api", "key", "2", "value", "gr", "öß", "e")
