"""The refusal of a request that a quota does not cover: which one, of whom, and when it would pass."""

from __future__ import annotations

import math

from taut.core.errors import Exhausted
from taut.trust.quota.limit import Limit


class QuotaSpent(Exhausted):
    """A quota is used up. name: of the quota, as it was declared. left: what remains of it, not enough for this."""

    def __init__(self, message: str, *, name: str, limit: Limit, left: float, retry_after_s: float) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.name = name
        self.limit = limit
        self.left = left

    @property
    def fields(self) -> dict[str, object]:
        """Return which quota it was, for the error's body."""
        return {"name": self.name, "level": self.limit.level or "principal", "kind": self.limit.kind}

    @property
    def headers(self) -> bytes:
        """Return the header lines of draft-ietf-httpapi-ratelimit-headers-10: the policy, and what is left of it."""
        limit, again_s = self.limit, max(1, math.ceil(self.retry_after_s))
        window_s = math.ceil(limit.window_s) or max(1, math.ceil(limit.burst / limit.rate_per_s))
        unit = "" if limit.kind == "requests" else f';qu="{limit.kind}"'
        policy = f'ratelimit-policy: "{self.name}";q={math.floor(limit.burst)};w={window_s}{unit}\r\n'
        return f'{policy}ratelimit: "{self.name}";r={max(0, math.floor(self.left))};t={again_s}\r\n'.encode()


def spent(name: str, limit: Limit, left: float, retry_after_s: float) -> QuotaSpent:
    """Return the refusal in words. name: of the limit."""
    declared = name.partition(":")[0]
    what = f"the quota of {limit.rate_per_s:g} {limit.unit and limit.unit + ' '}a second"
    if limit.window_s:
        unit = limit.unit or limit.kind
        what = f"the budget of {limit.burst:,.10g} {unit} in any {limit.window_s / 3600:g} hours"
    if limit.level:
        declared = name.split(":")[1]
        said = f"{what} that {declared!r} gives {limit.level} is used up: slow down or ask for more"
    else:
        said = f"{what} on {declared!r} is used up: slow down or ask for more"
    return QuotaSpent(said, name=declared, limit=limit, left=left, retry_after_s=retry_after_s)
