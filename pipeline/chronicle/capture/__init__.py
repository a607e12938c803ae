"""Connectors as code: source files and templates become Debezium connectors in Kafka Connect, checked, planned, applied."""

from __future__ import annotations

from chronicle.capture.sources import Database, Source, load_source, load_sources

__all__ = ["Database", "Source", "load_source", "load_sources"]
