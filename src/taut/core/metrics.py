"""The metrics that taut measures itself, by name. Light, so that declarations can name them without numpy."""

from __future__ import annotations

from typing import Final

GREATER_IS_BETTER: Final = {
    "auc": True, "accuracy": True, "f1": True, "r2": True, "average_precision": True,
    "logloss": False, "brier": False, "rmse": False, "mae": False, "calibration_error": False,
}  # fmt: skip
