"""Every question to the trail: which tables, which changes, one row's history, dead letters, free SQL.

Each function takes a clickhouse-connect client from its caller, binds every value as a parameter (none is ever part of
the SQL text), reads with FINAL so that a redelivered change is one change, and returns frozen dataclasses: the command
line and an HTTP API share them.
"""
