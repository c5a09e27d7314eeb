"""Numbers, names and scores at their edges."""

from __future__ import annotations

import os

import numpy as np
import pytest
from sklearn.metrics import f1_score

from taut.core.errors import InvalidInput
from taut.core.evidence import Check, Decision, Evidence, Gate, Outcome, run_check
from taut.core.refs import VersionRef
from taut.core.scores import classification_scores, regression_scores
from taut.core.units import parse_duration, parse_size


@pytest.mark.parametrize("text", ["999999999999d", "9" * 400 + "s", "9" * 5000 + "w"])
def test_a_duration_beyond_any_calendar_is_refused_in_words(text: str) -> None:
    with pytest.raises(InvalidInput, match="longer than"):
        parse_duration(text)


def test_a_size_beyond_any_disk_is_refused_in_words() -> None:
    with pytest.raises(InvalidInput, match="larger than"):
        parse_size("9" * 400 + "GB")


@pytest.mark.parametrize("number", ["2147483648", "99999999999999999999", "9" * 5000])
def test_a_version_number_that_no_table_can_hold_is_no_version(number: str) -> None:
    with pytest.raises(InvalidInput, match="no version"):
        VersionRef.parse(f"delay@{number}")


def test_a_truth_that_does_not_vary_has_no_r2_also_where_its_mean_is_rounded() -> None:
    truth = np.full(3, 0.1)
    assert truth.mean() != 0.1

    assert "r2" not in regression_scores(truth, np.full(3, 0.2))


def test_f1_of_many_classes_is_a_mean_over_those_that_occur() -> None:
    truth = np.array([0, 0, 1, 1, 1])
    said = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1]])

    found = classification_scores(truth, said)["f1"]

    assert found == pytest.approx(f1_score(truth, said.argmax(axis=1), average="macro", labels=[0, 1]))


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), float("-inf")])
def test_a_check_that_saw_no_finite_number_proves_nothing(odd: float) -> None:
    check = run_check("skew", lambda: Check(name="skew", outcome=Outcome.PASSED, observed=odd))

    verdict = Gate(name="model").judge(Evidence(subject="model:delay@1", checks=(check,)))

    assert check.outcome is Outcome.ERRORED
    assert verdict.decision is Decision.REJECT


def test_a_message_can_always_be_written_down() -> None:
    name = os.fsdecode(b"fl\xff.csv")
    error = InvalidInput(f"{name} cannot be read in München")

    assert error.message == str(error) == "fl\\udcff.csv cannot be read in München"
