"""What a finished model is measured by: metrics, baselines, leakage, agreement with what it was converted from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from taut.core.errors import InvalidInput
from taut.core.evidence import Check, Outcome
from taut.core.schema import Column, DType
from taut.core.scores import GREATER_IS_BETTER, auc, classification_scores, regression_scores

Array = npt.NDArray[Any]
Label = str | int | bool

LEAK_AUC: Final = 0.999
"""One input alone that ranks the label this well is almost always the label in disguise: a person must look."""
OWN_METRIC_TOLERANCE: Final = 0.01
CONVERSION_TOLERANCE: Final = 1e-5
LEAK_CORRELATION: Final = 0.9999
_LEAK_ROWS: Final = 200_000
_LATE_ROWS: Final = 50
_LATE_SHARE: Final = 0.5


def truth_of(labels: pl.Series, classes: Sequence[Label]) -> Array:
    """Return class indices of a classifier's labels, or values of a regressor's.

    Raises InvalidInput for a held-out label that the model does not know, or that is no finite number.
    """
    if not classes:
        if not (labels.dtype.is_numeric() or labels.dtype == pl.Boolean):
            raise InvalidInput(
                f"the label is {labels.dtype}: a regressor needs numbers, or say output='probability'"
            )
        numbers = labels.cast(pl.Float64).to_numpy()
        if not np.isfinite(numbers).all():
            raise InvalidInput(
                f"{int((~np.isfinite(numbers)).sum())} rows have the label NaN or infinity: leave it null where it "
                "is not known"
            )
        return numbers
    index = {value: at for at, value in enumerate(classes)}
    found = [index.get(value, -1) for value in labels.to_list()]
    if -1 in found:
        value = labels[found.index(-1)]
        raise InvalidInput(
            f"the held-out rows have the label {value!r:.60}, which is none of the model's {len(classes)} classes: "
            "train on rows that show every label"
        )
    return np.array(found, dtype=np.int64)


def scores(truth: Array, predictions: Array, classes: Sequence[Label]) -> dict[str, float]:
    if not np.isfinite(predictions).all():
        bad = int((~np.isfinite(predictions)).reshape(len(predictions), -1).any(axis=1).sum())
        raise InvalidInput(
            f"the model gives NaN or infinity on {bad} held-out rows: handle absent values in a step of it"
        )
    return classification_scores(truth, predictions) if classes else regression_scores(truth, predictions)


def baselines(
    train: pl.DataFrame, test: pl.DataFrame, *, label: str, inputs: Sequence[Column], classes: Sequence[Label]
) -> dict[str, dict[str, float | str]]:
    """Return the metrics on `test` of a constant, and for two classes the AUC of the best single input.

    The constant is the share of each class, or the mean, of `train`; the input is chosen and oriented on `train` only.
    """
    truth, known = truth_of(test[label], classes), truth_of(train[label], classes)
    if not classes:
        constant: dict[str, float] = regression_scores(truth, np.full(truth.shape, known.mean()))
        return {"constant": dict(constant)}
    shares = np.bincount(known, minlength=len(classes)) / known.size
    constant = classification_scores(truth, np.tile(shares, (truth.size, 1)))
    found: dict[str, dict[str, float | str]] = {"constant": dict(constant)}
    if len(classes) == 2 and 0 < truth.sum() < truth.size and 0 < known.sum() < known.size:
        ranked = [(_one_input_auc(train, known == 1, train, known == 1, column), column) for column in inputs]
        best, column = max(ranked, key=lambda pair: pair[0])
        if best > 0.5:
            score = _one_input_auc(train, known == 1, test, truth == 1, column)
            found["one_input"] = {"input": column.name, "auc": score}
    return found


def leakage(
    train: pl.DataFrame,
    *,
    label: str,
    inputs: Sequence[Column],
    classes: Sequence[Label],
    late: Sequence[str] = (),
) -> Check:
    """Look for inputs that are the label in disguise: the same values reject, an AUC above 0.999 alone holds.

    So does a number that is a straight line of a regressor's label, and one of `late`: inputs that come with the label, as
    `come_late` finds them.
    """
    sample = train if train.height <= _LEAK_ROWS else train.gather_every(train.height // _LEAK_ROWS + 1)
    truth = truth_of(sample[label], classes)
    varied = np.unique(truth).size > 1
    for column in inputs:
        if varied and _same(sample[column.name], sample[label]):
            said = f"input {column.name!r} equals the label {label!r}: remove it"
            return Check(name="leakage", outcome=Outcome.FAILED, message=said, observed=1.0)
    # Words are learned on one half and judged on the other: a name of its own for each row is no leak.
    if late:
        said = f"{', '.join(late)}: absent where the label is not known yet, and there where it is: does it come with the label?"
        return Check(name="leakage", outcome=Outcome.HELD, message=said)
    if not classes:
        return _straight(sample, truth, inputs)
    halves = sample.gather_every(2), sample.gather_every(2, offset=1)
    known, judged = (truth_of(half[label], classes) == 1 for half in halves)
    if len(classes) != 2 or not all(0 < half.sum() < half.size for half in (known, judged)):
        return Check(name="leakage", outcome=Outcome.PASSED, message="no input equals the label")
    ranked = [(_one_input_auc(halves[0], known, halves[1], judged, column), column.name) for column in inputs]
    best, name = max(ranked)
    outcome = Outcome.HELD if best > LEAK_AUC and sample.height >= 50 else Outcome.PASSED
    said = f"the strongest input alone is {name!r}"
    if outcome is Outcome.HELD:
        said = f"input {name!r} alone ranks the label almost perfectly: is it known when the model is asked?"
    return Check(name="leakage", outcome=outcome, message=said, observed=best, limit=LEAK_AUC)


def _straight(sample: pl.DataFrame, truth: Array, inputs: Sequence[Column]) -> Check:
    """Look for a number of which a regressor's label is a straight line: held where it explains almost all."""
    best, name = 0.0, ""
    for column in inputs:
        if not column.dtype.numeric:
            continue
        values = _numbers(sample[column.name])
        there = np.isfinite(values)
        if there.sum() >= _LATE_ROWS and np.ptp(values[there]) > 0 and np.ptp(truth[there]) > 0:
            found = abs(float(np.corrcoef(values[there], truth[there])[0, 1]))
            best, name = max((best, name), (found, column.name))
    if best <= LEAK_CORRELATION:
        return Check(
            name="leakage", outcome=Outcome.PASSED, message="no input equals the label, nor is a straight line of it",
            observed=best, limit=LEAK_CORRELATION,
        )  # fmt: skip
    said = f"the label is almost a straight line of input {name!r}: is it known when the model is asked?"
    return Check(name="leakage", outcome=Outcome.HELD, message=said, observed=best, limit=LEAK_CORRELATION)


