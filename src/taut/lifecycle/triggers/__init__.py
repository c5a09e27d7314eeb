"""When models are trained anew: reasons that stand, what keeps a run from beginning, and what became of each."""

from taut.lifecycle.triggers.decide import Decision, State, decide
from taut.lifecycle.triggers.seen import DAY, Seen, Spent
from taut.lifecycle.triggers.store import Firing
from taut.lifecycle.triggers.tables import metadata
from taut.lifecycle.triggers.triggers import STORY, Standing, Triggers, Watched

__all__ = [
    "DAY",
    "STORY",
    "Decision",
    "Firing",
    "Seen",
    "Spent",
    "Standing",
    "State",
    "Triggers",
    "Watched",
    "decide",
    "metadata",
]
