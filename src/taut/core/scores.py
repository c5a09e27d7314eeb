"""How good predictions are: the metrics of classifiers and regressors. Imported only where numpy is."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from taut.core.errors import InvalidInput
from taut.core.metrics import GREATER_IS_BETTER as GREATER_IS_BETTER

Array = npt.NDArray[Any]

_CLIP: Final = 1e-15  # log loss of a certain and wrong prediction stays finite


def classification_scores(truth: Array, probabilities: Array) -> dict[str, float]:
    """Return the metrics of a classifier on n rows.

    truth: class indices [n]. probabilities: [n, classes]; for two classes the second is the positive one, and `auc`,
    `f1`, `brier` and `average_precision` are of it; for more, `auc` and `f1` are means over one-against-rest, of the
    classes that occur. `auc` is absent where only one class occurs. `calibration_error` has ten bins of equal width.
    Raises InvalidInput on no rows or shapes that do not fit.
    """
    count, classes = probabilities.shape
    if count == 0 or truth.shape != (count,):
        raise InvalidInput(
            f"scores need rows: {truth.shape} truths and {probabilities.shape} probabilities were given"
        )
    guess = probabilities.argmax(axis=1)
    own = np.clip(probabilities[np.arange(count), truth], _CLIP, 1)
    scores = {"accuracy": float((guess == truth).mean()), "logloss": float(-np.log(own).mean())}
    if classes == 2:
        positive, truth01 = probabilities[:, 1].astype(np.float64), truth == 1
        scores["brier"] = float(((positive - truth01) ** 2).mean())
        scores["f1"] = _f1(guess == 1, truth01)
        scores["calibration_error"] = _calibration_error(positive, truth01)
        if truth01.any() and not truth01.all():
            scores["auc"] = auc(truth01, positive)
            scores["average_precision"] = _average_precision(truth01, positive)
        return scores
    present = [index for index in range(classes) if 0 < (truth == index).sum() < count]
    occurring = np.unique(truth).tolist()
    scores["f1"] = float(np.mean([_f1(guess == index, truth == index) for index in occurring]))
    if present:
        scores["auc"] = float(np.mean([auc(truth == index, probabilities[:, index]) for index in present]))
    return scores


def regression_scores(truth: Array, values: Array) -> dict[str, float]:
    """Return the metrics of a regressor on n rows; `r2` is absent where the truth does not vary.

    Raises InvalidInput on no rows or shapes that do not fit.
    """
    if truth.size == 0 or truth.shape != values.shape:
        raise InvalidInput(f"scores need rows: {truth.shape} truths and {values.shape} values were given")
    error = truth.astype(np.float64) - values.astype(np.float64)
    scores = {"rmse": float(np.sqrt((error**2).mean())), "mae": float(np.abs(error).mean())}
    spread = float(((truth - truth.mean()) ** 2).sum())
    if spread > 0 and truth.min() < truth.max():  # the mean of equal numbers may be rounded away from them
        scores["r2"] = 1 - float((error**2).sum()) / spread
    return scores


def auc(positive: Array, score: Array) -> float:
    """Return the chance that a positive row scores above a negative one, ties counted half.

    positive: booleans [n], of both kinds. score: [n]. Source: Mann and Whitney 1947.
    """
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2)[inverse]
    ones = int(positive.sum())
    zeros = positive.size - ones
    return float((ranks[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def _f1(guess: Array, truth: Array) -> float:
    hits = int((guess & truth).sum())
    total = int(guess.sum()) + int(truth.sum())
    return 2 * hits / total if total else 0.0


def _average_precision(truth: Array, score: Array) -> float:
    order = np.argsort(-score, kind="stable")
    ranked, ordered = truth[order], score[order]
    ends = np.flatnonzero(np.diff(ordered, append=np.nan))  # rows of one score count together
    hits = np.cumsum(ranked)[ends]
    precision = hits / (ends + 1)
    recall = hits / hits[-1]
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def _calibration_error(positive: Array, truth: Array) -> float:
    bins = np.minimum((positive * 10).astype(int), 9)
    total = 0.0
    for index in range(10):
        inside = bins == index
        if inside.any():
            total += float(inside.mean()) * abs(float(positive[inside].mean()) - float(truth[inside].mean()))
    return total
