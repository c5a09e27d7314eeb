"""Which version answers for which endpoint, since when, by whose word, and what it replaced."""

from taut.lifecycle.release.canaries import ArmShare, Canaries, Canary, Lesson, Share
from taut.lifecycle.release.experiments import Experiment, Experiments, Payoff
from taut.lifecycle.release.releases import ReleaseInfo, Releases, ReleaseState, Route
from taut.lifecycle.release.shadows import Beside, Shadow, Shadows
from taut.lifecycle.release.tables import metadata

__all__ = [
    "ArmShare",
    "Beside",
    "Canaries",
    "Canary",
    "Experiment",
    "Experiments",
    "Lesson",
    "Payoff",
    "ReleaseInfo",
    "ReleaseState",
    "Releases",
    "Route",
    "Shadow",
    "Shadows",
    "Share",
    "metadata",
]
