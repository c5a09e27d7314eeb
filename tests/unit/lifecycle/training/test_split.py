"""Splits by time: nothing of the future is learned from."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taut.core.errors import InvalidInput
from taut.lifecycle.training.split import split_by_time
from taut.project.manifest import SplitSpec

START = datetime(2013, 1, 1, tzinfo=UTC)


def frame(rows: list[tuple[int | None, int | None, bool | None]]) -> pl.LazyFrame:
    """Rows of (event minute, minutes until the label is known, label)."""
    return pl.LazyFrame(
        {
            "id": list(range(len(rows))),
            "at": [None if at is None else START + timedelta(minutes=at) for at, _, _ in rows],
            "known_at": [
                None if at is None or later is None else START + timedelta(minutes=at + later)
                for at, later, _ in rows
            ],
            "late": [label for _, _, label in rows],
        },
        schema={"id": pl.Int64, "at": pl.Datetime("us", "UTC"), "known_at": pl.Datetime("us", "UTC"), "late": pl.Boolean},
    )  # fmt: skip


ROWS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.integers(0, 500)),
        st.one_of(st.none(), st.integers(0, 300)),
        st.one_of(st.none(), st.booleans()),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(rows=ROWS, test_m=st.integers(1, 200), gap_m=st.integers(0, 100), embargo=st.booleans())
def test_everything_learned_was_known_before_the_first_tested_row(
    rows: list[tuple[int | None, int | None, bool | None]], test_m: int, gap_m: int, embargo: bool
) -> None:
    try:
        parts = split_by_time(
            frame(rows), event_time="at", label="late", label_at="known_at" if embargo else None,
            spec=SplitSpec(test=f"{test_m}m", gap=f"{gap_m}m"),
        )  # fmt: skip
    except InvalidInput:
        return
    train, test, facts = parts.train.collect(), parts.test.collect(), parts.facts

    assert set(train["id"]).isdisjoint(set(test["id"]))
    assert train["late"].null_count() == test["late"].null_count() == 0
    assert max(train["at"]) < facts.test_from - timedelta(minutes=gap_m)
    assert min(test["at"]) >= facts.test_from
    if embargo:
        assert train["known_at"].null_count() == 0
        assert max(train["known_at"]) < facts.test_from
    assert (len(train), len(test)) == (facts.train, facts.test)
    assert (
        facts.train + facts.test + facts.gap + facts.embargoed + facts.unlabelled == facts.rows == len(rows)
    )


def test_a_row_whose_label_comes_late_is_embargoed_and_not_before() -> None:
    rows: list[tuple[int | None, int | None, bool | None]] = [
        (0, 10, True), (50, 60, False), (90, 9, True), (200, 1, True),
    ]  # fmt: skip
    spec = SplitSpec(test="100m", gap="0s")

    with_embargo = split_by_time(frame(rows), event_time="at", label="late", label_at="known_at", spec=spec)
    without = split_by_time(frame(rows), event_time="at", label="late", label_at=None, spec=spec)

    assert with_embargo.train.collect()["id"].to_list() == [0, 2]
    assert with_embargo.facts.embargoed == 1
    assert without.train.collect()["id"].to_list() == [0, 1, 2]


def test_an_empty_part_says_which_and_what_to_do() -> None:
    with pytest.raises(InvalidInput, match=r"0 rows to learn from and 2 to test on.*shorten test"):
        split_by_time(
            frame([(0, 1, True), (5, 1, False)]),
            event_time="at",
            label="late",
            label_at=None,
            spec=SplitSpec(),
        )


def test_a_column_that_is_no_time_is_refused() -> None:
    with pytest.raises(InvalidInput, match="'id' is Int64, not a time"):
        split_by_time(frame([(0, 1, True)]), event_time="id", label="late", label_at=None, spec=SplitSpec())


def test_dates_split_like_times() -> None:
    dated = pl.LazyFrame(
        {"day": [START.date() + timedelta(days=day) for day in range(10)], "y": list(range(10))}
    )

    parts = split_by_time(
        dated, event_time="day", label="y", label_at=None, spec=SplitSpec(test="3d", gap="1d")
    )

    assert parts.test.collect()["y"].to_list() == [6, 7, 8, 9]
    assert parts.train.collect()["y"].to_list() == [0, 1, 2, 3, 4]
