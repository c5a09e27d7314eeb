"""What it means to be contained, as control keeps it and as gateways know it."""

from __future__ import annotations

from datetime import datetime, timedelta
from math import isfinite
from typing import Final, Literal

import msgspec

from taut.core.errors import Denied, InvalidInput, StepUp, TautError

Action = Literal["throttle", "step_up", "quarantine", "revoke"]
ACTIONS: Final[tuple[Action, ...]] = ("throttle", "step_up", "quarantine", "revoke")
"""From the mildest to the hardest.

throttle: fewer requests a second. step_up: sessions and tokens of before end, people sign in anew, programs exchange their
key for a token. quarantine: nothing but the endpoints that are named. revoke: nothing at all."""

_LONGEST: Final = timedelta(days=30)
_MAX_REASON: Final = 500


class Contained(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A containment as gateways know it; over by itself at `until_us`.

    per_s: requests a second, over all gateways, of a throttle. allowed: endpoints that a quarantine leaves.
    """

    id: str
    principal: str
    action: Action
    until_us: int
    per_s: float = 0.0
    allowed: tuple[str, ...] = ()


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """That somebody be contained. alert: because of which; empty where a person thought of it."""

    principal: str
    action: Action
    lasts: timedelta
    reason: str
    per_s: float = 0.0
    allowed: tuple[str, ...] = ()
    alert: str = ""

    def __post_init__(self) -> None:
        if not timedelta(seconds=1) <= self.lasts <= _LONGEST:
            raise InvalidInput(f"a containment cannot last {self.lasts}: give 1s to 30d")
        if (self.action == "throttle") != bool(self.per_s) or not (isfinite(self.per_s) and self.per_s >= 0):
            raise InvalidInput(
                f"{self.per_s:g} requests a second for {self.action}: a throttle needs a number above 0, nothing else takes one"
            )
        if self.allowed and self.action != "quarantine":
            raise InvalidInput(
                f"endpoints are left by a quarantine only, not by {self.action}: leave them out"
            )
        if not 0 < len(self.reason) <= _MAX_REASON or not self.reason.isprintable():
            raise InvalidInput(
                f"a containment needs a reason of 1 to {_MAX_REASON} printable characters: say why"
            )


class Containment(msgspec.Struct, frozen=True, kw_only=True):
    """One containment: of whom, why, since when and until when at the latest."""

    id: str
    principal: str
    action: Action
    reason: str
    alert: str
    begun_by: str
    begun_at: datetime
    until: datetime
    per_s: float = 0.0
    allowed: tuple[str, ...] = ()
    lifted_at: datetime | None = None
    lifted_by: str | None = None
    lifted_why: str = ""


def refusal(contained: Contained, *, endpoint: str | None, key: bool) -> TautError | None:
    """Return why somebody who is contained is refused, or None where he is not; a throttle refuses by itself.

    endpoint: that he asks; None for the control plane. key: whether he shows an API key itself.
    """
    if contained.action == "revoke" or (
        contained.action == "quarantine" and endpoint not in contained.allowed
    ):
        what = (
            "all that it holds is revoked" if contained.action == "revoke" else "it may not do this meanwhile"
        )
        return Denied(
            f"{contained.principal} is contained ({contained.id}): {what}. An administrator can lift it"
        )
    if contained.action == "step_up" and key:
        return StepUp(
            f"{contained.principal} is contained ({contained.id}): exchange the API key for a token, `taut token exchange`"
        )
    return None
