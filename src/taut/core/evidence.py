"""Evidence, gates and verdicts: the one shape of everything that moves toward production.

A gate looks at evidence and gives a verdict: admit, hold (a person must decide) or reject. A gate whose check
errored, was skipped or ran nothing rejects; so does one that misses a check that it requires.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from math import isfinite

import msgspec

from taut.core.canonical import digest_json
from taut.core.errors import InvalidInput, TautError

Scalar = bool | int | float | str | None


class Outcome(StrEnum):
    """How one check ended."""

    PASSED = "passed"
    FAILED = "failed"
    HELD = "held"  # a person must decide
    ERRORED = "errored"  # the check itself broke; proves nothing, so it rejects
    SKIPPED = "skipped"  # did not run; proves nothing, so it rejects


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at: what was seen beside what was wanted.

    Raises InvalidInput where either is NaN or infinite: that proves nothing, and no evidence could hold it.
    """

    name: str
    outcome: Outcome
    message: str = ""
    observed: Scalar = None
    limit: Scalar = None

    def __post_init__(self) -> None:
        for what, value in (("saw", self.observed), ("wanted", self.limit)):
            if isinstance(value, float) and not isfinite(value):
                raise InvalidInput(f"check {self.name!r} {what} {value}, which is no finite number")


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """All that a gate may look at. `facts` is for people and for lineage; only `checks` decide."""

    subject: str  # a Ref, written out
    checks: tuple[Check, ...]
    facts: dict[str, Scalar] = {}

    @property
    def digest(self) -> str:
        return digest_json(self)


class Decision(StrEnum):
    ADMIT = "admit"
    HOLD = "hold"
    REJECT = "reject"


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a gate decided, about what, and why. An entry of the ledger."""

    gate: str
    subject: str
    decision: Decision
    reasons: tuple[str, ...]
    evidence_digest: str
    degraded: bool = False  # admitted by a declared degraded mode; never counted as guarded

    @property
    def admitted(self) -> bool:
        return self.decision is Decision.ADMIT


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """A named gate and the checks without which it rejects.

    name: the gate's name in verdicts, such as `data`, `model`, `plan`.
    required: names of checks that must be in the evidence; an absent one rejects.
    """

    name: str
    required: frozenset[str] = frozenset()

    def judge(self, evidence: Evidence) -> Verdict:
        """Judge the evidence. Never raises on bad evidence: what proves nothing is rejected with the reason.

        Order of severity: one failed, errored, skipped, duplicate or missing check rejects; otherwise one held
        check holds; otherwise admit.
        """
        rejections: list[str] = []
        holds: list[str] = []
        seen: set[str] = set()
        for check in evidence.checks:
            if check.name in seen:
                rejections.append(f"{check.name}: reported twice, so neither report can be trusted")
            seen.add(check.name)
            match check.outcome:
                case Outcome.PASSED:
                    pass
                case Outcome.HELD:
                    holds.append(_reason(check))
                case Outcome.FAILED | Outcome.ERRORED | Outcome.SKIPPED:
                    rejections.append(_reason(check))
        rejections += [f"{name}: required check is missing" for name in sorted(self.required - seen)]
        if not evidence.checks:
            rejections.append("no check ran")
        decision = Decision.REJECT if rejections else Decision.HOLD if holds else Decision.ADMIT
        return Verdict(
            gate=self.name,
            subject=evidence.subject,
            decision=decision,
            reasons=tuple(rejections or holds),
            evidence_digest=evidence.digest,
        )


def run_check(name: str, look: Callable[[], Check]) -> Check:
    """Run one check so that its failure to run is evidence too: an exception becomes an errored check."""
    try:
        check = look()
    except TautError as error:
        return Check(name=name, outcome=Outcome.ERRORED, message=f"{error.code}: {error}")
    except Exception as error:  # noqa: BLE001 - a broken check must reject, whatever broke in it
        return Check(name=name, outcome=Outcome.ERRORED, message=f"{type(error).__name__}: {error}")
    if check.name != name:
        raise InvalidInput(f"check {name!r} reported itself as {check.name!r}")
    return check


def run_checks(checks: Iterable[tuple[str, Callable[[], Check]]]) -> tuple[Check, ...]:
    """Run named checks in order; see `run_check`."""
    return tuple(run_check(name, look) for name, look in checks)


def _reason(check: Check) -> str:
    seen = f" (saw {_show(check.observed)}, wanted {_show(check.limit)})" if check.limit is not None else ""
    said = check.message or str(check.outcome)
    prefix = f"{check.outcome}: " if check.outcome in (Outcome.ERRORED, Outcome.SKIPPED) else ""
    return f"{check.name}: {prefix}{said}{seen}"


def _show(value: Scalar) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
