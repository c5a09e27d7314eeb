"""`taut quota`: what is lent, to whom, and who asks for it."""

from __future__ import annotations

import pytest

from taut.core.errors import Exhausted
from taut.entrypoints.quota_view import picture, show
from taut.trust.quota import Leases, Limit, Quota, State, budget, digest_limits

LIMITS = {"delay": Limit(rate_per_s=10.0, burst=2.0)}


def test_the_picture_names_limits_leases_and_who_is_short(capsys: pytest.CaptureFixture[str]) -> None:
    leases = Leases(grantor="c", now_s=0.0)
    leases.expect(2, limits=digest_limits(LIMITS))
    quota = Quota(LIMITS)
    lease = leases.hear("gateway-0#7", quota.claim(0.0), 0.0)
    assert lease is not None
    quota.hear(lease, 0.0)
    for _ in range(20):
        try:
            quota.take(("delay", "alice"), 1.0, 0.5)
        except Exhausted:
            continue
    leases.hear("gateway-0#7", quota.claim(1.0), 1.0)

    found = picture(LIMITS, [(one, one.most(None, 1.0), 0.0) for one in leases.holders(1.0)], trouble="")
    show(found)

    assert found["gateways"] == [{"gateway": "gateway-0", "share": 0.5, "silent_s": 0.0}]
    [key] = found["keys"]
    assert (key["endpoint"], key["principal"], key["short"]) == ("delay", "alice", True)
    assert key["asked_per_s"] == pytest.approx(20.0)
    said = capsys.readouterr().out
    assert "50.0%" in said
    assert "alice" in said


def test_budgets_are_shown_with_what_is_spent_lent_and_left(capsys: pytest.CaptureFixture[str]) -> None:
    dollars = budget(5e6, 86_400.0, kind="usd_micros", level="its members together")
    state = State(key=("quota:team:usd_micros:86400", ""), spent=4e6, lent=1e6, left=0.0, wait_s=1800.0)

    found = picture({state.key[0]: dollars}, [], trouble="", budgets=[(state, dollars)])
    show(found)

    assert found["limits"] == []
    assert found["budgets"] == [{
        "endpoint": "team", "level": "its members together", "kind": "usd_micros", "principal": "", "window_s": 86_400.0,
        "amount": 5e6, "spent": 4e6, "lent": 1e6, "left": 0.0, "wait_s": 1800,
    }]  # fmt: skip
    row = capsys.readouterr().out.splitlines()[-1].split()
    assert row == [
        "team",
        "its",
        "members",
        "together",
        "24",
        "h",
        "$5",
        "$4",
        "80%",
        "$1",
        "$0",
        "30",
        "min",
    ]
