"""A canary as control sees it: counted once, judged by a plan that is fixed, moved by rows that nobody overwrites."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from taut.adapters.keys.file import FileKeys
from taut.core.errors import Conflict, InvalidInput
from taut.core.refs import VersionRef
from taut.lifecycle.release import Releases, ReleaseState, metadata
from taut.lifecycle.release.canary import (
    CanaryPlan,
    CanaryState,
    Move,
    Report,
    Tally,
    add_reports,
    advance,
    begun,
    checked_plan,
    declared_plan,
    explain,
    judge,
    resumed,
)
from taut.project.manifest import EndpointSpec, StrategySpec
from taut.testing.records import memory_records
from taut.testing.world import ManualClock, SeededRandom, SequenceIds
from taut.trust.ledger import Ledger
from taut.trust.ledger import metadata as ledger_tables
from taut.trust.lineage import Lineage
from taut.trust.lineage import metadata as lineage_tables

PLAN = CanaryPlan(steps=(0.1, 0.5), every_s=60.0, least=5, guardrails=("errors",))
MINUTE_US = 60_000_000


def report(process: str = "g#1", **what: Any) -> Report:
    return Report(process=process, **{"stage": 0, **what})


def tally(**what: Any) -> Tally:
    return Tally(**{"weight": 0.1, "units": (10, 90), "answers": (100, 900), **what})


def at(minute: float, *reports: Report, plan: CanaryPlan = PLAN, state: CanaryState | None = None) -> Move:
    return advance(plan, state or begun(plan, 0), reports, now_us=int(minute * MINUTE_US))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"guardrails": ()}, "judged by nothing"),
        ({"guardrails": ("revenue",)}, "nobody counts"),
        ({"guardrails": ("errors", "errors")}, "each once"),
        ({"steps": (0.5, 0.1)}, "growing"),
        ({"steps": (0.5, 1.0)}, "growing"),
        ({"alpha": 1.0}, "alpha"),
        ({"hold": 1.5}, "hold <= roll_back"),
    ],
)
def test_a_plan_that_cannot_be_judged_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        checked_plan(structs.replace(PLAN, **changes))


def test_a_canary_with_one_worker_of_its_own_is_borne_more() -> None:
    release = StrategySpec(kind="canary", steps=(0.05, 1.0), guardrails=("errors",), every="2m", least=7)
    spec = EndpointSpec(name="late", model="late", release=release)
    plan = declared_plan(spec)
    assert (plan.steps, plan.every_s, plan.least, plan.roll_back) == ((0.05,), 120.0, 7, 1.2)
    assert declared_plan(structs.replace(spec, runtime="worker", workers=1)).roll_back == 1.5
    plain = declared_plan(structs.replace(spec, release=StrategySpec()))
    assert (plain.steps[0], plain.guardrails) == (0.01, ("errors", "latency"))


def test_what_is_told_twice_or_by_two_gateways_counts_once() -> None:
    one = report(seen=((1, 2), (3,)), failed={5: ((1,), (3,))}, fatal=(1, 0), answers=(4, 6))
    other = report("g#2", seen=((2,), (4,)), failed={5: ((1,), (4,))}, answers=(1, 1))
    empty = Tally(weight=0.1)
    found = add_reports(empty, [one, other], reference=(), minute=5)
    assert (found.units, found.failed, found.fatal, found.answers) == ((2, 2), (1, 2), (1, 0), (5, 7))
    again = add_reports(found, [other, one], reference=(), minute=5)
    assert again == found
    later = add_reports(found, [structs.replace(one, failed={5: ((1,), (3,)), 6: ((1,), ())}, answers=(5, 6))], reference=(), minute=6)  # fmt: skip
    assert (later.failed, later.answers) == ((2, 2), (6, 7))


def test_a_process_that_counts_from_nothing_again_takes_nothing_back() -> None:
    times = (3, 0), (5, 2)
    one = add_reports(Tally(weight=0.1), [report(answers=(3, 7), times=times)], reference=(0,) * 4, minute=1)
    assert one.slow[0] == (0, 2)
    anew = add_reports(one, [report(answers=(1, 3), times=((0, 1), (2, 1)))], reference=(0,) * 4, minute=1)
    assert (anew.answers, anew.slow[0]) == ((4, 10), (1, 3))


def test_failures_of_minutes_far_from_controls_are_not_counted() -> None:
    found = add_reports(Tally(weight=0.1), [report(failed={2: ((1,), ()), 90: ((2,), ())})], reference=(), minute=10)  # fmt: skip
    assert found.failed == (0, 0)


def test_reference_times_are_those_of_the_live_version_and_what_came_before_them_is_not_judged() -> None:
    plan = structs.replace(PLAN, guardrails=("latency",))
    first = at(0.1, report(answers=(60, 600), times=((60, 0, 0), (300, 240, 60))), plan=plan)
    assert first.state.reference == (0, 1, 1, 1)
    assert first.state.tallies[0].slow == ((0, 0),) * 4
    second = at(0.2, report(answers=(160, 1500), times=((60, 0, 100), (750, 600, 150))), plan=plan, state=first.state)  # fmt: skip
    assert second.state.tallies[0].slow == ((100, 450), (100, 90), (100, 90), (100, 90))
    assert second.kind in ("hold", "roll_back")  # three callers are not known of yet
    assert "slowest hundredth" in second.reason


def test_the_last_words_of_a_step_are_counted_where_they_belong() -> None:
    grown = at(2, report(seen=((1, 2, 3), (4, 5, 6)), answers=(10, 90)))
    assert (grown.kind, grown.state.step, grown.state.weight) == ("grow", 1, 0.5)
    late = report(seen=((1, 2, 3), (4, 5, 6)), failed={2: ((1,), (4,))}, answers=(12, 95))
    told = at(2.1, late, report(stage=1, answers=(3, 3)), state=grown.state).state
    assert [one.failed for one in told.tallies] == [(1, 1), (0, 0)]
    assert [one.answers for one in told.tallies] == [(12, 95), (3, 3)]


def test_a_broken_split_holds_and_lets_nothing_else_end_it() -> None:
    found = {one.guardrail: one for one in explain(PLAN, [tally(units=(60, 90), failed=(60, 5))])}
    assert (found["split"].decision, found["errors"].decision) == ("hold", "hold")
    assert "no chance" in found["split"].says


def test_few_callers_hold_it_and_answers_that_may_not_be_given_end_it() -> None:
    few = judge(PLAN, [tally(units=(1, 9), failed=(60, 5))])
    assert [one.decision for one in few] == ["admit", "admit", "hold"]
    fatal = judge(PLAN, [tally(units=(1, 9), fatal=(60, 5))])
    assert [one.decision for one in fatal] == ["admit", "reject", "admit"]


def test_a_verdict_says_what_was_seen_how_sure_and_what_would_have_changed_it() -> None:
    tallies = [tally(failed=(40, 60))]
    error = explain(PLAN, tallies)[2]
    assert error.decision == "reject"
    assert error.low is not None
    assert error.low > 2
    assert "40 callers who failed" in error.says
    fewer = int(error.says.split("with ")[1].split()[0])
    assert judge(PLAN, [tally(failed=(40 - fewer, 60))])[2].decision != "reject"
    assert judge(PLAN, [tally(failed=(40 - fewer + 1, 60))])[2].decision == "reject"


def test_versions_that_predict_otherwise_are_held_by_how_far_they_are_apart_at_least() -> None:
    plan = structs.replace(PLAN, steps=(0.5,), guardrails=("prediction_drift",))

    def told(canary_bin: int) -> Move:
        marks = tuple(at * 16 + canary_bin for at in range(200)), tuple(at * 16 + 2 for at in range(200, 400))
        seen = tuple(range(200)), tuple(range(200, 400))
        first = (marks[0][:20], marks[1][:20])
        state = at(1, report(seen=seen, answers=(200, 200), scored=first), plan=plan).state
        assert at(1, report(seen=seen, answers=(200, 200), scored=first), plan=plan, state=state).state.tallies == state.tallies  # fmt: skip
        return at(1.1, report(seen=seen, answers=(200, 200), scored=marks), plan=plan, state=state)

    same, other = told(2), told(9)
    assert same.kind == "promote"
    assert other.kind == "hold"
    assert "lie at least 0.6" in other.reason
    twice = report("g#2", seen=((1,), ()), scored=((1 * 16 + 3,), ()), answers=(1, 0))
    assert (
        at(1.2, twice, plan=plan, state=other.state).state.tallies[0].scores == other.state.tallies[0].scores
    )


def test_what_a_person_waives_holds_no_more_and_can_still_end_it() -> None:
    seen: Any = {"seen": ((1, 2, 3), (4, 5, 6)), "answers": (90, 900)}
    held = at(2, report(failed={2: (tuple(range(10)), tuple(range(20, 40)))}, **seen))
    assert held.kind == "hold"
    assert at(3, state=held.state).kind == "stay"
    state = resumed(PLAN, held.state)
    assert (state.held, state.waived) == ("", ("errors",))
    assert at(3, state=state).kind == "grow"
    worse = report("g#2", failed={3: (tuple(range(100, 140)), ())}, **seen)
    assert at(3, worse, state=state).kind == "roll_back"


def test_where_a_ratio_is_declared_only_a_sure_canary_takes_over_by_itself() -> None:
    plan = structs.replace(PLAN, steps=(0.5,), most=1.5)
    unsure = at(2, report(seen=((1, 2, 3), (4, 5, 6)), answers=(500, 500)), plan=plan)
    assert unsure.kind == "stay"
    assert "taut release promote" in unsure.reason
    sure = structs.replace(begun(plan, 0), tallies=(tally(weight=0.5, units=(9, 9), failed=(100, 190)),))
    assert at(2, plan=plan, state=sure).kind == "promote"


@pytest.fixture
def releases(tmp_path: Any) -> Releases:
    records, clock, ids = (
        memory_records(metadata, ledger_tables, lineage_tables),
        ManualClock(),
        SequenceIds(),
    )
    ledger = Ledger(records, FileKeys(tmp_path, random=SeededRandom()), clock, ids, origin="test")
    return Releases(records=records, ledger=ledger, lineage=Lineage(clock), clock=clock, ids=ids)


def start(releases: Releases, number: int, *, canary: bool) -> str:
    with releases._records.begin() as tx:
        release = releases.start(
            tx, endpoint="late", version=VersionRef("late", number), strategy="canary", actor="ann", reason="",
        )  # fmt: skip
        if canary:
            releases.canaries.begin(tx, release, PLAN, actor="ann")
        else:
            releases.promote(tx, release, actor="ann")
    return release


def test_what_was_found_in_a_row_that_somebody_moved_meanwhile_is_dropped(releases: Releases) -> None:
    start(releases, 1, canary=False)
    release = start(releases, 2, canary=True)
    records = releases._records
    with records.begin() as tx:
        (before,) = releases.canaries.under_way(tx)
        releases.canaries.pause(tx, release, actor="ann", reason="lunch")
        move = Move(kind="grow", state=before.state, findings=())
        assert not releases.canaries.keep(tx, before, move)
        (now,) = releases.canaries.under_way(tx)
    assert (now.state.paused, now.turn) == ("lunch", 1)


def test_an_aborted_canary_has_no_callers_and_hears_no_word(releases: Releases) -> None:
    start(releases, 1, canary=False)
    release = start(releases, 2, canary=True)
    records = releases._records
    assert releases.show(release).weight == 0.1
    with records.begin() as tx:
        epoch = releases.epoch(tx)
        (before,) = releases.canaries.under_way(tx)
        releases.abort(tx, release, actor="ann", reason="no")
        late = Move(kind="roll_back", state=before.state, findings=(), reason="harm")
        assert not releases.canaries.keep(tx, before, late)  # a look that was under way
        assert releases.epoch(tx) == epoch + 1
        assert releases.canaries.shares(tx) == ()
        with pytest.raises(Conflict, match="under way"):
            releases.canaries.resume(tx, release, actor="ann", reason="")
    info = releases.show(release)
    assert (info.state, info.weight) == (ReleaseState.ABORTED, 0.0)
