"""Containments at this gateway: who is held back, looked at only where a decision is made anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from taut.trust.containment import Contained, refusal
from taut.trust.quota import Key, throttle_key


class Restraints:
    """What holds by a snapshot. A throttle is a quota among the others, lent by leases as they are."""

    def __init__(self, contained: Sequence[Contained]) -> None:
        self._held: Final[dict[str, tuple[Contained, ...]]] = {}
        for one in contained:
            self._held[one.principal] = (*self._held.get(one.principal, ()), one)

    def hold(self, principal: str, endpoint: str, *, key: bool, now_us: int) -> tuple[Key, ...] | None:
        """Return the throttles of a caller; None of one who is not held back, so that it may be remembered what he may.

        key: whether he shows an API key itself. Raises Denied or StepUp where this request is refused.
        """
        held = self._held.get(principal)
        if held is None:
            return None
        holding = [one for one in held if now_us < one.until_us]
        for one in holding:
            why = refusal(one, endpoint=endpoint, key=key)
            if why is not None:
                raise why
        throttles = tuple(throttle_key(one.id, principal) for one in holding if one.action == "throttle")
        return throttles if holding else None
