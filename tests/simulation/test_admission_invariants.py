"""I1 to I11 and L1 of admission under a hostile network, each also shown to be found when one guard is forgotten."""

from __future__ import annotations

import pytest
from fleet_bugs import BUGS
from fleet_world import Broken, Rules, World
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

INDEX = st.integers(0, 7)
PLACE = st.integers(0, 63)
RISK = st.sampled_from(["high", "low", "medium"])
DEAF = st.sampled_from([0, 0b11, 0b01, 0b100, 0b1100, 0b11101, 0b11111111])  # the first two are gateways
WAIT_S = st.sampled_from([0.3, 1.0, 2.5, 3.9, 6.0, 15.0])


class Fleet(RuleBasedStateMachine):
    """What may happen to a fleet, in any order. Small steps are as likely as what makes sense together."""

    rules_under_test = Rules()

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.rules_under_test)

    @rule(seconds=WAIT_S)
    def time_passes(self, seconds: float) -> None:
        self.world.wait(seconds)

    @rule(seconds=st.integers(1, 5), deaf=DEAF)
    def a_while_passes(self, seconds: int, deaf: int) -> None:
        self.world.live(seconds, deaf)

    @rule(index=INDEX, seconds=st.sampled_from([0.3, 2.0, 3.0]), alone=st.booleans())
    def an_answer_comes_late(self, index: int, seconds: float, alone: bool) -> None:
        self.world.answer_late(index, seconds, alone=alone)

    @rule(index=INDEX, how=st.sampled_from(["talk", "beat", "push", "cut", "hold"]))
    def one_talks(self, index: int, how: str) -> None:
        getattr(self.world, how)(index)

    @rule(place=PLACE, how=st.sampled_from(["deliver", "deliver", "repeat", "lose"]))
    def the_network_acts(self, place: int, how: str) -> None:
        match how:
            case "deliver":
                self.world.deliver(place)
            case "repeat":
                self.world.deliver(place, again=True)
            case "lose":
                self.world.lose(place)

    @rule(index=INDEX, risk=RISK)
    def a_request_comes(self, index: int, risk: str) -> None:
        self.world.request(index, risk)  # type: ignore[arg-type]

    @rule(index=INDEX, risk=RISK, back=st.integers(0, 2))
    def a_careless_gateway_asks(self, index: int, risk: str, back: int) -> None:
        self.world.ask_directly(index, risk, back)  # type: ignore[arg-type]

    @rule(index=INDEX, which=INDEX, how=st.sampled_from(["hop_late", "impersonate"]))
    def a_request_goes_on(self, index: int, which: int, how: str) -> None:
        getattr(self.world, how)(index, which)

    @rule()
    def policy_changes(self) -> None:
        self.world.new_epoch()

    @rule()
    def an_operator_commits(self) -> None:
        self.world.force_commit()

    @rule(index=INDEX, how=st.sampled_from(["restart", "replace", "end"]))
    def a_replica_is_lost(self, index: int, how: str) -> None:
        getattr(self.world, how)(index)

    @rule(index=INDEX, how=st.sampled_from(["drain", "revoke", "finish"]))
    def somebody_acts(self, index: int, how: str) -> None:
        getattr(self.world, how)(index)

    @rule(index=INDEX, how=st.sampled_from(["corrupt", "join_again"]))
    def somebody_lies(self, index: int, how: str) -> None:
        getattr(self.world, how)(index)

    @rule(pool=st.sampled_from(["gateway", "model"]), n=st.integers(1, 6), honest=st.booleans())
    def the_fleet_grows(self, pool: str, n: int, honest: bool) -> None:
        self.world.grow(pool, n, honest=honest)

    @rule(place=st.integers(0, 5))
    def the_scale_log_is_read_again(self, place: int) -> None:
        self.world.read_log(place)

    @rule(how=st.sampled_from(["dies", "comes back", "both"]))
    def control_dies_or_comes_back(self, how: str) -> None:
        if how != "comes back":
            self.world.crash_control()
        if how != "dies" and not self.world.up:
            self.world.restart_control()

    @invariant()
    def what_must_hold_at_every_moment(self) -> None:
        self.world.look()

    def teardown(self) -> None:
        self.world.fair_end()


def check(rules: Rules, *, examples: int, steps: int) -> None:
    machine = type("FleetUnderTest", (Fleet,), {"rules_under_test": rules})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, derandomize=True, database=None,
            phases=[Phase.generate], suppress_health_check=list(HealthCheck), print_blob=False,
        ),
    )  # fmt: skip


EXAMPLES, STEPS = 60, 40


def test_the_invariants_hold_whatever_the_network_does() -> None:
    check(Rules(), examples=EXAMPLES, steps=STEPS)


@pytest.mark.parametrize("bug", BUGS)
def test_a_forgotten_guard_is_found_by_the_same_search(bug: str) -> None:
    invariant_, rules = BUGS[bug]

    with pytest.raises(Broken, match=f"^{invariant_}: "):
        check(rules, examples=EXAMPLES, steps=STEPS)
