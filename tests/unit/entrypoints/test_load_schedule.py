"""The schedule of a load run, its requests, and the histogram that measures it."""

from __future__ import annotations

import itertools
import math
import random
from datetime import date, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taut.core.errors import InvalidInput, NotFound
from taut.entrypoints.load import (
    Histogram,
    Profile,
    Stage,
    from_instances,
    from_metadata,
    from_recorded,
    read_profile,
    rendered,
)
from taut.entrypoints.load.profile import steady
from taut.entrypoints.load_view import bars


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=200), st.floats(0, 100))
def test_a_percentile_is_within_a_thousandth_of_the_true_one(values: list[int], percent: float) -> None:
    found = Histogram()
    for value in values:
        found.record(value)

    true = sorted(values)[max(0, math.ceil(len(values) * percent / 100 - 1e-9) - 1)]

    assert true <= found.percentile(percent) <= true * 1.001 + 1
    assert found.max == max(values)
    assert found.mean == pytest.approx(sum(values) / len(values))


def test_an_empty_histogram_has_nothing_to_say_and_a_percentile_has_bounds() -> None:
    assert Histogram().percentile(99) == 0
    assert list(Histogram().bars()) == []
    with pytest.raises(InvalidInput, match="0 to 100"):
        Histogram().percentile(101)


@given(st.lists(st.integers(0, 10**8), min_size=1, max_size=100))
def test_the_bars_have_every_duration_once_and_none_above_its_bar(values: list[int]) -> None:
    found = Histogram()
    for value in values:
        found.record(value)

    steps = list(found.bars(per_doubling=2))

    assert sum(count for _, count in steps) == len(values)
    assert [up_to for up_to, _ in steps] == sorted(up_to for up_to, _ in steps)
    assert steps[-1][0] >= max(values)


def test_constant_arrivals_are_even_and_as_many_as_the_rate_says() -> None:
    found = list(steady(100, "2s").arrivals("constant", random.Random(1).random))

    assert len(found) == 200
    assert found[0] == 0.0
    assert {round(b - a, 9) for a, b in itertools.pairwise(found)} == {0.01}


def test_poisson_arrivals_follow_the_rate_through_a_ramp_and_a_spike() -> None:
    profile = Profile(
        stages=(
            Stage(seconds=10, start=0, end=1000), Stage(seconds=5, start=1000, end=1000), Stage(seconds=1, start=8000, end=8000),
        )
    )  # fmt: skip

    found = list(profile.arrivals("poisson", random.Random(3).random))

    def between(low: float, high: float) -> int:
        return sum(low <= at < high for at in found)

    assert found == sorted(found)
    for low, high, expected in ((0, 5, 1250), (5, 10, 3750), (10, 15, 5000), (15, 16, 8000)):
        assert abs(between(low, high) - expected) < 5 * math.sqrt(expected)  # five standard deviations
    gaps = [b - a for a, b in itertools.pairwise(found) if 10 <= a < 15]
    mean = sum(gaps) / len(gaps)
    deviation = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / len(gaps))
    assert deviation / mean == pytest.approx(1.0, abs=0.1)  # as of an exponential, not of a clock


def test_the_same_seed_gives_the_same_arrivals() -> None:
    one, other = (list(steady(50, "3s").arrivals("poisson", random.Random(9).random)) for _ in range(2))

    assert one == other


