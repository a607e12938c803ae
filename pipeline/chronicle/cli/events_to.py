"""Where commands send events: a broker, the service, files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from chronicle.journal import Journal

To = Annotated[
    str | None,
    typer.Option(
        "--to",
        help="http://host:port of `chronicle api`, kafka://host:port/topic, file:///directory; default: the settings' broker.",
    ),
]
Key = Annotated[str | None, typer.Option("--key", help="API key, with http; better in CHRONICLE_JOURNAL_KEY.")]
Timeout = Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds to wait for the confirmation.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output, one object a line.")]


def journal_to(to: str | None, key: str | None, **settings: Any) -> Journal:
    """A journal to `--to`, else to the settings' broker.

    Raises:
        ConfigError: there is no broker (transport = "memory"), and no `--to`.
    """
    from chronicle.journal import Journal

    if to is not None:
        return Journal(transport=to, key=key, **settings)
    from chronicle import config
    from chronicle.errors import ConfigError
    from chronicle.journal.transports.kafka import Kafka

    loaded = config.load()
    if loaded.transport == "memory":
        raise ConfigError(f'add --to http://{loaded.api.host}:{loaded.api.port}: with transport = "memory" there is no broker')
    kafka = loaded.kafka
    client = {name: str(value) for name, value in kafka.client_config().items()}
    return Journal(transport=Kafka(kafka.bootstrap_servers, topic=kafka.events_topic, config=client), **settings)
