"""What a canary can find, said before it starts; and what one of the live version itself says of the machines."""

from __future__ import annotations

import pytest

from taut.lifecycle.release.canary import CanaryPlan, Tally, Traffic, calibrated, foreseen

PLAN = CanaryPlan(steps=(0.1, 0.5), every_s=600.0, guardrails=("errors", "latency", "outcome"))


def said(plan: CanaryPlan, **traffic: float) -> list[str]:
    return list(foreseen(plan, Traffic(**traffic)))


def test_without_traffic_nothing_can_be_said() -> None:
    (line,) = said(PLAN, per_s=0.0)
    assert line.startswith("no traffic was seen")


def test_what_is_found_depends_on_what_is_asked() -> None:
    few, many = said(PLAN, per_s=1.0, failing=0.005), said(PLAN, per_s=500.0, failing=0.005)
    assert few[0].startswith("1 requests a second were seen, 0.50% failed: about 1,600 requests")
    assert few[0].endswith(
        "400 of the canary"
    )  # at 10% so many that 100 answers are its own, at 50% those of 600 s
    held = [float(line.split(":")[1].split()[0]) for line in (few[1], many[1])]
    assert held[0] > held[1]
    assert many[-1] == "outcome: what is usual is not known yet"


@pytest.mark.parametrize("per_s", [0.01])
def test_a_guardrail_that_would_see_nothing_says_so(per_s: float) -> None:
    assert "let steps last longer" in said(PLAN, per_s=per_s, failing=0.001)[1]


def test_each_further_guardrail_costs_detection() -> None:
    one = CanaryPlan(steps=(0.1,), every_s=600.0, guardrails=("errors",))
    eight = CanaryPlan(
        steps=(0.1,),
        every_s=600.0,
        guardrails=("errors", "latency", "quality", "outcome", "cost", "prediction_drift"),
    )
    found = [
        float(
            next(line for line in said(plan, per_s=8.0, failing=0.01) if line.startswith("errors")).split()[1]
        )
        for plan in (one, eight)
    ]
    assert found[0] <= found[1]


def test_a_calibration_tells_whether_two_equal_versions_look_alike() -> None:
    alike = Tally(weight=0.1, units=(20, 180), answers=(1000, 9000), failed=(5, 45))
    assert calibrated(PLAN, [alike]) == "a calibration: two equal versions look alike after 1,000 answers"
    noisy = Tally(weight=0.1, units=(20, 180), answers=(1000, 9000), failed=(60, 45))
    assert "differ by errors" in calibrated(PLAN, [noisy])
