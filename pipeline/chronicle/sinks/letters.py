"""The sink of a role's dead letters: each with its original bytes to the topic of its route, or to the role's own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from chronicle import config
from chronicle.model.batch import Batch
from chronicle.sinks.kafka import send_dead_letters
from chronicle.sinks.producer import ConfirmedProducer


class LetterSink:
    """Holds the dead letters of a batch, and nothing else of it, when the broker has confirmed them."""

    name = "dead_letters"

    def __init__(
        self, kafka: config.Kafka, topics: Mapping[str, str] | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        """`topics`: topic that a record was read from → where its letter goes, else `kafka.dead_letter_topic`."""
        self._own, self._topics = kafka.dead_letter_topic, dict(topics or {})
        self._clock = clock
        self._producer = ConfirmedProducer(kafka)

    def write(self, batch: Batch) -> None:
        """As `Sink.write`. Raises ConfigError as well: a topic is absent or may not be written."""
        if not batch.dead_letters:
            return
        send_dead_letters(
            self._producer, batch.dead_letters, lambda one: self._topics.get(one.topic, self._own), at_s=self._clock()
        )
        self._producer.confirm()

    def close(self) -> None:
        """Nothing is under way between two calls of `write`, so nothing is lost."""
        self._producer.close()
