"""One event of the trail on one line, for people."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rich.text import Text

from chronicle.cli import shown

STYLES = {"success": "green", "failure": "red"}
PAYLOAD_WIDTH_MAX = 160


def line(event: Mapping[str, Any]) -> Text:
    """When, what, who, about what, how it ended, and what else it says; escaped, as every value at a terminal."""
    parts = [
        Text(shown.instant(datetime.fromisoformat(event["time"])), "dim"),
        Text(shown.words(event["source"])),
        Text(shown.words(event["type"]), "bold"),
    ]
    who = event["actor_name"] or event["actor_id"]
    if who:
        parts.append(Text(f"by {shown.words(who)}"))
    if event["resource_type"] and event["resource_id"]:
        parts.append(Text(f"{shown.words(event['resource_type'])}:{shown.words(event['resource_id'])}"))
    if event["outcome"]:
        parts.append(Text(event["outcome"], STYLES.get(event["outcome"], "")))
    if event["description"]:
        parts.append(Text(shown.value(event["description"])))
    if event["payload"]:
        parts.append(Text(shown.value(event["payload"], PAYLOAD_WIDTH_MAX)))
    if event["request_id"]:
        parts.append(Text(f"request {shown.words(event['request_id'])}", "dim"))
    if event["violations"]:
        parts.append(Text(shown.words(" ".join(event["violations"])), "yellow"))
    return Text("  ").join(parts)
