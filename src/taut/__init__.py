"""taut carries an AI project from pilot to production and keeps it there."""

from __future__ import annotations

__version__ = "0.1.0"

_HOMES = {
    "taut.project.alerting": ("Contain", "Email", "Webhook"),
    "taut.entrypoints.notebook": ("Dataset", "features", "model", "open"),
    "taut.project.datasets": ("Contract", "column", "files", "rule"),
    "taut.project.drills": ("Drill", "failing", "slow"),
    "taut.project.endpoints": ("Endpoint", "Project", "simpler_model"),
    "taut.project.experiments": ("AB", "Bandit"),
    "taut.project.gates": (
        "attacked", "backtested", "calibrated", "clean_labels", "fairness", "memorised", "no_costlier",
        "replayed", "reproduced", "robust", "simpler", "slices", "stable",
    ),
    "taut.project.graphs": ("Graph", "average", "first_confident", "node", "vote"),
    "taut.project.playbooks": ("Playbook", "alert", "contain", "notify", "page", "rollback"),
    "taut.project.guarding": ("absolute", "cost", "outcome", "quality"),
    "taut.project.quotas": ("Price", "Quota"),
    "taut.project.rules": (
        "SLO", "BlueGreen", "Cache", "Canary", "Direct", "Monitor", "Resources", "Shadow", "approval", "by_time", "cached_answer", "default_answer",
        "errors", "latency", "metric", "no_regression", "openslo", "parity", "prediction_drift",
        "previous_version",
    ),
    "taut.project.scaling": ("Autoscale",),
    "taut.project.windows": ("Freeze",),
    "taut.project.training": ("TrainContext", "Trained"),
    "taut.project.triggers": (
        "Retraining", "all_of", "any_of", "cron", "on_drift", "on_feedback", "on_new_data", "on_quality",
    ),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AB",
    "SLO",
    "Autoscale",
    "Bandit",
    "BlueGreen",
    "Cache",
    "Canary",
    "Contain",
    "Contract",
    "Dataset",
    "Direct",
    "Drill",
    "Email",
    "Endpoint",
    "Freeze",
    "Graph",
    "Monitor",
    "Playbook",
    "Price",
    "Project",
    "Quota",
    "Resources",
    "Retraining",
    "Shadow",
    "TrainContext",
    "Trained",
    "Webhook",
    "absolute",
    "alert",
    "all_of",
    "any_of",
    "approval",
    "attacked",
    "average",
    "backtested",
    "by_time",
    "cached_answer",
    "calibrated",
    "clean_labels",
    "column",
    "contain",
    "cost",
    "cron",
    "default_answer",
    "errors",
    "failing",
    "fairness",
    "features",
    "files",
    "first_confident",
    "latency",
    "memorised",
    "metric",
    "model",
    "no_costlier",
    "no_regression",
    "node",
    "notify",
    "on_drift",
    "on_feedback",
    "on_new_data",
    "on_quality",
    "open",
    "openslo",
    "outcome",
    "page",
    "parity",
    "prediction_drift",
    "previous_version",
    "quality",
    "replayed",
    "reproduced",
    "robust",
    "rollback",
    "rule",
    "simpler",
    "simpler_model",
    "slices",
    "slow",
    "stable",
    "vote",
]


def __getattr__(name: str) -> object:
    """Import a name of the builder's face on its first use, so that `import taut` costs nothing (PEP 562)."""
    home = _HOME_OF.get(name)
    if home is None:
        from taut.project.words import nearest

        hint = "" if name.startswith("_") else nearest(name, __all__)
        raise AttributeError(f"module 'taut' has no {name!r}{hint}")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
