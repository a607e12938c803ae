"""The local stack without Docker: fetch its parts, start, watch and stop them. Only `cli` and the tests import this."""
