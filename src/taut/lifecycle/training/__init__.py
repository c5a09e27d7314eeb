"""Training: the builder's function as a confined job on pinned data and signed code, recorded so that it can be repeated."""

from typing import TYPE_CHECKING

from taut.lifecycle.training.split import SplitFacts, split_by_time
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
    limits_of,
)

if TYPE_CHECKING:
    from taut.lifecycle.training.code import sign_code, verify_code
    from taut.lifecycle.training.compare import Difference, Reproduction
    from taut.lifecycle.training.tables import metadata
    from taut.lifecycle.training.training import Training

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

_CONTROL = {
    "Difference": "compare",
    "Reproduction": "compare",
    "Training": "training",
    "metadata": "tables",
    "sign_code": "code",
    "verify_code": "code",
}


def __getattr__(name: str) -> object:
    """Import what control needs on first use: a job that trains needs neither SQLAlchemy nor keys."""
    if name not in _CONTROL:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_CONTROL[name]}"), name)
