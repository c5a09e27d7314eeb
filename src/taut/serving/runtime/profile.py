"""How large a batch may be: what an endpoint gives up of its latency for throughput."""

from __future__ import annotations

import math
from typing import Final, Literal

import msgspec

from taut.serving.runtime.form import Cost

Profile = Literal["latency", "throughput"]
_ROWS_MAX: Final = 1024


class Sizing(msgspec.Struct, frozen=True, kw_only=True):
    """How batches are sized.

    share: of an answer's latency, what one batch may take. batches: how many of them may wait for each worker, so that the
    one under way, those before a request and its own end within the latency. gain: rows are added to a batch until what
    each row costs is so many times what the batch costs anyhow; infinite for as many as there is time for.
    """

    share: float
    batches: int
    gain: float

    def batch_us(self, latency_s: float) -> float:
        """Return what one batch may take, in microseconds."""
        return self.share * latency_s * 1e6

    def batch_rows(self, cost: Cost, latency_s: float) -> int:
        """Return the rows of the largest batch that is worth it, 1 to 1024."""
        within = min(_ROWS_MAX, cost.rows_within(self.batch_us(latency_s)))
        if math.isinf(self.gain):
            return within
        return max(1, min(within, math.ceil(self.gain * cost.base_us / max(cost.row_us, 0.01))))


SIZINGS: Final[dict[Profile, Sizing]] = {
    # a batch whose fixed cost is a tenth of the whole gains little from more rows; a quarter of the latency is left over
    "latency": Sizing(share=1 / 4, batches=2, gain=9.0),
    # the batch under way and a request's own: all of the latency is used
    "throughput": Sizing(share=1 / 2, batches=1, gain=math.inf),
}
