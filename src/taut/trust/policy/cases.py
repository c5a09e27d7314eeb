"""Expectations of policies, written down beside them: who asks for what, and what must come of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from taut.core.errors import InvalidInput
from taut.trust.identity.principals import Principal
from taut.trust.policy.decide import Policy

_MAX_BYTES: Final = 1024 * 1024


class Case(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One question and its right answer.

    because: the id of a policy that must be among those that decide. context: facts as the policies see them, with the
    moment as `hour` and `weekday`.
    """

    principal: str
    action: str
    resource: str
    expect: Literal["allow", "deny"]
    roles: tuple[str, ...] = ()
    kind: Literal["human", "service", "owner"] = "human"
    scopes: tuple[str, ...] = ()
    context: dict[str, str | int | bool] = {}
    because: str = ""
    name: str = ""


class Cases(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of cases."""

    cases: tuple[Case, ...]


class CaseResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a case. reasons: of the decision. fault: what is not as it was expected; empty where all is."""

    name: str
    allow: bool
    reasons: tuple[str, ...]
    fault: str = ""


def read_cases(data: bytes, *, what: str) -> tuple[Case, ...]:
    """Read a file of cases, in YAML or JSON, which is YAML too.

    Raises InvalidInput, naming `what`, for a file beyond 1 MiB, without cases, or of another form.
    """
    if len(data) > _MAX_BYTES:
        raise InvalidInput(f"{what} is larger than {_MAX_BYTES} bytes: split it")
    try:
        cases = msgspec.yaml.decode(data, type=Cases).cases
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"{what} holds no cases ({error}): write cases: with a list of principal, roles, action, resource and expect"
        ) from error
    if not cases:
        raise InvalidInput(f"{what} holds no cases: write one, or leave the file out")
    return cases


def run_cases(policy: Policy, cases: Sequence[Case]) -> tuple[CaseResult, ...]:
    """Ask each question."""
    return tuple(_run(policy, case, number) for number, case in enumerate(cases, 1))


def _run(policy: Policy, case: Case, number: int) -> CaseResult:
    who = Principal(id=case.principal, kind=case.kind, roles=case.roles, scopes=case.scopes)
    decision = policy.decide(who, case.action, case.resource, case.context)
    fault = ""
    if decision.allow != (case.expect == "allow"):
        fault = f"expected {case.expect}, and it is {'allowed by' if decision.allow else 'denied:'} "
        fault += ", ".join(decision.reasons)
    elif case.because and case.because not in decision.policies:
        fault = f"expected because of {case.because}, and it is because of {', '.join(decision.reasons)}"
    name = case.name or f"{number}: {case.principal} {case.action} {case.resource}"
    return CaseResult(name=name, allow=decision.allow, reasons=decision.reasons, fault=fault)
