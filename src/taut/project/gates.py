"""Declaring what a model is examined for beyond its metrics: slices, fairness, calibration, robustness."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from taut.core.metrics import GREATER_IS_BETTER
from taut.project import words
from taut.project.manifest import GateSpec
from taut.project.words import worded

SLICED: Final = ("auc", "accuracy", "logloss", "brier", "rmse", "mae")
"""Metrics whose error is known for a group of rows."""
MEASURES: Final = ("demographic_parity", "equal_opportunity", "equalized_odds")
_HUGE: Final = 1e300


@worded("slices")
def slices(
    columns: str | Sequence[str], *, metric: str, drop: float, minimum: float | None = None, least: int = 100
) -> GateSpec:
    """No group of held-out rows is surely worse than all rows together by more than `drop`, nor surely below `minimum`.

    columns: each is a way to group rows: by value, numbers by their quarters. They need not be inputs of the model.
    least: smaller groups are named and not judged. Surely: at 95%, for all groups together.
    """
    what = "slices"
    return GateSpec(
        kind="slices", columns=words.texts(columns, f"{what}: columns"), metric=words.one_of(metric, SLICED, f"{what}: metric"),
        tolerance=words.number(drop, f"{what}: drop", low=0, high=_HUGE),
        minimum=words.optional_number(minimum, f"{what}: minimum", low=-_HUGE, high=_HUGE),
        greater_is_better=GREATER_IS_BETTER[metric],
        settings={"least": words.whole(least, f"{what}: least", low=2, high=10**9)},
    )  # fmt: skip


@worded("fairness")
def fairness(column: str, *, maximum: float, measure: str = "equalized_odds", least: int = 50) -> GateSpec:
    """How far apart a classifier's decisions may be between the groups of `column`, which need not be an input.

    measure: `demographic_parity` (the share that is decided for), `equal_opportunity` (that share of those who are),
    `equalized_odds` (that, and the share of those who are not). maximum: of the widest gap between two groups. A gap that is
    surely wider rejects; one that may be is held for a person. least: smaller groups are named and not judged.
    """
    what = "fairness"
    return GateSpec(
        kind="fairness", columns=(words.text(column, f"{what}: column"),),
        metric=words.one_of(measure, MEASURES, f"{what}: measure"), greater_is_better=False,
        maximum=words.number(maximum, f"{what}: maximum", low=0, high=1),
        settings={"least": words.whole(least, f"{what}: least", low=2, high=10**9)},
    )  # fmt: skip


@worded("calibrated")
def calibrated(*, maximum: float = 0.05) -> GateSpec:
    """How far probabilities may be from the shares that came true, on average, without what chance alone makes of it.

    A distance that is surely larger rejects; one that may be is held for a person.
    """
    return GateSpec(
        kind="calibrated", maximum=words.number(maximum, "calibrated: maximum", low=0, high=1),
        greater_is_better=False,
    )  # fmt: skip


@worded("robust")
def robust(metric: str, *, drop: float, noise: float = 0.1, missing: float = 0.1) -> GateSpec:
    """How much of a metric may be lost when inputs are noisy, and when some are absent.

    noise: its standard deviation, in those of each number. missing: the share of values left out, of columns that may be absent.
    """
    what = "robust"
    return GateSpec(
        kind="robust", metric=words.one_of(metric, tuple(GREATER_IS_BETTER), f"{what}: metric"),
        tolerance=words.number(drop, f"{what}: drop", low=0, high=_HUGE),
        greater_is_better=GREATER_IS_BETTER[metric],
        settings={
            "noise": words.number(noise, f"{what}: noise", low=0, high=10),
            "missing": words.number(missing, f"{what}: missing", low=0, high=1),
        },
    )  # fmt: skip


@worded("attacked")
def attacked(*, maximum: float, step: float = 0.1) -> GateSpec:
    """The share of decisions that somebody can turn who changes each number that the caller sends by `step` at most.

    step: in standard deviations of the number, within what was seen. Of a regressor: the share of answers that he can move by
    more than a standard deviation of them.
    """
    return GateSpec(
        kind="attacked", maximum=words.number(maximum, "attacked: maximum", low=0, high=1), greater_is_better=False,
        settings={"step": words.number(step, "attacked: step", low=1e-6, high=10)},
    )  # fmt: skip


@worded("simpler")
def simpler(metric: str, *, margin: float = 0.0) -> GateSpec:
    """The model must be better by `margin` than a linear one of the same inputs that learned from the same rows."""
    what = "simpler"
    return GateSpec(
        kind="simpler", metric=words.one_of(metric, tuple(GREATER_IS_BETTER), f"{what}: metric"),
        tolerance=words.number(margin, f"{what}: margin", low=0, high=_HUGE), greater_is_better=GREATER_IS_BETTER[metric],
    )  # fmt: skip


@worded("clean_labels")
def clean_labels(*, maximum: float) -> GateSpec:
    """The share of labels in the training rows that may be likely wrong, by confident learning. Classes that overlap count too."""
    return GateSpec(
        kind="clean_labels", maximum=words.number(maximum, "clean_labels: maximum", low=0, high=1), greater_is_better=False
    )  # fmt: skip


@worded("memorised")
def memorised(*, maximum: float = 0.6) -> GateSpec:
    """How well somebody who has a row may tell that the model learned from it: an AUC, where 0.5 is chance."""
    return GateSpec(
        kind="memorised", maximum=words.number(maximum, "memorised: maximum", low=0.5, high=1), greater_is_better=False
    )  # fmt: skip


@worded("stable")
def stable(metric: str, *, apart: float, seeds: int = 2) -> GateSpec:
    """Trained again with so many other seeds, the metric differs by `apart` at most. Costs as many trainings."""
    what = "stable"
    return GateSpec(
        kind="stable", metric=words.one_of(metric, tuple(GREATER_IS_BETTER), f"{what}: metric"),
        tolerance=words.number(apart, f"{what}: apart", low=0, high=_HUGE), greater_is_better=GREATER_IS_BETTER[metric],
        settings={"seeds": words.whole(seeds, f"{what}: seeds", low=1, high=20)},
    )  # fmt: skip


@worded("backtested")
def backtested(metric: str, *, worst: float, folds: int = 3) -> GateSpec:
    """Trained and tested on so many earlier times, each as long as the split's test, the metric is never worse than `worst`.

    Costs as many trainings, and needs rows that reach back as far.
    """
    what = "backtested"
    greater = GREATER_IS_BETTER[words.one_of(metric, tuple(GREATER_IS_BETTER), f"{what}: metric")]
    bound = words.number(worst, f"{what}: worst", low=-_HUGE, high=_HUGE)
    return GateSpec(
        kind="backtested", metric=metric, minimum=bound if greater else None, maximum=None if greater else bound,
        greater_is_better=greater, settings={"folds": words.whole(folds, f"{what}: folds", low=1, high=20)},
    )  # fmt: skip


@worded("replayed")
def replayed(*, maximum: float, rows: int = 1000) -> GateSpec:
    """The share of the newest logged requests that would be decided otherwise than the live version decided them.

    Of a regressor: whose answer would differ by more than a standard deviation of the answers.
    """
    return GateSpec(
        kind="replayed", maximum=words.number(maximum, "replayed: maximum", low=0, high=1), greater_is_better=False,
        settings={"rows": words.whole(rows, "replayed: rows", low=10, high=100_000)},
    )  # fmt: skip


@worded("reproduced")
def reproduced(*, tolerance: float = 0.0) -> GateSpec:
    """Trained again from the same code, data and seed, the same model comes out, or a person decides.

    tolerance: how far apart answers to held-out rows may be where hardware cannot repeat every bit. Costs a training.
    """
    return GateSpec(
        kind="reproduced", tolerance=words.number(tolerance, "reproduced: tolerance", low=0, high=_HUGE),
        greater_is_better=False,
    )  # fmt: skip


@worded("no_costlier")
def no_costlier(*, latency: float = 2.0, memory: float = 2.0) -> GateSpec:
    """An answer may take so many times as long as the live version's, and its process so many times the memory, in equal jobs."""
    what = "no_costlier"
    return GateSpec(
        kind="no_costlier", greater_is_better=False,
        settings={
            "latency": words.number(latency, f"{what}: latency", low=0.01, high=1e6),
            "memory": words.number(memory, f"{what}: memory", low=0.01, high=1e6),
        },
    )  # fmt: skip
