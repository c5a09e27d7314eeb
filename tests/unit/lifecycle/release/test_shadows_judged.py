"""A shadow as control sees it: planned, counted once, judged pair by pair, and told in words that a person can follow."""

from __future__ import annotations

import math
from typing import Any

import pytest
from msgspec import structs

from taut.core.errors import InvalidInput
from taut.lifecycle.release.canary import CanaryPlan
from taut.lifecycle.release.guardrails import absolute_log_e, paired_log_e
from taut.lifecycle.release.shadow import (
    PAIR_GUARDRAILS,
    PairCounts,
    PairReport,
    PairTally,
    ShadowMove,
    ShadowPlan,
    ShadowState,
    add_pairs,
    advance_shadow,
    begun_shadow,
    checked_shadow,
    declared_shadow,
    explain_pairs,
    judge_pairs,
)
from taut.project.manifest import EndpointSpec, ShadowSpec, StrategySpec

PLAN = ShadowPlan(share=0.1, every_s=60.0, least=100)


def found(plan: ShadowPlan = PLAN, **counts: Any) -> dict[str, Any]:
    told = explain_pairs(plan, PairCounts(**{"answered": 2000, **counts}), PairCounts(), (0, 1, 2, 3))
    return {one.guardrail: one for one in told}


@pytest.mark.parametrize(
    "changes",
    [
        {"share": 1.1}, {"share": -0.1}, {"every_s": -1.0}, {"least": 0}, {"keep_s": -1.0}, {"alpha": 0.0}, {"differ": 0.0},
        {"differ": 1.0}, {"drift": 1.0}, {"ratio": 0.9},
    ],
)  # fmt: skip
def test_a_plan_that_could_not_be_judged_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        checked_shadow(structs.replace(PLAN, **changes))


def test_a_plan_is_what_the_project_declares_and_else_what_the_strategy_needs() -> None:
    def declared(release: StrategySpec, strategy: str) -> ShadowPlan | None:
        return declared_shadow(EndpointSpec(name="late", model="late", release=release), strategy)

    spec = ShadowSpec(share=0.3, every="1m", least=7, differ=0.2)
    shadow = StrategySpec(kind="shadow", shadow=spec)
    assert declared(shadow, "shadow") == ShadowPlan(share=0.3, every_s=60.0, least=7, differ=0.2)
    assert declared(StrategySpec(), "shadow") == ShadowPlan()
    switch = declared(StrategySpec(kind="blue-green", keep="5m"), "blue-green")
    assert switch == ShadowPlan(share=0.0, every_s=0.0, keep_s=300.0)
    kept = declared(shadow, "blue-green")
    assert kept == ShadowPlan(share=0.0, every_s=0.0, keep_s=3600.0)
    assert declared(StrategySpec(kind="canary"), "canary") is None
    assert declared(StrategySpec(), "direct") is None
    before = declared(StrategySpec(kind="canary", steps=(0.2,), shadow=spec), "canary")
    assert before is not None
    assert isinstance(before.canary, CanaryPlan)
    assert (before.share, before.canary.steps) == (0.3, (0.2,))


def test_each_guardrail_admits_what_is_alike_and_holds_what_surely_is_not() -> None:
    edges = ((5,) * 15, (5,) * 15)
    fine = found(failed=(10, 10), differ=40, moved=edges, slower=((50,) * 8, (50,) * 8))
    assert [fine[name].decision for name in PAIR_GUARDRAILS] == ["admit"] * 4
    for name, counts in (
        ("errors", {"failed": (40, 2)}),
        ("latency", {"slower": ((200,) * 8, (60,) * 8)}),
        ("disagreement", {"differ": 300}),
        ("prediction_drift", {"moved": ((600,) * 15, (10,) * 15)}),
    ):
        assert found(**counts)[name].decision == "hold", name


def test_a_sure_shift_that_is_small_is_borne() -> None:
    one = found(answered=100_000, moved=((1500,) * 15, (300,) * 15))["prediction_drift"]
    assert one.evidence > one.bar
    assert one.decision == "admit"
    assert "apart, 0.05 is borne" in one.says


