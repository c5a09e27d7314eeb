"""One intent to have another number of replicas, said before there are any."""

from __future__ import annotations

import msgspec

from taut.core.errors import InvalidInput

REPLICAS_MAX = 10_000


class ScaleEvent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From now on `pool` shall have `n` replicas.

    seq: 1, 2, 3 … without a gap, the same for all who read the log. scale_id: its name in alerts and in the ledger.
    at_us: when it was said, microseconds since the epoch; for people, nothing is decided by it.
    """

    seq: int
    scale_id: str
    pool: str
    n: int
    reason: str
    at_us: int

    def __post_init__(self) -> None:
        if self.seq < 1 or not 0 <= self.n <= REPLICAS_MAX:
            raise InvalidInput(
                f"scale event {self.scale_id} has place {self.seq} and {self.n} replicas: give a place from 1 and 0 to "
                f"{REPLICAS_MAX} replicas"
            )
