"""What holds now is what is applied; where that cannot be understood nobody may anything but in an emergency."""

from __future__ import annotations

from typing import Any

import pytest

from taut.core.errors import Denied, Unavailable
from taut.project.manifest import Manifest, PolicySpec
from taut.trust.breakglass import emergency
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
