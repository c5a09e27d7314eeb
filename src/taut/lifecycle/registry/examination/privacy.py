"""Memorisation: whether somebody who has a row can tell that the model learned from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from taut.core.errors import InvalidInput
from taut.core.evidence import Check
from taut.lifecycle.registry.examination.estimates import at_most, estimate
from taut.lifecycle.registry.examination.sight import Sight, truth_of
from taut.project.manifest import GateSpec

Array = npt.NDArray[Any]


def look(rule: GateSpec, sight: Sight) -> Check:
    """Judge how well the loss alone tells rows that were learned from and rows that were held out apart, as an AUC.

    0.5 is chance. What changed between the two times counts as telling them apart too. An attacker who has models of his own
    to compare with may do better. Source: Yeom et al. 2018; Carlini et al. 2022 on its limits.
    """
    rows, answers = sight.learned()
    if answers is None:
        raise InvalidInput("the model was not asked about rows that it learned from: nothing can be said")
    known = truth_of(rows[sight.label], sight.signature.classes)
    told = np.concatenate([_fit(known, answers), _fit(sight.truth, sight.answers)])
    learned = np.concatenate([np.ones(len(known)), np.zeros(len(sight.truth))]).astype(np.int64)
    found = estimate("auc", learned, np.stack([-told, told], axis=1))
    if found is None:
        raise InvalidInput("there are too few rows to tell learned and held-out ones apart")
    low, high = found.bounds()
    said = (
        f"who has a row can tell whether it was learned from with an AUC of {found.value:.4f} ({low:.3f} to {high:.3f}; "
        f"{len(known):,} rows that were, {len(sight.truth):,} that were not)"
    )
    return at_most(rule.name, found.value, low, float(rule.maximum or 0.0), said)


def _fit(truth: Array, answers: Array) -> Array:
    """How well each answer fits its label: the probability of it, or the distance, negative."""
    found: Array = -np.abs(truth - answers) if answers.ndim == 1 else answers[np.arange(len(truth)), truth]
    return found
