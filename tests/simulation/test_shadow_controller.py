"""Shadows and switches through the gateways' own counters and control's own rows, control killed at every edge."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from canary_world import Gateway, Killed, World
from msgspec import structs

from taut.core.errors import Conflict
from taut.lifecycle.release.canary import CanaryPlan
from taut.lifecycle.release.shadow import ShadowPlan
from taut.ports.records import Tx
from taut.project.manifest import FreezeSpec, Manifest
from taut.serving.runtime import Outputs
from taut.serving.snapshot import Beat, GatewayState
from taut.serving.trials import Pairs, encode_trials, lots_of
from taut.workflows.shadow import look_at_shadows, promote_shadow

SHADOW = ShadowPlan(share=0.5, every_s=120.0, least=200)
SWITCH = ShadowPlan(share=0.0, every_s=0.0, least=1, keep_s=300.0)
CANARY = CanaryPlan(steps=(0.2,), every_s=60.0, least=2, guardrails=("errors",))


class ShadowGateway(Gateway):
    """What a gateway does of shadows: it loads them, compares, and tells. fault: why it cannot load one."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.pairs: Pairs | None = None
        self.kept: set[str] = set()
        self.fault = ""

    def hold(self, shadow: str | None, kept: set[str]) -> None:
        self.kept = kept
        if shadow is None:
            self.pairs = None
        elif self.pairs is None or self.pairs.release != shadow:
            self.pairs = Pairs(shadow)

    def state(self) -> GatewayState:
        told = [] if self.pairs is None else [self.pairs.reading(ready=not self.fault, fault=self.fault)]
        state = super().state()
        assert state.beat is not None
        return structs.replace(state, beat=structs.replace(state.beat, shadows=encode_trials(told)))


class ShadowWorld(World):
    """A world in which the second version begins as a shadow."""

    def __init__(self, folder: Path, plan: ShadowPlan, *, kill_at: int = 0) -> None:
        self.sides: list[ShadowGateway] = [ShadowGateway("gateway-0"), ShadowGateway("gateway-1")]
        super().__init__(folder, plan=plan, kill_at=kill_at, gateways=self.sides)

    def begin(self, tx: Tx, plan: Any) -> None:
        self.releases.shadows.begin(tx, self.release, plan, actor="ann")

    def look(self, states: Sequence[GatewayState]) -> None:
        look_at_shadows(self.rooms, states)
        super().look(states)

    def publish(self) -> None:
        super().publish()
        with self.records.read() as tx:
            shadows, kept = self.releases.shadows.shares(tx), self.releases.shadows.kept(tx)
        for side in self.sides:
            side.hold(shadows[0].release if shadows else None, {str(one.version) for one in kept})

    def ask(
        self, count: int, seed: int, *, fails: float = 0.0, slower: float = 1.0, other: float = 0.0, callers: int = 50
    ) -> None:  # fmt: skip
        """Let callers ask, and the shadow be compared. fails: how often it alone fails. other: how often it decides otherwise."""
        choose = random.Random(seed)
        now_us = int(self.clock.now().timestamp() * 1e6)
        for _ in range(count):
            side, caller = self.sides[choose.randrange(2)], f"u{choose.randrange(callers)}"
            side.answer(caller, now_us, lambda own: False, lambda own: 1_000_000)
            if side.pairs is None:
                continue
            mark = lots_of(side.pairs.release, caller)[1]
            side.pairs.see(mark)
            if choose.random() < fails:
                side.pairs.fail(mark, shadow=True, now_us=now_us)
                continue
            likely = 0.9 if choose.random() < 0.5 else 0.2
            shadow = likely if choose.random() >= other else 1.0 - likely
            side.pairs.compare(_says(likely), _says(shadow))
            side.pairs.time(
                int(choose.lognormvariate(13.0, 0.5)), int(choose.lognormvariate(13.0, 0.5) * slower)
            )

    def minutes(self, count: int, *, asks: int = 100, **how: Any) -> None:
        for minute in range(count):
            self.ask(asks, minute, **how)
            self.clock.advance(60)
            self.tick()

    def promote(self) -> None:
        """Let a person switch, who asks what became of it where control died over it."""
        try:
            promote_shadow(self.rooms, self.release, actor="ann", reason="it is time")
        except Killed:
            self.restart()
            self.publish()
            if self.state() == "started":
                self.promote()

    def shadow(self) -> Any:
        with self.records.read() as tx:
            return self.releases.shadows.find(tx, self.release)


