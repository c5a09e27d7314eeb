"""Quotas above those of one principal at one endpoint: of a group of callers, of all of them, of each over several endpoints."""

from __future__ import annotations

from typing import Final

import msgspec

from taut.trust.identity.principals import Principal
from taut.trust.quota.limit import Limit
from taut.trust.quota.messages import Key

ROLE: Final = "role:"
_BURST_S: Final = 2.0


class Price(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an answer costs, in millionths of a dollar: each request, and each second that a model takes."""

    request_micros: float = 0.0
    model_second_micros: float = 0.0

    def micros(self, model_ms: float, *, requests: int = 1) -> float:
        """Return the price of answers that took so much model time.

        >>> Price(request_micros=100.0, model_second_micros=5000.0).micros(20.0)
        200.0
        """
        return self.request_micros * requests + self.model_second_micros * model_ms / 1e3


class Allowance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What some callers may use, together or each.

    members: ids of principals, or `role:NAME`; nobody named means everybody. each: every member has his own; otherwise they
    share one. endpoints: where it counts; none named means all. limits: one a kind and window.
    """

    name: str
    limits: tuple[Limit, ...]
    members: tuple[str, ...] = ()
    each: bool = False
    endpoints: tuple[str, ...] = ()

    def covers(self, principal: Principal, endpoint: str) -> bool:
        """Whether a request of somebody to an endpoint counts."""
        if self.endpoints and endpoint not in self.endpoints:
            return False
        named = self.members
        return not named or principal.id in named or any(f"{ROLE}{role}" in named for role in principal.roles)

    def named(self) -> dict[str, Limit]:
        """Return the limits by the names under which they are lent; no endpoint can have one of these names."""
        return {f"quota:{self.name}:{limit.kind}{_window(limit)}": limit for limit in self.limits}

    def keys(self, principal: Principal) -> tuple[tuple[Limit, Key], ...]:
        """Return what a request of a member counts against."""
        who = principal.id if self.each else ""
        return tuple((limit, (name, who)) for name, limit in self.named().items())


def _window(limit: Limit) -> str:
    return f":{limit.window_s:.0f}" if limit.window_s else ""


def throttle(id_: str, principal: str, per_s: float) -> dict[str, Limit]:
    """Return the limit of somebody who is contained, by the name under which it is lent. id_: of the containment."""
    limit = Limit(
        rate_per_s=per_s,
        burst=max(1.0, per_s * _BURST_S),
        level=f"{principal}, who is contained until that ends or an administrator lifts it,",
    )
    return {throttle_key(id_, principal)[0]: limit}


def throttle_key(id_: str, principal: str) -> Key:
    return f"contained:{id_}", principal
