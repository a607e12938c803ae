"""The HTTP service: applications hand in events, people and programs read the trail.

`app.create` makes it of `parts.Parts`; who constructs those is `chronicle.wiring_api` (Kafka, ClickHouse) or
`chronicle.wiring_embedded`. Nothing here reads a setting's file or opens a connection by itself.
"""
