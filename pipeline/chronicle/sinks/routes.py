"""The sink of routes: the changes and events that each route takes, to its topic, confirmed like the audit topic's."""

from __future__ import annotations

from importlib.metadata import version

from chronicle import config
from chronicle.model.batch import Batch
from chronicle.policy.rules import RouteFormat
from chronicle.sinks.producer import ConfirmedProducer
from chronicle.stages.deliveries import CLOUDEVENTS_TYPE, Router

_HEADERS = {RouteFormat.JSON: None, RouteFormat.CLOUDEVENTS: [("content-type", CLOUDEVENTS_TYPE)]}


class RouteSink:
    """Holds of a batch what its routes take, when the broker has confirmed every record of it.

    Transactions, mirror rows and dead letters are other sinks'. A batch that comes again is written again: readers upsert
    by the record's key, the event id.
    """

    name = "routes"

    def __init__(self, kafka: config.Kafka, router: Router) -> None:
        self._router = router
        self._version = version("chronicle")
        self._producer = ConfirmedProducer(kafka)

    def write(self, batch: Batch) -> None:
        """As `Sink.write`. Raises ConfigError as well: a topic is absent or may not be written."""
        for one in self._router.deliveries(batch.changes, self._producer.partitions, version=self._version):
            self._producer.produce(one.topic, one.records, _HEADERS[one.format])
        if len(batch.events):
            for one in self._router.event_deliveries(batch.events, self._producer.partitions, version=self._version):
                self._producer.produce(one.topic, one.records, _HEADERS[one.format])
        self._producer.confirm()

    def close(self) -> None:
        """Nothing is under way between two calls of `write`, so nothing is lost."""
        self._producer.close()