def come_late(frame: pl.LazyFrame, *, label: str, inputs: Sequence[Column]) -> list[str]:
    """Return inputs that are there where the label is, and absent where it is not known yet: they may come with it.

    frame: all rows, those without a label among them; where there are fewer than 50 of either kind, nothing can be said.
    """
    columns = [column for column in inputs if column.nullable]
    if not columns:
        return []
    known = pl.col(label).is_not_null()
    asked = [
        pl.col(column.name).is_null().filter(part).mean().alias(f"{which} {column.name}")
        for column in columns
        for which, part in (("known", known), ("unknown", ~known))
    ]
    found = (
        frame.select(known.sum().alias("labelled"), (~known).sum().alias("unlabelled"), *asked)
        .collect()
        .row(0, named=True)
    )
    if min(found["labelled"], found["unlabelled"]) < _LATE_ROWS:
        return []
    return [
        column.name
        for column in columns
        if found[f"unknown {column.name}"] - found[f"known {column.name}"] > _LATE_SHARE
    ]


def _same(one: pl.Series, other: pl.Series) -> bool:
    if one.dtype == pl.String or other.dtype == pl.String:
        return one.dtype == other.dtype and bool((one == other).fill_null(False).all())
    return bool((one.cast(pl.Float64) == other.cast(pl.Float64)).fill_null(False).all())


