"""What an application imports: `attribute` says who makes the changes and why. Light: nothing is loaded before it is used."""

from __future__ import annotations

TYPE_CHECKING = False  # as type checkers know it, without importing typing
if TYPE_CHECKING:
    from chronicle.attribution import Actor, attribute, with_snapshots, without_audit

__all__ = ["Actor", "attribute", "with_snapshots", "without_audit"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from chronicle import attribution

    found: object = getattr(attribution, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