def _says(probability: float) -> Outputs:
    return Outputs(labels=[int(probability > 0.5)], probabilities=[[1.0 - probability, probability]])


def test_a_side_that_is_ready_waits_for_a_person_and_what_it_replaced_is_kept_for_the_way_back(
    tmp_path: Path,
) -> None:
    world = ShadowWorld(tmp_path, SWITCH)
    world.sides[1].fault = "it takes 5 MiB, and 2 MiB are left"
    world.minutes(2, asks=0)
    with pytest.raises(Conflict, match="not ready at gateway-1: it takes 5 MiB"):
        promote_shadow(world.rooms, world.release, actor="ann", reason="")
    world.sides[1].fault = ""
    world.minutes(2, asks=0)
    assert world.shadow().state.passed
    assert world.state() == "started"
    world.promote()
    assert world.state() == "live"
    assert [side.kept for side in world.sides] == [{"delay@1"}] * 2
    world.clock.advance(301)
    world.publish()
    assert [side.kept for side in world.sides] == [set()] * 2


def test_the_way_back_ends_the_keeping(tmp_path: Path) -> None:
    world = ShadowWorld(tmp_path, SWITCH)
    world.minutes(1, asks=0)
    world.promote()
    with world.records.begin() as tx:
        info, _ = world.releases.roll_back(tx, endpoint="delay", to=None, actor="ann", reason="no")
    world.publish()
    assert (info.version, world.state()) == ("delay@1", "rolled_back")
    assert [side.kept for side in world.sides] == [set()] * 2


def test_a_release_under_way_takes_the_place_of_what_is_kept_and_a_second_one_is_refused(
    tmp_path: Path,
) -> None:
    world = ShadowWorld(tmp_path, SWITCH)
    with pytest.raises(Conflict, match="already being released"):
        world._start(3, "shadow")
    world.minutes(1, asks=0)
    world.promote()
    later = world._start(3, "shadow")
    world.publish()
    assert [side.kept for side in world.sides] == [set()] * 2
    with world.records.begin() as tx:
        world.releases.abort(tx, later, actor="ann", reason="")
    world.publish()
    assert [side.kept for side in world.sides] == [{"delay@1"}] * 2


def test_a_shadow_that_is_as_good_passes_and_a_person_lets_it_take_over(tmp_path: Path) -> None:
    world = ShadowWorld(tmp_path, SHADOW)
    world.minutes(6)
    assert (world.shadow().state.passed, world.state()) == (True, "started")
    assert world.history()[1:] == ["release.shadow.begun", "pass"]
    world.promote()
    assert world.state() == "live"
    assert all(side.pairs is None for side in world.sides)


@pytest.mark.parametrize(
    ("how", "guardrail"),
    [({"fails": 0.2}, "errors"), ({"slower": 3.0}, "latency"), ({"other": 0.3}, "disagreement")],
)
def test_a_shadow_that_is_worse_is_held_and_says_why_and_a_person_may_let_it_pass(
    tmp_path: Path, how: dict[str, float], guardrail: str
) -> None:
    world = ShadowWorld(tmp_path, structs.replace(SHADOW, every_s=1200.0))
    world.minutes(15, **how)
    state = world.shadow().state
    assert (world.state(), state.passed) == ("started", False)
    assert state.held.startswith(guardrail)
    with world.records.begin() as tx:
        world.releases.shadows.resume(tx, world.release, actor="ann", reason="that is meant")
    world.minutes(6, asks=5, **how)
    assert world.shadow().state.passed
    assert "release.shadow.resumed" in world.history()


