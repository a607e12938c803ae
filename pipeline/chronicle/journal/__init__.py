"""The journal: an application says what happened, and the trail keeps it.

    from chronicle.journal import Journal, actor, tag, tagged

    journal = Journal(source="shop", transport="http://localhost:8080", spill="/var/lib/shop/spill")
    with actor("ann"), tagged(request_id="r-1"):
        tag(campaign="spring")
        journal.publish("order.placed", resource=("order", 7), payload={"total": 30})

`publish` queues and returns at once; `publish(…, timeout=2)` and `publish_sync` wait for the confirmation, `apublish` and
`apublish_sync` do so for coroutines. A `Receipt` tells what became of an event. `subscribe`, `on_enqueue`, `history` and
`counts` are for the process itself; `in_transaction(connection)` makes events part of a database transaction.

Guarantees. Each event has one disposition and is counted under it; with a spill directory nothing is dropped until that is
full, and what is confirmed or spilled survives `kill -9`. An event may arrive twice, with the same id. What is secret by name
or shape is hidden before anything else sees the event (`journal.protection`).

Where it may be used. Any number of threads and tasks; forked children; handlers of signals (there not
`publish_sync`); hooks, subscribers and `on_error`. A journal is made in each process: it cannot be pickled. Errors of others'
code (transports, hooks, handlers) never reach who publishes; they go to `on_error`, else to the logger `chronicle.journal`.

What raises. `Journal(…)`: `ConfigError`, `OSError` (the spill). `publish`: `EventRefused`, `JournalClosed`, and where it waits
`PublishTimeout`, `PublishRefused`, `PublishDropped`, which have the receipt; all are `ChronicleError`s and can be pickled.
Messages name fields, never values.

Around it: `journal.middleware`, `journal.logger`, `journal.logging_handler`, `journal.structlog_processor`,
`journal.persistence`, `journal.protection`, `journal.outbox`, `journal.metrics`, `journal.transports`; all settings, also by
environment, are in `journal.settings`; the pytest fixture `journaled` in `journal.pytest_plugin`.

Light: nothing is loaded before it is used, and then only msgspec beyond the standard library; what a transport or an
integration needs is loaded by it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from chronicle.events.event import Event, EventRefused
    from chronicle.journal.context import actor, carried, current, tag, tagged
    from chronicle.journal.journal import Journal
    from chronicle.journal.naming import actor_uri, commit_hash
    from chronicle.journal.receipt import JournalClosed, PublishDropped, PublishError, PublishRefused, PublishTimeout, Receipt
    from chronicle.journal.routes import Route

_WHERE = {
    **dict.fromkeys(("Event", "EventRefused"), "chronicle.events.event"),
    **dict.fromkeys(("actor", "carried", "current", "tag", "tagged"), "chronicle.journal.context"),
    **dict.fromkeys(("actor_uri", "commit_hash"), "chronicle.journal.naming"),
    **dict.fromkeys(
        ("JournalClosed", "PublishDropped", "PublishError", "PublishRefused", "PublishTimeout", "Receipt"),
        "chronicle.journal.receipt",
    ),
    "Journal": "chronicle.journal.journal",
    "Route": "chronicle.journal.routes",
}

__all__ = [
    "Event",
    "EventRefused",
    "Journal",
    "JournalClosed",
    "PublishDropped",
    "PublishError",
    "PublishRefused",
    "PublishTimeout",
    "Receipt",
    "Route",
    "actor",
    "actor_uri",
    "carried",
    "commit_hash",
    "current",
    "tag",
    "tagged",
]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found: object = getattr(import_module(_WHERE[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
