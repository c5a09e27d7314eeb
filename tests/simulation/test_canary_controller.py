"""Canaries from their first caller to their end, through the gateways' counters and control's rows, crashes included."""

from __future__ import annotations

from pathlib import Path

import pytest
from canary_world import PLAN, World
from msgspec import structs

BEGUN = ["release.started", "release.canary.begun"]


def test_a_healthy_canary_takes_over_step_by_step(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert world.run(minutes=30) == "live"
    assert world.weights == [0.1, 0.5]
    assert world.history() == [*BEGUN, "grow", "promote", "release.promoted"]


def test_a_canary_that_fails_is_rolled_back_and_says_why(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert world.run(minutes=60, times=30.0) == "aborted"
    info = world.releases.show(world.release)
    assert "callers who failed" in info.reason or world.history()[-1] == "release.aborted"
    leaf = world.ledger.show(subject=f"release:{world.release}", kind="release.aborted", limit=1)[0]
    assert "errors" in leaf.body["reason"]
    assert "fewer it would not end" in leaf.body["reason"]
    assert all(gateway.split is None for gateway in world.gateways)


def test_a_slow_canary_is_rolled_back(tmp_path: Path) -> None:
    world = World(tmp_path, plan=structs.replace(PLAN, every_s=3600.0))
    assert world.run(minutes=60, slower=2.5, asks=400) == "aborted"


def test_without_traffic_it_holds_and_says_why(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert world.run(minutes=20, asks=0) == "started"
    with world.records.read() as tx:
        found = world.releases.canaries.find(tx, world.release)
    assert found is not None
    assert "no traffic" in found.state.waits
    assert world.releases.show(world.release).weight == 0.1


@pytest.mark.parametrize("seed", [3, 4])
def test_one_caller_alone_ends_no_canary_and_lets_none_grow_far(tmp_path: Path, seed: int) -> None:
    world = World(tmp_path)
    assert world.run(minutes=20, callers=1, errors=0.3, times=3.0, seed=seed) == "started"


def test_a_kill_at_any_edge_ends_in_the_same_state_with_the_same_history(tmp_path: Path) -> None:
    """Before a look, before and after its transaction, within that of the promotion, before the push and after it."""
    short = structs.replace(PLAN, every_s=60.0, least=2, guardrails=("errors",))
    for times, ended in ((1.0, "live"), (150.0, "aborted")):
        whole = World(tmp_path, plan=short)
        assert whole.run(minutes=8, asks=60, times=times) == ended
        for edge in range(2, whole.edges + 1):
            world = World(tmp_path, plan=short, kill_at=edge)
            assert world.run(minutes=9, asks=60, times=times) == ended
            assert world.history() == whole.history()
            assert world.weights == whole.weights
