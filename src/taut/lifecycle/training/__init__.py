"""Training: the builder's function as a confined job on pinned data and signed code, recorded so that it can be repeated."""

from __future__ import annotations

from taut.lifecycle.training.code import sign_code, verify_code
from taut.lifecycle.training.compare import Difference, Reproduction
from taut.lifecycle.training.split import SplitFacts, split_by_time
from taut.lifecycle.training.tables import metadata
from taut.lifecycle.training.training import Training, limits_of
from taut.lifecycle.training.values import (
    Artifact,
    Code,
    Environment,
    JoinedFeatures,
    MetricPoint,
    Report,
    Run,
    RunState,
    TrainingData,
)

__all__ = [
    "Artifact",
    "Code",
    "Difference",
    "Environment",
    "JoinedFeatures",
    "MetricPoint",
    "Report",
    "Reproduction",
    "Run",
    "RunState",
    "SplitFacts",
    "Training",
    "TrainingData",
    "limits_of",
    "metadata",
    "sign_code",
    "split_by_time",
    "verify_code",
]
