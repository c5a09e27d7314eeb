"""Which versions an experiment compares, by what, and what it will be able to find: known before it starts."""

from __future__ import annotations

from collections.abc import Sequence

from taut.core.errors import InvalidInput
from taut.core.refs import VersionRef
from taut.lifecycle.release.experiment import ExperimentPlan, declared_plan, detectable_ratio
from taut.project.manifest import EndpointSpec
from taut.workflows.rooms import Rooms

EXPERIMENTS = ("ab", "bandit")


def plan_of(
    rooms: Rooms, endpoint: EndpointSpec, kind: str, versions: Sequence[VersionRef]
) -> ExperimentPlan:
    """Return by what versions are compared with the live one, which is the control whether it is named or not.

    Raises InvalidInput where nothing is live, or for an experiment that could not be judged.
    """
    with rooms.records.read() as tx:
        live = next((one.version for one in rooms.releases.routes(tx) if one.endpoint == endpoint.name), None)
    if live is None:
        raise InvalidInput(
            f"nothing answers at {endpoint.name} yet, so there is nothing to compare with: release a first version"
        )
    arms = [str(live), *(str(one) for one in versions if one != live)]
    return declared_plan(endpoint, kind, arms, rooms.registry.signature(live))


def prospects(plan: ExperimentPlan) -> str:
    """Say what an experiment can find, before it starts."""
    if plan.kind == "bandit":
        return f"weights follow every {plan.every_s:g} s, at least {plan.floor:.0%} for each arm; it calls none better by itself"
    found = detectable_ratio(plan)
    what = f"{plan.outcomes:,} outcomes at a rate of {plan.base:g}"
    if found is None:
        return f"{what} find no difference of any size that is looked for: plan more"
    return f"{what} find a rate {found:.3g} times the control's about every second time, and larger differences sooner"
