"""What is shown of a Java program's failure: its first cause, without any value."""

from __future__ import annotations

import string

from hypothesis import given
from hypothesis import strategies as st

from chronicle.capture.connect import CAUSE_LENGTH_MAX, ConnectorState, TaskState, first_cause, safe

TRACE = """org.apache.kafka.connect.errors.ConnectException: An exception occurred in the change event producer.
\tat io.debezium.pipeline.ErrorHandler.setProducerThrowable(ErrorHandler.java:85)
\tat java.base/java.lang.Thread.run(Thread.java:840)
Caused by: io.debezium.DebeziumException: Failed to start replication stream
\tat io.debezium.connector.postgresql.Foo.bar(Foo.java:1)
\t... 5 more
Caused by: org.postgresql.util.PSQLException: ERROR: duplicate key value violates unique constraint "people_pkey"
  Detail: Key (name)=(Ada Lovelace) already exists.
\tat org.postgresql.core.v3.QueryExecutorImpl.receiveErrorResponse(QueryExecutorImpl.java:2676)
\t... 9 more
"""


def test_the_first_cause_is_the_last_of_the_trace() -> None:
    """Class and message of the root, without frames, without the lines in which databases put values."""
    assert first_cause(TRACE) == "PSQLException: ERROR: duplicate key value violates unique constraint …"
    assert first_cause(None) is None
    assert first_cause("") is None
    assert first_cause("java.lang.NullPointerException\n\tat x.y(Z.java:1)") == "NullPointerException"


@given(
    st.text(alphabet=string.ascii_letters + string.digits + " .", min_size=1).map(lambda text: f"v4lue{text}"),
    st.sampled_from(["'{}'", '"{}"', "`{}`", "(id, name)=({})"]),
)
def test_quoted_values_are_cut_out(value: str, quotes: str) -> None:
    """Literals and key-value pairs are gone, whatever they hold."""
    assert value not in safe(f"ERROR: invalid input: {quotes.format(value)} at column note")


def test_long_messages_are_cut() -> None:
    """A message that drags a whole row with it does not get through."""
    assert len(safe("word " * 500)) == CAUSE_LENGTH_MAX


def test_a_failed_task_is_seen_although_its_connector_runs() -> None:
    """Connect says RUNNING of the connector when its only task has failed."""
    state = ConnectorState("shop", "RUNNING", "w", None, (TaskState(0, "FAILED", "w", "DebeziumException: lost"),))
    assert not state.running
    assert state.failure == "task 0: DebeziumException: lost"
    assert not ConnectorState("shop", "RUNNING", "w", None, ()).running
