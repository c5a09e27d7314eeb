"""The rule by which a variant gains: faster or much smaller, and slower nowhere beyond what noise explains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from taut.lifecycle.training.variants.values import Figures

FASTER_MIN: Final = 0.10
SMALLER_MIN: Final = 0.30
SLOWER_MAX: Final = 0.05
NOISE_MAX: Final = 0.25


class Gain(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a variant gains, and the figures that say so."""

    gains: bool
    reason: str


def gain_of(original: Figures, variant: Figures, noise: Mapping[int, float]) -> Gain:
    """Say whether a variant gains on the original.

    It does when it is at least 10 % faster for 1 row or for many, or at least 30 % smaller, and for no batch size more
    than 5 % slower. Where two sessions of the same original differed by more than half of that, twice their
    difference takes the place of the 5 %, and of the 10 % once it is above; beyond 25 % nothing can be told.
    """
    loud = [(share, rows) for rows, share in noise.items() if not share <= NOISE_MAX]
    if loud:
        share, rows = max(loud)
        said = f"two sessions of the original differ by {share:.0%} for {_rows(rows)}: try again on a quieter machine"
        return Gain(gains=False, reason=said)
    times = {rows: variant.latency_us[rows] / before for rows, before in original.latency_us.items()}
    slack = {rows: max(SLOWER_MAX, 2 * noise[rows]) for rows in times}
    slower = [
        f"{_times(times[rows])} slower for {_rows(rows)}" for rows in times if times[rows] > 1 + slack[rows]
    ]
    faster = [
        f"{1 - times[rows]:.0%} faster for {_rows(rows)}"
        for rows in times
        if times[rows] <= 1 - max(FASTER_MIN, slack[rows])
    ]
    smaller = 1 - variant.size_bytes / original.size_bytes
    if smaller >= SMALLER_MIN:
        faster.append(f"{smaller:.0%} smaller")
    if slower:
        but = f", though {' and '.join(faster)}" if faster else ""
        return Gain(gains=False, reason=f"{' and '.join(slower)}{but}")
    if faster:
        return Gain(gains=True, reason=", ".join(faster))
    return Gain(gains=False, reason="neither faster nor smaller enough to matter")


def _times(ratio: float) -> str:
    return f"{ratio:.1f} times" if ratio >= 2 else f"{ratio - 1:.0%}"


def _rows(rows: int) -> str:
    return "1 row" if rows == 1 else f"{rows} rows"
