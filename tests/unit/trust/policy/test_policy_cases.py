"""Expectations of policies are kept in a file and tried."""

from __future__ import annotations

import pytest

from taut.core.errors import InvalidInput
from taut.trust.policy import Policy
from taut.trust.policy.cases import read_cases, run_cases

CASES = """
cases:
  - {principal: ada, roles: [approver], action: model.approve, resource: "model:late@1", context: {author: ada},
     expect: deny, because: separation-of-duties}
  - {principal: app, kind: service, roles: [predictor], action: predict, resource: "endpoint:late", expect: allow}
  - {name: nobody at night, principal: app, roles: [predictor], action: predict, resource: "endpoint:late",
     context: {hour: 3}, expect: deny, because: night}
"""


def test_cases_come_out_as_expected_or_say_how_they_do_not() -> None:
    cases = read_cases(CASES.encode(), what="tests.yaml")
    night = Policy(
        '@id("night") forbid(principal, action, resource) when { context has hour && context.hour < 6 };'
    )

    assert not [one.fault for one in run_cases(night, cases) if one.fault]
    plain = run_cases(Policy(), cases)
    assert [bool(one.fault) for one in plain] == [False, False, True]
    assert (plain[2].name, plain[2].fault) == (
        "nobody at night",
        "expected deny, and it is allowed by role-predictor",
    )
    other = Policy(
        '@id("x") forbid(principal, action, resource) when { context has hour && context.hour < 6 };'
    )
    assert (
        run_cases(other, cases)[2].fault == "expected because of night, and it is because of forbidden by x"
    )


@pytest.mark.parametrize(
    "data",
    [b"", b"cases: []", b"cases: [{principal: ada}]", b"[", b"\xff\xfe", b"cases: [{principal: a, action: b, resource: c, expect: maybe}]",
     b'{"cases": [{"principal": "a", "action": "b", "resource": "c", "expect": "deny", "more": 1}]}', b"x" * 2_000_000],
)  # fmt: skip
def test_a_file_that_holds_no_cases_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"tests\.yaml"):
        read_cases(data, what="tests.yaml")
