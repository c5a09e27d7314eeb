"""Control's books of budgets outlive its process: what was spent stays spent until it leaves the window."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from taut.serving.snapshot import ServingSnapshot
from taut.serving.snapshot.lending import Lender
from taut.testing.serving import DataPlane
from taut.trust.quota import Account, Allowance, Quota, QuotaSpent, budget, decode_lease

DAY_S = 86_400.0
TEAM = Allowance(
    name="team", limits=(budget(1000.0, DAY_S, kind="usd_micros", level="all callers together"),)
)
[KEY] = [(name, "") for name in TEAM.named()]


class Times:
    """Both clocks of control, moved by hand, and the one gateway's."""

    def __init__(self) -> None:
        self.s = 1e9

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def snapshot(plane: DataPlane) -> ServingSnapshot:
    return msgspec.structs.replace(plane.snapshot(plane.endpoint()), allowances=(TEAM,))


def lender(path: Path, snapshot: ServingSnapshot, now: Times) -> Lender:
    made = Lender(path, monotonic_s=now, wall_s=now)
    made.declare(snapshot)
    return made


def beat(control: Lender, quota: Quota, now: Times) -> None:
    """Let a second pass, and the gateway hear what it is lent."""
    now.s += 1.0
    claim = msgspec.Raw(msgspec.json.encode(quota.claim(now.s)))
    for lease in control.hear("gateway-0", 1, claim, near=()).values():
        quota.hear(decode_lease(lease), now.s)


def spend(quota: Quota, account: Account, now: Times, *, seconds: int, control: Lender) -> float:
    """Spend what there is, ten at a time, for some seconds; return how much that was."""
    passed = 0.0
    for _ in range(seconds):
        try:
            while True:
                quota.draw(account, now.s)
                quota.settle(account, {"usd_micros": 10.0}, now.s)
                passed += 10.0
        except QuotaSpent:
            beat(control, quota, now)
    return passed


def test_what_was_spent_is_known_to_the_next_run_and_comes_back_when_the_window_is_over(
    tmp_path: Path, snapshot: ServingSnapshot
) -> None:
    now, quota, account = Times(), Quota(), Account((), (("usd_micros", KEY),))
    quota.declare(snapshot.limits, parts=1, now_s=now.s)
    control = lender(tmp_path / "holders.json", snapshot, now)

    before = spend(quota, account, now, seconds=20, control=control)
    assert 300.0 <= before <= 500.0
    control = lender(tmp_path / "holders.json", snapshot, now)
    for _ in range(6):  # until what may have been lent before is over
        beat(control, quota, now)
    after = spend(quota, account, now, seconds=200, control=control)

    assert 900.0 <= before + after <= 1020.0
    [(state, limit)] = control.budgets()
    assert (limit.burst, state.left) == (1000.0, 0.0)
    assert 0 < state.wait_s <= DAY_S * 25 / 24
    with pytest.raises(QuotaSpent, match="'team' gives all callers together is used up") as caught:
        quota.draw(account, now.s)
    assert caught.value.retry_after_s == pytest.approx(state.wait_s, abs=2.0)

    now.s += state.wait_s + 1.0
    for _ in range(6):
        beat(control, quota, now)
    assert spend(quota, account, now, seconds=2, control=control) > 0


def test_a_file_that_cannot_be_read_begins_anew_and_one_that_cannot_be_written_lends_nothing(
    tmp_path: Path, snapshot: ServingSnapshot
) -> None:
    now, quota = Times(), Quota()
    quota.declare(snapshot.limits, parts=1, now_s=now.s)
    (tmp_path / "budgets-spent.json").write_bytes(b"\xff nonsense")
    control = lender(tmp_path / "holders.json", snapshot, now)
    account = Account((), (("usd_micros", KEY),))
    assert spend(quota, account, now, seconds=2, control=control) > 0

    (tmp_path / "budgets-spent.json").unlink()
    (tmp_path / "budgets-spent.json").mkdir()
    passed = spend(quota, account, now, seconds=20, control=control)
    assert passed <= 60.0 + 100.0  # what it had in hand, and the tenth that is for control's absence
    assert "no quota is lent before that" in control.trouble
