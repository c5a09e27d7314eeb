"""What holds now is what is applied; where that cannot be understood nobody may anything but in an emergency."""

from __future__ import annotations

from typing import Any

import pytest

from taut.core.errors import Denied, StepUp, Unavailable
from taut.project.manifest import Manifest, PolicySpec
from taut.trust.breakglass import emergency
from taut.trust.containment import Contained
from taut.trust.identity import OWNER, Principal
from taut.workflows.rights import Rights

ADA = Principal(id="ada", kind="human", roles=("builder",))


class FakePlans:
    """What is applied, and how often its manifest was asked for."""

    def __init__(self) -> None:
        self.manifest: Manifest | None = None
        self.number = 0
        self.asked = 0

    def apply(self, text: str) -> None:
        self.number += 1
        self.manifest = Manifest(policies=(PolicySpec(name="policies/a.cedar", text=text),))

    def current_id(self) -> str | None:
        return f"plan_{self.number}" if self.number else None

    def current(self) -> Manifest | None:
        self.asked += 1
        return self.manifest


def rights_over(plans: FakePlans) -> Rights:
    glass: Any = None  # not asked here
    return Rights(plans, glass, held=lambda _principal: ())  # type: ignore[arg-type]  # what is asked of plans is what the fake has


def test_the_policies_are_those_of_the_plan_that_holds_and_are_parsed_once_for_it() -> None:
    plans = FakePlans()
    rights = rights_over(plans)
    assert rights.decide(ADA, "train", "model:x", {}).allow

    plans.apply('forbid(principal, action == Action::"train", resource);')
    assert [rights.decide(ADA, "train", "model:x", {}).allow for _ in range(3)] == [False] * 3
    assert plans.asked == 1
    plans.apply("")
    assert rights.decide(ADA, "train", "model:x", {}).allow


def test_policies_that_another_version_does_not_understand_shut_everybody_out_but_in_an_emergency() -> None:
    plans = FakePlans()
    rights = rights_over(plans)
    plans.apply('permit(principal, action == Action::"of.the.past", resource);')

    with pytest.raises(Unavailable, match=r"policies/a\.cedar:1.*break-glass"):
        rights.require(OWNER, "plan.apply", "project:x", {})
    assert rights.require(emergency("x"), "plan.apply", "project:x", {}).allow


def test_the_floor_holds_in_an_emergency_and_the_projects_policies_do_not() -> None:
    plans = FakePlans()
    rights = rights_over(plans)
    plans.apply("forbid(principal, action, resource);")

    with pytest.raises(Denied):
        rights.require(OWNER, "train", "model:x", {})
    assert rights.require(emergency("x"), "train", "model:x", {}).allow
    with pytest.raises(Denied, match="separation-of-duties"):
        rights.require(emergency("x"), "model.approve", "model:x@1", {"author": "owner"})


KEY = Principal(id="app", kind="service", roles=("builder",), credential="0123456789abcdef")
TOKEN = Principal(id="app", kind="service", roles=("builder",), credential="tok_1")


@pytest.mark.parametrize(
    ("action", "who", "refused"),
    [
        ("throttle", KEY, None), ("revoke", TOKEN, Denied), ("quarantine", TOKEN, Denied), ("step_up", KEY, StepUp),
        ("step_up", TOKEN, None),
    ],
)  # fmt: skip
def test_whoever_is_contained_is_so_at_control_too(
    action: Any, who: Principal, refused: type[Exception] | None
) -> None:
    held = Contained(id="hold_1", principal="app", action=action, until_us=1, allowed=("late",))
    glass: Any = None  # not asked here
    rights = Rights(FakePlans(), glass, held=lambda name: (held,) if name == "app" else ())  # type: ignore[arg-type]  # as above

    assert rights.decide(ADA, "train", "model:x", {}).allow
    if refused is None:
        assert rights.require(who, "train", "model:x", {}).allow
    else:
        assert not rights.decide(who, "train", "model:x", {}).allow
        with pytest.raises(refused, match="hold_1"):
            rights.require(who, "train", "model:x", {})
    exchanged = rights.decide(KEY, "account.self", "principal:self", {}).allow
    assert exchanged == (action in ("throttle", "step_up"))
