from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taut.core.errors import InvalidInput
from taut.lifecycle.features import join_point_in_time, known_rows

START = datetime(2013, 1, 1, tzinfo=UTC)
US = pl.Datetime("us", "UTC")


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def flights(*rows: tuple[str | None, datetime | None]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "flight": range(len(rows)),
            "origin": [row[0] for row in rows],
            "scheduled_at": [row[1] for row in rows],
        },
        schema={"flight": pl.Int64, "origin": pl.String, "scheduled_at": US},
    )


def weather(*rows: tuple[str, datetime, float | None]) -> pl.DataFrame:
    return pl.DataFrame(
        list(rows), schema={"airport": pl.String, "hour": US, "wind": pl.Float64}, orient="row"
    )


def join(base: pl.DataFrame, features: pl.DataFrame, **more: Any) -> pl.DataFrame:
    given: dict[str, Any] = {
        "name": "departure", "keys": {"origin": "airport"}, "event_time": "scheduled_at", "feature_time": "hour",
        "columns": ["wind"],
    }  # fmt: skip
    return join_point_in_time(base, features, **{**given, **more})


def test_each_row_gets_the_newest_values_that_were_known_then() -> None:
    features = weather(("JFK", at(60), 2.0), ("JFK", at(0), 1.0), ("LGA", at(30), 9.0), ("JFK", at(120), 3.0))
    base = flights(("JFK", at(61)), ("JFK", at(59)), ("LGA", at(200)), ("JFK", at(500)), ("EWR", at(100)))

    assert join(base, features)["wind"].to_list() == [2.0, 1.0, 9.0, 3.0, None]


def test_a_value_is_usable_from_its_very_event_time_and_not_a_microsecond_before() -> None:
    features = weather(("JFK", at(60), 2.0))
    before = at(60) - timedelta(microseconds=1)

    assert join(flights(("JFK", at(60)), ("JFK", before)), features)["wind"].to_list() == [2.0, None]


def test_a_value_is_usable_up_to_its_very_maximum_age() -> None:
    features = weather(("JFK", at(0), 2.0))
    base = flights(("JFK", at(180)), ("JFK", at(180) + timedelta(microseconds=1)))

    assert join(base, features, max_age=timedelta(hours=3))["wind"].to_list() == [2.0, None]


def test_a_newer_row_without_value_hides_an_older_value() -> None:
    """The row says that the value was unknown then; reaching behind it would use what serving has not."""
    features = weather(("JFK", at(0), 1.0), ("JFK", at(60), None))

    assert join(flights(("JFK", at(90))), features)["wind"].to_list() == [None]


def test_rows_keep_their_number_and_order_and_other_columns() -> None:
    base = flights(
        ("JFK", at(9)), (None, at(1)), ("JFK", at(3)), ("JFK", None), ("JFK", at(9)), ("LGA", at(0))
    )
    found = join(base, weather(("JFK", at(2), 1.0), ("JFK", at(5), 2.0)))

    assert found.drop("wind").equals(base)
    assert found["wind"].to_list() == [2.0, None, 1.0, None, 2.0, None]


def test_the_event_time_of_what_was_used_can_be_had() -> None:
    found = join(
        flights(("JFK", at(9)), ("JFK", at(1))), weather(("JFK", at(2), 1.0)), time_as="_event_time_departure"
    )

    assert found["_event_time_departure"].to_list() == [at(2), None]


def test_an_empty_side_gives_rows_without_values() -> None:
    assert join(flights(("JFK", at(1))), weather())["wind"].to_list() == [None]
    assert join(flights(), weather(("JFK", at(1), 1.0))).height == 0


def test_a_day_counts_from_its_start_so_that_nothing_of_the_day_is_used() -> None:
    base = pl.DataFrame({"origin": ["JFK", "JFK"], "scheduled_at": [date(2013, 1, 1), date(2013, 1, 2)]})
    features = weather(("JFK", at(60), 2.0))

    assert join(base, features)["wind"].to_list() == [None, 2.0]