def test_the_words_say_how_many_fewer_would_have_changed_the_verdict() -> None:
    one = found(failed=(40, 2))["errors"]
    fewer = int(one.says.rpartition("with ")[2].split()[0])
    log_bar = math.log(one.bar)
    assert (
        paired_log_e(40 - fewer, 2, ratio=PLAN.ratio)
        < log_bar
        <= paired_log_e(41 - fewer, 2, ratio=PLAN.ratio)
    )
    other = found(differ=300)["disagreement"]
    fewer = int(other.says.rpartition("with ")[2].split()[0])
    assert (
        absolute_log_e(300 - fewer, 2000, limit=0.05)
        < log_bar
        <= absolute_log_e(301 - fewer, 2000, limit=0.05)
    )
    assert found()["errors"].says == "in no pair one version alone failed"
    assert "slowest hundredth" in found(slower=((9,) * 8, (3,) * 8))["latency"].says


def test_time_is_judged_from_when_its_reference_was_frozen() -> None:
    before = PairCounts(answered=500, slower=((200,) * 8, (60,) * 8))
    now = before.plus(PairCounts(answered=10, slower=((2,) * 8, (3,) * 8)))
    assert judge_pairs(PLAN, now, before, (0, 1, 2, 3))[1].decision == "admit"
    assert judge_pairs(PLAN, now, PairCounts(), (0, 1, 2, 3))[1].decision == "hold"
    assert judge_pairs(PLAN, now, PairCounts(), ())[1].evidence == 1.0


def test_counters_are_taken_once_also_of_a_process_that_began_anew() -> None:
    def told(process: str, answered: int, *, callers: tuple[int, ...] = ()) -> PairReport:
        counts = PairCounts(answered=answered, times=(answered, 0), failed=(answered, 0))
        return PairReport(process=process, counts=counts, callers=callers)

    tally = PairTally()
    for reports in (
        [told("a", 5, callers=(3, 1)), told("b", 2, callers=(2,))], [told("a", 5)], [told("a", 7), told("b", 1)],
    ):  # fmt: skip
        tally = add_pairs(tally, reports)
    assert tally.counts == PairCounts(answered=10, times=(10, 0), failed=(10, 0))
    assert tally.callers == (1, 2, 3)


def test_a_gateway_that_comes_later_does_not_take_back_what_passed() -> None:
    plan = structs.replace(PLAN, share=0.0, every_s=0.0)
    move = advance_shadow(plan, begun_shadow(0), [PairReport(process="g#1")], now_us=1)
    assert (move.kind, move.state.passed) == ("pass", True)
    late = advance_shadow(plan, move.state, [PairReport(process="h#2", why="it is being loaded")], now_us=2)
    assert (late.kind, late.state.passed, late.state.waits) == (
        "stay",
        True,
        "it is not ready at h: it is being loaded",
    )
    ready = advance_shadow(plan, late.state, [PairReport(process="h#2")], now_us=3)
    assert (ready.kind, ready.state.waits) == ("stay", move.state.waits)
    none = advance_shadow(plan, begun_shadow(0), [], now_us=3)
    assert "no gateway is connected" in none.state.waits


def test_a_shadow_whose_models_are_timed_waits_until_times_were_compared() -> None:
    def waits(timed: int, state: ShadowState | None = None) -> ShadowMove:
        counts = PairCounts(answered=2 * timed or 1000, times=(timed - 1, 1) if timed else ())
        told = PairReport(process="g#1", counts=counts, callers=(1, 2, 3))
        return advance_shadow(ShadowPlan(), state or begun_shadow(0), [told], now_us=10**12)

    first = waits(500)
    assert first.reason.startswith("too few timed pairs: 0 of the 100")
    assert waits(600, first.state).kind == "pass"
    assert waits(0).kind == "pass"  # as of a graph, of which no time is compared
