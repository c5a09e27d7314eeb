"""What a caller may use, and how much of it one gateway may let pass."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Final, Literal

import msgspec

from taut.core.canonical import digest_json
from taut.core.errors import InvalidInput

WHOLE: Final = 1_000_000
"""Shares are whole millionths, so that their sums are exact."""
SAFE_PART: Final = 10
"""One part in so many of an equal share is what a gateway uses while it hears nothing."""


Kind = Literal["requests", "model_ms", "gpu_ms", "usd_micros", "tokens"]
"""What is counted: requests, milliseconds that models took (gpu_ms: on an accelerator), millionths of a dollar, tokens."""
_UNITS: Final[dict[Kind, str]] = {
    "requests": "",
    "model_ms": "ms of model time",
    "gpu_ms": "ms of accelerator time",
    "usd_micros": "micro-dollars",
    "tokens": "tokens",
}


FIRST_PART: Final = 100
"""One part in so many of an equal share of a budget is what a gateway may spend before control says anything of it."""


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """A rate and the burst that it allows; a new key starts with the whole burst.

    level: whose it is, in words; empty for a principal's own at one endpoint. window_s: of a budget, over which `burst` is all
    that there is; 0 of what comes anew each second.
    """

    rate_per_s: float
    burst: float
    kind: Kind = "requests"
    level: str = ""
    window_s: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("rate_per_s", self.rate_per_s), ("burst", self.burst)):
            if not (isfinite(value) and value > 0):
                raise InvalidInput(f"{name} is {value}: give a finite number above 0")

    @property
    def first(self) -> float:
        """Return what a gateway's equal part of a budget begins with, times the number of gateways."""
        return self.burst / FIRST_PART

    @property
    def unit(self) -> str:
        """Return what is counted, in words; empty for requests."""
        return _UNITS[self.kind]

    def share(self, parts: int) -> Limit:
        """Return what one of `parts` equal parts is. Raises InvalidInput below one part."""
        if parts < 1:
            raise InvalidInput(f"a limit cannot be shared by {parts}: give at least 1")
        rate_per_s, burst = self.part(WHOLE // parts)
        return msgspec.structs.replace(self, rate_per_s=rate_per_s, burst=burst)

    def part(self, share: int) -> tuple[float, float]:
        """Return the rate and the burst of a share, so that together shares of `WHOLE` stay within the limit.

        A burst that lets one request pass does so in each part: less than one would refuse every request for ever.
        Where `burst` is below the number of gateways, a caller who reaches all of them may so spend one at each at once.
        """
        if share <= 0:
            return 0.0, 0.0
        part = min(share, WHOLE) / WHOLE
        return self.rate_per_s * part, max(self.burst * part, min(1.0, self.burst))


def budget(amount: float, window_s: float, *, kind: Kind, level: str) -> Limit:
    """Return the limit of which no `window_s` seconds see more than `amount`."""
    return Limit(rate_per_s=amount / window_s, burst=amount, kind=kind, level=level, window_s=window_s)


def digest_limits(limits: Mapping[str, Limit]) -> str:
    """Return what names a set of limits: a lease on others says nothing."""
    return digest_json(limits)
