"""Which requests a shadow is asked too, and what the gateway notes of them while the live version answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from taut.serving.runtime import Outputs
from taut.serving.trials.pairs import Pairs

BODY_MOST: Final = 2**18
"""Larger requests are not drawn: what waits for a shadow must stay small."""
_STEP: Final = 0.6180339887498949
"""Weyl's sequence by the golden ratio: as even as a draw can be, and in step with no period of the traffic."""
NOBODYS: Final = frozenset({"unavailable", "deadline_exceeded"})
"""Codes of failures that may be the gateway's, a queue's or a store's: of them a pair says nothing, whichever version met them."""


class Pairing:
    """One request that was drawn. It waits until the live version has answered; where it refuses the request, for good.

    unit: who is counted, mark: his in samples. live: the outputs, None where the live version alone failed. batch, features: as the live version was asked.
    took_ns: its model's time, 0 where the answer came from a cache.
    """

    __slots__ = (
        "batch", "body", "caller", "features", "json_bytes", "kind", "live", "now_us", "request_id", "sampling", "session",
        "took_ns", "unit",
    )  # fmt: skip

    def __init__(self, sampling: Sampling, unit: str, ticket: Any, caller: Any, body: bytes) -> None:
        """ticket: not kept, only what it says."""
        self.sampling: Sampling | None = sampling
        self.unit: Final = unit
        self.request_id: Final[str] = ticket.request_id
        self.now_us: Final[int] = ticket.now_us
        self.session: Final = ticket.session
        self.caller: Final = caller
        self.kind: Final[str] = ticket.route.kind
        self.body: Final = body
        self.json_bytes: Final[int | None] = ticket.json_bytes
        self.live: Outputs | None = None
        self.batch: Any = None
        self.features: Any = ()
        self.took_ns = 0

    def answered(
        self, batch: Any, features: Any, outputs: Outputs, took_ns: int, stood_in: bool, _now_us: int
    ) -> None:
        """Hear what was answered; where something stood in, the live version failed."""
        if not stood_in:
            self.live, self.batch, self.features, self.took_ns = outputs, batch, features, took_ns
        self._hand_over()

    def fail(self, code: str, _now_us: int) -> None:
        """Hear that the live version failed."""
        if code not in NOBODYS:
            self._hand_over()

    def _hand_over(self) -> None:
        sampling, self.sampling = self.sampling, None  # of a stream only the first part
        if sampling is not None:
            sampling.take(sampling, self)


class Sampling:
    """Draws a part of an endpoint's requests for its shadow, each by itself.

    endpoint: as the shadow serves it; None where it cannot, and `fault` says why. live: what asks the live version. take: takes what was
    drawn, set by the gateway before it serves, as `pairs` is.
    """

    def __init__(self, release: str, share: float, *, live: Any, endpoint: Any, fault: str = "") -> None:
        self.release: Final = release
        self.share: Final = share
        self.live: Final = live
        self.endpoint: Final = endpoint
        self.fault: Final = fault
        self.pairs = Pairs(release)
        self.take: Callable[[Sampling, Pairing], None] = lambda _sampling, _pairing: None
        self._at = 0.0

    def draw(self, unit: str, ticket: Any, caller: Any, body: bytes) -> Pairing | None:
        """Return the request as it was drawn; None where it was not."""
        self._at = at = (self._at + _STEP) % 1.0
        if at >= self.share or self.endpoint is None:
            return None
        if len(body) > BODY_MOST:
            self.pairs.dropped += 1
            return None
        return Pairing(self, unit, ticket, caller, body)
