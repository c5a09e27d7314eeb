"""Fairness between groups: how far apart decisions are, how surely, and what evening them out would cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from taut.core.evidence import Check, Outcome
from taut.lifecycle.registry.examination.estimates import at_most, listed, share_bounds
from taut.lifecycle.registry.examination.sight import Sight
from taut.lifecycle.registry.examination.slices import groups_of
from taut.project.manifest import GateSpec

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
_AT: Final = 0.5
_RATES: Final = {
    "demographic_parity": ("selected",), "equal_opportunity": ("hits",), "equalized_odds": ("hits", "false alarms"),
}  # fmt: skip


def look(rule: GateSpec, sight: Sight) -> Check:
    """Judge the widest gap between two groups, over the rates of the measure.

    Source: Dwork et al. 2012 (demographic parity); Hardt, Price and Srebro 2016 (equal opportunity, equalized odds, and
    thresholds by group as the mitigation).
    """
    score, truth = sight.binary("fairness"), sight.truth == 1
    column, measure, least = rule.columns[0], str(rule.metric), int(rule.settings["least"])
    groups = dict(groups_of(sight.rows[column]))
    decided = score > _AT
    widest, low, said, small = 0.0, 0.0, "", set[str]()
    judged = 0
    for rate in _RATES[measure]:
        counts, few = _counts(groups, _among(rate, truth), decided, least)
        small |= few
        if len(counts) < 2:
            told = f"fewer than two groups of {column} have {least} rows to compare {rate} on: {listed(sorted(groups))}"
            return Check(name=rule.name, outcome=Outcome.FAILED, message=told)
        judged = max(judged, len(counts))
        gap, surely, told = _gap(rate, counts)
        if gap >= widest:
            widest, said = gap, told
        low = max(low, surely)
    said += _mitigation(measure, score, truth, groups, small)
    if small:
        said += f"; too small to judge: {listed(sorted(small))}"
    return at_most(rule.name, widest, low, float(rule.maximum or 0.0), said)


def _among(rate: str, truth: Mask) -> Mask:
    """Which rows a rate is about."""
    if rate == "hits":
        return truth
    return ~truth if rate == "false alarms" else np.ones_like(truth)


def _counts(
    groups: Mapping[str, Mask], about: Mask, decided: Mask, least: int
) -> tuple[dict[str, tuple[int, int]], set[str]]:
    """Return of each group that is large enough how many of how many were decided for; and which are not."""
    found, small = {}, set()
    for name, inside in groups.items():
        among = inside & about
        rows = int(among.sum())
        if rows < least:
            small.add(name)
        else:
            found[name] = (int((among & decided).sum()), rows)
    return found, small


def _gap(rate: str, counts: Mapping[str, tuple[int, int]]) -> tuple[float, float, str]:
    """Return the widest gap, by how much the two are surely apart, and both in words."""
    shares = {name: hits / rows for name, (hits, rows) in counts.items()}
    bounds = {name: share_bounds(hits, rows, among=len(counts)) for name, (hits, rows) in counts.items()}
    most, fewest = max(shares, key=lambda name: shares[name]), min(shares, key=lambda name: shares[name])
    gap = shares[most] - shares[fewest]
    surely = max(low for low, _ in bounds.values()) - min(high for _, high in bounds.values())
    said = (
        f"{rate}: {shares[most]:.3f} of {counts[most][1]:,} for {most}, {shares[fewest]:.3f} of "
        f"{counts[fewest][1]:,} for {fewest}; surely {max(0.0, surely):.3f} apart"
    )
    return gap, max(0.0, surely), said


def _mitigation(measure: str, score: Array, truth: Mask, groups: Mapping[str, Mask], small: set[str]) -> str:
    """Say what thresholds of their own would leave of the gap and cost in accuracy, on the same rows."""
    rate = _RATES[measure][0]
    about = _among(rate, truth)
    wanted = float((score[about] > _AT).mean())
    decided = score > _AT
    for name, inside in groups.items():
        if name not in small:
            own = float(np.quantile(score[inside & about], 1 - wanted, method="higher"))
            decided = np.where(inside, score >= own if wanted else False, decided)
    gaps = []
    for one in _RATES[measure]:
        among = _among(one, truth)
        shares = [
            float(decided[inside & among].mean())
            for name, inside in groups.items()
            if name not in small and (inside & among).any()
        ]
        gaps.append(max(shares) - min(shares))
    before, after = float(((score > _AT) == truth).mean()), float((decided == truth).mean())
    return (
        f"; a threshold for each group would leave a gap of {max(gaps):.3f} and change the accuracy from "
        f"{before:.4f} to {after:.4f}"
    )
