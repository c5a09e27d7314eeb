"""Drift, faults and quality of one version, from rows whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from watched import HOUR_S, MONDAY_S, ask, reference_of, rows_of, watch_of

from taut.core.errors import InvalidInput
from taut.lifecycle.monitoring import (
    Cells,
    Detector,
    EndpointWatch,
    Figures,
    Reference,
    ShareWatch,
    Usual,
    Window,
    cells_of,
    tally,
)
from taut.lifecycle.monitoring.watch import ColumnFigures, auc_of


@pytest.fixture(scope="module")
def reference() -> Reference:
    return reference_of()


def column(figures: Figures, name: str) -> ColumnFigures:
    return next(one for one in figures.columns if one.column == name)


def test_each_value_has_one_cell_and_what_is_no_number_its_own() -> None:
    cells = cells_of("x", "number", [float(one) for one in range(100)])
    codes = cells.encode([None, math.nan, math.inf, -5, 0, 50, 99, 1e9])
    assert [cells.label(int(code)) for code in codes] == [
        "null", "not finite", "not finite", "below 0", "0 to 3", "49 to 53", "96 to 99", "above 99",
    ]  # fmt: skip
    words = cells_of("w", "word", ["a"] * 9 + ["b"] * 6 + ["c"] * 4)
    assert words.words == ("a", "b")
    assert [words.label(int(code)) for code in words.encode(["b", "c", None, True])] == [
        "b", "rare or unseen", "null", "rare or unseen",
    ]  # fmt: skip


def test_a_column_of_one_value_or_of_none_at_all_can_be_watched() -> None:
    same = cells_of("x", "number", [7.0] * 50)
    assert [same.label(int(code)) for code in same.encode([6.0, 7.0, 8.0])] == [
        "below 7",
        "7 to 7",
        "above 7",
    ]
    nothing = cells_of("x", "number", [None, None])
    assert len(set(nothing.encode([None, 1.0]).tolist())) == 2


def test_conformal_p_values_are_those_of_the_whole_past_in_whatever_parts_it_comes() -> None:
    rng = np.random.default_rng(3)
    cells = Cells(name="x", kind="number", cuts=(0.0,), low=-9, high=9)
    past, stream = rng.normal(size=50), rng.normal(size=300)
    codes = cells.encode(stream)[:, None]
    detector = Detector(tally(cells.encode(past)[:, None]), seed=5)
    found = np.concatenate([detector._p_values(codes[:128])])
    random = np.random.Generator(np.random.Philox(key=5, counter=[0, 0, 0, 0])).random((128, 1))[:, 0]
    everything = np.concatenate([cells.encode(past), codes[:128, 0]])
    for at in range(128):
        before, now = everything[: 50 + at], everything[50 + at]
        expected = ((before < now).sum() + random[at] * ((before == now).sum() + 1)) / (50 + at + 1)
        assert found[at, 0] == pytest.approx(expected)


def test_a_detector_that_resumes_says_the_very_same() -> None:
    rng = np.random.default_rng(0)
    cells = cells_of("x", "number", rng.normal(size=500).tolist())
    usual = tally(cells.encode(rng.normal(size=500))[:, None])
    stream = cells.encode(rng.normal(0.4, 1, size=900))[:, None]
    straight, first, second = (Detector(usual, seed=1) for _ in range(3))
    straight.observe(stream[:400])
    straight.observe(stream[400:])
    first.observe(stream[:400])
    second.resume(first.state())
    second.observe(stream[400:])
    assert second.state() == straight.state()
    assert straight.alarmed_row is not None


def test_evidence_far_beyond_an_alarm_stays_a_number() -> None:
    usual = np.zeros((1, 40), np.int64)
    usual[0, 1:11] = 100
    detector = Detector(usual)
    detector.observe(np.full((5000, 1), 12, np.int16))
    assert np.isfinite(detector.evidence).all()
    assert detector.alarmed_row is not None


def test_traffic_as_in_training_is_usual_though_each_hour_has_its_own_temperature(
    reference: Reference,
) -> None:
    watch = watch_of(reference)
    ask(watch, np.random.default_rng(1), hours=range(24))
    figures = watch.figures()
    assert {one.column: one.state for one in figures.columns if one.state == "drifted"} == {}
    assert all(one.shift is not None and one.shift.lower < 0.02 for one in figures.columns)
    assert [one.faulty for one in figures.columns] == [()] * 5


def test_one_afternoon_alone_is_compared_with_afternoons(reference: Reference) -> None:
    watch = watch_of(reference)
    ask(watch, np.random.default_rng(1), hours=range(12, 18))
    found = column(watch.figures(), "temp").shift
    assert found is not None
    assert found.value < 0.1  # of a whole day's temperatures it has the upper half: 0.5 would be said


def test_a_longer_way_is_drift_with_a_bound_and_since_when(reference: Reference) -> None:
    watch = watch_of(reference)
    rng = np.random.default_rng(1)
    ask(watch, rng, hours=range(24))
    ask(watch, rng, hours=range(24, 48), far=30.0)
    found = column(watch.figures(), "distance")
    assert found.state == "drifted"
    assert found.shift is not None
    assert found.shift.lower > 0.1
    assert 0.5 < found.shift.value < 0.6  # two normal laws 1.5 standard deviations apart: 0.547
    assert found.since_s is not None
    assert found.since_s > MONDAY_S + 24 * HOUR_S
    assert [one.column for one in watch.figures().columns if one.state == "drifted"] == ["distance"]


def test_a_change_below_the_tolerance_moves_and_does_not_drift(reference: Reference) -> None:
    watch = watch_of(reference)
    ask(watch, np.random.default_rng(1), hours=range(48), rows=200, far=4.0)
    figures = watch.figures()
    assert figures.moved_row is not None
    assert column(figures, "distance").state == "moved"


def test_drift_is_over_when_the_distance_is_tolerable_again(reference: Reference) -> None:
    watch = watch_of(reference, window_s=6 * HOUR_S)
    rng = np.random.default_rng(1)
    ask(watch, rng, hours=range(8), far=40.0, rows=400)
    assert column(watch.figures(), "distance").state == "drifted"
    ask(watch, rng, hours=range(8, 16), rows=400)
    assert column(watch.figures(), "distance").since_s is None


def test_a_single_block_of_time_proves_nothing(reference: Reference) -> None:
    watch = watch_of(reference)
    values = rows_of(np.random.default_rng(1), 500, far=80.0)
    watch.observe(watch.reference.encode(values, 500), np.full(500, MONDAY_S), np.zeros(500, np.int64))
    found = column(watch.figures(), "distance").shift
    assert found is not None
    assert found.value > 0.9
    assert found.lower == 0.0


def test_faults_of_inputs_are_said_before_a_window_is_over(reference: Reference) -> None:
    watch = watch_of(reference)
    rng = np.random.default_rng(1)
    ask(watch, rng, hours=range(1), rows=300)
    broken = {
        "carrier": ["zeppelin"] * 60 + ["bike"] * 240,
        "temp": [None] * 60 + [0.0] * 240,
        "distance": [math.nan] * 60 + [100.0] * 240,
    }
    ask(watch, rng, hours=range(1, 2), rows=300, more=broken)
    figures = watch.figures()
    assert column(figures, "carrier").faulty == ("out of range or unseen",)
    assert column(figures, "temp").faulty == ("null",)
    assert column(figures, "distance").faulty == ("not finite",)
    assert figures.outliers > 0.03


def test_a_share_that_is_tolerable_raises_no_alarm_and_twice_of_it_does() -> None:
    rng = np.random.default_rng(0)
    fair, twice = ShareWatch([0.02] * 100), ShareWatch([0.02] * 20)
    for _ in range(100):
        fair.observe(rng.binomial(50, 0.02, 100), 50)
        twice.observe(rng.binomial(50, 0.04, 20), 50)
    assert not fair.alarmed.any()
    assert twice.alarmed.all()


def test_confidence_tells_quality_before_any_label_comes(reference: Reference) -> None:
    watch = watch_of(reference)
    ask(watch, np.random.default_rng(1), hours=range(24))
    quality = watch.figures().quality
    assert quality.usual == pytest.approx(0.75, abs=0.04)
    assert quality.estimated == pytest.approx(0.75, abs=0.03)
    rng = np.random.default_rng(2)
    unsure = rng.uniform(0.4, 0.6, 100)
    ask(
        watch, rng, hours=range(24, 60),
        more={"(score)": unsure.tolist(), "(confidence)": np.maximum(unsure, 1 - unsure).tolist()},
    )  # fmt: skip
    worse = watch.figures().quality
    assert worse.estimated == pytest.approx(0.55, abs=0.05)


def test_late_labels_raise_an_alarm_only_beyond_the_tolerated_risk(reference: Reference) -> None:
    rng = np.random.default_rng(0)
    nothing, unknown = np.zeros(50, np.int16), np.full(50, -1)
    watch = watch_of(reference)
    for _ in range(40):
        watch.learn((rng.uniform(size=50) < 0.27).astype(np.int64), nothing, unknown)
    assert not watch.figures().quality.alarmed
    for _ in range(10):
        watch.learn((rng.uniform(size=50) < 0.6).astype(np.int64), nothing, unknown)
    assert watch.figures().quality.alarmed


def test_a_corrected_label_counts_once(reference: Reference) -> None:
    watch = watch_of(reference)
    one = np.zeros(1, np.int16)
    watch.learn(np.array([1]), one, np.array([0]))
    watch.unlearn(np.array([1]), one, np.array([0]))
    watch.learn(np.array([0]), one, np.array([1]))
    assert (watch.figures().quality.labelled, watch.figures().quality.right) == (1, 1.0)


def test_the_area_under_the_curve_is_that_of_pairs() -> None:
    truths = np.zeros((2, 40), np.int64)
    assert auc_of(truths) is None
    truths[0, 1], truths[1, 2] = 10, 5
    assert auc_of(truths) == 1.0
    truths[1, 1] = 5
    assert auc_of(truths) == pytest.approx(0.75)


def test_a_watch_that_resumes_says_the_very_same(reference: Reference) -> None:
    straight, again = watch_of(reference), watch_of(reference)
    ask(straight, np.random.default_rng(1), hours=range(5), far=25.0)
    straight.learn(np.array([1, 0]), np.array([3, 4], np.int16), np.array([1, 0]))
    straight.figures()
    again.resume(straight.state())
    assert again.figures() == straight.figures()
    for one in (straight, again):
        ask(one, np.random.default_rng(2), hours=range(5, 9), far=25.0)
    assert again.figures() == straight.figures()
    assert again.state() == straight.state()


def test_a_watch_without_any_traffic_says_so_and_accuses_nobody(reference: Reference) -> None:
    figures = watch_of(reference).figures()
    assert (figures.rows, figures.window_rows, figures.last_s) == (0, 0, None)
    assert {one.state for one in figures.columns} == {"usual"}
    assert figures.quality.estimated is None


def test_what_says_too_little_or_makes_no_sense_is_refused(reference: Reference) -> None:
    with pytest.raises(InvalidInput, match="too few"):
        reference_of(168)
    with pytest.raises(InvalidInput, match="shift"):
        watch_of(reference, shift=1.5)
    with pytest.raises(InvalidInput, match="window"):
        watch_of(reference, window_s=1.0)
    with pytest.raises(InvalidInput, match="between 0 and 1"):
        ShareWatch([0.0])
    state = EndpointWatch(reference).state()
    from msgspec.structs import replace

    with pytest.raises(InvalidInput, match="begin anew"):
        EndpointWatch(replace(reference, version="late@2")).resume(state)


def test_bounds_of_a_distance_hold_where_rows_of_a_block_are_alike() -> None:
    """Each hour has a weather of its own; bounds that took rows for independent would accuse nearly every window."""
    rng = np.random.default_rng(4)
    cells = cells_of("x", "number", rng.normal(size=4000).tolist())
    codes = cells.encode(rng.normal(size=8000))[:, None]
    counts = np.zeros((168, 1, 40), np.int64)
    counts[0] = tally(codes)
    usual = Usual((cells,), counts, np.ones(1))
    wrong = 0
    for _ in range(60):
        window = Window(1, block_s=1.0, blocks=48)
        for block in range(48):
            own = rng.normal(0, 0.8)
            window.add(block, block, tally(cells.encode(rng.normal(own, 0.6, 200))[:, None]))
        wrong += usual.shifts(window, chance=0.05)[0].lower > 0
    assert wrong <= 3
