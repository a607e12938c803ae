"""The producer's own decisions, without a broker: after a failure, and about records that must not be sent."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, Producer

from chronicle import config
from chronicle.codec.audit import Records
from chronicle.errors import SinkRejected, TransientError
from chronicle.sinks.producer import ConfirmedProducer


def _connected() -> tuple[ConfirmedProducer, Producer]:
    """One whose library's producer was given nothing."""
    confirmed = ConfirmedProducer(config.Kafka(bootstrap_servers="127.0.0.1:1"))
    producer = Producer({"bootstrap.servers": "127.0.0.1:1", "log_level": 0})
    confirmed._producer = producer
    return confirmed, producer


@pytest.mark.parametrize("code", [KafkaError._FATAL, KafkaError._MSG_TIMED_OUT])
def test_what_may_pass_is_tried_with_a_fresh_producer(code: int) -> None:
    """A producer after a fatal error refuses everything for ever, with an error that does not call itself fatal."""
    confirmed, _ = _connected()
    confirmed._failures = [KafkaError(code)]
    with pytest.raises(TransientError):
        confirmed.confirm()
    assert confirmed._producer is None


def test_a_refused_record_does_not_cost_the_producer() -> None:
    """The engine calls again with halves, many times."""
    confirmed, producer = _connected()
    confirmed._failures = [KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)]
    with pytest.raises(SinkRejected):
        confirmed.confirm()
    assert confirmed._producer is producer


def test_an_audit_record_is_never_a_tombstone() -> None:
    """Without a value, compaction would delete the change whose key it has."""
    confirmed, producer = _connected()
    with pytest.raises(AssertionError):
        confirmed.produce("audit", Records([b"id"], [None], [0]))  # type: ignore[list-item]
    assert producer.flush(0) == 0
