"""Who may do what: Cedar policies, decided in memory and cached under the policy's digest."""

from taut.trust.policy.actions import ACTIONS, ROLE_ACTIONS
from taut.trust.policy.decide import Facts, Policy, PolicyDecision, facts
from taut.trust.policy.text import BUILT_IN, SCHEMA

__all__ = ["ACTIONS", "BUILT_IN", "ROLE_ACTIONS", "SCHEMA", "Facts", "Policy", "PolicyDecision", "facts"]
