"""Guardrails of outcomes, cost and limits, from callers to rows: each ends a canary that does the harm that it watches, and none that does not."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from canary_world import PLAN, Tell, World
from msgspec import structs
from sqlalchemy import select

from taut.lifecycle.release import Lesson
from taut.lifecycle.release.canary import CanaryPlan, Finding
from taut.lifecycle.release.tables import lessons
from taut.project.manifest import FreezeSpec, LimitSpec, Manifest

LONG = structs.replace(PLAN, steps=(0.5,), every_s=36_000.0)


def plan_of(*guardrails: str, **more: Any) -> CanaryPlan:
    return structs.replace(LONG, guardrails=guardrails, **more)


def told(name: str, live: float, canary: float) -> Tell:
    """Outcomes of which so many are 1, of either version."""

    def tell(choose: random.Random, own: bool) -> dict[str, float]:
        return {name: float(choose.random() < (canary if own else live))}

    return tell


def findings(world: World) -> dict[str, Finding]:
    with world.records.read() as tx:
        found = world.releases.canaries.find(tx, world.release)
    assert found is not None
    return {one.guardrail: one for one in found.findings}


LIMIT = LimitSpec(metric="errors", most=0.02, act="roll_back")
SLOW = LimitSpec(metric="latency", over_ms=10.0, most=0.1, act="roll_back")
CASES: dict[str, tuple[CanaryPlan, dict[str, Any], dict[str, Any]]] = {
    "quality": (plan_of("quality"), {"tell": told("quality", 0.2, 0.2)}, {"tell": told("quality", 0.2, 0.6)}),
    "outcome": (plan_of("outcome"), {"tell": told("outcome", 0.5, 0.5)}, {"tell": told("outcome", 0.5, 0.1)}),
    "cost": (plan_of("cost", price=(0.0, 0.01)), {}, {"slower": 3.0}),
    "absolute:errors": (plan_of("errors", limits=(LIMIT,), roll_back=50.0), {}, {"times": 30.0}),
    "absolute:latency": (plan_of("errors", limits=(SLOW,)), {}, {"slower": 4.0}),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(CASES))
def test_each_ends_a_canary_that_does_its_harm_and_says_why(tmp_path: Path, name: str) -> None:
    plan, _, harm = CASES[name]
    world = World(tmp_path, plan=plan)
    assert world.run(minutes=40, asks=120, **harm) == "aborted"
    ended = findings(world)[name]
    assert ended.decision == "reject"
    leaf = world.ledger.show(subject=f"release:{world.release}", kind="release.aborted", limit=1)[0]
    assert f"{name}: {ended.says}" in leaf.body["reason"]
    assert str(ended.canary) in ended.says


@pytest.mark.parametrize("name", sorted(CASES))
def test_none_ends_or_holds_a_canary_that_is_as_the_live_version(tmp_path: Path, name: str) -> None:
    plan, healthy, _ = CASES[name]
    world = World(tmp_path, plan=plan)
    assert world.run(minutes=12, asks=120, seed=5, **healthy) == "started"
    assert {one.decision for one in findings(world).values()} == {"admit"}


def test_a_limit_that_both_versions_are_beyond_holds_and_does_not_end(tmp_path: Path) -> None:
    world = World(tmp_path, plan=plan_of("errors", limits=(LIMIT,)))
    assert world.run(minutes=12, asks=120, errors=0.2) == "started"
    found = findings(world)["absolute:errors"]
    assert found.decision == "hold"
    assert "both may suffer" in found.says


def test_a_limit_that_pages_tells_people_and_changes_nothing(tmp_path: Path) -> None:
    world = World(tmp_path, plan=plan_of("errors", limits=(structs.replace(LIMIT, act="page"),)))
    assert world.run(minutes=12, asks=120, errors=0.2) == "started"
    found = findings(world)["absolute:errors"]
    assert (found.decision, found.pages) == ("admit", True)
    (page,) = world.paged  # once, however often it is looked at
    assert (page.kind, page.resource, page.summary.endswith(found.says[-20:])) == (
        "release.limit",
        "endpoint:delay",
        True,
    )


def test_people_are_told_of_a_limit_also_where_control_dies_as_it_finds_it(tmp_path: Path) -> None:
    plan = plan_of("errors", limits=(structs.replace(LIMIT, act="page"),))
    world = World(tmp_path / "whole", plan=plan)
    for _ in range(20):
        if not world.paged:
            world.run(minutes=1, asks=120, errors=0.2)
    assert world.paged
    dying = World(tmp_path / "dying", plan=plan, kill_at=world.edges - 1)  # within the transaction
    for _ in range(20):
        if dying.edges < world.edges - 1:
            dying.run(minutes=1, asks=120, errors=0.2)
    assert not dying.paged
    dying.run(minutes=1, asks=120, errors=0.2)
    assert [one.kind for one in dying.paged] == ["release.limit"]


def test_outcomes_told_of_one_version_alone_hold_and_do_not_end(tmp_path: Path) -> None:
    """A flood: whoever tells only of the canary's answers, and that all are wrong."""
    world = World(tmp_path, plan=plan_of("quality"))
    flood: Tell = lambda _choose, own: {"quality": 1.0} if own else {}  # noqa: E731
    assert world.run(minutes=10, asks=120, tell=flood) == "started"
    assert findings(world)["quality"].decision == "hold"


def test_an_outcome_told_again_or_otherwise_later_counts_once(tmp_path: Path) -> None:
    world = World(tmp_path, plan=plan_of("quality", "outcome"))
    world.run(minutes=1, asks=1, tell=told("quality", 1.0, 1.0))
    with world.records.begin() as tx:
        before = world.releases.canaries.reports(tx, world.release)
        row = tx.execute(select(lessons)).one()
        again = Lesson(row.release, row.stage, row.name, row.unit, row.minute, canary=True, amount=1.0)
        assert world.releases.canaries.learn(tx, [again, again._replace(amount=0.0)]) == 0
        assert world.releases.canaries.learn(tx, [again._replace(release="rel_gone", unit=7)]) == 0
        assert world.releases.canaries.reports(tx, world.release) == before
        world.releases.canaries.forget(tx, world.release)
        assert not tx.execute(select(lessons)).all()


def test_a_canary_does_not_grow_in_a_declared_time_that_began_after_it_and_ends_all_the_same(
    tmp_path: Path,
) -> None:
    short = structs.replace(PLAN, steps=(0.1, 0.5), every_s=60.0, least=2, guardrails=("errors",))
    world = World(tmp_path / "healthy", plan=short)
    begun = world.clock.now()
    world.manifest = Manifest(
        freezes=(
            FreezeSpec(
                name="sale", since=str(begun + timedelta(seconds=1)), until=str(begun + timedelta(minutes=6))
            ),
        )
    )
    assert world.run(minutes=5, asks=60) == "started"
    assert world.weights == [0.1]
    with world.records.read() as tx:
        found = world.releases.canaries.find(tx, world.release)
    assert found is not None
    assert found.state.waits.startswith("freeze sale until")
    assert world.run(minutes=5, asks=60) == "live"  # it is over
    harmful = World(tmp_path / "harmful", plan=short)
    harmful.manifest = structs.replace(
        world.manifest, freezes=(FreezeSpec(name="sale", weekly="mon 00:00 - sun 23:59"),)
    )
    assert harmful.run(minutes=8, asks=60, times=150.0) == "aborted"