def test_times_without_zone_are_utc_and_other_zones_are_converted() -> None:
    features = weather(("JFK", at(60), 2.0))
    base = flights(("JFK", at(60)), ("JFK", at(59)))
    for column in (
        pl.col("scheduled_at").dt.replace_time_zone(None),
        pl.col("scheduled_at").dt.convert_time_zone("America/New_York"),
        pl.col("scheduled_at").dt.cast_time_unit("ns"),
        pl.col("scheduled_at").dt.cast_time_unit("ms"),
    ):
        assert join(base.with_columns(column), features)["wind"].to_list() == [2.0, None]


def test_nanoseconds_before_the_value_are_not_rounded_up_to_it() -> None:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    base = pl.DataFrame({"origin": ["JFK"] * 3, "scheduled_at": [-1, 0, 999]}).with_columns(
        pl.col("scheduled_at").cast(pl.Datetime("ns")).dt.replace_time_zone("UTC")
    )
    features = weather(("JFK", epoch, 2.0), ("JFK", epoch + timedelta(microseconds=1), 3.0))

    assert join(base, features)["wind"].to_list() == [None, 2.0, 2.0]


def test_entities_of_several_columns_and_integers_match_by_all_parts() -> None:
    base = pl.DataFrame(
        {"o": ["JFK", "JFK", "LGA"], "n": pl.Series([1, 2, 1], dtype=pl.Int32), "t": [at(5)] * 3},
        schema_overrides={"t": US},
    )
    features = pl.DataFrame(
        {"airport": ["JFK", "LGA"], "gate": [1, 2], "hour": [at(1)] * 2, "wind": [1.0, 2.0]},
        schema_overrides={"hour": US},
    )
    found = join(base, features, keys={"o": "airport", "n": "gate"}, event_time="t")
    assert found["wind"].to_list() == [1.0, None, None]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"keys": {"airport": "airport"}}, "no column 'airport'"),
        ({"event_time": "departed_at"}, "no column 'departed_at'"),
        ({"keys": {"flight": "airport"}}, "cast one"),
        ({"event_time": "flight"}, "must be a time"),
        ({"columns": ["wind", "wind"]}, None),
        ({"time_as": "origin"}, "already"),
    ],
)
def test_sides_that_do_not_fit_are_refused_before_anything_is_computed(
    more: dict[str, Any], said: str | None
) -> None:
    base, features = flights(("JFK", at(1))), weather(("JFK", at(0), 1.0))
    if said is None:
        with pytest.raises((InvalidInput, pl.exceptions.DuplicateError)):
            join(base, features, **more)
        return
    with pytest.raises(InvalidInput, match=said):
        join(base, features, **more)


def test_a_feature_that_is_in_the_dataset_already_is_refused() -> None:
    base = flights(("JFK", at(1))).with_columns(wind=pl.lit(0.0))
    with pytest.raises(InvalidInput, match="'wind' is in the dataset or another feature set already"):
        join(base, weather(("JFK", at(0), 1.0)))


# The property: against a reference that looks at every pair.

MINUTES = st.integers(0, 12)
ENTITIES = st.sampled_from(["JFK", "LGA", "EWR"])
BASE = st.lists(st.tuples(st.one_of(st.none(), ENTITIES), st.one_of(st.none(), MINUTES)), max_size=20)
FEATURES = st.lists(st.tuples(ENTITIES, MINUTES), max_size=20, unique=True)
AGES = st.one_of(st.none(), st.integers(0, 6))


def reference(
    base: list[tuple[str | None, int | None]], features: list[tuple[str, int]], age: int | None
) -> list[int | None]:
    """Return for each base row the number of the newest permitted feature row, by looking at all of them."""
    found: list[int | None] = []
    for entity, now in base:
        permitted = [
            (minute, index)
            for index, (key, minute) in enumerate(features)
            if key == entity and now is not None and minute <= now and (age is None or now - minute <= age)
        ]
        found.append(max(permitted)[1] if permitted else None)
    return found


