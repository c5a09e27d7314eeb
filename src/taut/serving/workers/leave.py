"""Leave for a worker to be given rows: kept by the gateway that gives them, and once more by the worker that takes them.

A leave comes with every batch, in its first bytes, so that none has to be renewed: which incarnation it is for, which epoch its
gateway is at, and until when by the clock that all processes of a machine share.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
import time
from collections.abc import Callable, Iterable
from itertools import count
from typing import Final, NamedTuple, Protocol

import msgspec

from taut.core.evidence import Check, Outcome

STAMP: Final = struct.Struct("<I12xQQ")
"""Incarnation, epoch, until, in nanoseconds of the monotonic clock; of 32 bytes, so that tensors behind it lie aligned."""
EVER_NS: Final = 2**63 - 1


class Leave(NamedTuple):
    """Until when rows may be given, and at which epoch their gateway is. until_s: of the monotonic clock."""

    until_s: float
    epoch: int = 0
    until_ns: int = EVER_NS

    def stamp(self, incarnation: int) -> bytes:
        """Return what a batch for an incarnation begins with."""
        return STAMP.pack(incarnation, self.epoch, self.until_ns)


ALWAYS: Final = Leave(float("inf"))


class Charge(msgspec.Struct, frozen=True):
    """What a worker is born with. token: secret, of this one alone. build: digest of what its gateway runs."""

    incarnation: int = 0
    token: str = ""
    build: str = ""


class Attestation(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker says that it is. artifact: digest of the model that it was given. proof: that it holds its charge's token."""

    incarnation: int = 0
    artifact: str = ""
    build: str = ""
    proof: str = ""


def attest(charge: Charge, *, artifact: str, build: str) -> Attestation:
    """Return a worker's attestation. It shows what was forked, not what a builder's code may have made of the process since."""
    said = f"{charge.incarnation} {artifact} {build}".encode()
    proof = hmac.digest(charge.token.encode(), said, hashlib.sha256).hex()
    return Attestation(incarnation=charge.incarnation, artifact=artifact, build=build, proof=proof)


def attested(charge: Charge, found: Attestation, *, artifact: str) -> tuple[Check, ...]:
    """Judge what a worker said that it is against what its gateway forked."""
    honest = attest(charge, artifact=found.artifact, build=found.build).proof
    return (
        check("token", hmac.compare_digest(honest.encode(), found.proof.encode())),
        check("nonce", found.incarnation == charge.incarnation),
        check("artifacts", (found.artifact, found.build) == (artifact, charge.build)),
    )


def check(name: str, passed: bool, message: str = "") -> Check:
    return Check(name=name, outcome=Outcome.PASSED if passed else Outcome.FAILED, message=message)


def passed(checks: Iterable[Check]) -> bool:
    return all(one.outcome is Outcome.PASSED for one in checks)


class Kept:
    """A worker's own side: no batch without leave, whoever sends it."""

    def __init__(self, incarnation: int, *, monotonic_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._incarnation: Final = incarnation
        self._monotonic_ns: Final = monotonic_ns
        self._epoch = 0

    def refusal(self, body: bytes) -> str:
        """Return why a batch is not taken; nothing where it is. The highest epoch that was seen is the floor."""
        incarnation, epoch, until_ns = STAMP.unpack_from(body)
        if incarnation != self._incarnation:
            return "is for another incarnation"
        if epoch < self._epoch:
            return f"is of epoch {epoch}, after one of {self._epoch}"
        if self._monotonic_ns() >= until_ns:
            return "came when its leave was over"
        self._epoch = epoch
        return ""


Granted = Callable[[str], None]
"""Called when a worker may be given rows: with what its answers are recorded as; again when that changes."""
Refused = Callable[[str], None]
"""Called when a worker may be given none, now or any more, with the reason."""


class Ward(Protocol):
    """Admits the workers of one model. One event loop owns it.

    leave: under which rows may be given now; replaced whole when it changes.
    """

    leave: Leave

    def charge(self) -> Charge:
        """Return what the next worker is born with. No incarnation is given twice."""
        ...

    def showed(
        self, incarnation: int, checks: tuple[Check, ...], granted: Granted, refused: Refused, /
    ) -> None:
        """Hear what a worker showed, and call one of the two, now or later."""
        ...

    def drains(self, incarnation: int, /) -> None:
        """Hear that a worker gets nothing new."""
        ...

    def ended(self, incarnation: int, why: str, /) -> None:
        """Hear that a worker is gone."""
        ...


class Unwarded:
    """Admits whoever shows what he must, where there is nobody else to ask: a Ward for processes without control."""

    def __init__(self, build: str = "") -> None:
        self.leave = ALWAYS
        self._build: Final = build
        self._numbers: Final = count(1)

    def charge(self) -> Charge:
        return Charge(next(self._numbers), build=self._build)

    def showed(
        self, _incarnation: int, checks: tuple[Check, ...], granted: Granted, refused: Refused
    ) -> None:
        if passed(checks):
            granted("")
        else:
            refused("; ".join(f"{one.name} {one.outcome}" for one in checks))

    def drains(self, _incarnation: int) -> None:
        pass

    def ended(self, _incarnation: int, _why: str) -> None:
        pass
