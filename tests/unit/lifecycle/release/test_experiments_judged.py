"""Arms of an experiment beside the control: when they are stopped, when weights move, and that weights are weights."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from taut.lifecycle.release.canary import Report
from taut.lifecycle.release.experiment.plan import ExperimentPlan
from taut.lifecycle.release.experiment.steps import advance, begun, resumed
from taut.lifecycle.release.experiment.thompson import shares_of

PLAN = ExperimentPlan(
    kind="ab", arms=("delay@1", "delay@2"), weights=(0.5, 0.5), metric="right", guardrails=("errors",)
)
BROKEN = (tuple(range(400)), tuple(range(400, 440)))
"""Units of the arm and of the control: no even split."""


def looked(state: Any, *, failed: int, minute: int = 1) -> Any:
    marks = (tuple(range(failed)), tuple(range(1000, 1003)))
    report = Report(process="g#1", stage=0, seen=BROKEN, answers=(500, 50), failed={minute: marks})
    return advance(PLAN, state, {"delay@2": [report]}, None, now_us=minute * 60_000_000)


def test_an_arm_that_fails_is_stopped_also_after_a_person_said_that_the_split_is_well() -> None:
    held = looked(begun(PLAN, 0), failed=80)
    assert held.kind == "hold"
    ended = looked(resumed(held.state), failed=80)
    assert ended.kind == "end"
    assert "delay@2 stopped: errors: 80" in ended.reason


def test_what_is_known_of_the_controls_times_is_kept_over_weights_that_change_before_it_is_enough() -> None:
    plan = structs.replace(
        PLAN,
        kind="bandit",
        arms=("d@1", "d@2", "d@3"),
        weights=(0.4, 0.3, 0.3),
        guardrails=("latency", "errors"),
    )
    state = begun(plan, 0)
    marks = (tuple(range(80)), tuple(range(1000, 1003)))
    seen = (tuple(range(80)), tuple(range(500, 600)))
    for stage, third in ((0, {"failed": {1: marks}, "seen": seen}), (1, {})):
        told = {
            "d@2": [Report(process="g#1", stage=stage, answers=(9, 300), times=((9, 0), (150, 150)))],
            "d@3": [Report(process="g#1", stage=stage, answers=(9, 300), **third)],  # type: ignore[arg-type]
        }
        state = advance(plan, state, told, None, now_us=60_000_000).state
    assert state.stage == 1
    assert state.lanes[0].reference


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=2, max_size=8).filter(lambda some: sum(chance * able for chance, able in some) > 1e-6),
    st.floats(0, 1),
)  # fmt: skip
def test_weights_are_one_in_all_and_none_is_below_the_floor(
    some: list[tuple[float, bool]], part: float
) -> None:
    able = [may for _, may in some]
    whole = math.fsum(chance for chance, may in some if may)
    floor = part / sum(able)
    weights = shares_of([chance / whole if may else 0.0 for chance, may in some], able, floor=floor)
    assert math.isclose(math.fsum(weights), 1.0, abs_tol=1e-9)
    assert all(
        weight >= floor - 1e-9 if may else weight == 0.0 for weight, may in zip(weights, able, strict=True)
    )
