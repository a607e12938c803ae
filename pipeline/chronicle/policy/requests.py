"""What a transaction's context may ask of the trail: the policy's word on `without_audit` and `with_snapshots`."""

from __future__ import annotations

from dataclasses import dataclass

from chronicle.policy.fields import Fields
from chronicle.policy.patterns import Glob


@dataclass(frozen=True, slots=True)
class Requests:
    """Nothing, where a policy says nothing."""

    without_audit: tuple[Glob, ...] = ()
    """Reasons for which a transaction's changes may be counted only."""
    snapshots: bool = False
    """Whether a transaction may keep its images whole where the policy keeps what changed."""

    def allows(self, reason: str) -> bool:
        """Whether a transaction may be left out for this reason."""
        return any(pattern.matches(reason) for pattern in self.without_audit)


NOTHING = Requests()


def requests(fields: Fields) -> Requests:
    """Out of `[context]`."""
    reasons = fields.texts("allow_without_audit") or ()
    if any(not reason.strip("*") for reason in reasons):
        fields.wrong("allow_without_audit", "name the reasons: a pattern of * alone would let anything be left out")
    return Requests(tuple(map(Glob, sorted(set(reasons)))), bool(fields.flag("allow_snapshots")))
