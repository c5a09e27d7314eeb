"""What an examination looks at: held-out rows, what the model answered to them, and to others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from taut.core.errors import InvalidInput
from taut.core.probes import Probe
from taut.core.schema import ModelSignature
from taut.core.scores import classification_scores, regression_scores

Array = npt.NDArray[Any]


class Again(NamedTuple):
    """What a model that was trained again answered to the rows that it was tested on, beside the truth."""

    truth: Array
    answers: Array


class Sight:
    """One candidate before an examination.

    rows: held out, with the label and every declared column. answers: to them, [n, classes] or [n]. probes: answers to
    changed rows, by the probe's name. learned: rows that were learned from, and answers to them where the model was asked.
    again: models that were trained again, as `seed 1` or `fold 1`. replayed: what the live version and this one answered to
    logged requests.
    """

    def __init__(
        self,
        signature: ModelSignature,
        label: str,
        rows: pl.DataFrame,
        answers: Array,
        *,
        probes: Mapping[str, tuple[Probe, Array]] | None = None,
        learned: tuple[pl.DataFrame, Array | None] | None = None,
        again: Mapping[str, Again] | None = None,
        replayed: tuple[Array, Array] | None = None,
        seed: int = 0,
    ) -> None:
        self.signature = signature
        self.label = label
        self.rows = rows
        self.answers = answers
        self.truth = truth_of(rows[label], signature.classes)
        self.seed = seed
        self.again = again or {}
        self.replayed = replayed
        self._probes = probes or {}
        self._learned = learned

    def probed(self, name: str) -> tuple[npt.NDArray[np.int64], Array]:
        """Return which rows a probe changed, and the answers. Raises InvalidInput where it was not made."""
        if name not in self._probes:
            raise InvalidInput(f"the model was not asked about {name}: nothing can be said")
        probe, answers = self._probes[name]
        return probe.places(self.rows.height), answers

    def learned(self) -> tuple[pl.DataFrame, Array | None]:
        """Return rows that were learned from, and the answers to them. Raises InvalidInput where they are not there."""
        if self._learned is None:
            raise InvalidInput("there are no rows that the model learned from: nothing can be said")
        return self._learned

    def binary(self, what: str) -> Array:
        """Return the probability of the second class of two. Raises InvalidInput for any other model."""
        if len(self.signature.classes) != 2:
            raise InvalidInput(f"{what} is about classifiers of two classes, this model has other answers")
        found: Array = self.answers[:, 1]
        return found


def score(metric: str, signature: ModelSignature, truth: Array, answers: Array) -> float:
    """Return a metric of answers. Raises InvalidInput where they do not have it."""
    found = (
        classification_scores(truth, answers)
        if signature.classes
        else regression_scores(truth, answers.reshape(-1))
    )
    if metric not in found:
        raise InvalidInput(f"{metric} is not measured: there are {', '.join(sorted(found))}")
    return found[metric]


def truth_of(labels: pl.Series, classes: Sequence[Any]) -> Array:
    """Return class indices of labels, or values. Raises InvalidInput for one that the model does not know, or no number."""
    if not classes:
        numbers = labels.cast(pl.Float64).to_numpy()
        if not np.isfinite(numbers).all():
            raise InvalidInput("the held-out rows have labels that are absent, NaN or infinite")
        return numbers
    index = {value: at for at, value in enumerate(classes)}
    found = np.array([index.get(value, -1) for value in labels.to_list()], dtype=np.int64)
    if (found < 0).any():
        raise InvalidInput("the held-out rows have labels that the model does not know")
    return found
