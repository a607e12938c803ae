"""Run ClickHouse's own HTTP server out of npm's libchdb.so: `libchdb_server.py LIBRARY [clickhouse-local arguments]`.

Started as a program of its own, by path, so that it needs nothing but Python. It runs until SIGTERM.
"""

from __future__ import annotations

import ctypes
import os
import sys


def main(library_path: str, arguments: list[str]) -> int:
    """Serve until a signal; a start that fails prints ClickHouse's reason and returns 1."""
    # clickhouse-local ends with its standard input, so give it one that never does: a pipe whose other end stays open here
    reading, _writing = os.pipe()
    os.dup2(reading, 0)
    library = ctypes.CDLL(library_path)
    library.chdb_query_cmdline.restype = ctypes.c_void_p
    library.chdb_query_cmdline.argtypes = [ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)]
    library.chdb_result_error.restype = ctypes.c_char_p
    library.chdb_result_error.argtypes = [ctypes.c_void_p]
    argv = [
        "clickhouse-local",
        *arguments,
        "--input-format",
        "LineAsString",
        "--output-format",
        "TabSeparated",  # becomes the HTTP default format, which clients rely on
        "--query",
        "SYSTEM START LISTEN HTTP; SELECT * FROM file(stdin, LineAsString)",
    ]
    result = library.chdb_query_cmdline(len(argv), (ctypes.c_char_p * (len(argv) + 1))(*[one.encode() for one in argv], None))
    error = library.chdb_result_error(result) if result else None
    if error:
        sys.stderr.write(error.decode(errors="replace") + "\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
