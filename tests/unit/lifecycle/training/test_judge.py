"""What a finished model is measured by."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from sklearn import metrics as reference

from taut.core.errors import InvalidInput
from taut.core.evidence import Outcome
from taut.core.schema import Column, DType
from taut.core.scores import auc, classification_scores, regression_scores
from taut.lifecycle.training import judge

RANDOM = np.random.default_rng(7)


def test_scores_of_two_classes_are_those_of_scikit_learn() -> None:
    truth = RANDOM.integers(0, 2, 500)
    positive = np.round(np.clip(truth * 0.3 + RANDOM.random(500) * 0.7, 0, 1), 2)  # rounded: with ties

    found = classification_scores(truth, np.stack([1 - positive, positive], axis=1))

    assert found["auc"] == pytest.approx(reference.roc_auc_score(truth, positive))
    assert found["average_precision"] == pytest.approx(reference.average_precision_score(truth, positive))
    assert found["brier"] == pytest.approx(reference.brier_score_loss(truth, positive))
    assert found["f1"] == pytest.approx(reference.f1_score(truth, positive > 0.5))
    assert found["logloss"] == pytest.approx(reference.log_loss(truth, positive), rel=1e-6)


def test_scores_of_more_classes_are_those_of_scikit_learn() -> None:
    truth = RANDOM.integers(0, 4, 400)
    raw = RANDOM.random((400, 4)) + np.eye(4)[truth] * 0.5
    probabilities = raw / raw.sum(axis=1, keepdims=True)

    found = classification_scores(truth, probabilities)

    assert found["auc"] == pytest.approx(reference.roc_auc_score(truth, probabilities, multi_class="ovr"))
    assert found["f1"] == pytest.approx(
        reference.f1_score(truth, probabilities.argmax(axis=1), average="macro")
    )
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(truth, probabilities.argmax(axis=1)))


def test_scores_of_values_are_those_of_scikit_learn() -> None:
    truth, values = RANDOM.normal(size=300), RANDOM.normal(size=300)

    found = regression_scores(truth, values)

    assert found["rmse"] == pytest.approx(reference.root_mean_squared_error(truth, values))
    assert found["mae"] == pytest.approx(reference.mean_absolute_error(truth, values))
    assert found["r2"] == pytest.approx(reference.r2_score(truth, values))


def test_auc_counts_ties_half() -> None:
    assert auc(np.array([True, False, True, False]), np.array([1.0, 1.0, 1.0, 1.0])) == 0.5


def test_one_class_in_the_holdout_has_no_auc_rather_than_a_wrong_one() -> None:
    assert "auc" not in classification_scores(np.zeros(5, dtype=int), np.tile([0.5, 0.5], (5, 1)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_model_that_says_nan_is_refused_with_the_number_of_rows(value: float) -> None:
    said = np.tile([0.5, 0.5], (5, 1))
    said[2] = value

    with pytest.raises(InvalidInput, match="1 held-out rows"):
        judge.scores(np.zeros(5, dtype=int), said, (False, True))


def labelled(**columns: object) -> pl.DataFrame:
    late = RANDOM.random(2000) < 0.3
    return pl.DataFrame({"late": late, "noise": RANDOM.normal(size=2000), **columns})


def columns(**types: DType) -> list[Column]:
    return [Column(name, dtype, nullable=True) for name, dtype in types.items()]


def test_an_input_that_is_the_label_fails_also_under_another_type() -> None:
    frame = labelled().with_columns(disguised=pl.col("late").cast(pl.Int64))

    check = judge.leakage(
        frame, label="late", inputs=columns(noise=DType.FLOAT, disguised=DType.INT), classes=(False, True)
    )

    assert check.outcome is Outcome.FAILED
    assert "'disguised' equals the label" in check.message


def test_an_input_that_ranks_the_label_perfectly_is_held_for_a_person() -> None:
    frame = labelled().with_columns(
        arrival_delay=pl.col("late").cast(pl.Float64) * 10 + pl.col("noise") * 0.1
    )

    check = judge.leakage(
        frame,
        label="late",
        inputs=columns(noise=DType.FLOAT, arrival_delay=DType.FLOAT),
        classes=(False, True),
    )

    assert check.outcome is Outcome.HELD
    assert "'arrival_delay' alone" in check.message


def test_a_number_of_which_the_label_is_a_straight_line_is_held_for_a_person() -> None:
    random = np.random.default_rng(0)
    delay = random.normal(size=400)
    train = pl.DataFrame({"minutes": delay * 60 + 3, "wind": delay + random.normal(size=400), "delay": delay})
    columns = [Column("minutes", DType.FLOAT), Column("wind", DType.FLOAT)]

    leaking = judge.leakage(train, label="delay", inputs=columns, classes=())
    clean = judge.leakage(train, label="delay", inputs=columns[1:], classes=())

    assert (leaking.outcome, clean.outcome) == (Outcome.HELD, Outcome.PASSED)
    assert "'minutes'" in leaking.message


def test_an_input_that_comes_with_the_label_is_held_for_a_person() -> None:
    """Where the label is not known yet, a column that is written with it is absent; wind is absent for reasons of its own."""
    random = np.random.default_rng(0)
    known = pl.Series(np.arange(600) < 500)
    rows = pl.DataFrame(
        {
            "gate_in": pl.Series(random.normal(size=600)).set(~known, None),
            "wind": pl.Series(random.normal(size=600)).set(pl.Series(random.random(600) < 0.3), None),
            "late": pl.Series(random.random(600) < 0.3).set(~known, None),
        }
    )
    columns = [Column("gate_in", DType.FLOAT, nullable=True), Column("wind", DType.FLOAT, nullable=True)]

    late = judge.come_late(rows.lazy(), label="late", inputs=columns)
    check = judge.leakage(rows.head(500), label="late", inputs=columns, classes=(False, True), late=late)

    assert late == ["gate_in"]
    assert check.outcome is Outcome.HELD
    assert judge.come_late(rows.head(530).lazy(), label="late", inputs=columns) == []  # too few to say
    assert judge.come_late(rows.lazy(), label="late", inputs=columns[1:]) == []


def test_a_name_of_its_own_for_every_row_is_no_leak() -> None:
    frame = labelled(flight=[f"flight-{number}" for number in range(2000)])

    check = judge.leakage(
        frame, label="late", inputs=columns(noise=DType.FLOAT, flight=DType.STRING), classes=(False, True)
    )

    assert check.outcome is Outcome.PASSED
    baseline = judge.baselines(
        frame[:1000], frame[1000:], label="late", inputs=columns(flight=DType.STRING), classes=(False, True)
    )
    assert (
        baseline.get("one_input", {"auc": 0.5})["auc"] == 0.5
    )  # unknown words say nothing on the held-out rows


def test_the_constant_is_learned_from_train_and_judged_on_test() -> None:
    train = pl.DataFrame({"late": [True] * 30 + [False] * 70, "x": [1.0] * 100})
    test = pl.DataFrame({"late": [True] * 5 + [False] * 5, "x": [1.0] * 10})

    found = judge.baselines(train, test, label="late", inputs=columns(x=DType.FLOAT), classes=(False, True))

    assert found["constant"]["accuracy"] == 0.5
    assert found["constant"]["brier"] == pytest.approx((0.7**2 + 0.3**2) / 2)


def test_a_label_that_training_never_saw_is_named() -> None:
    with pytest.raises(InvalidInput, match="'cancelled'"):
        judge.truth_of(pl.Series(["late", "cancelled"]), ("late", "on time"))


def test_figures_of_the_builder_that_serving_does_not_reach_fail() -> None:
    agree = judge.own_metrics_agree({"auc": 0.7003}, {"auc": 0.7})
    differ = judge.own_metrics_agree({"auc": 0.75, "mine": 3.0}, {"auc": 0.7})

    assert agree.outcome is Outcome.PASSED
    assert differ.outcome is Outcome.FAILED
    assert "0.7500" in differ.message


def test_one_row_that_the_onnx_form_scores_differently_fails_the_conversion() -> None:
    own = np.tile([0.4, 0.6], (100, 1))
    other = own.copy()
    other[41] = [0.5, 0.5]

    assert judge.conversion_agrees(own, own + 1e-7).outcome is Outcome.PASSED
    check = judge.conversion_agrees(own, other)
    assert check.outcome is Outcome.FAILED
    assert check.message.startswith("1 of 100")
    assert judge.conversion_agrees(own, own[:, 0]).outcome is Outcome.FAILED
