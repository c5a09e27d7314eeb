"""Containments at this gateway: who is held back, looked at only where a decision is made anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from taut.core.errors import Exhausted
from taut.trust.containment import Contained, refusal
from taut.trust.quota import Limit, Quota

_BURST_S: Final = 2.0


class Restraints:
    """What holds by a snapshot.

    gateways: among which a throttle's rate is shared. before: whose buckets go on, so that a new snapshot refills none.
    """

    def __init__(
        self, contained: Sequence[Contained], *, gateways: int = 1, before: Restraints | None = None
    ) -> None:
        self._held: Final[dict[str, tuple[Contained, ...]]] = {}
        self._buckets: Final[dict[Contained, tuple[int, Quota]]] = {}
        for one in contained:
            self._held[one.principal] = (*self._held.get(one.principal, ()), one)
            if one.action == "throttle":
                kept = None if before is None else before._buckets.get(one)
                self._buckets[one] = (
                    kept if kept and kept[0] == gateways else (gateways, _bucket(one, gateways))
                )

    def hold(self, principal: str, endpoint: str, *, key: bool, now_us: int) -> bool:
        """Whether a caller is held back at all, so that nothing may be remembered of what he was allowed.

        key: whether he shows an API key itself. Raises Denied, StepUp or Exhausted where this request is refused.
        """
        held = self._held.get(principal)
        if held is None:
            return False
        holding = [one for one in held if now_us < one.until_us]
        for one in holding:
            why = refusal(one, endpoint=endpoint, key=key)
            if why is not None:
                raise why
        for one in holding:
            if one.action == "throttle":
                self._take(one, now_us)
        return bool(holding)

    def _take(self, one: Contained, now_us: int) -> None:
        try:
            self._buckets[one][1].take((one.id, one.principal), 1.0, now_us / 1e6)
        except Exhausted as error:
            raise Exhausted(
                f"{one.principal} is contained ({one.id}): {one.per_s:g} requests a second until an administrator lifts it or "
                "it ends by itself: slow down",
                retry_after_s=error.retry_after_s,
            ) from error


def _bucket(one: Contained, gateways: int) -> Quota:
    limit = Limit(rate_per_s=one.per_s, burst=max(1.0, one.per_s * _BURST_S))
    return Quota({one.id: limit.share(gateways)}, max_buckets=1)