def joined(
    base: list[tuple[str | None, int | None]], features: list[tuple[str, int]], age: int | None
) -> list[int | None]:
    return known_rows(
        flights(*((entity, None if now is None else at(now)) for entity, now in base)),
        weather(*((key, at(minute), None) for key, minute in features)),
        keys={"origin": "airport"},
        event_time="scheduled_at",
        feature_time="hour",
        max_age=None if age is None else timedelta(minutes=age),
    ).to_list()


@settings(max_examples=200, deadline=None)
@given(base=BASE, features=FEATURES, age=AGES)
def test_exactly_the_newest_permitted_row_is_read_and_nothing_later(
    base: list[tuple[str | None, int | None]], features: list[tuple[str, int]], age: int | None
) -> None:
    assert joined(base, features, age) == reference(base, features, age)


@settings(max_examples=100, deadline=None)
@given(base=BASE, features=FEATURES, age=AGES, order=st.randoms(use_true_random=False))
def test_the_order_of_rows_on_either_side_changes_nothing(
    base: list[tuple[str | None, int | None]], features: list[tuple[str, int]], age: int | None, order: Any
) -> None:
    used = [None if row is None else features[row] for row in joined(base, features, age)]
    places = list(range(len(base)))
    order.shuffle(places)
    mixed = order.sample(features, len(features))

    again = joined([base[place] for place in places], mixed, age)
    assert [None if row is None else mixed[row] for row in again] == [used[place] for place in places]


@settings(max_examples=100, deadline=None)
@given(base=BASE, features=FEATURES, later=FEATURES)
def test_rows_after_the_event_time_may_be_anything(
    base: list[tuple[str | None, int | None]], features: list[tuple[str, int]], later: list[tuple[str, int]]
) -> None:
    """What nobody could know at minute 5 changes no row of minute 5 or before."""
    early = [(entity, now) for entity, now in base if now is not None and now <= 5]
    known = [(key, minute) for key, minute in features if minute <= 5]
    future = [(key, minute) for key, minute in later if minute > 5]

    assert joined(early, known + future, None) == joined(early, known, None)


def plain(strategy: Any) -> Any:
    """Return an implementation over polars' own as-of join, in which a wrong strategy can be planted."""

    def implementation(
        base: list[tuple[str | None, int | None]], features: list[tuple[str, int]], age: int | None
    ) -> list[int | None]:
        left = flights(*((entity, None if now is None else at(now)) for entity, now in base)).drop_nulls()
        right = weather(*((key, at(minute), None) for key, minute in features)).with_row_index("row")
        found = left.sort("scheduled_at").join_asof(
            right.sort("hour"), left_on="scheduled_at", right_on="hour", by_left="origin", by_right="airport",
            strategy=strategy, tolerance=None if age is None else timedelta(minutes=age), check_sortedness=False,
        )  # fmt: skip
        rows = dict(found.select("flight", "row").iter_rows())
        return [rows.get(number) for number in range(len(base))]

    return implementation


@pytest.mark.parametrize(("strategy", "right"), [("backward", True), ("nearest", False), ("forward", False)])
def test_the_property_finds_a_join_that_looks_ahead(strategy: str, right: bool) -> None:
    """The planted fault: the same join with a strategy that reads what came later."""
    implementation = plain(strategy)

    @settings(max_examples=100, deadline=None, database=None, derandomize=True)
    @given(base=BASE, features=FEATURES, age=AGES)
    def holds(base: Any, features: Any, age: Any) -> None:
        assert implementation(base, features, age) == reference(base, features, age)

    if right:
        holds()
    else:
        with pytest.raises(AssertionError):
            holds()
