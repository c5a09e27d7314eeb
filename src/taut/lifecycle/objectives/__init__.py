"""What endpoints promise, how much of what they may miss is used up, and when that goes too fast."""

from taut.lifecycle.objectives.burn import RULES, Budget, Burn, Rule, Standing, State, judge
from taut.lifecycle.objectives.store import Kept
from taut.lifecycle.objectives.tables import metadata
from taut.lifecycle.objectives.tally import Count, Tally
from taut.lifecycle.objectives.values import NAMES, Name, Objective, objectives_of

__all__ = [
    "NAMES",
    "RULES",
    "Budget",
    "Burn",
    "Count",
    "Kept",
    "Name",
    "Objective",
    "Rule",
    "Standing",
    "State",
    "Tally",
    "judge",
    "metadata",
    "objectives_of",
]
