"""What of an endpoint's figures somebody should look at, in words and numbers that a person can follow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from taut.lifecycle.monitoring import ColumnFigures, Figures
from taut.trust.findings import Sighting

DRIFT: Final = "model.drift"
FAULTS: Final = "model.faults"
QUALITY: Final = "model.quality"
KINDS: Final = (DRIFT, FAULTS, QUALITY)
_NAMED: Final = 5
_GRAVE: Final = 3.0


def sightings_of(endpoint: str, figures: Figures) -> Iterator[Sighting]:
    """Yield one sighting for each kind of trouble that a version at an endpoint is in, however many columns it has."""
    drifted = [one for one in figures.columns if one.state == "drifted" and one.shift is not None]
    if drifted:
        yield _drift(endpoint, figures, drifted)
    faulty = [one for one in figures.columns if one.faulty]
    if faulty:
        yield _faults(endpoint, figures, faulty)
    if figures.quality.alarmed:
        yield _quality(endpoint, figures)


def _drift(endpoint: str, figures: Figures, drifted: list[ColumnFigures]) -> Sighting:
    shifts = sorted((one.shift for one in drifted if one.shift is not None), key=lambda one: -one.value)
    worst, bound = shifts[0], figures.tolerance.shift
    return Sighting(
        kind=DRIFT, group=figures.version, resource=f"endpoint:{endpoint}", score=round(worst.value, 4),
        severity="critical" if worst.lower > _GRAVE * bound else "warning",
        summary=(
            f"{_listed([one.column for one in shifts])} of {endpoint} {'is' if len(shifts) == 1 else 'are'} not as {figures.version} "
            f"learned: {worst.column} by {worst.value:.1%} ({worst.event}), {worst.lower:.1%} at least, where {bound:.1%} is tolerated"
        ),
        evidence={
            "column": worst.column, "shift": round(worst.value, 4), "at_least": round(worst.lower, 4), "tolerated": bound,
            "event": worst.event, "columns": len(shifts), "rows": figures.window_rows,
        },
        closes=f"every column within {bound:.1%} again, or another version",
    )  # fmt: skip


def _faults(endpoint: str, figures: Figures, faulty: list[ColumnFigures]) -> Sighting:
    worst = max(faulty, key=lambda one: max(one.faults))
    return Sighting(
        kind=FAULTS, group=figures.version, resource=f"endpoint:{endpoint}", score=round(max(worst.faults), 4), severity="warning",
        summary=(
            f"{_listed([one.column for one in faulty])} of {endpoint}: {worst.column} is {' or '.join(worst.faulty)} far more often "
            f"than in training ({max(worst.faults):.1%} of {figures.window_rows:,} rows)"
        ),
        evidence={
            "column": worst.column, "fault": ", ".join(worst.faulty), "share": round(max(worst.faults), 4),
            "tolerated_more": figures.tolerance.faults, "columns": len(faulty), "rows": figures.window_rows,
        },
        closes="as seldom as in training again",
    )  # fmt: skip


def _quality(endpoint: str, figures: Figures) -> Sighting:
    quality = figures.quality
    right, tolerated = quality.right or 0.0, quality.tolerated or 0.0
    return Sighting(
        kind=QUALITY, group=figures.version, resource=f"endpoint:{endpoint}", score=round(1 - right, 4), severity="critical",
        summary=(
            f"{figures.version} at {endpoint} is right less often than is tolerated: {right:.1%} of {quality.labelled:,} outcomes, "
            f"where {tolerated:.1%} is tolerated and {quality.usual or 0:.1%} was seen before its release"
        ),
        evidence={
            "right": round(right, 4), "tolerated": round(tolerated, 4), "usual": round(quality.usual or 0.0, 4),
            "labelled": quality.labelled, "evidence": round(min(quality.evidence, 1e9), 2),
        },
        closes="outcomes as before its release, or another version",
    )  # fmt: skip


def _listed(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
