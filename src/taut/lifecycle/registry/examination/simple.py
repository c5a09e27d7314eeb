"""Simple models of taut's own: a linear one to compare with, and one that looks for labels that do not fit. Imports scikit-learn."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from taut.core.errors import InvalidInput
from taut.core.evidence import Check, Outcome
from taut.core.schema import Column, DType
from taut.lifecycle.registry.examination.sight import Sight, truth_of
from taut.project.manifest import GateSpec

Array = npt.NDArray[Any]
ROWS_MAX: Final = 20_000
_WORDS_MAX: Final = 30
_FOLDS: Final = 5


def linear_answers(sight: Sight, learned: pl.DataFrame) -> Array:
    """Return what a regularised linear model of the same inputs answers to the held-out rows.

    Frequent words are columns of their own, absent numbers the median with a column that says so.
    """
    columns = [item.column for item in sight.signature.inputs]
    frequent = {column.name: _frequent(learned[column.name]) for column in columns if _is_word(column)}
    x, held_out = (_matrix(frame, columns, frequent) for frame in (learned, sight.rows))
    truth = truth_of(learned[sight.label], sight.signature.classes)
    front = (SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True), StandardScaler())
    if not sight.signature.classes:
        return np.asarray(make_pipeline(*front, Ridge()).fit(x, truth).predict(held_out), dtype=np.float64)
    if len(np.unique(truth)) < 2:
        raise InvalidInput("the rows to learn from have one label alone: nothing can be compared")
    fitted = make_pipeline(*front, LogisticRegression(max_iter=500)).fit(x, truth)
    wide = np.zeros((len(held_out), len(sight.signature.classes)))
    wide[:, fitted.classes_] = fitted.predict_proba(held_out)
    return wide


def clean_labels(rule: GateSpec, sight: Sight) -> Check:
    """Judge the share of labels that are likely wrong, by confident learning over five folds of the rows to learn from.

    A label is off where another class is likelier than it usually is for those that have it. What nobody can tell apart looks
    like wrong labels too, so the share is an upper one where classes overlap.
    Source: Northcutt, Jiang and Chuang, Confident Learning, 2021.
    """
    if not sight.signature.classes:
        raise InvalidInput("labels of a regressor are not screened: there are no classes to confuse")
    rows, _ = sight.learned()
    columns = [item.column for item in sight.signature.inputs]
    frequent = {column.name: _frequent(rows[column.name]) for column in columns if _is_word(column)}
    given = truth_of(rows[sight.label], sight.signature.classes)
    # trees that take no thread of OpenMP: its threads wait by turning, which starves whatever else runs here
    model = ExtraTreesClassifier(n_estimators=60, min_samples_leaf=10, random_state=sight.seed)
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=sight.seed)
    said = cross_val_predict(model, _matrix(rows, columns, frequent), given, cv=folds, method="predict_proba")
    present = np.unique(given)
    share, wrong = confident_share(np.searchsorted(present, given), said)
    limit = float(rule.maximum or 0.0)
    told = f"{share:.1%} of {len(given):,} labels are likely wrong or cannot be told apart ({wrong:,} rows named by cross-validation)"
    outcome = Outcome.PASSED if share <= limit else Outcome.FAILED
    return Check(name=rule.name, outcome=outcome, message=told, observed=share, limit=limit)


def confident_share(given: Array, said: Array) -> tuple[float, int]:
    """Return the estimated share of wrong labels, and how many rows the confident joint puts off its diagonal.

    given: class indices [n]. said: out-of-sample probabilities [n, classes].
    """
    classes = said.shape[1]
    usual = np.array([said[given == one, one].mean() for one in range(classes)])
    sure = said >= usual
    likeliest = np.where(sure, said, -1.0).argmax(axis=1)
    counted = sure.any(axis=1)
    joint = np.zeros((classes, classes))
    np.add.at(joint, (given[counted], likeliest[counted]), 1)
    shares = np.bincount(given, minlength=classes) / len(given)
    rows = joint.sum(axis=1, keepdims=True)
    calibrated = np.divide(joint, rows, out=np.eye(classes), where=rows > 0) * shares[:, None]
    off = int(joint.sum() - np.trace(joint))
    return float(1 - np.trace(calibrated)), off


def _is_word(column: Column) -> bool:
    return column.dtype is DType.STRING


def _frequent(series: pl.Series) -> list[str]:
    counted = series.drop_nulls().value_counts(sort=True, name="rows")
    return sorted(counted[series.name].to_list()[:_WORDS_MAX])


def _matrix(frame: pl.DataFrame, columns: list[Column], frequent: dict[str, list[str]]) -> Array:
    found = []
    for column in columns:
        series = frame[column.name]
        if column.name in frequent:
            found += [(series == word).fill_null(False).cast(pl.Float64) for word in frequent[column.name]]
        else:
            found.append(series.cast(pl.Float64).fill_null(float("nan")))
    return np.stack([one.to_numpy() for one in found], axis=1)
