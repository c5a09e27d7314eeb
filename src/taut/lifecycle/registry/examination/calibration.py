"""Calibration: whether what is said to happen with a probability happens as often."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from taut.core.errors import InvalidInput
from taut.core.evidence import Check
from taut.lifecycle.registry.examination.estimates import at_most, share_bounds
from taut.lifecycle.registry.examination.sight import Sight
from taut.project.manifest import GateSpec

Array = npt.NDArray[Any]
_BINS: Final = 15
_DRAWS: Final = 1000


class Bin(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of like probability: what was said on average, what came true, and its interval at 95%."""

    rows: int
    said: float
    true: float
    low: float
    high: float


def reliability(said: Array, came_true: Array) -> list[Bin]:
    """Return at most 15 bins of equal numbers of rows, by rising probability."""
    found = []
    for part in np.array_split(np.argsort(said, kind="stable"), min(_BINS, len(said))):
        hits = int(came_true[part].sum())
        low, high = share_bounds(hits, len(part))
        found.append(
            Bin(rows=len(part), said=float(said[part].mean()), true=hits / len(part), low=low, high=high)
        )
    return found


def look(rule: GateSpec, sight: Sight) -> Check:
    """Judge the expected calibration error, less what chance alone makes of a perfect model on as many rows.

    For more than two classes: of the likeliest class. The bias is what shares drawn from the said probabilities give, the
    bound what shares drawn from the seen ones give, 1,000 times each.
    Source: Naeini et al. 2015 (bins of equal mass); Bröcker and Smith 2007 (consistency resampling).
    """
    if not sight.signature.classes:
        raise InvalidInput("calibration is about probabilities, and this model gives values")
    said, came_true = sides(sight)
    bins = reliability(said, came_true)
    rows = np.array([one.rows for one in bins])
    claimed, seen = np.array([one.said for one in bins]), np.array([one.true for one in bins])
    random = np.random.default_rng(sight.seed)
    bias = float(_error(random.binomial(rows, claimed, (_DRAWS, len(bins))) / rows, claimed, rows).mean())
    drawn = _error(random.binomial(rows, seen, (_DRAWS, len(bins))) / rows, claimed, rows)
    raw = float(_error(seen, claimed, rows))
    value = max(0.0, raw - bias)
    low = max(0.0, 2 * raw - float(np.quantile(drawn, 0.95)) - bias)
    worst = max(bins, key=lambda one: abs(one.said - one.true))
    told = (
        f"off by {value:.4f} on average over {len(bins)} bins ({raw:.4f}, of which {bias:.4f} is chance); "
        f"furthest: {worst.said:.3f} was said and {worst.true:.3f} came true ({worst.rows:,} rows)"
    )
    return at_most(rule.name, value, min(low, value), float(rule.maximum or 0.0), told)


def sides(sight: Sight) -> tuple[Array, Array]:
    """Return the probability that each row was given, and whether it came true."""
    if sight.answers.shape[1] == 2:
        return sight.answers[:, 1], sight.truth == 1
    return sight.answers.max(axis=1), sight.answers.argmax(axis=1) == sight.truth


def _error(shares: Array, claimed: Array, rows: Array) -> Array:
    found: Array = (np.abs(shares - claimed) * rows).sum(axis=-1) / rows.sum()
    return found
