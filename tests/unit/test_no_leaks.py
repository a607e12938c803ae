"""What a process writes about itself holds no row value: causes of failed connectors, the `repr` of what carries records."""

from __future__ import annotations

import polars as pl
import pytest

from chronicle import dead_letters
from chronicle.capture.connect import first_cause, safe
from chronicle.model.batch import Batch, TableRows
from chronicle.model.chunk import Chunk, SourceSpec
from chronicle.model.columns import TRANSACTIONS, empty
from chronicle.model.dead_letters import DeadLetter, Reason, Stage
from chronicle.stages.identify import Processing
from chronicle.stages.path import Path
from chronicle.testing import rules

VALUE = "ada@example.com"


@pytest.mark.parametrize(
    "message",
    [
        f"Can't parse '{VALUE}' as a number",
        f"The driver couldn't convert '{VALUE}' to a date, doesn't matter which",
        f"'it's {VALUE}' is too long",
        f"Unexpected text '{VALUE}",
        f'Unexpected text "{VALUE}',
        f"Incorrect string value X'{VALUE}' for column note",
        f"value {VALUE} (a java.lang.String) cannot be cast to expected type int at shop.public.t.Value.age",
        f'Not in union ["null","int"]: {VALUE} (field=age)',
        f"Not an enum: {VALUE} for schema: status",
        f"Invalid value {VALUE} for configuration database.port: not a number",
    ],
)
def test_a_cause_names_no_value_quoted_or_not(message: str) -> None:
    """An apostrophe is no quote, a cut literal is one, and Avro's writer quotes nothing."""
    assert VALUE not in safe(message)
    trace = f"java.lang.RuntimeException: {message}\n\tat a.B.c(B.java:1)"
    assert VALUE not in (first_cause(trace) or "")


def test_a_value_of_many_lines_leaves_none_of_them() -> None:
    """Only the first line of a message is shown, but a value may begin in it."""
    trace = f"org.apache.avro.AvroTypeException: value {VALUE}\nx (a java.lang.String) cannot be cast\n\tat a.B.c(B.java:1)"
    assert first_cause(trace) == "AvroTypeException: value … (a java.lang.String) cannot be cast"


def test_what_a_cause_says_beside_values_stays() -> None:
    """Words between apostrophes inside words are the message itself."""
    assert safe("The slot can't be created, it doesn't exist") == "The slot can't be created, it doesn't exist"


def test_what_carries_records_shows_none_of_them() -> None:
    """Loggers of libraries write the `repr` of what they pass on."""
    data = VALUE.encode()
    headers = (("name", data),)
    frame = pl.DataFrame({"id": [VALUE]})
    carriers = [
        Chunk("shop.public.t", 0, [1], [1], [data], [data], [headers]),
        DeadLetter("shop.public.t", 0, 1, 1, data, data, headers, Stage.DECODE, Reason.NOT_DECODABLE, "it does not fit"),
        dead_letters.Letter("shop.public.t", 0, 1, 1, "r", "s", "d", None, "", "", data, data, headers),
        TableRows("shop", "public", "t", (), frame),
        Batch(frame, (), empty(TRANSACTIONS)),
    ]
    for carrier in carriers:
        assert VALUE not in repr(carrier)


def test_the_identity_key_is_in_no_repr() -> None:
    """Whoever has it can guess keys back from event ids."""
    key = VALUE.encode()
    assert VALUE not in repr(Processing(key, 1)) + repr(Path([SourceSpec("shop", "postgresql")], key, rules(identity_key=key)))


def test_a_letter_from_nowhere_is_never_chosen() -> None:
    """Without original coordinates it would come back as a record of the retry topic itself."""
    letter = dead_letters.Letter("", -1, -1, -1, "wrong_frame", "decode", "", None, "", "", b"k", b"v", ())
    assert not dead_letters.Selection().holds(letter)
