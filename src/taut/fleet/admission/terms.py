"""What an installation demands of its replicas, and for how long it trusts them."""

from __future__ import annotations

from enum import StrEnum
from math import isfinite
from typing import Literal

import msgspec

from taut.core.errors import InvalidInput, NotFound

Risk = Literal["low", "medium", "high"]


class Stage(StrEnum):
    """Where a replica's present incarnation is in its life; see docs/explanation/admission.md."""

    PROVISIONED = "provisioned"
    ATTESTED = "attested"
    SYNCED = "synced"
    WARMED = "warmed"
    PROBED = "probed"
    ADMITTED = "admitted"
    DRAINING = "draining"
    GONE = "gone"
    QUARANTINED = "quarantined"


LIVING = frozenset(Stage) - {Stage.GONE, Stage.QUARANTINED}
COMING = frozenset({Stage.PROVISIONED, Stage.ATTESTED, Stage.SYNCED, Stage.WARMED, Stage.PROBED})


class Grace(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long after its asking a lease may be used for a class of risk where control does not answer any more."""

    risk: Risk
    ttl_s: float


class Need(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """That one replica of `pool` (detectors) guards at most `each` of those that need it."""

    pool: str
    each: int


class Pool(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of replica, such as gateways or the workers of a model.

    artifacts: digest of what such a replica must run. quota: what all of the pool may admit together, requests a second.
    minimum: a policy change never leaves fewer than these admitted, where there were as many.
    follows: whether its replicas choose among others and so are told which may be used (gateways).
    needs: whose capacity must be there first; nobody is admitted beyond it.
    """

    name: str
    artifacts: str
    quota: int
    minimum: int = 1
    follows: bool = False
    needs: Need | None = None


class Terms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The bounds of admission; all durations are seconds.

    ttl_s: life of a lease from the moment at which control grants it, by whichever clock. skew: how much faster or slower
    than true any party's monotonic clock may run, as a share. join_s: a replica that is not admitted by then, or says
    nothing for so long, is quarantined. patience_s: how long a commit waits for all to have loaded the new epoch;
    afterwards the pools' minima suffice. prepare_s: when an epoch that does not reach them is withdrawn. drain_s: what a
    draining replica has to finish. safe_share: of a fair share of quota, what may be used in grace.
    """

    pools: tuple[Pool, ...]
    ttl_s: float = 4.5
    skew: float = 0.05
    join_s: float = 60.0
    patience_s: float = 1.0
    prepare_s: float = 30.0
    drain_s: float = 30.0
    safe_share: float = 0.1
    grace: tuple[Grace, ...] = (Grace(risk="low", ttl_s=3600.0), Grace(risk="medium", ttl_s=600.0))

    def __post_init__(self) -> None:
        durations = (self.ttl_s, self.join_s, self.patience_s, self.prepare_s, self.drain_s)
        if not all(isfinite(value) and value > 0 for value in durations):
            raise InvalidInput("a duration of the terms of admission is not above 0: give finite seconds")
        if not (0 <= self.skew <= 0.2 and 0 <= self.safe_share <= 1):
            raise InvalidInput("skew must be 0 to 0.2 and safe_share 0 to 1: mend the terms of admission")
        if any(one.risk == "high" for one in self.grace):
            raise InvalidInput("high risk fails closed: give it no grace")
        if len({pool.name for pool in self.pools}) != len(self.pools):
            raise InvalidInput("a pool is declared twice: give each one name")
        for pool in self.pools:
            if pool.needs is not None and (self.pool(pool.needs.pool) == pool or pool.needs.each < 1):
                raise InvalidInput(
                    f"pool {pool.name} needs itself, or none of another: name one that guards it"
                )

    def pool(self, name: str) -> Pool:
        for pool in self.pools:
            if pool.name == name:
                return pool
        raise NotFound(f"there is no pool {name!r}: declare it in the terms of admission")

    @property
    def grace_s(self) -> float:
        """Return the longest that anything may be used without control."""
        return max((one.ttl_s for one in self.grace), default=0.0)

    def holder_s(self, granted_s: float) -> float:
        """Return how long, by his own clock, the holder of what lasts `granted_s` by the granter's may use it.

        From its asking on: the holder's clock may be slow and the granter's fast, each by `skew`, and
        (1 - 2 skew) / (1 - skew) <= 1 / (1 + skew).
        """
        return granted_s * (1 - 2 * self.skew)
