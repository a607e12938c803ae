"""Bytes to frames: Avro and JSON records of Debezium as Polars frames, with the meaning of every column. Pure."""