def test_without_traffic_or_callers_it_waits_and_says_so(tmp_path: Path) -> None:
    world = ShadowWorld(tmp_path, SHADOW)
    world.minutes(4, asks=0)
    assert "0 pairs were answered" in world.shadow().state.waits
    world.minutes(4, callers=1)
    assert "1 callers asked so far" in world.shadow().state.waits


def test_what_is_told_again_or_by_a_process_that_began_anew_is_counted_once(tmp_path: Path) -> None:
    world = ShadowWorld(tmp_path, SHADOW)
    world.ask(40, 1)
    for _ in range(3):
        world.tick()
    assert world.shadow().state.tally.counts.answered == 40
    world.sides[0].pairs = None
    world.publish()
    world.ask(10, 2)
    world.tick()
    assert world.shadow().state.tally.counts.answered == 50


def test_a_kill_at_any_edge_of_a_switch_ends_in_the_same_state(tmp_path: Path) -> None:
    def whole(kill_at: int = 0) -> ShadowWorld:
        world = ShadowWorld(tmp_path, SWITCH, kill_at=kill_at)
        world.minutes(2, asks=0)
        world.promote()
        world.minutes(1, asks=0)
        return world

    calm = whole()
    assert calm.history() == [
        "release.started",
        "release.shadow.begun",
        "pass",
        "release.shadow.switched",
        "release.promoted",
    ]
    for edge in range(2, calm.edges + 1):
        world = whole(edge)
        assert (world.state(), world.history()) == ("live", calm.history())
        assert [side.kept for side in world.sides] == [{"delay@1"}] * 2


def test_a_kill_at_any_edge_between_a_shadow_and_its_canary_ends_in_the_same_state(tmp_path: Path) -> None:
    plan = structs.replace(SHADOW, every_s=60.0, least=20, canary=CANARY)

    def whole(kill_at: int = 0) -> ShadowWorld:
        world = ShadowWorld(tmp_path, plan, kill_at=kill_at)
        for _ in range(4):
            world.minutes(1, asks=30)
        return world

    calm = whole()
    assert calm.state() == "live"
    assert calm.history()[1:] == [
        "release.shadow.begun",
        "canary",
        "release.canary.begun",
        "promote",
        "release.promoted",
    ]
    assert calm.weights == [0.2]
    for edge in range(2, calm.edges + 1):
        world = whole(edge)
        assert (world.state(), world.history(), world.weights) == ("live", calm.history(), calm.weights)


def test_no_canary_begins_by_itself_in_a_declared_freeze(tmp_path: Path) -> None:
    plan = structs.replace(SHADOW, every_s=0.0, least=20, canary=CANARY)
    world = ShadowWorld(tmp_path, plan)
    begun = world.clock.now()
    since, until = str(begun + timedelta(seconds=1)), str(begun + timedelta(hours=1))
    world.manifest = Manifest(freezes=(FreezeSpec(name="sale", since=since, until=until),))
    world.minutes(2)
    assert world.shadow().state.waits.startswith("freeze sale until")
    world.manifest = Manifest()
    world.minutes(1)
    assert "release.canary.begun" in world.history()


def test_a_gateway_that_tells_what_cannot_be_read_is_not_ready(tmp_path: Path) -> None:
    world = ShadowWorld(tmp_path, SWITCH)
    beat = Beat(gateway="g", epoch=1, ready=True, answers=0, refusals=0, shadows=encode_trials([]))
    for told in (None, beat, structs.replace(beat, shadows=b'[{"release": 1}]')):
        look_at_shadows(world.rooms, [GatewayState(gateway="g", pid=1, serving=1, beat=told)])
        assert not world.shadow().state.passed
        assert world.shadow().state.lacking
