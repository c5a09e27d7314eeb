# The types of the builder's face: `__init__.py` imports each name on its first use, so it can name none of them.
from taut.entrypoints.notebook import Dataset, features, model, open  # noqa: A004 - the name of the face
from taut.project.alerting import Contain, Email, Webhook
from taut.project.datasets import Contract, column, files, rule
from taut.project.endpoints import Endpoint, Project
from taut.project.experiments import AB, Bandit
from taut.project.guarding import absolute, cost, outcome, quality
from taut.project.rules import (
    SLO,
    Canary,
    Direct,
    Resources,
    Shadow,
    approval,
    by_time,
    errors,
    latency,
    metric,
    no_regression,
    parity,
    prediction_drift,
    previous_version,
)
from taut.project.training import TrainContext, Trained
from taut.project.triggers import (
    Retraining,
    all_of,
    any_of,
    cron,
    on_drift,
    on_feedback,
    on_new_data,
    on_quality,
)

__all__ = [
    "AB",
    "SLO",
    "Bandit",
    "Canary",
    "Contain",
    "Contract",
    "Dataset",
    "Direct",
    "Email",
    "Endpoint",
    "Project",
    "Resources",
    "Retraining",
    "Shadow",
    "TrainContext",
    "Trained",
    "Webhook",
    "absolute",
    "all_of",
    "any_of",
    "approval",
    "by_time",
    "column",
    "cost",
    "cron",
    "errors",
    "features",
    "files",
    "latency",
    "metric",
    "model",
    "no_regression",
    "on_drift",
    "on_feedback",
    "on_new_data",
    "on_quality",
    "open",
    "outcome",
    "parity",
    "prediction_drift",
    "previous_version",
    "quality",
    "rule",
]

__version__: str
