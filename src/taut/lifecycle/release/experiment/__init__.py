"""Several versions of an endpoint compared by what became true of their answers: A/B with a verdict, and a bandit that learns."""

from taut.lifecycle.release.experiment.plan import (
    ExperimentPlan,
    checked_plan,
    declared_plan,
    detectable_ratio,
    payoff_of,
)
from taut.lifecycle.release.experiment.standing import PayoffSum, Standing, standings
from taut.lifecycle.release.experiment.steps import (
    ArmFindings,
    ExperimentState,
    Step,
    advance,
    begun,
    is_due,
    resumed,
)
from taut.lifecycle.release.experiment.thompson import best_probabilities, shares_of

__all__ = [
    "ArmFindings",
    "ExperimentPlan",
    "ExperimentState",
    "PayoffSum",
    "Standing",
    "Step",
    "advance",
    "begun",
    "best_probabilities",
    "checked_plan",
    "declared_plan",
    "detectable_ratio",
    "is_due",
    "payoff_of",
    "resumed",
    "shares_of",
    "standings",
]
