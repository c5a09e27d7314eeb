"""Groups of rows: whether any is served surely worse than all together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from taut.core.errors import InvalidInput
from taut.core.evidence import Check, Outcome
from taut.lifecycle.registry.examination.estimates import Estimate, estimate, listed, worse_by
from taut.lifecycle.registry.examination.sight import Sight
from taut.project.manifest import GateSpec

VALUES_MAX: Final = 50
_FEW: Final = 12
_QUARTERS: Final = (0.25, 0.5, 0.75)

Group = tuple[str, npt.NDArray[np.bool_]]


def groups_of(series: pl.Series) -> Iterator[Group]:
    """Yield each group of rows by name: values, numbers with many values by their quarters, the absent.

    Of many words the 50 most frequent; the rest are one group.
    """
    absent = series.is_null().to_numpy()
    if series.dtype.is_float():
        absent = absent | series.is_nan().fill_null(False).to_numpy()
    if absent.any():
        yield f"no {series.name}", absent
    if series.dtype.is_numeric() and series.n_unique() > _FEW:
        numbers = series.cast(pl.Float64).fill_null(float("nan")).to_numpy()
        edges = np.unique(np.nanquantile(numbers, _QUARTERS))
        bins = np.digitize(numbers, edges)
        bounds = ["", *(f"{edge:g}" for edge in edges), ""]
        for at in range(len(edges) + 1):
            inside = (bins == at) & ~absent
            if inside.any():
                yield f"{series.name} {bounds[at]}..{bounds[at + 1]}", inside
        return
    words = series.cast(pl.String)
    counted = words.drop_nulls().value_counts(sort=True, name="rows")
    named = counted[series.name].to_list()[:VALUES_MAX]
    for word in sorted(named):
        yield f"{series.name} {word:.40}", (words == word).fill_null(False).to_numpy()
    rest = (~words.is_in(named)).fill_null(False).to_numpy() & ~absent
    if rest.any():
        yield f"{series.name} other", rest


def look(rule: GateSpec, sight: Sight) -> Check:
    """Judge every group that is large enough; none that is says nothing, so it fails."""
    metric, least = str(rule.metric), int(rule.settings["least"])
    whole = estimate(metric, sight.truth, sight.answers)
    if whole is None:
        raise InvalidInput(f"{metric} of all held-out rows cannot be told: they are of one class, or too few")
    judged: list[tuple[str, Estimate]] = []
    small = []
    for column in rule.columns:
        for name, inside in groups_of(sight.rows[column]):
            count = int(inside.sum())
            found = estimate(metric, sight.truth[inside], sight.answers[inside]) if count >= least else None
            if found is None:
                small.append(f"{name} ({count})")
            else:
                judged.append((name, found))
    if not judged:
        said = f"no group has {least} rows that tell {metric}: {listed(small)}"
        return Check(name=rule.name, outcome=Outcome.FAILED, message=said)
    limit = _limit(rule, whole)
    surely = {
        name: worse_by(metric, _best(metric, one, len(judged)), limit) for name, one in judged
    }  # above 0: surely beyond
    bad = [name for name, beyond in surely.items() if beyond > 0]
    worst, found = max(judged, key=lambda item: worse_by(metric, item[1].value, whole.value))
    if bad:
        worst = max(bad, key=lambda name: surely[name])
        found = dict(judged)[worst]
    low, high = found.bounds(among=len(judged))
    said = (
        f"{metric} is {whole.value:.4f}; worst of {len(judged)} groups is {worst} with {found.value:.4f} "
        f"({low:.3f} to {high:.3f}, {found.rows:,} rows)"
    )
    if bad:
        said += f"; surely too far: {listed(bad)}"
    if small:
        said += f"; too small to judge: {listed(small)}"
    outcome = Outcome.FAILED if bad else Outcome.PASSED
    return Check(name=rule.name, outcome=outcome, message=said, observed=found.value, limit=limit)


def _limit(rule: GateSpec, whole: Estimate) -> float:
    """The stricter of: so much worse than all rows, and the declared minimum."""
    drop = rule.tolerance or 0.0
    if not rule.greater_is_better:
        return whole.value + drop
    return whole.value - drop if rule.minimum is None else max(rule.minimum, whole.value - drop)


def _best(metric: str, found: Estimate, among: int) -> float:
    """The best that the group's figure may be."""
    low, high = found.bounds(among=among)
    return high if worse_by(metric, low, high) > 0 else low


def table(metric: str, sight: Sight, column: str) -> list[dict[str, Any]]:
    """Return each group of a column with its figure and bounds, for people and plots."""
    found = []
    for name, inside in groups_of(sight.rows[column]):
        one = estimate(metric, sight.truth[inside], sight.answers[inside])
        if one is not None:
            low, high = one.bounds()
            found.append({"group": name, "rows": one.rows, metric: one.value, "low": low, "high": high})
    return found
