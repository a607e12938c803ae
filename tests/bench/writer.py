"""Commits one-row transactions at a steady rate and says when each was committed; a process of its own."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pymysql

_NEVER = threading.Event()


def connection(kind: str, parameters: dict[str, Any]) -> Callable[[int], None]:
    """A function that commits row `id`."""
    if kind == "postgres":
        postgres = psycopg.connect(parameters["dsn"], autocommit=True)
        statement = b"INSERT INTO latency (id, note) VALUES (%s, 'one row of a steady stream')"

        def write(identifier: int) -> None:
            postgres.execute(statement, (identifier,))

        return write
    mariadb = pymysql.connect(**parameters, autocommit=True)
    cursor = mariadb.cursor()

    def insert(identifier: int) -> None:
        cursor.execute("INSERT INTO latency (id, note) VALUES (%s, 'one row of a steady stream')", (identifier,))

    return insert


def main() -> None:
    """Arguments: kind, connection parameters as JSON, rate per second, seconds, first id. Prints `id commit-time` lines."""
    kind, parameters, rate, seconds, first = sys.argv[1:]
    write = connection(kind, json.loads(parameters))
    committed = []
    begin = time.perf_counter()
    for number in range(int(float(rate) * float(seconds))):
        ahead = begin + number / float(rate) - time.perf_counter()
        if ahead > 0:
            _NEVER.wait(ahead)
        write(int(first) + number)
        committed.append(time.time())
    sys.stdout.writelines(f"{int(first) + number} {at}\n" for number, at in enumerate(committed))


if __name__ == "__main__":
    main()
