"""What moved an answer adds up to it, and goes to the inputs that did it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taut.core.attribution import attribute

NAMES = ["a", "b", "c"]


def rows(count: int, seed: int = 0) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    return pl.DataFrame({name: random.normal(size=count) for name in NAMES})


def linear(frame: pl.DataFrame) -> npt.NDArray[Any]:
    return 3 * frame["a"].to_numpy() - frame["b"].to_numpy()


def crossed(frame: pl.DataFrame) -> npt.NDArray[Any]:
    return np.tanh(frame["a"].to_numpy() * frame["b"].to_numpy()) + frame["a"].to_numpy() ** 2


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([linear, crossed]))
def test_the_shares_add_up_to_the_answer(seed: int, model: Any) -> None:
    row = rows(1, seed)

    found = attribute(model, row, rows(50), NAMES, seed=seed, orders=16)

    assert found.answer == pytest.approx(float(model(row)[0]))
    assert found.base + sum(share.moved for share in found.shares) == pytest.approx(found.answer)


def test_an_input_that_the_model_does_not_use_moved_nothing() -> None:
    found = attribute(crossed, rows(1), rows(50), NAMES, seed=0)

    assert {share.name: share.moved for share in found.shares}["c"] == 0.0
    assert found.shares[-1].name == "c"


def test_of_a_linear_model_each_share_is_its_weight_times_the_distance_from_the_mean() -> None:
    row, background = rows(1, seed=4), rows(400)
    found = attribute(linear, row, background, NAMES, seed=1, orders=1000)

    for share in found.shares:
        weight = {"a": 3.0, "b": -1.0, "c": 0.0}[share.name]
        exact = weight * (row[share.name][0] - float(background[share.name].to_numpy().mean()))
        assert abs(share.moved - exact) <= 5 * share.error + 1e-9


def test_absent_values_and_words_are_exchanged_as_they_are() -> None:
    frame = pl.DataFrame({"word": ["x", "y", None], "number": [1, None, 3]})
    row = pl.DataFrame({"word": [None], "number": [5]}, schema=frame.schema)

    def ask(asked: pl.DataFrame) -> npt.NDArray[Any]:
        assert asked.schema == frame.schema
        return (asked["word"].is_null().cast(pl.Float64) + (asked["number"] == 5).fill_null(False)).to_numpy()

    found = attribute(ask, row, frame, ["word", "number"], seed=0)

    assert found.answer == 2.0
    assert {share.name: share.moved for share in found.shares}["number"] == 1.0
