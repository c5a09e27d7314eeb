"""What a training function may log."""

from __future__ import annotations

import msgspec
import polars as pl
import pytest

from taut.core.errors import InvalidInput
from taut.lifecycle.training.values import MetricPoint
from taut.project.training import TrainContext, Trained


def context(points: list[tuple[str, float, int]]) -> TrainContext:
    empty = pl.LazyFrame({"a": [1]})
    return TrainContext(
        train=empty,
        test=empty,
        seed=0,
        params={},
        snapshots={},
        on_metric=lambda *point: points.append(point),
    )


def test_steps_count_themselves_unless_they_are_given() -> None:
    points: list[tuple[str, float, int]] = []
    ctx = context(points)

    ctx.log_metric("loss", 1)
    ctx.log_metric("loss", 0.5)
    ctx.log_metric("loss", 0.25, step=7)
    ctx.log_metric("loss", 0.1)

    assert points == [("loss", 1.0, 0), ("loss", 0.5, 1), ("loss", 0.25, 7), ("loss", 0.1, 8)]


@pytest.mark.parametrize(
    ("name", "value", "step"),
    [
        ("loss", float("nan"), None), ("loss", 10**400, None), ("loss", "low", None), ("loss", 1.0, 2**31),
        ("loss", 1.0, -1), ("", 1.0, None), ("l" * 129, 1.0, None), ("lo\0ss", 1.0, None),
    ],
)  # fmt: skip
def test_a_point_that_no_table_can_hold_is_refused_where_it_is_logged(
    name: str, value: object, step: int | None
) -> None:
    points: list[tuple[str, float, int]] = []

    with pytest.raises(InvalidInput):
        context(points).log_metric(name, value, step=step)  # type: ignore[arg-type]  # what is wrong is the case

    assert points == []


def test_a_metric_beyond_a_float_is_refused_in_words() -> None:
    with pytest.raises(InvalidInput, match="metric 'auc'"):
        Trained(object(), inputs=["a"], metrics={"auc": 10**400})


@pytest.mark.parametrize("odd", [{"step": 2**31}, {"step": -1}, {"name": "l" * 129}, {"name": ""}])
def test_a_point_that_a_job_made_up_is_refused_by_control(odd: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"name": "loss", "step": 0, "value": 1.0, **odd}, MetricPoint)
