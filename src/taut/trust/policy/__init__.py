"""Who may do what: Cedar policies, decided in memory and cached under the policy's digest."""

from taut.trust.policy.actions import ACTIONS, ADMIN_ONLY, DISCLOSING, ROLE_ACTIONS
from taut.trust.policy.decide import Attributes, Facts, Policy, PolicyDecision, facts
from taut.trust.policy.statements import Statement
from taut.trust.policy.text import BUILT_IN, SCHEMA

__all__ = [
    "ACTIONS",
    "ADMIN_ONLY",
    "BUILT_IN",
    "DISCLOSING",
    "ROLE_ACTIONS",
    "SCHEMA",
    "Attributes",
    "Facts",
    "Policy",
    "PolicyDecision",
    "Statement",
    "facts",
]
