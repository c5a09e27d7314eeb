"""What callers' requests cost, against their own past and their peers': the eye of the breaker against cost amplification."""

from taut.trust.costs.watch import KINDS, CostWatch

__all__ = ["KINDS", "CostWatch"]
