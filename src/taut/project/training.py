"""What a training function gets and what it gives back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

from taut.core.errors import InvalidInput
from taut.core.evidence import Scalar

if TYPE_CHECKING:
    import polars as pl

MAX_METRIC_NAME: Final = 128
MAX_METRIC_STEP: Final = 2**31 - 1
MAX_METRIC_POINTS: Final = 100_000
"""Points that one run may log; beyond, `log_metric` raises rather than dropping some in silence."""


class TrainContext:
    """A training function's only argument: its data, its parameters, its seed.

    `train` and `test` are Polars frames with the features joined point-in-time and the label; `train_lazy` and
    `test_lazy` are the same for data that should not be held whole. An absent string of a request or feature column is
    the empty string, in training as in serving; absent numbers are null.
    """

    def __init__(
        self,
        *,
        train: pl.LazyFrame,
        test: pl.LazyFrame,
        seed: int,
        params: Mapping[str, Scalar],
        snapshots: Mapping[str, str],
        on_metric: Callable[[str, float, int], None] | None = None,
    ) -> None:
        self.train_lazy: Final = train
        self.test_lazy: Final = test
        self.seed: Final = seed
        self.params: Final = dict(params)
        self.snapshots: Final = dict(snapshots)  # dataset -> version, for example {"flights": "flights@3"}
        self._train: pl.DataFrame | None = None
        self._test: pl.DataFrame | None = None
        self._steps: dict[str, int] = {}
        self._points = 0
        self._on_metric = on_metric

    @property
    def train(self) -> pl.DataFrame:
        """The rows to learn from, collected at first use."""
        if self._train is None:
            self._train = self.train_lazy.collect()
        return self._train

    @property
    def test(self) -> pl.DataFrame:
        """The rows held out, all later than those of `train`, collected at first use."""
        if self._test is None:
            self._test = self.test_lazy.collect()
        return self._test

    def log_metric(self, name: str, value: float, *, step: int | None = None) -> None:
        """Record a point of a metric; without `step`, the next one.

        name: 1 to 128 printable characters. step: from 0 to 2**31 - 1. Raises InvalidInput on others, and on what is no
        finite number.
        """
        if not 0 < len(name) <= MAX_METRIC_NAME or not name.isprintable():
            raise InvalidInput(
                f"metric {name[:60]!r}: a name has 1 to {MAX_METRIC_NAME} printable characters"
            )
        number = finite(value, f"metric {name!r}")
        self._points += 1
        if self._points > MAX_METRIC_POINTS:
            raise InvalidInput(
                f"more than {MAX_METRIC_POINTS:,} metric points were logged: log one an epoch, not one a row"
            )
        at = self._steps.get(name, -1) + 1 if step is None else int(step)
        if not 0 <= at <= MAX_METRIC_STEP:
            raise InvalidInput(f"metric {name!r}: step is {at}: count from 0, to at most {MAX_METRIC_STEP:,}")
        self._steps[name] = at
        if self._on_metric is not None:
            self._on_metric(name, number, at)


class Trained:
    """What a training function returns.

    model: a fitted scikit-learn estimator or pipeline, an ONNX model, an XGBoost or LightGBM model, or a callable of the
    project: a function at the top of a module, a `functools.partial` of one, or an instance of such a dataclass with
    `__call__`. It gets a dictionary of arrays by input, returns `[n]` or `[n, classes]`, and runs in workers. inputs: the
    columns that it was fitted on, in that order, each a request column or a feature. metrics: the builder's own
    figures, kept beside those that taut computes itself. output: `probability` of a classifier, `value` of a regressor.
    Raises InvalidInput, naming what is wrong.
    """

    def __init__(
        self,
        model: Any,
        *,
        inputs: Iterable[str],
        metrics: Mapping[str, float] | None = None,
        output: Literal["probability", "value"] = "probability",
    ) -> None:
        if isinstance(inputs, str):
            raise InvalidInput(f"inputs is the string {inputs!r}: give a list of column names")
        self.model: Final = model
        self.inputs: Final = tuple(inputs)
        self.metrics: Final = {
            str(name): finite(value, f"metric {name!r}") for name, value in (metrics or {}).items()
        }
        self.output: Final = output
        if model is None:
            raise InvalidInput("Trained(None): give the fitted model")
        if output not in ("probability", "value"):
            raise InvalidInput(f"output {output!r} is unknown: use 'probability' or 'value'")
        if not self.inputs or not all(isinstance(name, str) for name in self.inputs):
            raise InvalidInput("inputs must name at least one column, each as a string")
        twice = sorted({name for name in self.inputs if self.inputs.count(name) > 1})
        if twice:
            raise InvalidInput(f"inputs name {', '.join(twice)} more than once: name each column once")


def finite(value: object, what: str) -> float:
    """Return `value` as a finite float. Raises InvalidInput otherwise."""
    try:
        number = float(value)  # type: ignore[arg-type]  # numpy scalars and the like convert themselves
    except (TypeError, ValueError):
        raise InvalidInput(f"{what} is {value!r:.60}: give a number") from None
    except OverflowError:
        raise InvalidInput(f"{what} is beyond what a float can hold: give a smaller number") from None
    if not math.isfinite(number):
        raise InvalidInput(f"{what} is {number}: give a finite number, or leave it out")
    return number
