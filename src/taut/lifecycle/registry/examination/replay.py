"""Replay: what the candidate would have answered to requests that the live version answered."""

from __future__ import annotations

import numpy as np

from taut.core.errors import InvalidInput
from taut.core.evidence import Check, Outcome
from taut.lifecycle.registry.examination.sight import Sight
from taut.project.manifest import GateSpec


def look(rule: GateSpec, sight: Sight) -> Check:
    """Judge the share of logged answers that would have been decided otherwise; of values, that differ by a standard deviation.

    Which of the two is right is not known here: so many other decisions are a surprise that a person should know of.
    """
    if sight.replayed is None:
        raise InvalidInput("no logged traffic was replayed: nothing can be said")
    live, mine = sight.replayed
    limit = float(rule.maximum or 0.0)
    if live.ndim == 2:
        other = live.argmax(axis=1) != mine.argmax(axis=1)
    else:
        other = np.abs(live - mine) > max(float(live.std()), 1e-12)
    apart = np.abs(live - mine).reshape(len(live), -1).max(axis=1)
    share = float(other.mean())
    said = (
        f"{int(other.sum()):,} of {len(other):,} logged answers would be others than the live version's; they are "
        f"{float(np.median(apart)):.4f} apart in the median, {float(np.quantile(apart, 0.99)):.4f} at the 99th percentile"
    )
    return Check(
        name=rule.name, outcome=Outcome.PASSED if share <= limit else Outcome.FAILED, message=said, observed=share,
        limit=limit,
    )  # fmt: skip
