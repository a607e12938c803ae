"""Where a journal's events may be kept besides the trail: rotating files, an SQL database.

Each is a transport: alone, or beside another one (`transports.tee`), where an event counts as confirmed when both have it.
`keep` makes one a subscriber instead, which never holds up what is sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chronicle.journal.journal import Journal
    from chronicle.journal.transports import Transport


def keep(journal: Journal, transport: Transport, pattern: str = "**", **settings: Any) -> Journal:
    """Hand each event of the pattern that the journal accepts to the transport as well, as it was accepted (protected, sealed).

    By a queue of its own, in batches, again while the transport is away, with a spill if `settings` name one. Returns that
    queue, a `Journal`: its `counts` say what became of the events. Close it after the journal.
    """
    from chronicle.journal.journal import Journal

    keeper = Journal(source=journal.source, transport=transport, protect=False, history_events=0, span_events=False, **settings)
    journal.subscribe(pattern, keeper.publish)
    return keeper
