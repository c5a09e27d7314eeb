"""Which look belongs to which rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from taut.core.evidence import Check, run_checks
from taut.lifecycle.registry.examination import (
    again,
    calibration,
    fairness,
    privacy,
    replay,
    robustness,
    slices,
)
from taut.lifecycle.registry.examination.sight import Sight
from taut.project.manifest import GateSpec

Look = Callable[[GateSpec, Sight], Check]


def _clean_labels(rule: GateSpec, sight: Sight) -> Check:
    from taut.lifecycle.registry.examination.simple import (
        clean_labels,
    )  # scikit-learn, for those that need it

    return clean_labels(rule, sight)


EXAMINED: Final[dict[str, Look]] = {
    "slices": slices.look,
    "fairness": fairness.look,
    "calibrated": calibration.look,
    "robust": robustness.look,
    "attacked": robustness.attacked,
    "simpler": again.simpler,
    "clean_labels": _clean_labels,
    "memorised": privacy.look,
    "stable": again.stable,
    "backtested": again.backtested,
    "replayed": replay.look,
}
"""The kinds of rules that are examined, and by what."""
LEARNED: Final = frozenset({"simpler", "clean_labels", "memorised"})
"""Those that look at rows that the model learned from."""


def examine(rules: Iterable[GateSpec], sight: Sight) -> tuple[Check, ...]:
    """Look at a candidate by each rule that is examined; a look that breaks is an errored check, which rejects."""
    return run_checks(
        (rule.name, partial(EXAMINED[rule.kind], rule, sight)) for rule in rules if rule.kind in EXAMINED
    )
