"""How good answers are, with the error that so few rows leave."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from taut.core.errors import InvalidInput
from taut.core.evidence import Check, Outcome
from taut.core.metrics import GREATER_IS_BETTER

Array = npt.NDArray[Any]
SURE: Final = 0.95
_CLIP: Final = 1e-15


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A figure of some rows and its standard error."""

    value: float
    error: float
    rows: int

    def bounds(self, *, among: int = 1) -> tuple[float, float]:
        """Return the interval that holds the figure of all such rows at 95%, for `among` figures together (Bonferroni)."""
        width = NormalDist().inv_cdf(1 - (1 - SURE) / (2 * max(1, among))) * self.error
        return self.value - width, self.value + width


def estimate(metric: str, truth: Array, answers: Array) -> Estimate | None:
    """Return a metric of some rows; None where they cannot tell it: one class alone has no AUC.

    truth: class indices, or values. answers: probabilities [n, classes], or values [n].
    Raises InvalidInput for a metric that such answers do not have.
    """
    rows = len(truth)
    if metric == "auc" and answers.ndim == 2 and answers.shape[1] == 2:
        return _auc(truth == 1, answers[:, 1])
    losses = _losses(metric, truth, answers)
    if rows < 2:
        return None
    value, error = float(losses.mean()), float(losses.std(ddof=1) / np.sqrt(rows))
    if metric == "rmse":  # the delta method
        root = float(np.sqrt(value))
        value, error = root, error / (2 * root) if root else 0.0
    return Estimate(value=value, error=error, rows=rows)


def _losses(metric: str, truth: Array, answers: Array) -> Array:
    found: Array
    if answers.ndim == 1:
        if metric not in ("mae", "rmse"):
            raise InvalidInput(f"{metric} is a metric of classifiers: for a regressor write rmse or mae")
        found = np.abs(truth - answers)
        return found if metric == "mae" else found**2
    if metric == "accuracy":
        found = (answers.argmax(axis=1) == truth).astype(np.float64)
    elif metric == "logloss":
        found = -np.log(np.clip(answers[np.arange(len(truth)), truth], _CLIP, 1))
    elif metric == "brier" and answers.shape[1] == 2:
        found = (answers[:, 1] - truth) ** 2
    else:
        raise InvalidInput(f"{metric} is no metric of groups of rows for {answers.shape[1]} classes")
    return found


def _auc(positive: Array, score: Array) -> Estimate | None:
    """The AUC and its error. Source: DeLong, DeLong and Clarke-Pearson 1988, by ranks as Sun and Xu 2014."""
    ones, zeros = score[positive], score[~positive]
    if len(ones) < 2 or len(zeros) < 2:
        return None
    every, among_ones, among_zeros = _ranks(score), _ranks(ones), _ranks(zeros)
    above = (every[positive] - among_ones) / len(zeros)
    below = 1 - (every[~positive] - among_zeros) / len(ones)
    error = np.sqrt(above.var(ddof=1) / len(ones) + below.var(ddof=1) / len(zeros))
    return Estimate(value=float(above.mean()), error=float(error), rows=len(score))


def _ranks(values: Array) -> Array:
    """Ranks from 1, ties at their middle."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    found: Array = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return found


def share_bounds(hits: int, rows: int, *, among: int = 1) -> tuple[float, float]:
    """Return Wilson's interval of a share at 95%, for `among` shares together."""
    z = NormalDist().inv_cdf(1 - (1 - SURE) / (2 * max(1, among)))
    middle, scale = (hits + z * z / 2) / (rows + z * z), z / (rows + z * z)
    width = scale * np.sqrt(hits * (rows - hits) / rows + z * z / 4)
    return max(0.0, float(middle - width)), min(1.0, float(middle + width))


def at_most(name: str, value: float, low: float, limit: float, said: str) -> Check:
    """Judge what may be `limit` at most: surely more rejects, more that may be chance is held for a person.

    low: the lower bound of `value`.
    """
    outcome = Outcome.PASSED if value <= limit else Outcome.FAILED if low > limit else Outcome.HELD
    if outcome is Outcome.HELD:
        said += ", which so few rows do not make sure"
    return Check(name=name, outcome=outcome, message=said, observed=value, limit=limit)


def worse_by(metric: str, value: float, than: float) -> float:
    """Return by how much a metric is worse than another value of it; negative where it is better."""
    return than - value if GREATER_IS_BETTER.get(metric, True) else value - than


def listed(names: Sequence[str], most: int = 5) -> str:
    """Return names in a sentence, the first few of many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
