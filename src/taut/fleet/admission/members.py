"""A replica in admission's books: one row each, of its present incarnation."""

from __future__ import annotations

from typing import Final

import msgspec

from taut.core.evidence import Gate
from taut.fleet.admission.messages import svid_of
from taut.fleet.admission.terms import COMING, LIVING, Stage

NEVER: Final = -1e18

ATTEST_GATE: Final = Gate(name="replica.attest", required=frozenset({"token", "nonce", "artifacts"}))
WARM_GATE: Final = Gate(name="replica.warm", required=frozenset({"golden", "latency"}))
PROBE_GATE: Final = Gate(
    name="replica.probe", required=frozenset({"must_block", "must_pass", "tenant_isolation"})
)


class Member(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One replica. Times are seconds of admission's monotonic clock.

    token: digest of its join token, empty once used. nonce: what its proofs are made with. proved: the epochs among the
    committed and the prepared one that it showed to have loaded. beat: the newest that was answered. heard_s: when.
    granted_s: when its last ticket was given. reason: why it is in quarantine. vouched: its newest word about workers.
    """

    replica: str
    pool: str
    scale_id: str
    incarnation: int
    token: str
    nonce: str
    since_s: float
    heard_s: float
    stage: Stage = Stage.PROVISIONED
    key: str = ""
    proved: tuple[int, ...] = ()
    beat: int = 0
    serial: int = 0
    granted_s: float = NEVER
    quota: int = 0
    reason: str = ""
    vouched: int = 0

    @property
    def svid(self) -> str:
        return svid_of(self.pool, self.replica, self.incarnation)

    @property
    def lives(self) -> bool:
        return self.stage in LIVING

    @property
    def comes(self) -> bool:
        return self.stage in COMING

    def durable(self) -> Member:
        """Return what must be on disk before anybody is told: not when it was heard last."""
        return msgspec.structs.replace(
            self, since_s=0.0, heard_s=0.0, granted_s=NEVER, beat=0, serial=0, quota=0
        )

    def counted_anew(self, now_s: float) -> Member:
        """Return it as a restarted admission sees it: as if it had just come and been heard; its lease is its own."""
        return msgspec.structs.replace(self, since_s=now_s, heard_s=now_s, granted_s=NEVER, serial=0)
