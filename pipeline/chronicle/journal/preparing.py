"""From what an application says to what is sent: composed, checked, routed, sampled, protected, written as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from chronicle.events.event import Event, EventRefused, checked, encoded
from chronicle.journal.composing import composed
from chronicle.journal.outgoing import Outgoing
from chronicle.journal.protection import of_settings
from chronicle.journal.receipt import Receipt
from chronicle.journal.routes import Route, Routes, Sampling

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from chronicle.events.catalogue import Catalogue
    from chronicle.events.payload import Payload
    from chronicle.journal.counting import Counting
    from chronicle.journal.settings import Settings


class Preparing:
    """Of one journal; the arguments are `Journal`'s.

    Raises:
        ConfigError: routes, shares or the protection's settings are wrong.
    """

    def __init__(
        self,
        settings: Settings,
        source: str,
        *,
        routes: Mapping[str, Route | Mapping[str, Any]] | str | None,
        sample: Mapping[str, float] | str | None,
        protect: Callable[[Event], Event] | Literal[False] | None,
        catalogue: Catalogue | None,
    ) -> None:
        self._source = source
        self._routes = Routes(settings.routes if routes is None else routes)
        self._sampling = Sampling(settings.sample if sample is None else sample)
        self._protect = of_settings(settings) if protect is None else protect or None
        if settings.strict and catalogue is None:
            from chronicle.events.catalogue import Catalogue

            catalogue = Catalogue.shipped()
        self._catalogue = catalogue if settings.strict else None

    def made(self, what: Event | Payload | str, said: Mapping[str, Any], counting: Counting) -> tuple[Outgoing | None, Receipt]:
        """The event and its receipt; None: it is left out, as the receipt says.

        Raises:
            EventRefused: as `Journal.publish`; counted as invalid.
        """
        try:
            event, topic = composed(what, said, source=self._source)
            if self._catalogue is not None:
                self._catalogue.refuse(event)
            event = self._routes.applied(event, prioritized=bool(said.get("priority")) or event.priority != "normal")
            receipt = Receipt(event.id)
            if not self._sampling.keeps(event):
                counting.add("sampled")
                receipt.settle("sampled")
                return None, receipt
            if self._protect is not None:
                event = _protected(event, self._protect)
            out = Outgoing(event, encoded(event), topic or self._routes.of(event.type).topic)
        except EventRefused:
            counting.add("invalid")
            raise
        out.receipt = receipt
        return out, receipt


def _protected(event: Event, protect: Callable[[Event], Event]) -> Event:
    """Whatever goes wrong there, the event does not leave as it was."""
    try:
        protected = protect(event)
    except EventRefused:
        raise
    except Exception as error:  # noqa: BLE001 (others' code)
        raise EventRefused("", f"its protection failed: {type(error).__name__}") from None
    if protected is not event:
        checked(protected)
    return protected
