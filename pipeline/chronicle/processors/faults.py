"""What a processor does wrong, in words that hold no data: names from its declaration only."""

from __future__ import annotations


class ProcessorFault(Exception):
    """A processor broke its own declaration. Its text is safe to show: it names what was declared, never what came out."""