def _one_input_auc(
    known: pl.DataFrame, known_truth: Array, frame: pl.DataFrame, truth: Array, column: Column
) -> float:
    """Return the AUC of one input on `frame`; words are ranked by, and all are oriented by, `known`.

    Words that occur less than 20 times keep close to the mean: a name of its own for each row would rank perfectly.
    """
    if column.dtype is DType.STRING:
        named = pl.DataFrame({"word": known[column.name], "y": known_truth.astype(np.float64)})
        mean = float(known_truth.mean())
        rates = named.group_by("word").agg(rate=(pl.col("y").sum() + 20 * mean) / (pl.len() + 20))
        joined = frame.select(pl.col(column.name).alias("word")).join(
            rates, on="word", how="left", maintain_order="left"
        )
        return auc(truth, joined["rate"].fill_null(mean).to_numpy())
    known_values = _numbers(known[column.name])
    middle = float(np.nanmedian(known_values)) if np.isfinite(known_values).any() else 0.0
    sign = 1.0 if auc(known_truth, np.nan_to_num(known_values, nan=middle)) >= 0.5 else -1.0
    return auc(truth, sign * np.nan_to_num(_numbers(frame[column.name]), nan=middle))


def _numbers(series: pl.Series) -> Array:
    return series.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def own_metrics_agree(own: Mapping[str, float], found: Mapping[str, float]) -> Check:
    """Compare the builder's figures with those of the served form of the model, where both have the same name.

    They differ when the data was changed between `ctx.test` and the model: a fill that serving does not make, say.
    """
    shared = sorted(set(own) & set(found) & set(GREATER_IS_BETTER))
    worst = max(shared, key=lambda name: abs(own[name] - found[name]), default=None)
    if worst is None:
        return Check(
            name="own_metrics", outcome=Outcome.PASSED, message="the function returned no figure to compare"
        )
    gap = abs(own[worst] - found[worst])
    scale = max(1.0, abs(found[worst]))
    agrees = gap <= OWN_METRIC_TOLERANCE * scale
    said = f"{worst} is {own[worst]:.4f} by the training function and {found[worst]:.4f} as served"
    if not agrees:
        said += ": whatever is done to the data before the model, fills included, must be a step of the model"
    outcome = Outcome.PASSED if agrees else Outcome.FAILED
    return Check(
        name="own_metrics", outcome=outcome, message=said, observed=gap, limit=OWN_METRIC_TOLERANCE * scale
    )


def conversion_agrees(own: Array | None, served: Array, *, form: str = "onnx") -> Check:
    """Compare what was trained with the form in which it is served on the held-out rows.

    form: `onnx`, or `code`: a callable that was loaded anew from its source and its state.
    """
    what = "its ONNX form" if form == "onnx" else "the code as workers load it"
    if own is None:
        return Check(name="conversion", outcome=Outcome.PASSED, message="the model came as ONNX")
    if own.shape != served.shape:
        said = f"the model gives the shape {own.shape}, {what} {served.shape}"
        return Check(name="conversion", outcome=Outcome.FAILED, message=said)
    apart = np.abs(own - served) / np.maximum(1.0, np.abs(own))
    rows = int((apart.reshape(len(apart), -1).max(axis=1) > CONVERSION_TOLERANCE).sum())
    worst = float(apart.max())
    if not rows:
        said = f"agrees with {what} on {len(own):,} rows"
        return Check(
            name="conversion",
            outcome=Outcome.PASSED,
            message=said,
            observed=worst,
            limit=CONVERSION_TOLERANCE,
        )
    why = "this kind of model does not convert faithfully, or data was changed outside of it; see docs/how-to/train-a-model.md"
    if form == "code":
        why = "it keeps state outside of its bound values and fields, or answers otherwise each time; see docs/how-to/serve-code.md"
    said = f"{rows:,} of {len(own):,} held-out rows are scored differently by {what}: {why}"
    return Check(
        name="conversion", outcome=Outcome.FAILED, message=said, observed=worst, limit=CONVERSION_TOLERANCE
    )