@pytest.mark.parametrize(
    ("rate", "duration", "ramp", "said"),
    [
        (0, "10s", "0s", "stands for 0 requests"), (-1, "10s", "0s", "choose 0 to"), (10, "10", "0s", "not understood"),
        (10, "1s", "2s", "longer than"), (math.nan, "10s", "0s", "choose 0 to"), (1e6, "1d", "0s", "100,000,000"),
        (10, "0s", "0s", "stands for 0"),
    ],
)  # fmt: skip
def test_a_schedule_that_is_none_is_refused(rate: float, duration: str, ramp: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        steady(rate, duration, ramp=ramp)


def test_a_profile_is_read_from_yaml_and_from_json(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("- {rate: 100, duration: 30s}\n- {from: 100, to: 1000, duration: 1m}\n")
    (tmp_path / "a.json").write_text(
        '[{"rate": 100, "duration": "30s"}, {"from": 100, "to": 1000, "duration": "1m"}]'
    )

    found = read_profile(tmp_path / "a.yaml")

    assert found.stages == (Stage(seconds=30, start=100, end=100), Stage(seconds=60, start=100, end=1000))
    assert read_profile(tmp_path / "a.json") == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no profile"), ("rate: 3", "no profile"), ("[{rate: 1}]", "no profile"), ("- {rate: x, duration: 1s}", "no profile"),
        ("- {duration: 1s}", "stage 1 says neither"), ("- {rate: 1, from: 1, to: 2, duration: 1s}", "stage 1 says neither"),
        ("- {rate: 1, duration: 1s, rat: 2}", "rat"), ("- {from: 1, duration: 1s}", "stage 1"), ("[]", "0 requests"),
        ("&a [*a]", "no profile"), ("!!python/object/apply:os.system ['true']", "no profile"), ("\x00", "no profile"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_profile_is_refused_by_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "profile.yaml"
    path.write_text(text)

    with pytest.raises(InvalidInput, match=said):
        read_profile(path)
    with pytest.raises(NotFound, match="check --profile"):
        read_profile(tmp_path / "absent.yaml")
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_profile(tmp_path)


def test_bodies_have_the_rows_that_were_asked_for_and_use_every_instance() -> None:
    bodies = [msgspec.json.decode(body) for body in from_instances([{"a": 1}, {"a": 2}, {"a": 3}], rows=2)]

    assert bodies == [{"instances": [{"a": 1}, {"a": 2}]}, {"instances": [{"a": 3}, {"a": 1}]}]
    with pytest.raises(InvalidInput, match="at least 1"):
        from_instances([{"a": 1}], rows=0)


def test_made_up_values_have_the_types_of_the_signature() -> None:
    inputs = [("ok", "BOOL"), ("n", "INT64"), ("x", "FP64"), ("s", "BYTES")]
    metadata = {"inputs": [{"name": name, "datatype": kind, "shape": [-1]} for name, kind in inputs]}

    body = msgspec.json.decode(from_metadata(metadata, rows=1, uniform=random.Random(1).random)[0])

    (row,) = body["instances"]
    assert {name: type(value) for name, value in row.items()} == {"ok": bool, "n": int, "x": float, "s": str}
    with pytest.raises(InvalidInput, match="data plane"):
        from_metadata({"detail": "Not Found"}, rows=1, uniform=random.Random(1).random)


def test_a_replay_keeps_the_times_between_requests_and_divides_them_by_the_speed() -> None:
    recorded = [
        {"at_us": 1_000_000 + 500_000 * n, "caller": n % 2, "instances": [{"n": n}]} for n in range(3)
    ]

    found = list(from_recorded(recorded, speed=10))

    assert [(at, caller) for at, caller, _ in found] == [(0.0, 0), (0.05, 1), (0.1, 0)]
    assert msgspec.json.decode(found[2][2]) == {"instances": [{"n": 2}]}
    with pytest.raises(InvalidInput, match="no request of this endpoint"):
        list(from_recorded([], speed=1))
    with pytest.raises(InvalidInput, match="speed"):
        list(from_recorded(recorded, speed=0))


def test_a_request_is_rendered_whole_and_a_token_cannot_break_out_of_its_header() -> None:
    request = rendered("late/../x", b"{}", host="127.0.0.1:8080", token="t")

    assert request.startswith(b"POST /v1/predict/late%2F..%2Fx HTTP/1.1\r\n")
    assert request.endswith(b"content-length: 2\r\n\r\n{}")
    with pytest.raises(InvalidInput, match="token"):
        rendered("late", b"{}", host="h", token="t\r\nx: y")


def test_bars_are_as_long_as_their_share_and_what_was_counted_is_seen() -> None:
    lines = bars(
        [{"up_to_ms": 1.0, "count": 100_000}, {"up_to_ms": 2.0, "count": 0}, {"up_to_ms": 1000.0, "count": 1}]
    )

    assert lines[0].count("█") == 50
    assert "█" not in lines[1]
    assert "▏" in lines[2]
    assert lines[2].endswith(" 1")


def test_made_up_times_are_times_and_one_that_may_be_left_out_is() -> None:
    def column(name: str, kind: str, *, nullable: bool) -> dict[str, Any]:
        return {
            "name": name,
            "datatype": "BYTES",
            "shape": [-1],
            "parameters": {"type": kind, "nullable": nullable},
        }

    inputs = [
        column("born", "date", nullable=False),
        column("seen", "datetime", nullable=False),
        column("placed_at", "datetime", nullable=True),
        column("word", "string", nullable=True),
    ]
    body = msgspec.json.decode(from_metadata({"inputs": inputs}, rows=1, uniform=random.Random(1).random)[0])

    (row,) = body["instances"]
    assert set(row) == {"born", "seen", "word"}
    assert date.fromisoformat(row["born"])
    assert datetime.fromisoformat(row["seen"]).tzinfo is not None
