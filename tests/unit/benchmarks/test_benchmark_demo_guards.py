"""The demo's benchmark fails on a model that knows what nobody knew: shown with planted leaks."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import polars as pl
import pytest
from benchmarks.bench_demo import Asked, assert_computed_from_the_past, assert_inputs_are_known

from taut.core.schema import Column, DType, FeatureLookup, ModelInput, ModelSignature

HOUR = datetime(2013, 11, 4, 10, tzinfo=UTC)


def asked(*, request: str = "distance", feature: str | None = None, feature_time: datetime = HOUR) -> Asked:
    wanted = Column(request, DType.INT)
    signature = ModelSignature(
        request=(wanted, Column("origin", DType.STRING)),
        inputs=(
            ModelInput(column=wanted),
            ModelInput(column=Column(feature or "temp", DType.FLOAT), feature_set="sky"),
        ),
        lookups=(FeatureLookup(feature_set="sky", entity=("origin",), keys=("origin",), max_age_s=3 * 3600),),
        output="probability",
        classes=(0, 1),
    )
    month = pl.DataFrame({"hour_at": [HOUR], "_event_time_sky": [feature_time]})
    loaded = SimpleNamespace(signature=signature)
    return Asked(month=month, before=month, loaded=loaded, event_time="hour_at", label="late")


def test_inputs_of_the_timetable_and_features_of_the_hour_pass() -> None:
    assert_inputs_are_known(asked())
    assert_inputs_are_known(asked(feature_time=HOUR - timedelta(hours=3)))


@pytest.mark.parametrize(
    ("planted", "said"),
    [
        ({"request": "dep_delay"}, "the request asks for"),
        ({"feature": "late"}, "the label is an input"),
        ({"feature_time": HOUR + timedelta(microseconds=1)}, "from after their hour"),
        ({"feature_time": HOUR - timedelta(hours=4)}, "before its maximum age"),
    ],
)
def test_a_planted_leak_breaks_the_benchmark(planted, said) -> None:
    with pytest.raises(AssertionError, match=said):
        assert_inputs_are_known(asked(**planted))


def rates(flights: pl.LazyFrame, *, ahead: timedelta) -> pl.LazyFrame:
    """Late flights by hour of arrival; `ahead` stamps them as known that much too early."""
    known_at = pl.col("arrived_at").dt.truncate("1h") + timedelta(hours=1) - ahead
    by_hour = flights.group_by("origin", known_at=known_at)
    return by_hour.agg(late_share=pl.col("late").mean(), mean_delay=pl.col("delay").mean())


@pytest.mark.parametrize(("ahead_h", "leaks"), [(0, False), (1, True)])
def test_a_feature_function_that_looks_ahead_breaks_the_benchmark(ahead_h, leaks) -> None:
    arrived = [HOUR + timedelta(minutes=7 * n) for n in range(60)]
    flights = pl.DataFrame(
        {"origin": "EWR", "arrived_at": arrived, "late": [n % 3 // 2 for n in range(60)], "delay": range(60)}
    )

    def function(frame: pl.LazyFrame) -> pl.LazyFrame:
        return rates(frame, ahead=timedelta(hours=ahead_h))

    month = function(flights.lazy()).collect().rename({"known_at": "_event_time_congestion"})
    month = month.with_columns(hour_at=pl.col("_event_time_congestion"))
    if leaks:
        with pytest.raises(AssertionError, match="had not arrived"):
            assert_computed_from_the_past(function, flights, month)
    else:
        assert assert_computed_from_the_past(function, flights, month) > 0
