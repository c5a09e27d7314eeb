"""Guardrails as projects declare them: refused where nobody measures what they watch, fixed in the plan else."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from msgspec import structs

from taut.core.errors import InvalidInput
from taut.lifecycle.release.canary import CanaryPlan, Tally, advance, begun, declared_plan, explain, judge
from taut.lifecycle.release.canary.amounts import TIME_NS, Amounts
from taut.lifecycle.release.guardrails import PayoffState, add_amounts
from taut.project.guarding import absolute, cost, outcome, quality
from taut.project.manifest import EndpointSpec, PriceSpec
from taut.project.rules import Canary, errors
from taut.serving import meters

SPEC = EndpointSpec(name="late", model="late", price=PriceSpec(per_request=0.001, per_model_second=0.5))


def test_the_buckets_of_times_are_those_of_gateways() -> None:
    assert TIME_NS == meters.TIME_NS


def test_what_is_declared_is_in_the_plan_and_each_guardrail_pays_its_part() -> None:
    rails = [
        errors(),
        quality(),
        outcome(most=30.0),
        cost(),
        absolute("latency", over_ms=200, most=0.05, act="hold"),
    ]
    plan = declared_plan(structs.replace(SPEC, release=Canary(guardrails=rails)))
    assert plan.guardrails == ("errors", "quality", "outcome", "cost")
    assert [(one.metric, one.over_ms, one.act) for one in plan.limits] == [("latency", 200.0, "hold")]
    assert (plan.payoff_most, plan.price, plan.bar) == (30.0, (0.001, 0.5), 5 / 0.05)


@pytest.mark.parametrize(
    ("changes", "rail", "said"),
    [
        ({"audit": "off"}, quality(), "guardrail quality needs outcomes"),
        ({"audit": "off"}, outcome(), "guardrail outcome needs outcomes"),
        ({"price": None}, cost(), "guardrail cost needs a price"),
    ],
)
def test_a_guardrail_on_a_metric_that_does_not_exist_is_refused_before_the_start(
    changes: dict[str, Any], rail: Any, said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        declared_plan(structs.replace(SPEC, release=Canary(guardrails=[rail]), **changes))


def test_limits_say_what_they_are_of() -> None:
    with pytest.raises(InvalidInput, match="over_ms says when"):
        absolute("latency", most=0.05)
    with pytest.raises(InvalidInput, match="over_ms says when"):
        absolute("errors", most=0.05, over_ms=3)
    with pytest.raises(InvalidInput, match="act"):
        absolute("errors", most=0.05, act="shout")


def test_means_beyond_their_margin_are_found_and_those_within_are_not() -> None:
    """Amounts 0 to 3; the canary's mean is `ours` times the live one's, and what is borne is 1.1 times."""
    amounts = (0.0, 1.0, 2.0, 3.0)

    def evidence(by: float, ratio: float, harm: Any) -> float:
        choose, state = random.Random(5), PayoffState()
        for _ in range(150):
            canary, baseline = [0] * 4, [0] * 4
            for _ in range(20):
                own = choose.random() < 0.5
                (canary if own else baseline)[1 if choose.random() < (0.4 * by if own else 0.4) else 0] += 1
            state = add_amounts(state, amounts, canary, baseline, weight=0.5, ratio=ratio, harm=harm)
        return state.log_e

    assert evidence(1.8, 1.1, "up") > math.log(20)
    assert evidence(1.0, 1.1, "up") < math.log(20)
    assert evidence(0.4, 0.8, "down") > math.log(20)
    assert evidence(0.9, 0.8, "down") < math.log(20)
    with pytest.raises(InvalidInput, match="positive"):
        evidence(1.0, 0.0, "up")


@pytest.mark.parametrize("name", ["quality", "outcome", "cost"])
def test_a_step_is_not_passed_while_a_guardrail_knows_nothing_of_it(name: str) -> None:
    plan = CanaryPlan(steps=(0.5,), every_s=0.0, least=1, guardrails=(name,), price=(0.0, 0.01))
    counts, later = ((0,) * 63 + (9,)), ((1,) + (0,) * 63)
    tally = Tally(weight=0.5, units=(9, 9), answers=(900, 900))

    def advanced(*arms: tuple[int, ...]) -> Any:
        amounts = {name: Amounts(*arms)} if arms else {}
        state = structs.replace(begun(plan, 0), tallies=(structs.replace(tally, amounts=amounts),), usual=3)
        return advance(plan, state, (), now_us=1)

    assert (advanced().kind, advanced().reason) == ("stay", f"{name}: nothing to compare yet in this step")
    assert advanced(later, ()).kind == "stay"
    assert advanced(counts, counts).kind == "promote"


@pytest.mark.parametrize("name", ["quality", "outcome"])
def test_outcomes_of_one_version_alone_hold_it_also_where_they_are_good(name: str) -> None:
    plan = CanaryPlan(steps=(0.1, 0.5), guardrails=(name,))
    bins = 2 if name == "quality" else 64
    one = Tally(
        weight=0.1,
        units=(20, 180),
        amounts={name: Amounts((60,) + (0,) * (bins - 1), (1,) + (0,) * (bins - 1))},
    )
    found = {of.guardrail: of for of in explain(plan, [one])}[name]
    assert found.decision == "hold"
    assert found.says.endswith("so that they prove nothing")
    often = structs.replace(
        one, amounts={"quality": Amounts((900, 0), (6_000, 0))}
    )  # a few callers who tell each minute
    assert {of.decision for of in judge(structs.replace(plan, guardrails=("quality",)), [often])} == {"admit"}


def test_a_stage_that_begins_changes_no_evidence() -> None:
    """Else evidence would jump where nothing happened, and the bar no longer bound how often it is reached."""
    plan = CanaryPlan(steps=(0.1, 0.25, 0.5), guardrails=("quality", "errors"))
    first = Tally(
        weight=0.1, units=(40, 180), failed=(9, 40), amounts={"quality": Amounts((30, 9), (200, 5))}
    )
    then = judge(plan, [first, Tally(weight=0.25)])
    assert [of.evidence for of in judge(plan, [first])] == pytest.approx([of.evidence for of in then])
    assert [of.decision for of in judge(plan, [first])] == [of.decision for of in then]
