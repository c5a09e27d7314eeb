"""What a release's traffic can tell, said before it starts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from taut.lifecycle.release.guardrails.label import Harm, Stage, label_log_e

_RATIOS = (1.05, 1.1, 1.2, 1.3, 1.5, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0)


class Phase(msgspec.Struct, frozen=True):
    """units: how many are counted, over both arms, while the canary has this weight."""

    weight: float
    units: float


def detectable(
    phases: Sequence[Phase],
    *,
    rate: float,
    alpha: float,
    ratio: float = 1.0,
    harm: Harm = "up",
    restarts: int = 1,
) -> float | None:
    """Return the smallest harm of a scale that this traffic finds about every second time; None where it finds none.

    rate: of bad events of the baseline. The scale is of ratios to the baseline's rate, or of 1 over them where harm is
    a decrease. Found means: with the counts that are to be expected, E is beyond 1/alpha at some end of a phase.
    """
    for by in _RATIOS:
        true = by if harm == "up" else 1.0 / by
        if true * rate > 1.0:
            return None
        stages: list[Stage] = []
        for phase in phases:
            canary = phase.units * phase.weight * rate * true
            stages.append(Stage(phase.weight, round(canary), round(phase.units * (1 - phase.weight) * rate)))
            if label_log_e(stages, ratio=ratio, harm=harm, restarts=restarts) >= -math.log(alpha):
                return true
    return None
