"""What the project is: the applied manifests, what the next one would change, and the gate before it."""

from taut.lifecycle.plans.diff import Change, FieldChange, diff
from taut.lifecycle.plans.gate import PLAN_GATE, Surroundings, plan_evidence
from taut.lifecycle.plans.plans import Applied, Plan, PlanInfo, Plans
from taut.lifecycle.plans.playbooks import right_of, rights_lent
from taut.lifecycle.plans.policies import attributes_of, policy_of, policy_places, rights_touched
from taut.lifecycle.plans.tables import metadata

__all__ = [
    "PLAN_GATE",
    "Applied",
    "Change",
    "FieldChange",
    "Plan",
    "PlanInfo",
    "Plans",
    "Surroundings",
    "attributes_of",
    "diff",
    "metadata",
    "plan_evidence",
    "policy_of",
    "policy_places",
    "right_of",
    "rights_lent",
    "rights_touched",
]
