"""Experiments from their first caller to their end, through the gateways' own draws and counters and control's rows, crashes included."""

from __future__ import annotations

from pathlib import Path

import pytest
from experiment_world import World, ab, bandit

BEGUN = ["release.started", "release.experiment.begun"]


def test_a_version_that_is_surely_better_takes_over_where_that_is_declared(tmp_path: Path) -> None:
    world = World(tmp_path, ab(3, winner=True))
    assert world.run(ticks=60, worth=lambda arm, _: (0.1, 0.1, 0.3)[arm]) == "live"
    assert world.history() == [*BEGUN, "promote", "release.experiment.decided", "release.promoted"]
    assert world.releases.show(world.release).version == "delay@3"
    assert set(world.pushed) == {world.plan.weights}


def test_without_that_word_a_person_decides_and_is_told_how_sure_it_is(tmp_path: Path) -> None:
    world = World(tmp_path, ab(2))
    assert world.run(ticks=15, worth=lambda arm, _: (0.1, 0.4)[arm]) == "started"
    found = world.found()
    assert [one.verdict for one in found.state.standings] == ["control", "better"]
    assert "surely better" in found.state.standings[1].says
    assert "promote" in found.state.waits


def test_in_a_freeze_that_began_after_it_nothing_takes_over_and_afterwards_it_does(tmp_path: Path) -> None:
    world = World(tmp_path, ab(2, winner=True))
    world.freeze(hours=1)
    assert world.run(ticks=15, worth=lambda arm, _: (0.1, 0.4)[arm]) == "started"
    assert world.found().state.standings[1].verdict == "better"
    assert "freeze audit until" in world.found().state.waits
    world.clock.advance(3600)
    assert world.run(ticks=1, worth=lambda arm, _: (0.1, 0.4)[arm]) == "live"


def test_in_a_freeze_a_bandit_keeps_its_weights_and_an_arm_that_harms_is_stopped_all_the_same(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, bandit(3))
    world.freeze(hours=24)
    world.run(ticks=10, worth=lambda arm, _: (0.1, 0.5, 0.2)[arm])
    assert world.weights() == world.plan.weights
    world.run(ticks=12, worth=lambda *_: 0.1, errors=(0.005, 0.005, 0.5))
    assert world.weights() == pytest.approx((0.5, 0.5, 0.0))
    assert world.history() == [*BEGUN, "stop"]


def test_an_arm_that_fails_is_stopped_and_its_callers_go_to_the_others(tmp_path: Path) -> None:
    world = World(tmp_path, ab(3))
    assert world.run(ticks=12, worth=lambda *_: 0.1, errors=(0.005, 0.005, 0.5)) == "started"
    assert "stop" in world.history()
    assert world.weights() == pytest.approx((0.5, 0.5, 0.0))
    assert "callers who failed" in world.found().state.stopped[2]


def test_where_every_arm_fails_the_control_stays(tmp_path: Path) -> None:
    world = World(tmp_path, ab(2))
    assert world.run(ticks=20, worth=lambda *_: 0.1, errors=(0.005, 0.5)) == "aborted"
    assert world.gateway.split is None


def test_a_bandit_moves_callers_to_the_best_and_leaves_the_floor_to_each(tmp_path: Path) -> None:
    world = World(tmp_path, bandit(3))
    assert world.run(ticks=25, worth=lambda arm, _: (0.1, 0.5, 0.2)[arm]) == "started"
    weights = world.weights()
    assert weights[1] == pytest.approx(0.95, abs=0.02)
    assert min(weights) >= 0.02
    assert sum(weights) == pytest.approx(1.0)


def test_a_bandit_that_forgets_follows_what_became_best(tmp_path: Path) -> None:
    world = World(tmp_path, bandit(2, memory_s=300.0, floor=0.1))
    world.run(ticks=50, worth=lambda arm, at_s: ((0.1, 0.5), (0.5, 0.1))[at_s >= 1500][arm])
    assert world.weights()[0] > 0.8


def test_outcomes_that_come_late_count_for_the_weight_under_which_they_were_drawn(tmp_path: Path) -> None:
    world = World(tmp_path, bandit(2))
    world.run(ticks=30, worth=lambda arm, _: (0.1, 0.5)[arm], delay_s=(0.0, 300.0, 600.0))
    found = world.found()
    with world.records.read() as tx:
        sums = world.releases.experiments.payoffs(tx, found)
    pushed = [weights[arm] for weights in world.pushed for arm in (0, 1)]
    assert len({one.share for one in sums}) > 2
    assert all(any(one.share == pytest.approx(weight) for weight in pushed) for one in sums)
    assert world.weights()[1] > 0.9


@pytest.mark.parametrize("kind", ["ab", "bandit"])
def test_a_kill_at_any_edge_leaves_the_same_history_and_only_weights_that_the_ledger_has(
    tmp_path: Path, kind: str
) -> None:
    """Before and after outcomes are learned, before a look, within its transaction, before the push and after it."""
    plan = ab(3, winner=True, least=5) if kind == "ab" else bandit(3, least=5)
    how = {
        "ticks": 5, "asks": 80, "worth": lambda arm, _: (0.1, 0.8, 0.2)[arm],
        "errors": (0.0, 0.0, 0.0) if kind == "ab" else (0.0, 0.0, 0.7),
    }  # fmt: skip
    whole = World(tmp_path, plan)
    ended = whole.run(**how)
    assert ended == ("live" if kind == "ab" else "started")
    for edge in range(2, whole.edges + 1):
        world = World(tmp_path, plan, kill_at=edge)
        assert world.run(**how) == ended
        said = {leaf.body["weights"] for leaf in world.leaves() if "weights" in leaf.body}
        derived = {
            ", ".join(f"{version} {weight:g}" for version, weight in zip(plan.arms, weights, strict=True))
            for weights in world.pushed
            if weights != plan.weights
        }
        assert derived <= said
        assert set(world.history()) == set(whole.history())
